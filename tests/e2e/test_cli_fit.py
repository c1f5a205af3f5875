"""`perceivers fit` on a folder of classes, and what it says when something is wrong."""

import json
import re
import resource
import shutil
from pathlib import Path

import pandas as pd
import pytest

import perceivers as pv
from perceivers.cli.main import main
from perceivers.recipes.files import read_run_recipe
from perceivers.runs.splits import read_splits
from perceivers.training.callback import TrainingCallback
from support import image_data
from support.cli import TINY
from support.files import write_parquet
from support.runs import make_image_folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_image_folder(tmp_path_factory.mktemp("data") / "birds")


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["fit", str(pictures), "--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Runs without --out go into the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("without_a_gpu")
def test_fit_says_what_it_saw_and_chose_and_what_comes_next(pictures, capsys):
    assert main(["fit", str(pictures), *TINY]) == 0
    out = capsys.readouterr().out
    assert "Recipe images in size tiny" in out
    assert "Recognized a folder of classes" in out
    assert "2 classes: dark, light" in out
    assert re.search(r"Model: [\d,]+ parameters", out)
    assert "The run goes to runs/birds." in out
    assert re.search(r"accuracy +\d+\.\d %", out)
    assert "perceivers evaluate runs/birds" in out


def test_files_that_cannot_be_read_are_named_once_during_training(tmp_path, capsys):
    folder = make_image_folder(tmp_path / "birds")
    names = [str(folder / "dark" / f"broken{number}.png") for number in range(4)]
    for name in names:
        Path(name).write_bytes(b"nothing")
    flags = ["--max-bad", "0.9", "--validation-fraction", "0.3", "--max-epochs", "3"]
    assert main(["fit", str(folder), *TINY, *flags]) == 0
    err = capsys.readouterr().err
    named = [line for line in err.splitlines() if "could not be read" in line]
    assert sum(name in line for line in named for name in names) in (3, 4)
    assert sum(int(re.search(r"as (\d+) rows?", line)[1]) for line in named) == 4
    assert "holds text that begins with 'nothing'" in named[0]
    assert "report.md lists them all." in named[0]


def test_a_run_folder_holds_all_that_is_promised(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "model.safetensors", "recipe.yaml", "checkpoints"} <= names
    assert {"metrics.jsonl", "report.md"} <= names
    columns = json.loads((run / "config.json").read_text())["columns"]
    assert Path(columns["data"]).is_absolute()


def test_the_next_run_on_the_same_data_gets_the_next_name(pictures, capsys):
    Path("runs/birds").mkdir(parents=True)
    assert main(["fit", str(pictures), *TINY]) == 0
    assert "The run goes to runs/birds-2." in capsys.readouterr().out


def test_a_recipe_file_can_be_edited_and_used(pictures, capsys):
    assert main(["recipes", "images", "--size", "tiny"]) == 0
    text = capsys.readouterr().out
    Path("my.yaml").write_text(text.replace("num_latents: 8", "num_latents: 6"))
    brief = ["--inputs.image.size", "8", "8", "--max-epochs", "1", "--no-progress"]
    assert main(["fit", str(pictures), "--recipe", "my.yaml", "--out", "run", *brief]) == 0
    assert "num_latents: 6" in Path("run/recipe.yaml").read_text()


def test_permuted_pixels_are_kept_with_the_model(pictures):
    assert main(["fit", str(pictures), "--out", "run", "--permute", "7", *TINY]) == 0
    assert pv.load("run").model.permutation == 7


def test_help_names_data_flags_and_examples(capsys):
    assert main(["fit", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("DATA", "--recipe", "--max-time", "--optim.lr", "examples:"):
        assert word in out


def test_data_is_needed(capsys):
    assert main(["fit", "--max-epochs", "1"]) == 2
    assert "DATA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--optim.lrr", "1"], "--optim.lr"),
        (["--batch-sice", "3"], "--batch-size"),
        (["--recipe", "imagnet"], "Did you mean 'imagenet'?"),
        (["--size", "huge"], "tiny"),
        (["--recipe", "digits", "--size", "tiny"], "sizes paper; got 'tiny'"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "tpu"], "cuda"),
    ],
)
def test_wrong_arguments_name_the_right_ones(pictures, capsys, flags, expected):
    assert main(["fit", str(pictures), *flags]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_unknown_key_in_a_recipe_file_suggests_the_nearest(pictures, capsys):
    main(["recipes", "digits"])
    Path("my.yaml").write_text(capsys.readouterr().out.replace("num_latents", "num_latent"))
    assert main(["fit", str(pictures), "--recipe", "my.yaml"]) == 2
    assert "Did you mean 'num_latents'?" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_left_alone(pictures, capsys):
    Path("photos").mkdir()
    Path("photos/a.txt").write_text("mine")
    assert main(["fit", str(pictures), "--out", "photos"]) == 1
    assert "'photos' exists and is not a run" in capsys.readouterr().err
    assert [path.name for path in Path("photos").iterdir()] == ["a.txt"]


def test_a_run_is_not_overwritten(pictures, run, capsys):
    assert main(["fit", str(pictures), "--out", str(run), *TINY]) == 1
    assert "already holds a run" in capsys.readouterr().err


def test_resuming_a_run_that_has_ended_says_so(pictures, run, capsys):
    before = (run / "metrics.jsonl").read_text()
    assert main(["fit", str(pictures), "--out", str(run), "--resume", *TINY]) == 0
    assert (run / "metrics.jsonl").read_text() == before
    assert "had ended already" in " ".join(capsys.readouterr().err.split())


def test_a_new_limit_of_a_resumed_run_replaces_the_old_ones(pictures, tmp_path, capsys):
    args = ["fit", str(pictures), "--out", str(tmp_path / "run"), "--resume"]
    assert main([*args, *TINY, "--max-time", "1h"]) == 0
    assert main([*args, "--max-steps", "3"]) == 0
    recipe = read_run_recipe(tmp_path / "run")
    limits = (recipe.training.max_epochs, recipe.training.max_steps, recipe.training.max_time)
    assert limits == (None, 3, None)
    assert json.loads((tmp_path / "run/report.json").read_text())["steps"] == 3


def test_a_damaged_recipe_of_the_run_is_no_wrong_argument(pictures, capsys):
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("format: 2\nnmae: digits")
    assert main(["fit", str(pictures), "--out", "run", "--resume"]) == 1
    assert "run/recipe.yaml: 'name' is missing" in capsys.readouterr().err


def test_a_full_disk_is_told_and_the_run_goes_on_later(pictures, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # a checkpoint is larger
    try:
        assert main(["fit", str(pictures), "--out", "run", *TINY]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert "Could not write" in error
    assert "--resume" in error
    assert main(["fit", str(pictures), "--out", "run", "--resume", *TINY]) == 0
    assert pv.load("run").label_names == ("dark", "light")


def test_fit_from_python_takes_a_data_frame_and_dotted_changes(pictures):
    files = sorted(pictures.rglob("*.png"))
    frame = pd.DataFrame(
        {"picture": [str(file) for file in files], "species": [file.parent.name for file in files]}
    )
    said = []
    run = pv.fit(
        frame,
        out="run",
        on_message=said.append,
        label="species",
        max_epochs=1,
        batch_size=8,
        progress=False,
        workers=0,
        **{"inputs.image.size": (8, 8), "encoder.num_latents": 4},
    )
    assert run.folder == Path("run")
    assert 0 <= run.metrics["accuracy"] <= 1
    assert any("DataFrame" in sentence for sentence in said)
    with pytest.raises(ValueError, match="does not know which data"):
        pv.evaluate("run")
    assert pv.evaluate("run", frame).num_samples == 20


def test_shards_are_streamed_and_measured(tmp_path, capsys):
    features = image_data.FEATURES
    for split, numbers in (("train", range(40)), ("test", range(40, 52))):
        cells = [{"bytes": image_data.png(i), "path": f"{i}.png"} for i in numbers]
        columns = {"image": cells, "label": [image_data.label(i) for i in numbers]}
        write_parquet(tmp_path / f"data/{split}-00000.parquet", columns, features)
    flags = ["--stream", "--batch-size", "8", "--max-bad", "0.1"]
    assert main(["fit", "data", "--out", "run", *flags, *TINY]) == 0
    assert re.search(r"accuracy +\d+\.\d %", capsys.readouterr().out)
    assert main(["evaluate", "run"]) == 0
    assert re.search(
        r"\ntest accuracy: \d+\.\d % \(\d+\.\d to \d+\.\d\)\n$", capsys.readouterr().out
    )


@pytest.mark.usefixtures("without_a_gpu")
def test_what_the_recipe_says_of_reading_holds_where_no_flag_does(pictures, monkeypatch):
    from perceivers.training import fit

    recipes = []

    def remember(run, **_):
        recipes.append(run.recipe)
        raise GeneratorExit  # nothing is trained here

    monkeypatch.setattr(fit, "train", remember)
    with pytest.raises(GeneratorExit):
        main(["fit", str(pictures), "--validation-fraction", "0.2"])
    with pytest.raises(GeneratorExit):
        pv.fit(pictures, validation_fraction=0.2)
    for recipe in recipes:
        assert (
            recipe.preprocess["image"].max_side == 64
        )  # of size `tiny`, not what flags have without a recipe
        assert recipe.data.validation_fraction == 0.2


def stopped_after_an_epoch(monkeypatch):
    """Let a run save and stop at the end of its first epoch, as after SIGTERM."""
    synchronize = TrainingCallback._synchronize

    def and_stop(self, trainer, module):
        synchronize(self, trainer, module)
        self._stop = 15 if self.batches.at_epoch_end and self.batches.epoch == 0 else 0

    monkeypatch.setattr(TrainingCallback, "_synchronize", and_stop)


def test_a_run_is_resumed_with_its_data_only_unless_allowed(
    pictures, tmp_path, capsys, monkeypatch
):
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    args = ["fit", str(data), "--out", str(tmp_path / "run"), *TINY, "--max-epochs", "2"]
    with monkeypatch.context() as patch:
        stopped_after_an_epoch(patch)
        assert main(args) == 143
    held = {
        row.key: row.split for row in read_splits(tmp_path / "run").rows if row.split != "train"
    }
    shutil.copy(data / "dark/1.png", data / "light/new.png")
    (data / "dark/2.png").unlink()
    capsys.readouterr()
    assert main([*args, "--resume"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "1 row added (light/new.png); 1 row removed (dark/2.png)" in error
    assert main([*args, "--resume-with-other-data"]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert "Resuming with other data, from the next epoch: 1 row added" in error
    after = {row.key: row.split for row in read_splits(tmp_path / "run").rows}
    assert {key: after[key] for key in held} == held
    assert main([*args, "--resume"]) == 0  # the data are those of the run now


def test_rows_that_are_new_since_the_training_are_not_called_validation(pictures, tmp_path, capsys):
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    run = tmp_path / "run"
    assert main(["fit", str(data), "--out", str(run), *TINY]) == 0
    before = {row.key for row in read_splits(run).rows if row.split == "validation"}
    make_image_folder(tmp_path / "more", count=8, size=12)
    for index in range(8):
        shutil.copy(tmp_path / f"more/dark/{index}.png", data / f"dark/2{index}.png")
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 0
    found = capsys.readouterr()
    assert "8 rows of the data are new since the training and left out" in " ".join(
        (found.out + found.err).split()
    )
    assert json.loads((run / "evaluation-validation.json").read_text())["num_samples"] == len(
        before
    )
