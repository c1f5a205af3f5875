"""Rows of the splits of a run as the model sees them, kept in the form of which features are made."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from perceivers.baselines.views import Array, features_of
from perceivers.data.base import Batch
from perceivers.data.loading.loader import MapDataset
from perceivers.data.loading.sampler import BatchPlan, LoaderSettings
from perceivers.data.loading.stream_loader import make_stream_loader
from perceivers.data.loading.transform import SampleTransform
from perceivers.data.registry import find_modality
from perceivers.recipes.resolve import ResolvedRun

_BATCH = 32
_BYTES = 600 * 2**20  # of the kept values of a split


@dataclass
class ReadRows:
    """Kept values and targets of some rows.

    Attributes:
        kept: Values of each modality, see `Features.collect`.
        batches: Targets of each batch.
        numbers: Number of each row in its split. Empty: it is streamed.
        names: Name of the group of each row. Empty: there are no groups.
        count: Number of rows.
        size: Bytes of `kept`.
    """

    kept: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    batches: list[Any] = field(default_factory=list[Any])
    numbers: list[int] = field(default_factory=list[int])
    names: list[str] = field(default_factory=list[str])
    count: int = 0
    size: int = 0

    @property
    def targets(self) -> Any:
        """Targets of all rows; of several tasks, those of each."""
        if isinstance(self.batches[0], dict):
            names = self.batches[0]
            return {name: torch.cat([one[name] for one in self.batches]) for name in names}
        return torch.cat(self.batches)

    @property
    def groups(self) -> Array | None:
        """Group of each row, or None without groups."""
        return np.array(self.names) if self.names else None


class RowReader:
    """Reads rows of the splits of a run without augmentation, in this process.

    Args:
        run: The run.
        datasets: Data sets of its splits, whose caches of decoded values are used.
    """

    def __init__(self, run: ResolvedRun, datasets: Mapping[str, MapDataset]) -> None:
        self.run = run
        self.data = run.data
        self.datasets = datasets
        self.settings = LoaderSettings(batch_size=_BATCH, max_bad=1.0)

    def num_rows(self, splits: Sequence[str]) -> int | None:
        """Return the number of rows of splits; None if they are streamed."""
        return None if self.data.streams else sum(len(self.data.splits[one]) for one in splits)

    def read(self, splits: Sequence[str], *, most: int, deadline: float) -> ReadRows:
        """Return rows of splits in a fixed random order, until there are enough or the time is over.

        Raises:
            ValueError: If no row can be read.
        """
        rows = ReadRows()
        batches = self._streamed(splits) if self.data.streams else self.batches(splits)
        for batch, groups in batches:
            self._keep(rows, batch)
            rows.names += groups
            if rows.count >= most or rows.size > _BYTES or time.monotonic() > deadline:
                break
        if not rows.count:
            raise ValueError(f"no row of {' and '.join(splits)} can be read.")
        return rows

    def _keep(self, rows: ReadRows, batch: Batch) -> None:
        for name, values in batch.inputs.items():
            config = self.run.preprocess[name]
            mask = batch.masks.get(name)
            features = features_of(find_modality(config).name)
            kept = features.collect(values.numpy(), None if mask is None else mask.numpy(), config)
            rows.kept.setdefault(name, []).extend(kept)
            rows.size += sum(getattr(one, "nbytes", None) or len(one or ()) for one in kept)
        rows.batches.append(batch.targets)
        rows.numbers += batch.rows
        rows.count += len(batch)

    def batches(self, splits: Sequence[str]) -> Iterator[tuple[Batch, list[str]]]:
        """Yield batches and the groups of their rows; each batch is of one split."""
        transform = SampleTransform(self.data.inputs, self.run.preprocess, None, self.settings)
        parts: list[MapDataset] = []
        for name in splits:
            known = self.datasets.get(name)
            caches = (None, None) if known is None else (known.images, known.samples)
            targets = self.data.targets(name)
            parts.append(MapDataset(self.data.splits[name], targets, transform, *caches))
        ends = np.cumsum([len(one) for one in parts])
        order = np.random.default_rng(0).permutation(ends[-1])
        column = self.run.recipe.data.group
        groups = [] if column is None else [part.split.column(column) for part in parts]
        for first in range(0, len(order), _BATCH):
            chunk = order[first : first + _BATCH]
            of = np.searchsorted(ends, chunk, side="right")
            for number in np.unique(of):
                indices = chunk[of == number] - (ends[number] - len(parts[number]))
                batch = parts[number][BatchPlan(1, 0, indices)].batch
                if batch is not None:
                    yield batch, [str(groups[number][row]) for row in batch.rows] if groups else []

    def _streamed(self, splits: Sequence[str]) -> Iterator[tuple[Batch, list[str]]]:
        for name in splits:
            loader = make_stream_loader(
                self.data.streams[name].shuffled(self.run.recipe.data.shuffle_buffer, 0),
                self.data.inputs,
                self.data.target,
                preprocess=self.run.preprocess,
                augment=None,
                settings=self.settings,
            )
            for batch in loader:
                yield batch, []
