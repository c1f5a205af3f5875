"""Tables as a modality: numbers and categories of a row, each field one element."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from numbers import Real
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import (
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    MissingValueError,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    register_modality,
)
from perceivers.data.tables.numbers import LARGEST_NUMBER, NumberFormat
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

MOST_CATEGORIES = 1000
"""Different values of a field above which it is a name of the row, and no category."""

Values = npt.NDArray[np.float32]
_CODE = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d+)?([eE][-+]?\d+)?")


@configclass
class TablePreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a row's cells into the model's numbers. Saved with the model.

    Attributes:
        numbers: Columns that hold numbers, in the model's order.
        categories: Columns that hold one of some names, and these names as train has them. They follow the numbers.
        means: Subtracted from each number.
        stds: Each number is divided by it after that.

    Raises:
        ValueError: If a column is named twice, or means and stds do not fit the numbers.
    """

    kind: Literal["table"] = "table"
    numbers: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    means: tuple[float, ...] | None = None
    stds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        columns = (*self.numbers, *self.categories)
        if len(set(columns)) < len(columns):
            raise ValueError(
                f"Expected every column once, as a number or as a category, got {', '.join(columns)}."
            )
        for numbers in (self.means, self.stds):
            if numbers is not None and len(numbers) != len(self.numbers):
                raise ValueError(
                    f"Expected means and stds of a number for each of the columns {self.numbers}, got "
                    f"means={self.means} and stds={self.stds}."
                )
        if self.stds is not None and min(self.stds, default=1.0) <= 0:
            raise ValueError(f"Expected stds above zero, got {self.stds}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns in the order of the model's elements."""
        return (*self.numbers, *self.categories)

    def measure(self, cells: CellSampler) -> "TablePreprocessConfig":
        """Return the configuration with columns, categories and statistics taken from all rows.

        A category that is not seen is unknown ever after.
        """
        return measure_table(cells(None), self)

    def from_columns(self, kinds: Mapping[str, str]) -> "TablePreprocessConfig":
        """Return the configuration with the columns that are declared as numbers and as categories."""
        known = set(self.columns)
        numbers = [c for c, kind in kinds.items() if kind == "number" and c not in known]
        categories = [c for c, kind in kinds.items() if kind == "category" and c not in known]
        return replace(
            self,
            numbers=(*self.numbers, *numbers),
            categories={**self.categories, **dict.fromkeys(categories, ())},
            means=None if numbers else self.means,
            stds=None if numbers else self.stds,
        )

    def constants(self, media: EncodedItem) -> dict[str, Any]:
        """Return the cells of a row."""
        return dict(_cells(media, self.columns))

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"numbers": ("a", "b"), "categories": {"c": ("d", "e")}}

    def input_fields(self) -> dict[str, Any]:
        """Return the number of numbers and the sizes of the categories."""
        sizes = tuple(len(names) for names in self.categories.values())
        return {"num_numbers": len(self.numbers), "category_sizes": sizes}

    def form_fields(self) -> dict[str, tuple[str, ...] | None]:
        """Return the numbers and the categories of a row."""
        return {**dict.fromkeys(self.numbers), **self.categories}


@configclass
class TableAugmentConfig:
    """Augmentation of a row in training.

    Attributes:
        noise: Standard deviation of what is added to every number, in units of its own deviation.
        drop: Probability that a field is hidden; one always stays.

    Raises:
        ValueError: If a number is out of range.
    """

    kind: Literal["table"] = "table"
    noise: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0 or not 0 <= self.drop < 1:
            raise ValueError(
                f"Expected noise of zero or more and drop in [0, 1), got {self.noise} and {self.drop}."
            )


def numbers_and_names(values: Values, preprocess: TablePreprocessConfig) -> Values:
    """Return numbers as they are, and for each category 1 at the place of its name, B x F; NaN is a missing field."""
    count = len(preprocess.numbers)
    parts = [values[:, :count]]
    for column, names in enumerate(preprocess.categories.values(), start=count):
        parts.append(values[:, column, None] == np.arange(len(names)))
    return np.concatenate(parts, axis=1).astype(np.float32)


class TableModality:
    """Reads rows of numbers and categories.

    A sample is F of float32, first the numbers (normalized), then the categories (their index); a field that is
    missing is NaN until it is put into a batch.

    Raises:
        ValueError: If there is no column, or the names of a category are not known yet.
    """

    has_clips: bool = False

    def __init__(
        self, preprocess: TablePreprocessConfig, augment: TableAugmentConfig | None = None
    ) -> None:
        unknown = [column for column, names in preprocess.categories.items() if not names]
        if not preprocess.columns or unknown:
            stated = f"no names for {', '.join(unknown)}" if unknown else "no column"
            raise ValueError(
                f"Expected columns of numbers and the names of every category, got {stated}. Measure them with "
                "measure_table, or state them."
            )
        self.preprocess = preprocess
        self.augment = augment
        count = len(preprocess.numbers)
        self._means = np.array(preprocess.means or [0.0] * count)
        self._stds = np.array(preprocess.stds or [1.0] * count)
        self._places = [
            (column, {name: place for place, name in enumerate(names)})
            for column, names in preprocess.categories.items()
        ]

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return the fields of a row: F of float32, NaN where one is missing."""
        cells = _cells(media, self.preprocess.columns)
        notes: list[str] = []
        numbers = [_number(media.name, name, cells.get(name)) for name in self.preprocess.numbers]
        normalized = (np.array(numbers, dtype=np.float64) - self._means) / self._stds
        indices: list[float] = []
        for column, places in self._places:
            name = _name(cells.get(column))
            if name is not None and name not in places:
                notes.append("unknown category")
            indices.append(math.nan if name is None else places.get(name, math.nan))
        values = np.array([*normalized, *indices], dtype=np.float32)
        if np.isnan(values).all() and not notes:
            raise MissingValueError(
                f"'{media.name}' is empty: none of {', '.join(self.preprocess.columns)} holds anything."
            )
        return DecodedValue(values, tuple(dict.fromkeys(notes)))

    def transform(
        self,
        value: Any,
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> Values:
        """Return the fields as the model sees them: F of float32, NaN where one is missing or hidden."""
        values: Values = value
        if self.augment is None or rng is None:
            return values
        values = values.copy()
        count = len(self.preprocess.numbers)
        if self.augment.noise:
            values[:count] += self.augment.noise * rng.standard_normal(count, dtype=np.float32)
        if self.augment.drop:
            there = np.flatnonzero(~np.isnan(values))
            hidden = there[rng.random(there.shape[0]) < self.augment.drop]
            if len(hidden) == len(there) > 0:
                hidden = np.delete(hidden, rng.integers(len(hidden)))
            values[hidden] = np.nan
        return values

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B F"], Bool[Tensor, "B F"] | None]:
        """Return rows as B x F with zeros where a field is missing, and which fields are there."""
        nothing = np.full(len(self.preprocess.columns), np.nan, dtype=np.float32)
        stacked = np.stack([nothing if sample is None else sample for sample in samples])
        missing = np.isnan(stacked)
        if not missing.any():
            return torch.from_numpy(stacked), None
        stacked[missing] = 0.0
        return torch.from_numpy(stacked), torch.from_numpy(~missing)


def measure_table(
    cells: Iterable[EncodedItem], config: TablePreprocessConfig
) -> TablePreprocessConfig:
    """Return the configuration with open fields taken from rows.

    Columns that the configuration does not name are added: as numbers where every cell is one, else as
    categories. So are the names of a category that has none, sorted, and means and deviations of the numbers. Cells
    of numbers that are none are left out; their rows are bad in training.

    Raises:
        ValueError: If there are no rows, a column of numbers has none, or a category has more than 1,000 names.
    """
    rows = [(media.name, _cells(media, config.columns)) for media in cells if not media.is_missing]
    columns = dict.fromkeys(column for _, row in rows for column in row)
    if not columns:
        raise ValueError("Numbers and categories cannot be measured, since there are no rows.")
    numbers, categories = list(config.numbers), dict(config.categories)
    for column in columns:
        if column not in config.columns:
            if all(_is_number(row.get(column)) for _, row in rows):
                numbers.append(column)
            else:
                categories[column] = ()
    for column, names in categories.items():
        if not names:
            categories[column] = _names(column, [row.get(column) for _, row in rows])
    values = np.array([[_known_number(row.get(c)) for c in numbers] for _, row in rows])
    there = ~np.isnan(values)
    for place, column in enumerate(numbers):
        if not there[:, place].any():  # raises the error of the first cell that is no number
            for name, row in rows:
                _number(name, column, row.get(column))
    counts = np.maximum(there.sum(axis=0), 1)
    means = np.where(there, values, 0.0).sum(axis=0) / counts
    stds = np.sqrt(np.where(there, np.square(values - means), 0.0).sum(axis=0) / counts)
    stds = np.where(stds > 1e-9 * np.maximum(np.abs(means), 1e-9), stds, 1.0)  # constant columns
    return replace(
        config,
        numbers=tuple(numbers),
        categories=categories,
        means=config.means or tuple(float(f"{mean:.9g}") for mean in means),
        stds=config.stds or tuple(float(f"{std:.9g}") for std in stds),
    )


def _cells(media: EncodedItem, columns: Sequence[str]) -> Mapping[str, Any]:
    """Return the cells of a row by column."""
    if media.is_missing:
        raise MissingValueError(
            f"'{media.name}' is empty: expected numbers and categories, got no cell."
        )
    value = media.value
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    if len(columns) == 1 and isinstance(value, str | Real):
        return {columns[0]: value}
    raise ValueError(
        f"'{media.name}': expected a cell for each of {', '.join(columns) or 'the columns'}, got {value!r:.60}."
    )


def _is_empty(cell: Any) -> bool:
    return (
        cell is None
        or (isinstance(cell, str) and not cell.strip())
        or (isinstance(cell, float | np.floating) and math.isnan(cell))
    )


def _is_number(cell: Any) -> bool:
    return _is_empty(cell) or isinstance(cell, Real | np.bool_)


def _known_number(cell: Any) -> float:
    """Return a cell as a number, NaN where it is empty or no number."""
    try:
        return _number("", "", cell)
    except ValueError:
        return math.nan


def _number(name: str, column: str, cell: Any) -> float:
    """Return a cell as a number, NaN where it is empty."""
    if _is_empty(cell):
        return math.nan
    try:
        number = NumberFormat().parse(cell) if isinstance(cell, str) else float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if number is None:
        return math.nan
    if not abs(number) <= LARGEST_NUMBER:
        raise ValueError(
            f"'{name}', column '{column}': expected a number from -{LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}, got "
            f"{cell!r:.40}. Leave the cell empty where the "
            f"number is not known, or read the column as names with --columns {column}:category."
        )
    return float(number)


def _name(cell: Any) -> str | None:
    """Return a cell as the name of a category, None where it is empty.

    Codes have one name however they are stored: 1, 1.0 and the text "1.0" are `1`; 007 is a name.
    """
    if _is_empty(cell):
        return None
    name = str(cell).strip()
    if isinstance(cell, bool | np.bool_) or _CODE.fullmatch(name) is None:
        return name
    number = float(name)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def _names(column: str, cells: Sequence[Any]) -> tuple[str, ...]:
    names = sorted({name for name in map(_name, cells) if name is not None})
    if not 0 < len(names) <= MOST_CATEGORIES:
        raise ValueError(
            f"Column '{column}' has {len(names):,} different values; expected from 1 to {MOST_CATEGORIES:,} names of a "
            "category. Leave the column out, or read it as text."
        )
    return tuple(names)


def _default(_: OwnDataSize) -> tuple[TablePreprocessConfig, TableAugmentConfig]:
    return TablePreprocessConfig(), TableAugmentConfig(noise=0.05, drop=0.1)


register_modality(
    ModalitySpec(
        name="table",
        noun="numbers and categories",
        preprocessing=(Preprocessing(TablePreprocessConfig, TableModality, _default),),
        augment=TableAugmentConfig,
        column_kinds={
            "number": ColumnKind("numbers"),
            "category": ColumnKind("categories", stored_as=("text", "number")),
        },
    )
)
