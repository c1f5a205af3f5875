"""Rules for time series: docs/defaults.md."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.series.augment import SeriesAugmentConfig
from perceivers.data.modalities.series.modality import SeriesModality
from perceivers.inputs.series import BankSeriesInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules
from perceivers.recipes.rules.ridge import left_out_errors
from perceivers.wording import counted

FEW_ROWS = 1_000
"""Rows below which a learned stem learns the training series by heart, so that fixed kernels alone are used."""

_CELLS_LENGTH = 32  # steps from which a learned stem has enough cells

# Augmentation of many series: alpha of mixup, share of the time that is hidden at most, and the largest turn of sensors
# in degrees, as a watch sits differently on another wrist.
_MIXUP, _TIME_MASK, _TURN = 0.2, 0.2, 30.0

# Whether it matters when something happens: series that are looked at, windows of each, the fewest series from which
# anything follows, the standard errors by which windows must be better, and the largest share of errors that they may
# leave.
_SAMPLED, _WINDOWS, _FEWEST = 400, 4, 24
_ERRORS, _LEFT = 3.0, 0.2

Values = npt.NDArray[np.float32]


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for time series."""
    part: BankSeriesInputConfig = choice.input
    if not facts.data.is_open(f"inputs.{facts.name}"):
        return choice
    rows = facts.data.rows
    few = rows < FEW_ROWS or facts.measured.length < _CELLS_LENGTH
    if facts.data.is_pretrained:
        few = not part.stem_channels
    if facts.data.is_open(f"augment.{facts.name}") and choice.augment is not None:
        # Noise changes the signs that statistics of first differences count.
        scale = 0.0 if few else choice.augment.scale
        augment = replace(choice.augment, jitter=0.0, scale=scale)
        choice = replace(choice, augment=augment if few else _augment(augment, facts))
    if few:
        matters = facts.data.target_kind == "class" and when_matters(*_sampled(facts))
        windows = _WINDOWS if matters else 1
        return _few(choice, replace(part, windows=windows), rows)
    width = 2 * part.channels
    reasons: dict[Topic, str] = {
        "Input": f"statistics of fixed kernels and a learned stem, for {counted(rows, 'row')}"
    }
    if choice.augment is not None and choice.augment.rotate:
        reasons["Augmentation"] = (
            f"sensors are turned by up to {_TURN:g} degrees, since channels are named x, y, z"
        )
    learned = replace(part, channels=width, dropout=0.2, stem_channels=(part.channels, width))
    return replace(
        choice,
        input=learned,
        fields={"output.element_pools": ("mean", "max"), "optim.weight_decay": 0.1},
        reasons=reasons,
    )


def _augment(augment: SeriesAugmentConfig, facts: ModalityFacts) -> SeriesAugmentConfig:
    """Return the augmentation of many series."""
    mixes = facts.is_alone and facts.data.target_kind == "class"
    turns = are_axes(facts.measured.channels)
    return replace(
        augment,
        mixup=_MIXUP if mixes else augment.mixup,
        time_mask=_TIME_MASK,
        rotate=turns,
        rotate_degrees=_TURN if turns else augment.rotate_degrees,
    )


def are_axes(channels: Sequence[str]) -> bool:
    """Return whether all channels are x, y and z of sensors, one sensor after the other: `acc_x, acc_y, acc_z`."""
    triples = [channels[i : i + 3] for i in range(0, len(channels), 3)]
    return bool(triples) and all(
        [name[-1:].lower() for name in names] == ["x", "y", "z"]
        and len({name[:-1].lower() for name in names}) == 1
        for names in triples
    )


def _few(choice: Choice, part: BankSeriesInputConfig, rows: int) -> Choice:
    """Return the choices for few series: fixed kernels only, a small encoder and strong regularization."""
    fields: dict[str, Any] = {
        "output.element_pools": ("mean",),
        "output.latent_dropout": 0.8,
        "encoder.num_latents": 8,
        "encoder.latent_channels": 64,
        "encoder.num_cross_attends": 1,
        "encoder.num_blocks": 1,
        "encoder.num_self_attends_per_block": 1,
        "encoder.num_self_attend_heads": 4,
        "encoder.cross_attend_qk_channels": 32,
        "encoder.cross_attend_v_channels": 32,
        "optim.weight_decay": 2.0,
        "training.ema": 0.98,
    }
    of = f", of the whole and of {part.windows} windows of time" if part.windows > 1 else ""
    return replace(
        choice,
        input=part,
        fields=fields,
        reasons={
            "Input": f"statistics of fixed kernels{of}, for {counted(rows, 'row')}",
            "Model": "a small encoder beside a direct path from the statistics",
        },
    )


def when_matters(series: list[Values], classes: npt.NDArray[np.int64]) -> bool:
    """Return whether the class depends on when something happens.

    Ridge regression on simple statistics (mean, deviation, mean change, extremes of each channel), leaving out one
    series at a time: those of windows of time besides those of the whole must halve its errors, and leave few.
    Windows are of equal time, so that series must be about as long as each other.
    """
    lengths = [len(one) for one in series]
    if len(series) < _FEWEST or min(lengths) < max(2 * _WINDOWS, 0.75 * max(lengths)):
        return False
    whole = np.stack([_statistics(one) for one in series])
    parts = [[_statistics(part) for part in np.array_split(one, _WINDOWS)] for one in series]
    windows = np.concatenate([whole, np.array(parts).reshape(len(series), -1)], axis=1)
    found, found_of_windows = _hits(whole, classes), _hits(windows, classes)
    gained, lost = (found_of_windows & ~found).sum(), (found & ~found_of_windows).sum()
    is_clear = gained - lost > _ERRORS * np.sqrt(gained + lost)
    errors, errors_of_windows = (~found).mean(), (~found_of_windows).mean()
    return bool(is_clear and errors_of_windows <= min(errors / 2, _LEFT))


def _statistics(values: Values) -> Values:
    changes = np.abs(np.diff(values, axis=0))
    parts = [values.mean(0), values.std(0), changes.mean(0), values.max(0), values.min(0)]
    return np.concatenate(parts)


def _hits(features: Values, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows that ridge regression classifies correctly if left out, at its best strength."""
    targets = np.where(classes[:, None] == np.arange(classes.max() + 1), 1.0, -1.0)
    return (targets - left_out_errors(features, targets)).argmax(axis=1) == classes


def _sampled(facts: ModalityFacts) -> tuple[list[Values], npt.NDArray[np.int64]]:
    """Return values of evenly spaced training series, zeros where one is missing, and their classes."""
    modality = SeriesModality(facts.measured)
    channels = len(modality.names)
    series: list[Values] = []
    classes: list[int] = []
    for cell, index in facts.labelled_cells(_SAMPLED):
        try:
            sample = modality.transform(modality.decode(cell).value)
        except (ImportError, KeyError):
            raise
        except Exception:  # named and counted in training
            continue
        series.append(np.nan_to_num(sample[:, :channels]))
        classes.append(index)
    return series, np.array(classes, dtype=np.int64)


register_rules("series", choose, adapter=BankSeriesInputConfig)
