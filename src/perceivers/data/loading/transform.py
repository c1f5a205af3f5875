"""Raw rows become a batch: each modality is decoded, cut to size and augmented, then put together and mixed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from perceivers.data.base import Batch
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.mixup import mix, mixing_of
from perceivers.data.loading.rng import make_rng, make_rngs
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.modalities.base import (
    HasExtent,
    MissingValueError,
    TooLongError,
    clip_positions,
)
from perceivers.data.modalities.image.pixel_targets import check_alike
from perceivers.data.modalities.registry import build_modalities
from perceivers.data.tables.columns import InputColumn

__all__ = [
    "BadRowError",
    "Sample",
    "SampleRng",
    "SampleTransform",
    "WorkerResult",
    "cell_key",
    "encoded_item_of",
    "guarded",
]

_MOMENT = 1000  # numbers the generator of a row's moment, beyond those of its modalities


@dataclass(frozen=True, slots=True)
class Sample:
    """One row, as far as it can be read alone.

    Attributes:
        clips: For each clip of it, what each modality prepared; None where that is missing.
        target: Class index or vector, None where there is none.
        name: For messages.
    """

    clips: list[dict[str, Any]]
    target: Any
    name: str


@dataclass(frozen=True, slots=True)
class SampleRng:
    """Where the chance of one row comes from.

    Attributes:
        clip_position: Where its clip lies.
        augment: A generator for each modality that is augmented.
    """

    clip_position: float = 0.5
    augment: Mapping[str, np.random.Generator] = field(
        default_factory=dict[str, np.random.Generator]
    )


@dataclass(frozen=True, kw_only=True)
class WorkerResult:
    """What a worker hands to the main process for one plan.

    Attributes:
        batch: The samples. None if not one of its rows could be read.
        num_rows: Rows that were tried.
        bad: Name and reason of each row that failed.
        notes: How often which note on decoding was made, in the first epoch.
        failure: What ended the reading, as type and message: a worker's traceback helps nobody.
        state: Where a stream stands after it, and which worker reads it.
    """

    batch: Batch | None = None
    num_rows: int = 0
    bad: tuple[tuple[str, str], ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    failure: tuple[type[Exception], str] | None = None
    state: tuple[int, dict[str, Any]] | None = None

    def pin_memory(self) -> "WorkerResult":
        """Return the same with tensors in pinned memory. `DataLoader` calls it."""
        if self.batch is None:
            return self
        batch = self.batch.changed(lambda tensor: tensor.pin_memory())
        return WorkerResult(
            batch=batch, num_rows=self.num_rows, bad=self.bad, notes=self.notes, state=self.state
        )


class SampleTransform:
    """Turns raw rows into a batch.

    Args:
        columns: For each input of the model, where it lies in the data.
        preprocess: For each input, its size and statistics.
        augment: For each input, what is random. None in evaluation.
        settings: Seed, clips, and the number of classes for mixing.

    Raises:
        ValueError: If samples are to be mixed and their modalities cannot be, or the number of classes is not known.
    """

    def __init__(
        self,
        columns: Mapping[str, InputColumn],
        preprocess: Mapping[str, Any],
        augment: Mapping[str, Any] | None,
        settings: LoaderSettings,
    ) -> None:
        self.columns = {name: column for name, column in columns.items() if name in preprocess}
        self.augment = dict(augment or {}) if settings.training else {}
        self.modalities = build_modalities(preprocess, self.augment)
        self.settings = settings
        self.mixing = mixing_of(self.augment)
        if self.mixing and settings.num_classes is None:
            msg = "Mixup and CutMix need to know the number of classes; got num_classes=None."
            raise ValueError(msg)
        self.has_clips = any(modality.has_clips for modality in self.modalities.values())
        self.num_clips = settings.num_clips if self.has_clips and not settings.training else 1

    def decode(
        self, row: Mapping[str, Any], *, clip_position: float | None = None
    ) -> tuple[dict[str, Any], str, tuple[str, ...]]:
        """Return what a row holds of each modality (None: missing), its name, and notes on decoding.

        Args:
            row: Raw cells.
            clip_position: Of the clip that is wanted. None: everything is decoded.

        Raises:
            BadRowError: If something cannot be decoded, or nothing is there.
            TooLongError: If all of a recording was asked for, and it is too much for the memory.
            KeyError: If a column is missing.
        """
        values: dict[str, Any] = {}
        notes: list[str] = []
        name, reason = "", ""
        for modality, column in self.columns.items():
            own = None if column.columns else row.get(f"{column.column}:{modality}")
            try:
                media = encoded_item_of(row, column) if own is None else own
            except ValueError as error:
                raise BadRowError(name or f"a row's {column.column}", str(error)) from error
            name = name or media.name
            try:
                decoded = self.modalities[modality].decode(media, clip_position=clip_position)
                values[modality] = decoded.value
                notes += decoded.notes
            except MissingValueError as error:
                if modality in self.settings.answers:
                    raise BadRowError(media.name, str(error)) from error
                values[modality], reason = None, reason or str(error)
                notes.append(f"no {modality}")
            except TooLongError as error:
                if clip_position is None and self.has_clips:  # a clip of it may still be decoded
                    raise
                raise BadRowError(media.name, str(error)) from error
            except ValueError as error:
                raise BadRowError(media.name, str(error)) from error
        answers = self.settings.answers
        if answers and (wrong := check_alike(values, answers)) is not None:
            raise BadRowError(name, f"'{name}': {wrong}")
        if all(value is None for modality, value in values.items() if modality not in answers):
            raise BadRowError(name, reason)
        self._check_extents(values, name)
        return values, name, tuple(notes)

    def _check_extents(self, values: Mapping[str, Any], name: str) -> None:
        """Refuse a row whose answer is not as large as the input that it is cut with.

        Raises:
            BadRowError: If it is not.
        """
        extents = {
            modality: part.extent(value)
            for modality, value in values.items()
            if value is not None and isinstance(part := self.modalities[modality], HasExtent)
        }
        if len(set(extents.values())) > 1:
            told = ", ".join(
                f"{key} {rows} x {columns}" for key, (rows, columns) in extents.items()
            )
            raise BadRowError(
                name, f"'{name}': expected all of a row to have one size, got {told}."
            )

    def chances(self, keys: Sequence[tuple[int, ...]]) -> list[SampleRng]:
        """Return where the chance of each row comes from.

        Args:
            keys: One for each row. They seed the generators, together with the run's seed.
        """
        if not self.settings.training:
            return [SampleRng()] * len(keys)

        def generators(number: int) -> list[np.random.Generator]:
            full = np.array([(self.settings.seed, *key, number) for key in keys], dtype=np.int64)
            return make_rngs("augment", full)

        found: list[dict[str, np.random.Generator]] = [{} for _ in keys]
        names = list(self.columns)
        shown = [place for place, m in enumerate(names) if m not in self.settings.answers]
        for place, modality in enumerate(names):
            # An answer is cut and flipped as what it belongs to.
            number = shown[0] if modality in self.settings.answers and shown else place
            if modality in self.augment:
                for rng, numbers in zip(found, generators(number), strict=True):
                    rng[modality] = numbers
        moments = [0.5] * len(keys)
        if self.has_clips:
            moments = [float(numbers.random()) for numbers in generators(_MOMENT)]
        return [
            SampleRng(clip_position, augment)
            for clip_position, augment in zip(moments, found, strict=True)
        ]

    def sample(
        self, row: Mapping[str, Any], chances: SampleRng, target: Any = None
    ) -> tuple[Sample, tuple[str, ...]]:
        """Return one row as a sample, and notes on decoding. A recording that is too long is decoded clip by clip.

        Args:
            row: Raw cells.
            chances: Of `chances`.
            target: Class index or vector.

        Raises:
            BadRowError: If something cannot be decoded or does not fit the model.
            KeyError: If a column is missing.
        """
        if self.num_clips == 1:
            values, name, notes = self.decode(row, clip_position=chances.clip_position)
            return Sample(self.clips(values, chances, name), target, name), notes
        try:
            values, name, notes = self.decode(row)
            return Sample(self.clips(values, chances, name), target, name), notes
        except TooLongError:
            clips: list[dict[str, Any]] = []
            name, notes = "", ()
            for clip_position in clip_positions(self.num_clips):
                values, name, notes = self.decode(row, clip_position=clip_position)
                clips += self.clips(
                    values, replace(chances, clip_position=clip_position), name, one=True
                )
            return Sample(clips, target, name), notes

    def clips(
        self, values: Mapping[str, Any], chances: SampleRng, name: str, *, one: bool = False
    ) -> list[dict[str, Any]]:
        """Return the clips of one row: for each, what each modality prepares of its values.

        Args:
            values: Of `decode`.
            chances: Of `chances`.
            name: Of the row.
            one: Only the clip at the moment of `chances`.

        Raises:
            BadRowError: If a value does not fit the model: other channels, nothing left of it.
        """
        single = one or self.num_clips == 1
        moments = (chances.clip_position,) if single else clip_positions(self.num_clips)

        def prepared(modality: str, value: Any, clip_position: float) -> Any:
            rng = chances.augment.get(modality)
            return self.modalities[modality].prepare(value, clip_position=clip_position, rng=rng)

        try:
            return [
                {
                    modality: None if value is None else prepared(modality, value, clip_position)
                    for modality, value in values.items()
                }
                for clip_position in moments
            ]
        except ValueError as error:
            raise BadRowError(name, str(error)) from error

    def collate(self, samples: Sequence[Sample], key: tuple[int, ...] = ()) -> Batch | None:
        """Return samples as one normalized, mixed batch. None if there are too few.

        Args:
            samples: With the same number of clips.
            key: Seeds the mixing, together with the run's seed.
        """
        if len(samples) < (2 if self.mixing else 1):
            return None
        clips = [clip for sample in samples for clip in sample.clips]
        inputs: dict[str, torch.Tensor] = {}
        masks: dict[str, torch.Tensor] = {}
        for name in self.columns:
            inputs[name], mask = self.modalities[name].collate([clip[name] for clip in clips])
            if mask is not None:
                masks[name] = mask
        batch = Batch(
            inputs=inputs,
            targets=_targets([sample.target for sample in samples]),
            masks=masks,
            names=tuple(sample.name for sample in samples),
            num_clips=len(samples[0].clips),
        )
        if self.mixing is None:
            return batch
        numbers = make_rng("mix", self.settings.seed, *key)
        return mix(batch, self.mixing, self.settings.num_classes, numbers)


def _targets(targets: Sequence[Any]) -> torch.Tensor | dict[str, torch.Tensor] | None:
    """Return class indices, or vectors, as one tensor, of several tasks one for each; None if a sample has none."""
    if any(target is None for target in targets):
        return None
    if isinstance(targets[0], dict):
        return {name: _stacked([target[name] for target in targets]) for name in targets[0]}
    return _stacked(targets)


def _stacked(targets: Sequence[Any]) -> torch.Tensor:
    if isinstance(targets[0], np.ndarray):
        return torch.from_numpy(np.stack(targets).astype(np.float32))
    return torch.tensor([int(target) for target in targets])


def cell_key(modality: str, column: InputColumn, columns: Mapping[str, InputColumn]) -> str:
    """Return the key of the cell that is read for a modality: its column's, or one of its own.

    The pictures and the sound of a film lie in one column; given apart, or only one of them, each has a key.
    """
    alone = [part.column for part in columns.values()].count(column.column) == 1
    return column.column if alone else f"{column.column}:{modality}"


def encoded_item_of(row: Mapping[str, Any], column: InputColumn) -> EncodedItem:
    """Return the cell of one modality; of several columns, a `EncodedItem` whose value holds the cells by column.

    Raises:
        KeyError: If a column is missing.
        ValueError: If the cell is neither a file nor its bytes nor a value that was recognized: a name that leads
            nowhere, as in a table within an archive.
    """
    if not column.columns:
        cell = row[column.column]
        if not isinstance(cell, EncodedItem):
            msg = (
                f"The column '{column.column}' holds {str(cell)[:60]!r}, which is no {column.kind} and names no file "
                "of these data. Put the file beside the table, or take the row out."
            )
            raise ValueError(msg)
        return cell
    cells: dict[str, Any] = {}
    name = ""
    for part in column.columns:
        cell = row[part]
        if isinstance(cell, EncodedItem):
            name = name or cell.name
            is_file = cell.path is not None or cell.data is not None or cell.array is not None
            cell = cell if is_file else cell.value
        cells[part] = cell
    missing = all(cell is None for cell in cells.values())
    return EncodedItem(name or f"{', '.join(column.columns)}", value=None if missing else cells)


class BadRowError(Exception):
    """A row that is skipped: its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


def guarded(read: Callable[[], WorkerResult]) -> WorkerResult:
    """Return what `read` returns. In a worker, an error in the data or settings becomes `WorkerResult.failure`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except KeyError as error:
        return WorkerResult(failure=(KeyError, str(error.args[0])))
    except TypeError as error:
        return WorkerResult(failure=(TypeError, str(error)))
    except (OSError, ValueError) as error:
        return WorkerResult(failure=(ValueError, str(error)))
