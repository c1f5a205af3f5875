import dataclasses
from pathlib import Path

import pytest

from perceivers.recipes import get_recipe
from perceivers.recipes.files import write_recipe
from perceivers.training.run import asked_recipe, next_free, run_folder, where


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
    with pytest.raises(ValueError, match=r"not a run \(it has no recipe.yaml\)"):
        run_folder("birds", "full", resume=True)


def test_a_run_is_gone_on_with_only_if_asked():
    Path("run").mkdir()
    write_recipe(get_recipe("digits"), "run/recipe.yaml")
    with pytest.raises(ValueError, match="already holds a run"):
        run_folder("birds", "run")
    assert run_folder("birds", "run", resume=True) == Path("run")


def test_a_recipe_is_asked_for_by_name_file_or_itself():
    digits = get_recipe("digits")
    mine = dataclasses.replace(digits, name="mine")
    write_recipe(mine, "mine.yaml")
    assert asked_recipe("digits") == digits
    assert asked_recipe("mine.yaml") == mine
    assert asked_recipe(mine) is mine
    assert asked_recipe(None) is None
    assert asked_recipe("images", size="small") == get_recipe("images", size="small")


def test_a_file_has_no_sizes():
    write_recipe(get_recipe("digits"), "mine.yaml")
    with pytest.raises(ValueError, match="leave --size tiny away"):
        asked_recipe("mine.yaml", size="tiny")


def test_a_resumed_run_has_its_own_recipe():
    Path("run").mkdir()
    assert asked_recipe(None, folder=Path("run")) is None
    write_recipe(get_recipe("digits"), "run/recipe.yaml")
    assert asked_recipe(None, folder=Path("run")) == get_recipe("digits")


def test_data_are_remembered_so_that_they_are_found_from_anywhere(tmp_path):
    Path("birds").mkdir()
    assert where("birds") == str(tmp_path / "birds")
    assert where("shards/{0..3}.tar") == str(tmp_path / "shards/{0..3}.tar")
    assert where("user/birds") == "user/birds"
    assert where(object()) is None
