import dataclasses
from pathlib import Path

import pytest

from perceivers.recipes import get_recipe
from perceivers.recipes.files import write_recipe
from perceivers.training.run import asked_recipe


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
