"""Transform of raw rows into a batch: decode, cut and augment each modality, then collate and mix."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from perceivers.data.base import Batch, MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.mixup import mix, mixing_of
from perceivers.data.loading.rng import make_rng, make_rngs
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.modalities.base import (
    HasExtent,
    MissingValueError,
    TooLongError,
    clip_positions,
    error_reason,
)
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.modalities.image.modality import check_alike
from perceivers.data.modalities.registry import build_modalities
from perceivers.data.registry import get_modality
from perceivers.data.tables.columns import InputColumn

_CLIP_KEY = 1000  # key of the generator of clip positions, beyond those of the modalities


@dataclass(frozen=True, slots=True)
class Sample:
    """One transformed row.

    Attributes:
        clips: For each clip, the prepared value of each modality; None if it is missing.
        target: Class index or vector, None without one.
        name: Name of the row in messages.
    """

    clips: list[dict[str, Any]]
    target: Any
    name: str


@dataclass(frozen=True, slots=True)
class SampleRng:
    """Random state of one row.

    Attributes:
        clip_position: Position of its clip: 0 the first possible, 1 the last.
        augment: Generator of each augmented modality.
    """

    clip_position: float = 0.5
    augment: Mapping[str, np.random.Generator] = field(
        default_factory=dict[str, np.random.Generator]
    )


@dataclass(frozen=True, kw_only=True)
class WorkerResult:
    """Result of one batch, sent from a worker to the main process.

    Attributes:
        batch: The samples. None if no row could be read.
        num_rows: Number of rows that were tried.
        bad: Name and reason of each bad row.
        notes: Counts of notes on decoding, in the first epoch.
        failure: Type and message of an error that ends the run, without the worker's traceback.
        state: Number of the worker and state of its stream after the batch.
    """

    batch: Batch | None = None
    num_rows: int = 0
    bad: tuple[tuple[str, str], ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    failure: tuple[type[Exception], str] | None = None
    state: tuple[int, dict[str, Any]] | None = None

    def pin_memory(self) -> "WorkerResult":
        """Return the result with its tensors in pinned memory. `DataLoader` calls it."""
        if self.batch is None:
            return self
        return replace(self, batch=self.batch.changed(lambda tensor: tensor.pin_memory()))


class SampleTransform:
    """Turns raw rows into batches.

    Arguments are those of `make_loader`.

    Raises:
        ValueError: If samples are to be mixed and a modality cannot be, or the number of classes is unknown.
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
            raise ValueError(
                "Mixup and CutMix need to know the number of classes; got num_classes=None."
            )
        self.has_clips = any(modality.has_clips for modality in self.modalities.values())
        self.num_clips = settings.num_clips if self.has_clips and not settings.training else 1

    def read_batch(
        self,
        rows: Sequence[Any],
        keys: Sequence[tuple[int, ...]],
        read: Callable[[Any, SampleRng], tuple[Sample, tuple[str, ...]]],
        key: tuple[int, ...],
    ) -> WorkerResult:
        """Return rows as a batch, with its bad rows; notes are counted in the first epoch.

        Args:
            rows: Indices or raw cells.
            keys: Key of each row's random state; the first number is the epoch.
            read: Returns a row as a sample, and notes; raises BadRowError.
            key: Key of the batch's random state.
        """
        samples: list[Sample] = []
        numbers: list[int] = []
        bad: list[tuple[str, str]] = []
        notes: Counter[str] = Counter()
        with quiet_pillow:
            for row, rng in zip(rows, self.rngs(keys), strict=True):
                try:
                    sample, found = read(row, rng)
                except BadRowError as error:
                    bad.append((error.name, error.reason))
                    continue
                samples.append(sample)
                numbers += [row] if isinstance(row, int) else []
                if key[0] == 0:
                    notes.update(found)
        batch = self.collate(samples, key)
        if batch is not None and len(numbers) == len(batch):
            batch = replace(batch, rows=tuple(numbers))
        return WorkerResult(batch=batch, num_rows=len(rows), bad=tuple(bad), notes=dict(notes))

    def decode(
        self, row: Mapping[str, Any], *, clip_position: float | None = None
    ) -> tuple[dict[str, Any], str, tuple[str, ...]]:
        """Return the decoded value of each modality (None: missing), the name of the row, and notes on decoding.

        Args:
            row: Raw cells.
            clip_position: Position of the only clip that is needed. None: everything is decoded.

        Raises:
            BadRowError: If a cell cannot be decoded, or all inputs or a target are missing.
            TooLongError: If everything is to be decoded and does not fit in memory.
            KeyError: If a column is missing.
        """
        targets = self.settings.target_modalities
        values: dict[str, Any] = {}
        notes: list[str] = []
        name, reason = "", ""
        for modality, column in self.columns.items():
            item = None if column.columns else row.get(f"{column.column}:{modality}")
            try:
                item = encoded_item_of(row, column) if item is None else item
            except ValueError as error:
                raise BadRowError(name or f"a row's {column.column}", str(error)) from error
            name = name or item.name
            try:
                decoded = self.modalities[modality].decode(item, clip_position=clip_position)
                values[modality] = decoded.value
                notes += decoded.notes
            except MissingValueError as error:
                if modality in targets:
                    raise BadRowError(item.name, str(error)) from error
                values[modality], reason = None, reason or str(error)
                notes.append(f"no {modality}")
            except TooLongError as error:
                if clip_position is None and self.has_clips:  # a clip of it may still be decoded
                    raise
                raise BadRowError(item.name, str(error)) from error
            except ImportError:  # concerns every row
                raise
            except Exception as error:
                raise BadRowError(item.name, error_reason(item.name, error)) from error
        if targets and (wrong := check_alike(values, targets)) is not None:
            raise BadRowError(name, f"'{name}': {wrong}")
        if all(value is None for modality, value in values.items() if modality not in targets):
            raise BadRowError(name, reason)
        self._check_extents(values, name)
        return values, name, tuple(notes)

    def _check_extents(self, values: Mapping[str, Any], name: str) -> None:
        """Refuse a row with images, flow or masks of different sizes, which are cropped together."""
        extents = {
            modality: part.extent(value)
            for modality, value in values.items()
            if value is not None and isinstance(part := self.modalities[modality], HasExtent)
        }
        if len(set(extents.values())) > 1:
            sizes = ", ".join(
                f"{key} {rows} x {columns}" for key, (rows, columns) in extents.items()
            )
            reason = f"'{name}': expected all of a row to have one size, got {sizes}."
            raise BadRowError(name, reason)

    def rngs(self, keys: Sequence[tuple[int, ...]]) -> list[SampleRng]:
        """Return the random state of each row; the keys, one per row, and the run's seed seed the generators."""
        if not self.settings.training:
            return [SampleRng()] * len(keys)

        def generators(number: int) -> list[np.random.Generator]:
            full = np.array([(self.settings.seed, *key, number) for key in keys], dtype=np.int64)
            return make_rngs("augment", full)

        augment: list[dict[str, np.random.Generator]] = [{} for _ in keys]
        targets, names = self.settings.target_modalities, list(self.columns)
        inputs = [number for number, modality in enumerate(names) if modality not in targets]
        for number, modality in enumerate(names):
            if modality in self.augment:
                # A target is cropped and flipped like its input.
                shared = inputs[0] if modality in targets and inputs else number
                for of_row, generator in zip(augment, generators(shared), strict=True):
                    of_row[modality] = generator
        positions = [0.5] * len(keys)
        if self.has_clips:
            positions = [float(generator.random()) for generator in generators(_CLIP_KEY)]
        return [SampleRng(*state) for state in zip(positions, augment, strict=True)]

    def sample(
        self, row: Mapping[str, Any], rng: SampleRng, target: Any = None
    ) -> tuple[Sample, tuple[str, ...]]:
        """Return one row as a sample, and notes on decoding. Too long series, audio or video is decoded clip by clip.

        Raises:
            BadRowError: If a cell cannot be decoded or does not fit the model.
            KeyError: If a column is missing.
        """
        try:
            position = rng.clip_position if self.num_clips == 1 else None
            values, name, notes = self.decode(row, clip_position=position)
            return Sample(self.clips(values, rng, name), target, name), notes
        except TooLongError:
            clips: list[dict[str, Any]] = []
            name, notes = "", ()
            for position in clip_positions(self.num_clips):
                values, name, notes = self.decode(row, clip_position=position)
                clips += self.clips(values, replace(rng, clip_position=position), name, one=True)
            return Sample(clips, target, name), notes

    def clips(
        self, values: Mapping[str, Any], rng: SampleRng, name: str, *, one: bool = False
    ) -> list[dict[str, Any]]:
        """Return the prepared value of each modality, for each clip of a row, or only for the clip of `rng`.

        Raises:
            BadRowError: If a value does not fit the model, such as another number of channels.
        """
        single = one or self.num_clips == 1
        positions = (rng.clip_position,) if single else clip_positions(self.num_clips)

        def prepared(modality: str, value: Any, position: float) -> Any:
            generator = rng.augment.get(modality)
            return self.modalities[modality].transform(value, clip_position=position, rng=generator)

        try:
            return [
                {
                    modality: None if value is None else prepared(modality, value, position)
                    for modality, value in values.items()
                }
                for position in positions
            ]
        except ImportError:
            raise
        except Exception as error:
            raise BadRowError(name, error_reason(name, error)) from error

    def collate(self, samples: Sequence[Sample], key: tuple[int, ...] = ()) -> Batch | None:
        """Return samples as one normalized batch, mixed with a generator of this key. None if there are too few."""
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
            targets=_stack_targets([sample.target for sample in samples]),
            masks=masks,
            names=tuple(sample.name for sample in samples),
            num_clips=len(samples[0].clips),
        )
        if self.mixing is None:
            return batch
        generator = make_rng("mix", self.settings.seed, *key)
        return mix(batch, self.mixing, self.settings.num_classes, generator)


def _stack_targets(targets: Sequence[Any]) -> torch.Tensor | dict[str, torch.Tensor] | None:
    """Return class indices or vectors as one tensor (of several tasks, one each); None if a sample has no target."""
    if any(target is None for target in targets):
        return None
    if isinstance(targets[0], dict):
        return {name: _stacked([target[name] for target in targets]) for name in targets[0]}
    return _stacked(targets)


def _stacked(targets: Sequence[Any]) -> torch.Tensor:
    if isinstance(targets[0], np.ndarray):
        return torch.from_numpy(np.stack(targets).astype(np.float32))
    return torch.tensor([int(target) for target in targets])


def encoded_item_of(row: Mapping[str, Any], column: InputColumn) -> EncodedItem:
    """Return the cell of one modality; of several columns, an item whose value holds the cells by column.

    Raises:
        KeyError: If a column is missing.
        ValueError: If the cell is neither encoded nor a recognized value, such as a file name in a table inside an
            archive.
    """
    if not column.columns:
        cell = row[column.column]
        value = cell.value if isinstance(cell, EncodedItem) else cell
        is_name = isinstance(value, str) and get_modality(column.kind).magic is not None
        if is_name or not isinstance(cell, EncodedItem):
            raise ValueError(
                f"The column '{column.column}' holds {str(value)[:60]!r}, which is no {column.kind} and names no file "
                "of these data. Put the file beside the table, or take the row out."
            )
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
    name = name or getattr(row, "where", "")
    return EncodedItem(name or ", ".join(column.columns), value=None if missing else cells)


def sample_cells(
    records: MapStyleSplit, column: InputColumn, count: int | None
) -> Iterator[EncodedItem]:
    """Yield cells of a modality of evenly spaced rows, in an order that mixes the classes, without unreadable ones.

    Args:
        records: The training split.
        column: Where the modality lies.
        count: Number of rows. None: all rows in their order, for columns of plain values.
    """
    if count is None:
        names = column.all_columns
        for cells in zip(*(records.column(name) for name in names), strict=True):
            yield EncodedItem("train", value=dict(zip(names, cells, strict=True)))
        return
    indices = np.unique(np.linspace(0, max(len(records) - 1, 0), count).round().astype(int))
    for index in np.random.default_rng(0).permutation(indices[: len(records)]):
        try:
            media = encoded_item_of(records.row(int(index)), column)
        except (ImportError, KeyError):  # a missing column
            raise
        except Exception:  # named and counted in training
            continue
        if not media.is_missing:
            yield media


class BadRowError(Exception):
    """A row that is skipped, with its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


def guarded(read: Callable[[], WorkerResult]) -> WorkerResult:
    """Return the result of `read`. In a worker, errors in the data or settings become `WorkerResult.failure`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except KeyError as error:
        return WorkerResult(failure=(KeyError, str(error.args[0])))
    except (TypeError, ImportError) as error:
        return WorkerResult(failure=(type(error), str(error)))
    except (OSError, ValueError) as error:
        return WorkerResult(failure=(ValueError, str(error)))
