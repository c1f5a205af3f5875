"""An exported model is compared with the model itself, on samples that it would really be given."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from perceivers.data.base import DataConfig, Row
from perceivers.data.encoded_item import as_encoded_item
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleRng,
    SampleTransform,
    cell_key,
)
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.open import open_data
from perceivers.data.tables.columns import InputColumn
from perceivers.exporting.graph import Graph, in_windows
from perceivers.hub.checkpoint import Saved
from perceivers.typing import Tensor

__all__ = ["TOLERANCE", "Difference", "Reference", "Run", "compare", "make_reference"]

TOLERANCE = 1e-4
"""Largest difference of an output of the model."""

COUNT = 4  # samples that are compared
_OWN_UNITS = "values"
_READ_FIRST = ("test", "validation", "train")

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Any]]
"""An exported model: inputs by name -> outputs by name."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Samples and what the model itself says of them.

    Attributes:
        inputs: Of the exported graph, all samples as one batch.
        outputs: Of the model, by name: read, prepared and computed as in prediction.
        told: Which samples they are, in words.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    told: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far an exported model is from the model.

    Attributes:
        largest: Largest absolute difference of an output.
        told: Which samples were compared, in words.
    """

    largest: float
    told: str

    @property
    def fits(self) -> bool:
        """Whether it is small enough."""
        return self.largest <= TOLERANCE


@dataclass
class _Chosen:
    """Decoded samples, until there are enough."""

    values: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    samples: list[Sample] = field(default_factory=list[Sample])


def make_reference(saved: Saved, graph: Graph, samples: Sequence[Any] | None = None) -> Reference:
    """Return what an exported model is compared with. Call it before the graph is exported.

    Args:
        saved: Of which the graph is made.
        graph: What will be exported.
        samples: Paths, dicts of a path for each modality, or `Row`s. None: those that the run can find in its own data,
            else made-up ones.

    Raises:
        ValueError: If one of `samples` cannot be read.
    """
    config = saved.config
    preprocess = {
        name: in_windows(part)
        for name, part in config.preprocess.items()
        if name not in config.answers
    }
    columns = config.input_columns()
    reader = SampleTransform(columns, preprocess, None, LoaderSettings(batch_size=COUNT))
    if samples is not None:
        rows = [_row_of(one, columns) for one in samples]
        chosen = _read(reader, rows, skip=False)
        return _reference(saved, graph, reader, chosen, "given with --samples")
    found = _own_rows(saved)
    if found is not None:
        split, own = found
        chosen = _read(reader, own, skip=True)
        if chosen.samples:
            return _reference(saved, graph, reader, chosen, f"of the run's {split} split")
    inputs = graph.made()
    told = (
        f"{next(iter(inputs.values())).shape[0]} made-up samples, since the run's data are not to be found "
        "(--samples FILE... compares real ones)"
    )
    with torch.inference_mode():
        return Reference(inputs=inputs, outputs=graph(inputs), told=told)


def compare(reference: Reference, run: Run) -> Difference:
    """Return how far an exported model is from what the model says, of all samples at once and of one alone.

    Numbers in their own units are left out: they are the standardized ones times a constant.

    Args:
        reference: Of `make_reference`.
        run: The exported model: inputs by name -> outputs by name.
    """
    one = {name: tensor[:1] for name, tensor in reference.inputs.items()}
    largest = 0.0
    for inputs in (reference.inputs, one):
        with torch.inference_mode():
            got = run(inputs)
        for name, expected in reference.outputs.items():
            if name.endswith(_OWN_UNITS):
                continue
            there = np.asarray(got[name], dtype=np.float64)
            wanted = expected[: there.shape[0]].double().numpy()
            away = np.nan_to_num(np.abs(there - wanted), nan=math.inf)
            largest = max(largest, float(away.max()))
    return Difference(largest=largest, told=reference.told)


def _reference(
    saved: Saved, graph: Graph, reader: SampleTransform, chosen: _Chosen, whence: str
) -> Reference:
    """Return samples with what the model says when they are read as in prediction."""
    batch = reader.collate(chosen.samples)
    assert batch is not None  # nothing is mixed
    each = [graph.arrays(values) for values in chosen.values]
    inputs = {name: torch.cat([one[name] for one in each]) for name in each[0]}
    with torch.inference_mode():
        outputs = saved.model(batch.inputs, batch.masks or None)
    if isinstance(outputs, Tensor) and outputs.ndim > 2:
        outputs = _filled_up(graph, inputs, outputs)
    count = len(chosen.samples)
    told = f"{count} sample{'s' if count > 1 else ''} {whence}"
    return Reference(inputs=inputs, outputs=graph.readable(outputs), told=told)


def _filled_up(graph: Graph, inputs: dict[str, Tensor], outputs: Tensor) -> Tensor:
    """Return an answer for each element of a text also for its padding, where it means nothing."""
    with torch.inference_mode():
        whole = graph(inputs)["logits"].clone()
        whole[:, : outputs.shape[1]] = outputs
    return whole


def _read(reader: SampleTransform, rows: Sequence[Row] | Iterator[Row], *, skip: bool) -> _Chosen:
    """Return the first rows that can be read.

    Raises:
        ValueError: If one cannot be and `skip` is off.
    """
    chosen = _Chosen()
    for row in rows:
        try:
            values, name, _ = reader.decode(row.row, clip_position=0.5)
            clips = reader.clips(values, SampleRng(), name)
        except (BadRowError, ValueError, OSError, KeyError) as error:
            if skip:
                continue
            reason = error.reason if isinstance(error, BadRowError) else str(error)
            raise ValueError(reason) from error
        chosen.values.append(values)
        chosen.samples.append(Sample(clips, None, name))
        if skip and len(chosen.samples) == COUNT:
            break
    return chosen


@dataclass(frozen=True)
class _Named:
    name: str
    row: Mapping[str, Any]


def _own_rows(saved: Saved) -> tuple[str, Iterator[Row]] | None:
    """Return a split of the data that a run learned from and some of its rows; None if it is not there any more."""
    told = saved.config.columns
    data = told.get("data")
    if data is None:
        return None
    try:
        config = replace(DataConfig(**told.get("config", {})), stream=False)
        source = open_data(data, config, inputs=saved.config.input_columns())
        split = next(name for name in _READ_FIRST if name in source.splits)
        return split, _rows(source, split)
    except (ValueError, OSError, KeyError, TypeError, ImportError, RuntimeError, StopIteration):
        return None


def _rows(source: DatasetBundle, split: str) -> Iterator[Row]:
    records = source.splits[split]
    # Far apart, so that they are of several classes; more than needed, since some may not be read.
    for place in np.linspace(0, len(records) - 1, min(4 * COUNT, len(records))).astype(int)[::-1]:
        yield _Named(f"row {place}", records.row(int(place)))


def _row_of(item: Any, columns: Mapping[str, InputColumn]) -> Row:
    """Return one sample that was given, as a row.

    Raises:
        ValueError: If it does not say of which modality it is.
    """
    given: dict[str, Any]
    if isinstance(item, Mapping):
        given = dict(cast("Mapping[str, Any]", item))
    elif not isinstance(item, str | Path) and isinstance(item, Row):
        return item
    elif len({part.all_columns for part in columns.values()}) > 1:
        msg = f"Expected samples to be dicts of {', '.join(columns)}, got {item!r}."
        raise ValueError(msg)
    else:
        given = {next(iter(columns.values())).column: item}
    row: dict[str, Any] = {}
    for modality, part in columns.items():
        if part.columns:
            inside = given.get(modality, given)
            row |= {column: inside.get(column) for column in part.columns}
            continue
        cell = given.get(modality, given.get(part.column))
        path = Path(cell) if isinstance(cell, str | Path) and part.kind != "text" else cell
        media = as_encoded_item(
            path, modality, Path(), kind=part.kind, by_path=isinstance(path, Path)
        )
        row[cell_key(modality, part, columns) if modality in given else part.column] = media
    return _Named("sample", row)
