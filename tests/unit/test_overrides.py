import pytest

from perceivers.data.base import DataConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.overrides import FlagWords, override, override_data


def test_fields_are_named_with_dots_or_as_flags_are():
    changes = {"max_time": "10m", "batch-size": 3, "label": "species", "optim.lr": "1e-3"}
    recipe = override(get_recipe("digits"), {**changes, "inputs.image.size": [4, 6]})
    assert (recipe.training.max_time, recipe.training.batch_size) == ("10m", 3)
    assert recipe.data.label == "species"
    assert recipe.optim.lr == 1e-3
    assert recipe.inputs["image"].size == (4, 6)


@pytest.mark.parametrize(("words", "stride"), [(["2"], 2), (["2", "1"], (2, 1))])
def test_a_number_or_a_pair_is_given_as_words(words, stride):
    changes = {"inputs.image.stem.stride": FlagWords(words)}
    assert override(get_recipe("images"), changes).inputs["image"].stem.stride == stride


def test_nothing_changed_is_the_same_recipe():
    assert override(get_recipe("images"), {}) == get_recipe("images")


def test_a_whole_part_can_be_given():
    encoder = PerceiverEncoderConfig(num_latents=3)
    assert override(get_recipe("digits"), {"encoder": encoder}).encoder == encoder


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("max_tim", "max_time"),
        ("optim.lrr", "optim.lr"),
        ("encoder.num_latent", "encoder.num_latents"),
        ("optimm.lr", "optim"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, nearest):
    with pytest.raises(KeyError, match=f"Did you mean '{nearest}'"):
        override(get_recipe("digits"), {name: 1})


def test_a_field_of_something_absent_is_refused():
    with pytest.raises(ValueError, match=r"optim\.lr\.value: 'lr' is [0-9.]+ in this recipe"):
        override(get_recipe("digits"), {"optim.lr.value": 1})


def test_a_wrong_value_names_its_field():
    with pytest.raises(ValueError, match=r"optim\.lr: .*number.*got 'fast'"):
        override(get_recipe("digits"), {"optim.lr": "fast"})


def test_only_changes_about_data_change_how_they_are_read():
    changes = {"label": "species", "max_time": "10m", "data.group": "nest"}
    assert override_data(DataConfig(max_bad=0.5), changes) == DataConfig(
        max_bad=0.5, label="species", group="nest"
    )
    with pytest.raises(ValueError, match="max_bad"):
        override_data(DataConfig(), {"max_bad": "many"})
