"""Rules for texts: docs/defaults.md."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perceivers.data.modalities.base import read_cells
from perceivers.data.modalities.text.modality import start_of_text
from perceivers.inputs.hashed_units import HashedUnitsConfig
from perceivers.inputs.text import HashedTextInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules

# Texts that are measured, and bytes of each that are searched for words.
_TEXTS, _SEARCHED = 1_000, 16_384

# Share of the texts that fit into max_length, and its largest value.
_FITTING, _LONGEST = 0.99, 8_192

# Elements of a text, at most: longer texts have longer cells of bytes. Bytes of the shortest cell.
_MOST_ELEMENTS, _SHORTEST_CELL = 512, 8

# Growth of the number of different words with the number of texts (Heaps' law).
_HEAPS = 0.6

# Rows of the table of words for each word, so that few of them share one; least and most rows, as powers of two.
_ROWS_PER_WORD = 4
_FEWEST_ROWS, _MOST_ROWS = 16, 17

# Rows below which the encoder is small, and its fields.
_FEW_ROWS = 50_000
_SMALL_ENCODER = {
    "num_latents": 4,
    "latent_channels": 64,
    "num_cross_attends": 1,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attend_heads": 2,
    "cross_attend_qk_channels": 32,
    "cross_attend_v_channels": 32,
}

# Bytes up to which texts are short.
_SHORT = 1_024

# Share of the units that are left out in training; shares of the elements of short and of long texts.
_UNIT_DROPOUT, _SHORT_DROPOUT, _LONG_DROPOUT = 0.5, 0.5, 0.3

# Share of the samples of few rows without the latents in training: the mean of the elements learns by itself.
_LATENT_DROPOUT = 0.5

# Batch sizes, with the fewest rows of each.
_BATCHES = {64: 4_096, 32: 1_024, 16: 0}

# Peak learning rates, without and with the start from a linear model of few rows, which a high rate forgets.
_RATE, _LINEAR_RATE = 2e-3, 5e-4

# Factor of the samples of a run without a limit: the table of words is learned in a few epochs.
_LENGTH = 0.2

# Epochs after which few texts are only learned by heart, and the fewest steps of a run.
_MOST_EPOCHS, _FEWEST_STEPS = 16, 600

_WORD = re.compile(rb"[a-z0-9\x80-\xff]+")


@dataclass(frozen=True)
class _Measured:
    """Lengths of texts in bytes, and the number of different words in all training texts, which is estimated."""

    lengths: tuple[int, ...]
    words: int

    @property
    def fitting(self) -> int:
        """Length into which nearly all texts fit, a multiple of 64."""
        most = int(np.quantile(self.lengths, _FITTING, method="higher"))
        return min(max(-(-most // 64) * 64, 64), _LONGEST)


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for texts."""
    part: HashedTextInputConfig = choice.input
    preprocess = choice.preprocess
    measured = _measure(facts)
    if preprocess.max_length is None:
        preprocess = replace(preprocess, max_length=measured.fitting)
    length = preprocess.max_length or measured.fitting
    units = _with_tables(part.units, measured, length)
    dropout = _SHORT_DROPOUT if length <= _SHORT else _LONG_DROPOUT
    part = replace(part, stride=_stride(length), units=units, element_dropout=dropout)
    kinds = "words, phrases and byte runs" if units.run_rows else "words and phrases"
    inside = f"hashed {kinds} in cells of {part.stride} bytes"
    about = f"texts of up to {length:,} bytes with about {measured.words:,} different words"
    reasons: dict[Topic, str] = {"Input": f"{inside}, {about}"}
    few = facts.data.rows < _FEW_ROWS
    if few and facts.is_alone:
        reasons["Model"] = "a small encoder beside the mean of the elements, since rows are few"
    return replace(
        choice,
        input=part,
        preprocess=preprocess,
        fields=_fields(facts, few=few),
        length=_LENGTH,
        most_epochs=_most_epochs(facts.data.rows) if few else None,
        reasons=reasons,
    )


def _most_epochs(rows: int) -> int:
    """Return the epochs after which a run on few texts ends."""
    batch = _batch_size(rows)
    return max(_MOST_EPOCHS, math.ceil(_FEWEST_STEPS * batch / max(rows, 1)))


def _batch_size(rows: int) -> int:
    """Return the batch size for a number of rows."""
    return next(size for size, fewest in _BATCHES.items() if rows >= fewest)


def _measure(facts: ModalityFacts) -> _Measured:
    """Return lengths and words of evenly spaced training texts.

    Raises:
        ValueError: If none of them can be read.
    """
    lengths: list[int] = []
    words = set[bytes]()
    cells = facts.cells(_TEXTS)
    for start, size in read_cells(cells, lambda cell: start_of_text(cell, _SEARCHED), "text"):
        lengths.append(size)
        words.update(_WORD.findall(start.lower()))
    rows = max(facts.data.num_rows or len(lengths), len(lengths))
    count = len(words) * (rows / len(lengths)) ** _HEAPS
    return _Measured(tuple(lengths), int(float(f"{count:.2g}")))


def _stride(length: int) -> int:
    """Return the bytes of a cell for texts of a length."""
    stride = _SHORTEST_CELL
    while length > stride * _MOST_ELEMENTS:
        stride *= 2
    return stride


def _with_tables(units: HashedUnitsConfig, measured: _Measured, length: int) -> HashedUnitsConfig:
    """Return hashed units whose tables have several rows for each word, and more for phrases and byte runs."""
    power = min(
        max(math.ceil(math.log2(max(_ROWS_PER_WORD * measured.words, 1))), _FEWEST_ROWS), _MOST_ROWS
    )
    return replace(
        units,
        word_rows=1 << power,
        phrase_rows=2 << power,
        run_rows=2 << power if length <= _SHORT else 0,
        dropout=_UNIT_DROPOUT,
    )


def _fields(facts: ModalityFacts, *, few: bool) -> Mapping[str, Any]:
    """Return fields of the recipe for texts alone."""
    encoder = _SMALL_ENCODER if few else {}
    is_linear = few and facts.starts_linear
    latent_dropout = _LATENT_DROPOUT if few else 0.0
    return {
        "optim.lr": _LINEAR_RATE if is_linear else _RATE,
        "training.batch_size": _batch_size(facts.data.rows),
        "output.element_pools": ("mean",),
        "output.standardize_pools": False,
        "training.linear_start": True,
        "output.latent_dropout": latent_dropout,
        **{f"encoder.{name}": value for name, value in encoder.items()},
    }


register_rules("text", choose, adapter=HashedTextInputConfig)
