"""What a recipe leaves open is taken from the data."""

from dataclasses import replace

import pytest
import small_data
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.sources import open_data
from perceivers.data.split import with_validation
from perceivers.data.tables import Subset
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.fitting import choose_recipe, specialize


def folder(path, *, size=(20, 12), classes=("ant", "bee"), each=3):
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(each):
            color = (40 * i, 80 * number, 100)
            Image.new("RGB", size, color).save(path / name / f"{i}.png")
    return path


@pytest.fixture
def source(tmp_path):
    return open_data(folder(tmp_path / "bugs"), DataConfig())


def test_size_classes_and_epochs_come_from_the_data(source):
    recipe, preprocess = specialize(get_recipe("images"), source)
    assert recipe.inputs["image"].size == preprocess["image"].size == (12, 20)
    assert recipe.output.num_outputs == 2
    assert recipe.task.label_names == ("ant", "bee")
    assert recipe.training.max_epochs == 200  # few pictures, many passes
    build(recipe.model_config())


def test_statistics_are_those_of_the_training_pictures(source):
    _, preprocess = specialize(get_recipe("images"), source)
    assert preprocess["image"].mean == pytest.approx((40 / 255, 40 / 255, 100 / 255), abs=1e-3)
    assert preprocess["image"].std[2] > 0  # the third channel never changes


def test_a_published_recipe_keeps_its_size_and_imagenets_statistics(source):
    recipe, preprocess = specialize(get_recipe("imagenet"), source)
    assert preprocess["image"].size == (224, 224)
    assert preprocess["image"].mean == (0.485, 0.456, 0.406)
    assert preprocess["image"].crop_fraction == 0.875
    assert recipe.training.max_epochs == 120
    assert recipe.output.num_outputs == 2


@pytest.mark.parametrize("limit", [{"max_time": "1m"}, {"max_steps": 5}, {"max_epochs": 3}])
def test_a_limit_that_was_given_is_the_only_one(source, limit):
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, **limit))
    assert specialize(given, source)[0].training == given.training


def test_the_largest_side_is_bounded_by_the_recipe(tmp_path):
    source = open_data(folder(tmp_path / "large", size=(300, 200)), DataConfig())
    recipe, _ = specialize(get_recipe("images"), source)
    assert max(recipe.inputs["image"].size) <= recipe.data.largest_image == 64


def test_data_without_labels_say_what_is_missing(tmp_path):
    (tmp_path / "a.png").parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    source = open_data(tmp_path, DataConfig())
    with pytest.raises(
        ValueError, match=r"no labels, so there is nothing to learn.*--label COLUMN"
    ):
        specialize(get_recipe("images"), source)


def test_inputs_that_the_recipe_does_not_read_name_the_way_out(source):
    two = replace(source, inputs={"left": source.inputs["image"], "right": source.inputs["image"]})
    with pytest.raises(ValueError, match=r"reads \['image'\], but the data holds.*--columns"):
        specialize(get_recipe("images"), two)


def test_the_machine_and_the_data_choose_the_size(source, monkeypatch):
    recipe, why = choose_recipe(source)
    assert (recipe, "without a GPU" in why) == (get_recipe("images", size="tiny"), True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_recipe(source)[0] == get_recipe("images", size="small")
    many = replace(source, splits={"train": Subset(source.splits["train"], [0] * 50_000)})
    assert choose_recipe(many)[0] == get_recipe("images", size="base")


def test_what_was_asked_for_is_taken(source):
    recipe, why = choose_recipe(source, name="imagenet")
    assert (recipe.name, why) == ("imagenet", "Recipe imagenet, as asked for.")
    recipe, why = choose_recipe(source, size="base")
    assert recipe == get_recipe("images", size="base")
    assert "as asked for" in why


@pytest.fixture
def stream(tmp_path):
    pytest.importorskip("pyarrow")
    cells = [{"bytes": small_data.png(i), "path": f"{i}.png"} for i in range(20)]
    columns = {"image": cells, "label": [i % 2 for i in range(20)]}
    small_data.write_parquet(tmp_path / "train.parquet", columns)
    config = DataConfig(stream=True)
    return with_validation(open_data(tmp_path / "train.parquet", config), config)


def test_a_stream_is_known_by_its_first_rows(stream):
    recipe, preprocess = specialize(get_recipe("images"), stream)
    assert preprocess["image"].size == (5, 4)
    assert recipe.training.max_epochs == 200


def test_a_stream_of_unknown_length_needs_a_limit(stream, monkeypatch):
    monkeypatch.setattr(type(stream.streams["train"]), "num_rows", None)
    with pytest.raises(
        ValueError, match=r"How many rows the stream has is not known.*--max-time 1h"
    ):
        specialize(get_recipe("images"), stream)
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, max_steps=5))
    assert specialize(given, stream)[0].training.max_epochs is None


def test_data_without_a_training_split_are_refused(source):
    with pytest.raises(ValueError, match=r"Expected a split called train, got \['test'\]"):
        specialize(get_recipe("images"), replace(source, splits={"test": source.splits["train"]}))
