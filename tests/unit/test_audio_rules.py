"""Rules for audio: rate, frames, stem, augmentation and batch by the length and number of files."""

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.inputs.audio import ResidualSpectrogramInputConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.registry import Recipe
from perceivers.recipes.rules import audio, base
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts


class Facts(ModalityFacts):
    """Facts whose cells are silent clips."""

    def __init__(self, seconds, rate, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "value", (np.zeros(round(seconds * rate)), rate))

    def cells(self, count):
        return iter([EncodedItem("a", value=self.value)] * min(count, 3))


def choose(seconds, rate=16_000, *, rows=600, is_alone=True, recipe="audio", **overrides):
    made: Recipe = get_recipe(recipe)
    preprocess = made.preprocess["audio"]
    data = DataFacts(
        num_rows=rows,
        target_kind="class",
        num_classes=3,
        class_counts=(rows,),
        preset="default",
        overrides={f"preprocess.audio.{name}": value for name, value in overrides.items()},
    )
    for name, value in overrides.items():
        preprocess = type(preprocess)(**{**preprocess.__dict__, name: value})
    facts = Facts(seconds, rate, name="audio", data=data, preprocess=preprocess, is_alone=is_alone)
    choice = Choice(
        input=made.inputs["audio"], preprocess=preprocess, augment=made.augment["audio"]
    )
    return audio.choose(choice, facts)


@pytest.mark.parametrize(
    ("seconds", "hop", "window", "stride"),
    [
        (0.7, 0.01, 0.025, (1, 2)),
        (2.0, 0.01, 0.025, 2),
        (3.0, 0.012, 0.025, 2),
        (9.0, 0.02, 0.04, 2),
    ],
)
def test_frames_and_stride_follow_the_length_of_the_clips(seconds, hop, window, stride):
    made = choose(seconds)
    assert (made.preprocess.hop, made.preprocess.window) == (hop, window)
    assert made.input.stem.stride == stride


def test_a_given_hop_or_window_stays():
    assert choose(5.0, hop=0.015).preprocess.window == 0.03
    made = choose(5.0, window=0.016).preprocess
    assert (made.hop, made.window) == (0.016, 0.016)


def test_full_band_audio_keeps_twice_the_band_of_speech():
    assert choose(1.0, 44_100).preprocess.sample_rate == 22_050
    assert choose(1.0, 22_050).preprocess.sample_rate == 16_000
    assert choose(1.0, 8_000).preprocess.sample_rate == 8_000
    assert choose(1.0, 44_100, sample_rate=8_000).preprocess.sample_rate == 8_000


def test_long_files_are_evaluated_by_several_clips():
    made = choose(60.0)
    assert made.fields["data.clips"] == 8
    assert "8 clips" in made.reasons["Validation"]
    assert "data.clips" not in choose(5.5).fields


def test_few_rows_have_blended_clips():
    few, many = choose(2.0, rows=300), choose(2.0, rows=9_000)
    assert few.augment.mixup > 0
    assert many.augment.mixup == 0
    together = choose(2.0, rows=300, is_alone=False).augment
    assert (together.mixup, together.roll) == (0, False)


def test_rules_are_for_spectrograms_with_a_stem():
    assert base._RULES["mel"][1] is ResidualSpectrogramInputConfig
