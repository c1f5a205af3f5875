"""An answer for every pixel from the command line: classes of pictures, and a second picture."""

import numpy as np
import pytest
from PIL import Image

from perceivers.cli.main import main
from perceivers.evaluation.predict import load_predictor
from perceivers.evaluation.save import save_images
from perceivers.tasks.prediction import Prediction
from support.cli import TINY

COLORS = [0, 0, 0, 250, 20, 30]


def scenes(folder, target):
    """Write 12 pictures, left dark and right light, and what is to be learned of them."""
    for sub in ("images", target):
        (folder / sub).mkdir(parents=True)
    for number in range(12):
        classes = np.zeros((8, 8), dtype=np.uint8)
        classes[:, 4:] = 1
        gray = (180 * classes + number).astype(np.uint8)
        Image.fromarray(np.stack([gray] * 3, axis=-1)).save(folder / "images" / f"{number}.png")
        image = Image.fromarray(classes if target == "masks" else 255 - gray)
        if target == "masks":
            image.putpalette(COLORS)
        image.save(folder / target / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    data = scenes(folder / "street", "masks")
    flags = ["--task.num-train-queries", "3", "--inputs.image.patch", "2", "2", "--batch", "auto"]
    args = ["fit", str(data), "--recipe", "segmentation", "--out", str(folder / "run"), *TINY]
    assert main([*args, *flags]) == 0
    return folder


def test_evaluate_tells_each_class(segmented, capsys):
    assert main(["evaluate", str(segmented / "run")]) == 0
    told = capsys.readouterr().out
    assert "accuracy" in told
    assert told.splitlines()[-1].startswith("validation mIoU: ")


def test_predict_writes_pictures_of_classes(segmented, capsys):
    files = [str(segmented / "street" / "images" / f"{n}.png") for n in range(2)]
    out = segmented / "out"
    assert main(["predict", str(segmented / "run"), *files, "--save", str(out)]) == 0
    assert "2 files in" in capsys.readouterr().err
    with Image.open(out / "0.png") as image:
        assert (image.mode, image.size) == ("P", (8, 8))
        assert image.getpalette()[:6] == COLORS
        assert set(np.unique(np.asarray(image))) <= {0, 1}
    (one,) = load_predictor(segmented / "run", device="cpu").predict(files[0])
    assert sum(one.values.values()) == pytest.approx(1.0)


def test_explain_says_what_to_do_instead(segmented, capsys):
    file = str(segmented / "street" / "images" / "0.png")
    assert main(["explain", str(segmented / "run"), file]) == 1
    assert "--save FOLDER" in capsys.readouterr().err


def test_a_second_picture_is_learned_and_written(tmp_path):
    data = scenes(tmp_path / "film", "targets")
    run = tmp_path / "run"
    args = ["fit", str(data), "--recipe", "dense", "--out", str(run), *TINY]
    assert main(args) == 0
    assert main(["evaluate", str(run)]) == 0
    predictor = load_predictor(run, device="cpu")
    told = predictor.predict(data / "images")
    written = save_images([*told[:2], told[0]], tmp_path / "out")
    assert [path.name for path in written] == ["0.png", "1.png", "0-2.png"]
    with Image.open(written[0]) as image:
        assert (image.mode, image.size) == ("L", (8, 8))
    with pytest.raises(ValueError, match="--save is for runs that predict images"):
        save_images([Prediction(name="a", label="x")], tmp_path / "out")


def test_data_without_targets_are_refused(segmented, tmp_path, capsys):
    data = scenes(tmp_path / "street", "masks")
    args = ["fit", str(data / "images"), "--recipe", "segmentation", "--out", str(tmp_path / "r")]
    assert main([*args, *TINY]) == 1
    assert "needs two columns of images" in capsys.readouterr().err
