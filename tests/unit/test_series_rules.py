from types import SimpleNamespace

from perceivers.data.modalities.series.augment import SeriesAugmentConfig
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.inputs.series import BankSeriesInputConfig
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts
from perceivers.recipes.rules.series import choose


class Facts(ModalityFacts):
    def __init__(self, data, length):
        known = {"name": "series", "data": data, "measured": SimpleNamespace(length=length)}
        vars(self).update(known)


def chosen(*, rows, length=100, part=None, overrides=None):
    data = DataFacts(
        num_rows=rows,
        target_kind="class",
        num_classes=2,
        class_counts=(rows // 2, rows // 2),
        preset="default",
        overrides=overrides or {},
    )
    preprocess = SeriesPreprocessConfig()
    facts = Facts(data, length)
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


def test_many_short_series_get_no_stem():
    assert chosen(rows=5_000, length=24).input.stem_channels == ()


def test_stated_inputs_are_kept():
    choice = chosen(rows=60, overrides={"inputs.series.thresholds": 3})
    assert not choice.fields
    assert choice.augment.jitter == 0.05


def test_stated_augmentation_is_kept():
    assert chosen(rows=60, overrides={"augment.series.jitter": 0.1}).augment.jitter == 0.05
