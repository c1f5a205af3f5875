"""Queries and heads of an autoencoder follow from how its modalities are read."""

from dataclasses import replace

import pytest

from perceivers.data.modalities.audio.modality import MelPreprocessConfig, WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.inputs.audio import SpectrogramInputConfig, WaveInputConfig
from perceivers.inputs.image import PatchInputConfig
from perceivers.inputs.label import LabelInputConfig
from perceivers.inputs.points import PointsInputConfig
from perceivers.inputs.series import SeriesInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.outputs.heads import LinearHeadConfig, MeanPoolConfig, TiedHeadConfig
from perceivers.outputs.queries import FourierQueriesConfig, InputQueriesConfig
from perceivers.recipes.assume import assume
from perceivers.recipes.autoencode import autoencoder_for
from perceivers.recipes.registry import get_recipe
from perceivers.recipes.resolve import fill_label
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.reconstruction import ReconstructionConfig


def fill_autoencoder(task, output, inputs, preprocess):
    """Return the task and the output with sizes of the inputs."""
    names = tuple(map(str, range(getattr(inputs.get("label"), "num_classes", 0) or 0)))
    task = replace(task, label_names=names).fit_to_inputs(inputs, preprocess)
    return task, output.fit_to(task.output_parts())


def filled(part, patch, preprocess=None, queries=None):
    """Return how one modality is reconstructed and asked for."""
    answer = OutputConfig(
        queries=queries or FourierQueriesConfig(size=None), head=LinearHeadConfig(num_outputs=None)
    )
    task, output = fill_autoencoder(
        AutoencodeConfig(parts={"x": ReconstructionConfig(patch=patch)}),
        DecoderConfig(outputs={"x": answer}),
        {"x": part},
        {} if preprocess is None else {"x": preprocess},
    )
    return task.parts["x"], output.outputs["x"]


def test_pictures_come_back_in_pixels():
    prepared = ImagePreprocessConfig.imagenet(size=(10, 12), mean=(0.5,) * 3, std=(0.2,) * 3)
    part, answer = filled(PatchInputConfig(size=(10, 12)), (4, 4), prepared)
    assert (part.size, part.num_channels, part.mean, part.std) == (
        (10, 12),
        3,
        (0.5,) * 3,
        (0.2,) * 3,
    )
    assert (part.low, part.high, part.peak) == (0.0, 1.0, 1.0)
    assert answer.queries.size == (3, 3)
    assert answer.head.num_outputs == 48


def test_sounds_come_back_in_samples_and_spectrograms_as_they_are_read():
    prepared = WavePreprocessConfig(sample_rate=8000, seconds=1.0, scale=0.2)
    part, answer = filled(WaveInputConfig(num_samples=8000), (16,), prepared)
    assert (part.std, part.low, answer.queries.size) == ((0.2,), -1.0, (500,))
    mel = MelPreprocessConfig(sample_rate=8000, seconds=1.0, mean=-5.0, std=3.0)
    part, answer = filled(SpectrogramInputConfig(size=(100, 40)), (4, 8), mel)
    assert (part.mean, part.low, answer.queries.size) == ((), None, (25, 5))
    assert answer.head.num_outputs == 32


def test_recordings_tell_where_values_are_missing():
    part, answer = filled(SeriesInputConfig(length=30, num_channels=2, has_missing=True), (4,))
    assert (part.has_missing, part.num_channels, answer.queries.size) == (True, 2, (8,))


def test_queries_made_of_something_else_stay():
    asked = InputQueriesConfig(modality="x")
    _, answer = filled(PatchInputConfig(size=(8, 8)), (4, 4), queries=asked)
    assert answer.queries == asked


def test_what_is_no_grid_is_refused():
    with pytest.raises(ValueError, match=r"'x' \(points\) cannot be reconstructed: it is no grid"):
        filled(PointsInputConfig(num_points=16), (1,))


def test_outputs_must_be_what_is_reconstructed():
    recipe = get_recipe("kinetics_autoencoder")
    label = replace(recipe.task, label_weight=None)
    with pytest.raises(ValueError, match="outputs audio, video; got audio, label, video"):
        fill_autoencoder(label, recipe.output, recipe.inputs, {})
    with pytest.raises(ValueError, match="got mean_pool"):
        fill_autoencoder(recipe.task, MeanPoolConfig(), recipe.inputs, {})
    outputs = dict(recipe.output.outputs)
    outputs["label"] = replace(outputs["label"], head=TiedHeadConfig())
    with pytest.raises(ValueError, match="Expected a linear head for the output 'label'"):
        fill_autoencoder(
            recipe.task, replace(recipe.output, outputs=outputs), recipe.inputs, recipe.preprocess
        )


def test_the_published_settings_are_what_their_inputs_say():
    recipe = get_recipe("kinetics_autoencoder")
    task, output = fill_autoencoder(recipe.task, recipe.output, recipe.inputs, recipe.preprocess)
    assert output == recipe.output
    assert task.parts["video"].size == (16, 224, 224)
    assert task.parts["audio"].size == (30_720,)
    assert fill_label(recipe.inputs, 700) == recipe.inputs


def test_without_data_sizes_and_classes_are_assumed_and_said():
    recipe, sentences = assume(get_recipe("autoencode"))
    assert recipe.inputs["label"] == LabelInputConfig(num_classes=10)
    assert recipe.output.outputs["label"].head.num_outputs == 10
    assert sentences[-1] == "The data decide the classes; assuming 10."
    alone, sentences = assume(autoencoder_for({"image": "image", "array": "array"}))
    assert set(alone.output.outputs) == {"array", "image"}
    assert alone.output.outputs["array"].queries.num_queries == 100
    assert not any("classes" in sentence for sentence in sentences)
