"""What a recipe leaves open is taken from the data."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import Subset
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.resolve import choose_recipe
from perceivers.recipes.rules.length import LIMITS
from support import image_data, modality_data
from support.files import write_parquet
from support.resolved import specialize


def folder(path, *, size=(20, 12), classes=("ant", "bee"), each=3):
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(each):
            color = (40 * i, 80 * number, 100)
            Image.new("RGB", size, color).save(path / name / f"{i}.png")
    return path


pytestmark = pytest.mark.usefixtures("without_a_gpu")


@pytest.fixture
def source(tmp_path):
    return open_data(folder(tmp_path / "bugs"), DataConfig())


def test_size_classes_and_epochs_come_from_the_data(source):
    recipe, preprocess = specialize(get_recipe("images"), source)
    assert recipe.inputs["image"].size == preprocess["image"].size == (12, 20)
    assert recipe.output.num_outputs == 2
    assert recipe.task.label_names == ("ant", "bee")
    assert recipe.training.max_epochs == 400  # few pictures, many passes
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
    found = specialize(given, source)[0].training
    for name in LIMITS:
        assert getattr(found, name) == getattr(given.training, name)


def test_the_largest_side_is_bounded_by_the_recipe(tmp_path):
    source = open_data(folder(tmp_path / "large", size=(300, 200)), DataConfig())
    recipe, _ = specialize(get_recipe("images"), source)
    assert max(recipe.inputs["image"].size) <= recipe.preprocess["image"].max_side == 64


def test_data_without_labels_say_what_is_missing(tmp_path):
    (tmp_path / "a.png").parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    source = open_data(tmp_path, DataConfig())
    with pytest.raises(
        ValueError, match=r"no labels, so there is nothing to learn.*--label COLUMN"
    ):
        specialize(get_recipe("images"), source)


def two_pictures(source):
    both = {"left": source.inputs["image"], "right": source.inputs["image"]}
    return replace(source, inputs=both)


def test_inputs_that_the_recipe_does_not_read_name_the_way_out(source):
    with pytest.raises(
        ValueError, match=r"reads image, but the data holds left \(image\), .*--columns"
    ):
        specialize(get_recipe("images"), two_pictures(source))


def test_the_multimodal_recipe_is_made_for_what_the_data_hold(source):
    recipe, preprocess = specialize(get_recipe("multimodal"), two_pictures(source))
    assert set(recipe.inputs) == set(preprocess) == {"left", "right"}
    recipe, why = choose_recipe(two_pictures(source))
    assert set(recipe.inputs) == set(recipe.augment) == {"left", "right"}
    assert "Recipe multimodal in size tiny" in why


def test_the_machine_and_the_data_choose_the_size(source, monkeypatch):
    def size_of(data):
        return choose_recipe(data)[0].encoder

    assert size_of(source) == get_recipe("images", size="tiny").encoder
    assert "without a GPU" in choose_recipe(source)[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert size_of(source) == get_recipe("images", size="small").encoder
    many = replace(source, splits={"train": Subset(source.splits["train"], [0] * 50_000)})
    assert choose_recipe(many)[0] == get_recipe("images", size="base")


def test_few_samples_are_learned_from_in_small_steps(source):
    assert choose_recipe(source)[0].training.batch_size == 16
    some = replace(source, splits={"train": Subset(source.splits["train"], [0] * 2430)})
    assert choose_recipe(some)[0].training.batch_size == 32  # 76 steps in a pass
    many = replace(source, splits={"train": Subset(source.splits["train"], [0] * 8192)})
    assert choose_recipe(many)[0] == get_recipe("images")


def test_what_was_asked_for_is_taken(source):
    assert choose_recipe(source, get_recipe("imagenet")) == (get_recipe("imagenet"), None)
    recipe, why = choose_recipe(source, size="base")
    assert recipe.encoder == get_recipe("images", size="base").encoder
    assert "as requested" in why


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        (("audio",), "audio"),
        (("video",), "video"),
        (("audio", "video"), "audio_video"),
        (("points",), "points"),
        (("text",), "text"),
        (("series",), "series"),
        (("array",), "arrays"),
        (("table",), "multimodal"),
        (("image", "text"), "multimodal"),
    ],
)
def test_every_modality_has_its_recipe(source, kinds, name):
    inputs = {kind: InputColumn(kind, kind) for kind in kinds}
    recipe, _ = choose_recipe(replace(source, inputs=inputs))
    assert recipe.name == name
    assert set(recipe.inputs) == set(kinds)


def test_the_sound_of_a_film_has_clips_as_long_as_its_pictures(tmp_path):
    source = open_data(modality_data.make_videos(tmp_path, audio=True), DataConfig())
    recipe, preprocess = specialize(choose_recipe(source)[0], source)
    film = preprocess["video"]
    assert preprocess["audio"].seconds == pytest.approx(film.num_frames / film.frame_rate)
    assert recipe.inputs["video"].num_frames == film.num_frames
    kept = replace(recipe.preprocess["audio"], seconds=0.25)
    recipe = replace(recipe, preprocess={**recipe.preprocess, "audio": kept})
    assert specialize(recipe, source)[1]["audio"].seconds == 0.25


@pytest.fixture
def stream(tmp_path):
    pytest.importorskip("pyarrow")
    cells = [{"bytes": image_data.png(i), "path": f"{i}.png"} for i in range(20)]
    columns = {"image": cells, "label": [i % 2 for i in range(20)]}
    write_parquet(tmp_path / "train.parquet", columns)
    config = DataConfig(stream=True)
    return with_validation(open_data(tmp_path / "train.parquet", config), config)


def test_a_stream_is_known_by_its_first_rows(stream):
    recipe, preprocess = specialize(get_recipe("images"), stream)
    assert preprocess["image"].size == (5, 4)
    assert recipe.training.max_epochs == 400


def test_a_stream_of_unknown_length_needs_a_limit(stream, monkeypatch):
    monkeypatch.setattr(type(stream.streams["train"]), "num_rows", None)
    with pytest.raises(
        ValueError, match=r"The number of rows of the stream is unknown.*--max-time 1h"
    ):
        specialize(get_recipe("images"), stream)
    recipe = get_recipe("images")
    given = replace(recipe, training=replace(recipe.training, max_steps=5))
    assert specialize(given, stream)[0].training.max_epochs is None


def test_data_without_a_training_split_are_refused(source):
    with pytest.raises(ValueError, match=r"Expected a split called train, got \['test'\]"):
        specialize(get_recipe("images"), replace(source, splits={"test": source.splits["train"]}))


def test_modalities_keep_the_order_of_the_recipe(source):
    # Where chance comes from follows from a modality's place, so it may not depend on how names are hashed.
    names = ("f", "b", "d", "a", "e", "c")
    recipe = get_recipe("images", size="tiny")
    (picture,) = recipe.inputs.values()
    (column,) = source.inputs.values()
    several = replace(source, inputs=dict.fromkeys(sorted(names), column))
    _, preprocess = specialize(replace(recipe, inputs=dict.fromkeys(names, picture)), several)
    assert tuple(preprocess) == names
