"""Modalities that are only learned from and measured against: the model never sees them."""

from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleTransform
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.sources.open import open_data
from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation.predict import _without
from perceivers.hub.checkpoint import SavedConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.resolve import split_for_task
from perceivers.tasks.base import split_target
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.masked import MaskedBytesConfig
from support.resolved import specialize

PICTURE = ImagePreprocessConfig.imagenet(size=(4, 4))


@dataclass(frozen=True, kw_only=True)
class DrawnConfig(MaskedBytesConfig):  # which needs no labels
    """A task whose target is the image `drawn`."""

    target_modalities = ("drawn",)
    chunked_modality = None


@dataclass(frozen=True, kw_only=True)
class OpenConfig(ImagePreprocessConfig):
    """Preprocessing of an answer that takes its size from the input."""

    size: tuple[int, int] | None = None


@pytest.fixture
def source(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 6), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    found = open_data(tmp_path, DataConfig())
    column = found.inputs["image"]
    return replace(found, inputs={"image": column, "drawn": column})


def recipe(**changes):
    made = get_recipe("images")
    return replace(made, task=DrawnConfig(), preprocess={"drawn": OpenConfig()}, **changes)


def test_the_task_names_its_answer():
    assert DrawnConfig().target_modalities == ("drawn",)
    assert ClassificationConfig().target_modalities == ()
    assert SavedConfig(model=PerceiverConfig(inputs={})).target_modalities == ()
    assert DrawnConfig().target_kind == "nothing"


def test_the_answer_is_taken_out_of_the_inputs():
    inputs = {"image": torch.zeros(2, 3), "drawn": torch.ones(2, 3)}
    masks = {"image": torch.ones(2, 1, dtype=torch.bool)}
    answer, shown, left = split_target("drawn", inputs, masks | {"drawn": masks["image"]})
    assert answer is inputs["drawn"]
    assert list(shown) == list(left) == ["image"]
    with pytest.raises(ValueError, match=r"need the target 'drawn'.*has only image"):
        split_target("drawn", shown, left)


def test_a_recipe_is_filled_with_the_answers_size_and_has_no_input_for_it(source):
    filled, preprocess = specialize(recipe(), source)
    assert set(filled.inputs) == set(filled.model_config().inputs) == {"image"}
    assert preprocess["drawn"].size == preprocess["image"].size == (6, 8)
    assert filled.preprocess["drawn"] == preprocess["drawn"]


def test_data_must_hold_the_answer_and_the_inputs(source):
    only = replace(source, inputs={"image": source.inputs["image"]})
    with pytest.raises(ValueError, match=r"no 'drawn' in these data, .* use predict"):
        split_for_task(only, DrawnConfig(), {}, None)
    assert split_for_task(source, DrawnConfig(), {}, None) is source
    with pytest.raises(ValueError, match="reads image and learns drawn, but the data holds image"):
        specialize(recipe(), only)


def reader(**settings):
    columns = {name: InputColumn(name, "image") for name in ("image", "drawn")}
    return SampleTransform(
        columns, dict.fromkeys(columns, PICTURE), None, LoaderSettings(**settings)
    )


def test_a_row_without_its_answer_or_with_nothing_else_is_bad(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    there, empty = EncodedItem("a.png", path=tmp_path / "a.png"), EncodedItem("an empty cell")
    assert reader().decode({"image": there, "drawn": empty})[0]["drawn"] is None
    for row in ({"image": there, "drawn": empty}, {"image": empty, "drawn": there}):
        with pytest.raises(BadRowError, match="an empty cell is empty: expected an image"):
            reader(target_modalities=("drawn",)).decode(row)


def test_a_saved_model_knows_what_it_reads_and_what_it_answers():
    config = SavedConfig(
        model=PerceiverConfig(inputs={}),
        preprocess={"image": PICTURE, "drawn": PICTURE},
        task=DrawnConfig(),
    )
    assert config.target_modalities == ("drawn",)
    assert list(config.input_columns()) == ["image"]
    assert list(config.input_columns(targets=True)) == ["image", "drawn"]


def test_answers_cannot_be_left_out():
    both = {"image": PICTURE, "drawn": PICTURE}
    assert _without(both, (), ("drawn",)) == both
    with pytest.raises(ValueError, match=r"no modality 'drawn'.* It reads image\."):
        _without(both, ("drawn",), ("drawn",))
    with pytest.raises(ValueError, match="reads image: without image nothing is left"):
        _without(both, ("image",), ("drawn",))
