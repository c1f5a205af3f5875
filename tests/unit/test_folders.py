from pathlib import Path

import pytest

from perceivers.recipes import get_recipe
from perceivers.recipes.files import write_recipe
from perceivers.runs import folder as folders
from perceivers.runs.folder import data_path, is_resumed, next_free, run_folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVERS_RUN_FOLDER", "")  # what tests choose is forgotten


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("birds/", "birds"),
        ("data/birds.parquet", "birds"),
        ("user/birds", "birds"),
        ("shards/birds-{00..12}.tar", "birds-00"),
        (Path("my birds"), "my-birds"),
        ({"an": "object"}, "run"),
        ("...", "run"),
    ],
)
def test_a_run_is_named_like_its_data(data, name):
    assert run_folder(data) == Path("runs") / name


def test_the_working_directory_has_a_name_too(tmp_path):
    assert run_folder(".") == Path("runs") / tmp_path.name.split(".")[0]


def test_a_new_run_gets_the_next_name_and_a_resumed_one_the_last():
    assert run_folder("birds", resume=True) == Path("runs/birds")
    for name in ("birds", "birds-2", "birds-old"):
        (Path("runs") / name).mkdir(parents=True)
    assert run_folder("birds") == Path("runs/birds-3")
    assert run_folder("birds", resume=True) == Path("runs/birds-2")
    assert next_free(Path("elsewhere")) == Path("elsewhere")


def test_a_folder_that_is_new_or_empty_is_taken():
    Path("empty").mkdir()
    assert run_folder("birds", "empty") == Path("empty")
    assert run_folder("birds", "new/deep") == Path("new/deep")


def test_a_folder_or_file_of_something_else_is_refused():
    Path("file").write_text("mine")
    with pytest.raises(ValueError, match="'file' exists and is not a run"):
        run_folder("birds", "file")
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    with pytest.raises(ValueError, match=r"not a run \(it has no recipe.yaml and holds mine\)"):
        run_folder("birds", "full", resume=True)


def test_a_run_is_gone_on_with_only_if_asked():
    Path("run/checkpoints").mkdir(parents=True)
    write_recipe(get_recipe("digits"), "run/recipe.yaml")
    Path("run/checkpoints/last.ckpt").touch()
    with pytest.raises(ValueError, match="already holds a run"):
        run_folder("birds", "run")
    assert run_folder("birds", "run", resume=True) == Path("run")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        [],
        [".fit.lock"],
        [".recipe.yaml.0123abcd.part"],
        ["recipe.yaml", "metrics.jsonl", "tensorboard/events", "checkpoints/best.ckpt"],
        ["recipe.yaml", "checkpoints/.last.ckpt.0123abcd.part"],
    ],
)
def test_a_run_without_a_checkpoint_has_not_begun_and_is_started(names, resume):
    for name in names:
        path = Path("run") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert run_folder("birds", "run", resume=resume) == Path("run")


def test_a_folder_of_weights_or_with_other_files_is_no_run_that_can_be_started():
    for name in ("model.safetensors", "birds/1.png"):
        path = Path("run") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        Path("run/recipe.yaml").touch()
        with pytest.raises(ValueError, match=r"(already holds a run|is not a run)"):
            run_folder("birds", "run")
        path.unlink()


def test_data_are_remembered_so_that_they_are_found_from_anydata_path(tmp_path):
    Path("birds").mkdir()
    assert data_path("birds") == str(tmp_path / "birds")
    assert data_path("shards/{0..3}.tar") == str(tmp_path / "shards/{0..3}.tar")
    assert data_path("user/birds") == "user/birds"
    assert data_path(object()) is None


def test_of_several_processes_the_first_one_chooses(monkeypatch):
    assert run_folder("birds") == Path("runs/birds")
    Path("runs/birds").mkdir(parents=True)
    Path("runs/birds/recipe.yaml").write_text("")
    monkeypatch.setattr(folders, "is_first_process", lambda: False)
    assert run_folder("birds") == Path("runs/birds")
    assert run_folder("birds", "runs/birds") == Path("runs/birds")
    monkeypatch.delenv("PERCEIVERS_RUN_FOLDER")
    with pytest.raises(ValueError, match=r"Several processes must know .* --out"):
        run_folder("birds")


def test_a_job_that_slurm_starts_again_is_resumed_with_its_run(monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert is_resumed(Path("run"), resume=True)
    Path("runs/birds").mkdir(parents=True)
    Path("runs/birds/recipe.yaml").write_text("")
    assert not is_resumed(Path("runs/birds"), resume=False)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_folder("birds") == Path("runs/birds")
    assert is_resumed(Path("runs/birds"), resume=False)
    assert not is_resumed(
        Path("run"), resume=False
    )  # it was interrupted before it had written anything
