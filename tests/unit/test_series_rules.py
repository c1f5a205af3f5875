from types import SimpleNamespace

import numpy as np
import pytest

from perceivers.data.modalities.series.augment import SeriesAugmentConfig
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.inputs.series import BankSeriesInputConfig
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts
from perceivers.recipes.rules.series import are_axes, choose, when_matters


class Facts(ModalityFacts):
    def __init__(self, data, length, channels):
        measured = SimpleNamespace(length=length, channels=channels)
        known = {"name": "series", "data": data, "measured": measured, "is_alone": True}
        vars(self).update(known)


def chosen(*, rows, length=100, part=None, overrides=None, channels=("value",), kind="number"):
    data = DataFacts(
        num_rows=rows,
        target_kind=kind,
        num_classes=1,
        class_counts=(),
        preset="default",
        overrides=overrides or {},
    )
    preprocess = SeriesPreprocessConfig()
    facts = Facts(data, length, channels)
    part = part or BankSeriesInputConfig()
    before = Choice(input=part, preprocess=preprocess, augment=SeriesAugmentConfig())
    return choose(before, facts)


def test_few_series_get_fixed_kernels_and_a_small_encoder():
    choice = chosen(rows=60)
    assert choice.input.stem_channels == ()
    assert choice.fields["encoder.num_latents"] == 8
    assert choice.fields["output.element_pools"] == ("mean",)
    assert choice.augment.jitter == 0.0
    assert "60 rows" in choice.reasons["Input"]


def test_many_series_get_a_learned_stem_besides():
    choice = chosen(rows=5_000)
    assert choice.input.stem_channels == (64, 128)
    assert "encoder.num_latents" not in choice.fields


def test_many_series_are_mixed_masked_and_turned():
    augment = chosen(rows=5_000, kind="class").augment
    assert (augment.mixup, augment.time_mask, augment.rotate) == (0.2, 0.2, False)
    assert chosen(rows=5_000).augment.mixup == 0.0  # numbers are not mixed
    sensors = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
    turned = chosen(rows=5_000, kind="class", channels=sensors)
    assert (turned.augment.rotate, turned.augment.rotate_degrees) == (True, 30.0)
    assert "turned by up to 30 degrees" in turned.reasons["Augmentation"]


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (("x", "y", "z"), True),
        (("AccX", "AccY", "AccZ"), True),
        (("acc_x", "acc_y"), False),
        (("x", "y", "z", "speed"), False),
        (("ax", "by", "cz"), False),
        (("z", "y", "x"), False),
        ((), False),
    ],
)
def test_names_of_axes(channels, expected):
    assert are_axes(channels) == expected


def test_many_short_series_get_no_stem():
    assert chosen(rows=5_000, length=24).input.stem_channels == ()


def test_stated_inputs_are_kept():
    choice = chosen(rows=60, overrides={"inputs.series.thresholds": 3})
    assert not choice.fields
    assert choice.augment.jitter == 0.05


def test_stated_augmentation_is_kept():
    assert chosen(rows=60, overrides={"augment.series.jitter": 0.1}).augment.jitter == 0.05


@pytest.mark.parametrize(
    ("num_rows", "is_placed", "expected"),
    [(80, True, True), (80, False, False), (16, True, False)],
)
def test_windows_of_time_need_classes_that_differ_in_when(num_rows, is_placed, expected):
    rng = np.random.default_rng(0)
    classes = np.arange(num_rows) % 4
    series = []
    for row in range(num_rows):
        values = 0.3 * rng.normal(size=(64, 1)).astype(np.float32)
        begin = 16 * classes[row] + 4 if is_placed else rng.integers(0, 56)
        width = 8 if is_placed else 2 + 2 * classes[row]
        values[begin : begin + width] += 2
        series.append(values)
    assert when_matters(series, classes) is expected


def test_windows_of_time_need_series_of_about_one_length():
    series = [np.zeros((20 + 20 * (row % 2), 1), np.float32) for row in range(40)]
    assert not when_matters(series, np.arange(40) % 2)


def test_series_that_the_whole_already_classifies_need_no_windows():
    rng = np.random.default_rng(0)
    classes = np.arange(40) % 2
    series = [(rng.normal(size=(64, 1)) * (1 + 9 * one)).astype(np.float32) for one in classes]
    assert not when_matters(series, classes)
