"""`image_ar`: a run on small images, drawn and completed images by the command and from Python, and bad input."""

import json

import numpy as np
import pytest
from PIL import Image

import perceivers as pv
from perceivers.cli.main import main
from perceivers.evaluation.generate import generate_tokens
from perceivers.evaluation.generate_images import generate_images, image_grid
from perceivers.models.generate import GenerationConfig
from perceivers.training.fit import fit

SMALL = {
    "encoder.channels": 32,
    "encoder.num_heads": 2,
    "encoder.num_layers": 1,
    "encoder.residual_dropout": 0.0,
    "data.workers": 0,
    "optim.lr": 1e-2,
    "baseline": False,
}


def stripes(shift: int) -> np.ndarray:
    """Return an image of 6 x 4 pixels with columns of two colors."""
    columns = (np.arange(4) + shift) % 2 * 200
    return np.broadcast_to(columns[None, :, None], (6, 4, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "data").mkdir()
    for number in range(40):
        Image.fromarray(stripes(number)).save(folder / "data" / f"{number}.png")
    fit(folder / "data", "image_ar", out=folder / "run", max_steps=120, **SMALL)
    return folder / "run"


def test_a_run_learns_stripes(run, capsys):
    assert main(["evaluate", str(run), "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["dimensions"] % 72 == 0
    assert metrics["bits_per_dimension"] < 0.3


def test_drawn_images_are_those_of_the_data(run):
    predictor = pv.load(run)
    images = generate_images(predictor, count=6, config=GenerationConfig(top_p=0.7))
    assert images.shape == (6, 6, 4, 3)
    known = [stripes(0), stripes(1)]
    nearest = [max(np.mean(image == one) for one in known) for image in images]
    assert np.mean(nearest) > 0.9


def test_the_command_draws_what_python_does(run, capsys, tmp_path):
    out = tmp_path / "grid.png"
    command = ["generate", str(run), "--count", "3", "--seed", "5"]
    assert main([*command, "--length", "all", "--out", str(out)]) == 0
    assert "3 images in" in " ".join(capsys.readouterr().err.split())
    images = generate_images(pv.load(run), count=3, config=GenerationConfig(seed=5))
    with Image.open(out) as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(image_grid(images)))
    assert main([*command, "--format", "json"]) == 0
    assert np.array_equal(json.loads(capsys.readouterr().out)["images"], images)


def test_the_first_rows_of_an_image_are_kept(run, tmp_path):
    half = stripes(1)[:3]
    path = tmp_path / "half.png"
    Image.fromarray(half).save(path)
    predictor = pv.load(run)
    found = generate_images(predictor, path, count=2, config=GenerationConfig(temperature=0))
    assert np.array_equal(found[:, :3], np.stack([half, half]))
    assert np.array_equal(
        found, generate_images(predictor, half, count=2, config=GenerationConfig(top_p=0))
    )
    (alone,) = predictor.generate(path, temperature=0)
    assert np.array_equal(alone, found[0])
    gray = tmp_path / "gray.png"  # other modes are converted
    Image.fromarray(half).convert("L").save(gray)
    assert generate_images(predictor, gray)[0].shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Expected --out with a file that ends in .png"),
        (["--out", "a.csv"], 2, "ends in .png"),
        (["--count", "0", "--out", "a.png"], 2, "--count of at least 1"),
        (["--length", "0", "--out", "a.png"], 2, "--length of at least 1"),
        (["--length", "7", "--out", "a.png"], 1, "drawn to their last pixel"),
        (["--top-p", "1.5", "--out", "a.png"], 2, "top_p from 0 to 1"),
        (["--prompt", "none.png", "--out", "a.png"], 1, "none.png"),
        (
            ["--prompt", "WHOLE", "--out", "a.png"],
            1,
            "has 6 rows of 4 pixels. Expected the first 1 to 5 rows",
        ),
        (["--prompt", "WIDE", "--out", "a.png"], 1, "has 2 rows of 9 pixels"),
    ],
)
def test_wrong_arguments(run, capsys, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(stripes(0)).save("WHOLE.png")
    Image.fromarray(np.zeros((2, 9, 3), np.uint8)).save("WIDE.png")
    named = [f"{one}.png" if one in ("WHOLE", "WIDE") else one for one in arguments]
    assert main(["generate", str(run), *named]) == status
    found = capsys.readouterr().err
    assert message in " ".join(found.split())
    assert "Traceback" not in found


@pytest.mark.parametrize("prompt", [np.zeros((2, 4, 3)), np.zeros((2, 4, 3, 1), np.uint8)])
def test_arrays_that_are_no_images_are_refused(run, prompt):
    with pytest.raises(ValueError, match="array of y x X or y x X x C of uint8"):
        generate_images(pv.load(run), prompt)


def test_tokens_of_unequal_prompts_are_refused(run):
    with pytest.raises(ValueError, match="prompts of one length"):
        generate_tokens(pv.load(run), [[5], [5, 6]], length=2)


def test_complete_images_have_no_next_pixel(run, capsys, tmp_path):
    path = tmp_path / "whole.png"
    Image.fromarray(stripes(0)).save(path)
    assert main(["predict", str(run), str(path)]) == 1
    assert "is a complete image" in " ".join(capsys.readouterr().err.split())


def test_too_large_images_are_refused(run, capsys, tmp_path):
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "b.png")
    command = ["fit", str(tmp_path), "--recipe", "image_ar", "--out", str(tmp_path / "run")]
    assert main([*command, "--inputs.image.size", "200", "200"]) != 0
    found = " ".join(capsys.readouterr().err.split())
    assert "are 120,000 tokens" in found
    assert "Traceback" not in found
