"""Rules: facts about the data, choices of a modality, length of the run, precedence of flags."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from perceivers.inputs.image import PatchInputConfig, ResidualInputConfig
from perceivers.recipes.overrides import FieldValueError
from perceivers.recipes.registry import get_recipe
from perceivers.recipes.resolve import resolve
from perceivers.recipes.rules import base
from perceivers.recipes.rules.length import length_sentence, with_length
from support.runs import make_image_folder


@pytest.fixture
def data(tmp_path):
    return make_image_folder(tmp_path / "data", count=12)


def test_a_rule_sees_the_facts_and_a_flag_wins(data, monkeypatch):
    seen = []

    def rule(choice, facts):
        seen.append(facts)
        fields = {"optim.lr": 0.5, "training.batch_size": 4, "encoder.num_latents": 7}
        return replace(choice, fields=fields, length=2.0, reasons={"Model": "seven latents"})

    monkeypatch.setitem(base._RULES, "image", (rule, object))
    run = resolve(str(data), overrides={"optim.lr": 0.25})
    (facts,) = seen
    assert facts.data.num_rows == 22
    assert facts.data.class_counts == (11, 11)
    assert facts.data.preset == "default"
    assert facts.measured.size == (10, 10)
    assert not facts.data.is_open("optim.lr")
    assert facts.data.is_open("training.batch_size")
    labels = [label for _, label in facts.labelled_cells(100)]
    assert np.bincount(labels).tolist() == [11, 11]
    assert run.recipe.optim.lr == 0.25
    assert run.recipe.encoder.num_latents == 7
    assert run.recipe.training.batch_size == 4
    assert run.recipe.preset is None  # a saved recipe is not changed again
    assert run.choices[0] == "Model: seven latents."
    assert run.choices[1].startswith("Training: batches of 4, learning rate 0.25, ")


def test_rules_for_one_adapter_do_not_apply_to_another(data, monkeypatch):
    monkeypatch.setitem(base._RULES, "image", base._RULES["image"])  # restored afterwards
    rule = partial(replace, fields={"optim.lr": 0.5})
    base.register_rules("image", lambda choice, _: rule(choice), adapter=PatchInputConfig)
    assert resolve(str(data)).recipe.optim.lr != 0.5
    base.register_rules("image", lambda choice, _: rule(choice), adapter=ResidualInputConfig)
    assert resolve(str(data)).recipe.optim.lr == 0.5


def test_rules_of_a_modality_among_others_do_not_set_fields_of_the_recipe(data, monkeypatch):
    recipe = get_recipe("multimodal")
    made = replace(
        base.Choice(input=recipe.inputs["image"], preprocess=None, augment=None),
        fields={"optim.lr": 0.5},
    )
    assert base._with_choice(recipe, "image", made, is_alone=False).optim == recipe.optim


def test_a_recipe_without_a_preset_is_unchanged_and_takes_none(data):
    recipe = replace(get_recipe("images"), preset=None)
    assert resolve(str(data), recipe).choices == ()
    with pytest.raises(FieldValueError, match="preset: recipe images states every value"):
        resolve(str(data), recipe, overrides={"preset": "best"})


@pytest.mark.parametrize(
    ("preset", "rows", "epochs"),
    [
        ("quick", 50_000, 3),
        ("default", 50_000, 12),
        ("default", 6_000, 100),
        ("default", 1_000_000, 12),
        ("default", 10, 400),
        ("best", 6_000, 250),
        (None, 6_000, 100),
    ],
)
def test_the_length_of_a_run_follows_rows_and_preset(preset, rows, epochs):
    recipe = replace(get_recipe("images"), preset=preset)
    assert with_length(recipe, rows).training.max_epochs == epochs


def test_a_given_limit_is_kept():
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, max_time="5m"))
    assert with_length(given, None) == given
    assert length_sentence(given) == "batches of 128, learning rate 0.003, 5m"


@pytest.mark.parametrize(
    ("limits", "epochs"),
    [({}, 16), ({"max_time": "5m"}, 16), ({"max_epochs": 40}, 40), ({"max_steps": 9}, None)],
)
def test_a_run_ends_where_more_epochs_do_harm_unless_steps_or_epochs_are_given(limits, epochs):
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, **limits))
    found = with_length(given, 1_000, most_epochs=16)
    assert found.training.max_epochs == epochs
    assert found.training.max_time == limits.get("max_time")


def test_a_limit_of_time_is_printed_with_the_epochs():
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, max_time="5m", max_epochs=16))
    assert length_sentence(given).endswith("5m or 16 epochs, whichever ends first")


@pytest.mark.parametrize("kind", ["number", "text", "series"])
def test_rules_of_the_head_are_left_out_for_several_tasks(kind):
    values = {"number": 1.5, "text": "a few words", "series": [[0.0], [1.0], [2.0]] * 5}
    table = {"x": [values[kind]] * 24, "a": ["p", "q"] * 12, "b": ["r", "s", "s"] * 8}
    overrides = {"label": "a,b", "columns": {"x": kind}}
    run = resolve(table, overrides=overrides)
    assert [*run.recipe.task.parts] == ["a", "b"]
