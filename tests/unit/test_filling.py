"""Sizes stand in one place: what an input takes over from how its modality is read."""

from dataclasses import replace

import pytest

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.modality import MelPreprocessConfig, WavePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.inputs.audio import ResidualSpectrogramInputConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.assume import assume
from perceivers.recipes.resolve import fill_input
from support import modality_data


def test_a_spectrogram_has_the_size_that_the_sound_is_prepared_with():
    sound = MelPreprocessConfig(sample_rate=8000, seconds=1.0, num_mels=40, hop=0.02)
    filled = fill_input(ResidualSpectrogramInputConfig(), sound)
    assert filled.size == (50, 40)


def test_an_input_that_does_not_read_what_is_prepared_is_refused():
    with pytest.raises(
        ValueError,
        match="An input of kind 'spectrogram_residual' expects preprocess of kind 'mel', got 'wave'",
    ):
        fill_input(
            ResidualSpectrogramInputConfig(), WavePreprocessConfig(sample_rate=8000, seconds=1.0)
        )
    with pytest.raises(ValueError, match=r"expects preprocess of kind 'image', got 'text'"):
        fill_input(PixelInputConfig(), TextPreprocessConfig(max_length=64))


def test_what_is_open_is_measured_on_cells():
    cells = [EncodedItem("a", value="x" * 100), EncodedItem("b", value="y" * 100)]
    assert TextPreprocessConfig().measure(lambda _: cells).max_length == 128
    with pytest.raises(ValueError, match=r"No text|holds no|no rows"):
        TextPreprocessConfig().measure(lambda _: [])


def test_films_are_as_large_as_the_recipe_allows(tmp_path):
    folder = modality_data.make_videos(tmp_path, audio=False)
    cells = [EncodedItem(str(path), path=path) for path in sorted(folder.rglob("*.mp4"))[:2]]
    large = VideoPreprocessConfig(max_side=64).measure(lambda _: cells).size
    small = VideoPreprocessConfig(max_side=8).measure(lambda _: cells).size
    assert max(small) <= 8 <= max(large)


def test_without_data_sizes_are_assumed_and_said():
    recipe, sentences = assume(get_recipe("multimodal"))
    assert recipe.inputs["image"].size == (64, 64)
    assert recipe.inputs["series"].num_channels == 3
    assert recipe.output.num_outputs == 10
    assert sentences == [
        "The data decide the size of 'image'; assuming size 64 x 64.",
        "The data decide the size of 'audio'; assuming sample_rate 16000, seconds 2.0.",
        "The data decide the size of 'series'; assuming length 200, channels x, y, z, irregular False, "
        "has_missing False.",
        "The data decide the classes; assuming 10.",
    ]


def test_nothing_is_assumed_of_a_published_recipe():
    for name in ("modelnet40", "imagenet", "audioset_av_mel"):
        recipe = get_recipe(name)
        assert assume(recipe) == (replace(recipe, data=recipe.data), [])
    assert isinstance(get_recipe("imagenet").data, DataConfig)


def test_queries_that_follow_a_text_are_as_many_as_it_has_bytes():
    recipe = get_recipe("mlm_bytes", size="tiny")
    text = replace(recipe.preprocess["text"], max_length=64)
    filled, sentences = assume(replace(recipe, preprocess={"text": text}))
    assert filled.inputs["text"].max_length == 64
    assert filled.output.outputs["text"].queries.num_queries == 64
    assert sentences == []
    classifier = get_recipe("imagenet_io").output
    assert classifier.fit_to_inputs({}) == classifier
