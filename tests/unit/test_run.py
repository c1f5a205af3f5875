import dataclasses
import sys
from pathlib import Path

import pytest

import perceivers as pv
from perceivers.recipes import get_recipe
from perceivers.recipes.files import find_recipe, write_recipe
from perceivers.training import fit as fit_module


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_recipe_is_found_by_name_file_or_itself():
    digits = get_recipe("digits")
    mine = dataclasses.replace(digits, name="mine")
    write_recipe(mine, "mine.yaml")
    assert find_recipe("digits") == digits
    assert find_recipe("mine.yaml") == mine
    assert find_recipe(mine) is mine
    assert find_recipe("images", size="small") == get_recipe("images", size="small")


def test_a_file_has_no_sizes():
    write_recipe(get_recipe("digits"), "mine.yaml")
    with pytest.raises(ValueError, match="leave --size tiny away"):
        find_recipe("mine.yaml", size="tiny")


FUNCTIONS = """
import dataclasses

from perceivers.recipes import get_recipe


def mine(size="tiny"):
    return dataclasses.replace(get_recipe("images", size=size), name="mine")


def wrong():
    return "images"
"""


def test_a_recipe_is_a_function_of_a_module(monkeypatch):
    Path("my_recipes.py").write_text(FUNCTIONS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert find_recipe("my_recipes:mine").name == "mine"
    assert find_recipe("my_recipes:mine", size="base").encoder.num_latents == 64
    with pytest.raises(ValueError, match="Expected 'my_recipes:wrong' to return a Recipe, got str"):
        find_recipe("my_recipes:wrong")
    with pytest.raises(ValueError, match="has no attribute 'nothing'"):
        find_recipe("my_recipes:nothing")
    with pytest.raises(ValueError, match="No module named 'no_such_module'"):
        find_recipe("no_such_module:mine")
    monkeypatch.delitem(sys.modules, "my_recipes")


def test_a_resumed_run_has_its_own_recipe(monkeypatch):
    recipes = []

    def remember(_data, recipe, **_):
        recipes.append(recipe)
        raise GeneratorExit  # nothing is trained here

    monkeypatch.setattr(fit_module, "resolve", remember)
    Path("run").mkdir()
    with pytest.raises(GeneratorExit):
        pv.fit("birds", out="run", resume=True)
    write_recipe(get_recipe("digits"), "run/recipe.yaml")
    with pytest.raises(GeneratorExit):
        pv.fit("birds", out="run", resume=True)
    assert recipes == [None, get_recipe("digits")]
