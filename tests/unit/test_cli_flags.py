from dataclasses import replace

import pytest

from perceivers.cli.fit import _first_reading, _full_reading
from perceivers.cli.flags import Which, apply_flags, flags_of
from perceivers.data.base import DataConfig
from perceivers.recipes import get_recipe, list_recipes


def read(*args: str, recipe: str = "digits"):
    return _full_reading(["data", *args], get_recipe(recipe))


@pytest.mark.parametrize("name", list_recipes())
def test_without_flags_a_recipe_is_as_it_was(name):
    assert read(recipe=name) == get_recipe(name)


def test_training_and_data_need_no_prefix_and_the_rest_does():
    recipe = read(
        *("--batch-size", "7", "--max-time", "10m", "--seed", "3", "--permute", "9"),
        *("--label", "species", "--group", "nest", "--max-bad", "0.5"),
        *("--optim.lr", "0.5", "--encoder.num-latents", "5", "--no-progress"),
        *("--inputs.image.positions.num-bands", "2", "--augment.image.mixup", "0.2"),
    )
    assert recipe.training.batch_size == 7
    assert recipe.training.max_time == "10m"
    assert (recipe.training.seed, recipe.training.permute) == (3, 9)
    assert recipe.training.progress is False
    assert (recipe.data.label, recipe.data.group, recipe.data.max_bad) == ("species", "nest", 0.5)
    assert recipe.optim.lr == 0.5
    assert recipe.encoder.num_latents == 5
    assert recipe.inputs["image"].positions.num_bands == 2
    assert recipe.augment["image"].mixup == 0.2


def test_columns_are_pairs():
    columns = {"left": "image", "right": "image"}
    assert read("--columns", "left:image,right:image").data.columns == columns


def test_columns_of_the_recipe_are_shown_as_they_are_typed(capsys):
    recipe = replace(get_recipe("digits"), data=DataConfig(columns={"left": "image"}))
    with pytest.raises(SystemExit, match="0"):
        _full_reading(["--help"], recipe)
    assert "(default: left:image)" in capsys.readouterr().out


def test_columns_that_are_no_pairs_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        read("--columns", "left")
    assert "expected NAME:KIND" in capsys.readouterr().err


def test_a_misspelled_flag_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        read("--encoder.num-latent", "5")
    text = capsys.readouterr().err
    assert "Perhaps you meant" in text
    assert "--encoder.num-latents" in text


def test_a_value_of_the_wrong_type_names_the_flag(capsys):
    with pytest.raises(SystemExit, match="2"):
        read("--batch-size", "five")
    assert "--batch-size" in capsys.readouterr().err


def test_values_that_do_not_fit_each_other_are_wrong_arguments(capsys):
    with pytest.raises(SystemExit, match="2"):
        read("--encoder.num-blocks", "1", "--encoder.num-cross-attends", "3")
    assert "num_cross_attends=3 must lie between 1 and num_blocks" in capsys.readouterr().err


def test_what_the_data_say_has_no_flag():
    names = vars(flags_of(get_recipe("digits")))["__dataclass_fields__"]
    assert "name" not in names
    flags = flags_of(get_recipe("digits"))()
    assert not hasattr(flags.task, "label_names")
    assert not hasattr(flags.inputs.image, "kind")


def test_a_part_that_is_absent_in_a_recipe_has_no_flags():
    recipe = get_recipe("digits")
    bare = replace(recipe.inputs["image"], positions=None, num_channels=3)
    flags = flags_of(replace(recipe, inputs={"image": bare}))()
    assert not hasattr(flags.inputs.image, "positions")
    assert apply_flags(recipe, flags_of(recipe)()) == recipe


@pytest.mark.parametrize(
    "args",
    [
        ["birds", "--batch-size", "3"],
        ["--batch-size", "3", "birds"],
        ["--encoder.num-latents", "3", "birds"],
        ["birds", "--inputs.image.size", "3", "3", "--resume", "--recipe", "digits"],
        ["--resume", "--out", "x", "birds"],
        ["--encoder.num-latents", "3", "birds", "--encoder.num-blocks", "2"],
        ["--encoder.num-latent", "3", "birds"],
    ],
)
def test_data_is_found_first_or_last(args):
    assert _first_reading(args)[1] == "birds"


def test_the_first_reading_knows_recipe_and_folder():
    which, data = _first_reading(["--recipe", "images", "--size", "tiny", "--resume", "-h"])
    assert which == Which(recipe="images", size="tiny", resume=True)
    assert data is None
