"""One plan becomes one batch: rows are read, decoded, augmented, stacked and mixed. Runs in the workers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from perceivers.data.augment import augment_pixels
from perceivers.data.base import Batch, ImageAugmentConfig, ImagePreprocessConfig, Records
from perceivers.data.cache import PictureCache
from perceivers.data.decode import Decoded, decode, quiet_pillow
from perceivers.data.images import Pixels, as_pixels, normalize_pixels, preprocess_pixels
from perceivers.data.mixing import mix, mixes
from perceivers.data.order import LoaderSettings, Plan
from perceivers.data.seeds import random_numbers, random_numbers_of_each

__all__ = ["Read", "Reader", "RecordsReader", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One decoded row.

    Attributes:
        pixels: For each input, Y x X x C of uint8.
        target: Class index, None where there is none.
        name: For messages.
    """

    pixels: dict[str, Pixels]
    target: int | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Read:
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

    def pin_memory(self) -> "Read":
        """Return the same with tensors in pinned memory. `DataLoader` calls it."""
        if self.batch is None:
            return self
        batch = Batch(
            inputs={name: values.pin_memory() for name, values in self.batch.inputs.items()},
            targets=None if self.batch.targets is None else self.batch.targets.pin_memory(),
            masks={name: mask.pin_memory() for name, mask in self.batch.masks.items()},
            names=self.batch.names,
        )
        return Read(
            batch=batch, num_rows=self.num_rows, bad=self.bad, notes=self.notes, state=self.state
        )


class Reader:
    """Turns raw rows into a batch.

    Args:
        columns: For each input of the model, the column that holds it.
        preprocess: For each input, size and statistics.
        augment: For each input, what is random. None in evaluation.
        settings: Seed, and the number of classes for mixing.

    Raises:
        ValueError: If pictures are to be mixed and the number of classes is not given.
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        preprocess: Mapping[str, ImagePreprocessConfig],
        augment: Mapping[str, ImageAugmentConfig] | None,
        settings: LoaderSettings,
    ) -> None:
        self.columns = dict(columns)
        self.preprocess = dict(preprocess)
        self.augment = dict(augment or {}) if settings.training else {}
        self.settings = settings
        self.mixing = next((config for config in self.augment.values() if mixes(config)), None)
        if self.mixing and settings.num_classes is None:
            msg = "Mixup and CutMix need to know the number of classes; got num_classes=None."
            raise ValueError(msg)

    def decode(self, row: Mapping[str, Any]) -> tuple[dict[str, Decoded], str]:
        """Return the pictures of a row, and the name of the first.

        Args:
            row: Raw cells.

        Raises:
            BadRowError: If a picture cannot be decoded.
            KeyError: If a column is missing.
        """
        pictures: dict[str, Decoded] = {}
        name = ""
        for modality, column in self.columns.items():
            media = row[column]
            name = name or media.name
            try:
                channels = self.preprocess[modality].num_channels
                pictures[modality] = decode(media, num_channels=channels)
            except ValueError as error:
                raise BadRowError(media.name, str(error)) from error
        return pictures, name

    def chances(self, keys: Sequence[tuple[int, ...]]) -> list[dict[str, np.random.Generator]]:
        """Return, for each row, a generator for each input that is augmented.

        Args:
            keys: One for each row. They seed the generators, together with the run's seed.
        """
        found: list[dict[str, np.random.Generator]] = [{} for _ in keys]
        for number, modality in enumerate(self.columns):
            if modality in self.augment:
                full = np.array(
                    [(self.settings.seed, *key, number) for key in keys], dtype=np.int64
                )
                for chance, numbers in zip(
                    found, random_numbers_of_each("augment", full), strict=True
                ):
                    chance[modality] = numbers
        return found

    def transform(
        self, images: Mapping[str, Image.Image], chance: Mapping[str, np.random.Generator]
    ) -> dict[str, Pixels]:
        """Return pictures cropped and resized, augmented in training.

        Args:
            images: For each input, its picture.
            chance: For each input that is augmented, where its chance comes from; see `chances`.
        """
        pixels: dict[str, Pixels] = {}
        for modality, image in images.items():
            config = self.preprocess[modality]
            if modality in chance:
                augment = self.augment[modality]
                pixels[modality] = augment_pixels(image, augment, config, chance[modality])
            else:
                pixels[modality] = preprocess_pixels(image, config)
        return pixels

    def collate(self, samples: Sequence[Sample], key: tuple[int, ...]) -> Batch | None:
        """Return samples as one normalized, mixed batch. None if there are too few.

        Args:
            samples: Of one shape.
            key: Seeds the mixing, together with the run's seed.
        """
        if len(samples) < (2 if self.mixing else 1):
            return None
        inputs = {
            modality: normalize_pixels(
                torch.from_numpy(np.stack([sample.pixels[modality] for sample in samples])), config
            )
            for modality, config in self.preprocess.items()
            if modality in self.columns
        }
        targets = [sample.target for sample in samples if sample.target is not None]
        batch = Batch(
            inputs=inputs,
            targets=torch.tensor(targets) if len(targets) == len(samples) else None,
            names=tuple(sample.name for sample in samples),
        )
        if self.mixing is None or self.settings.num_classes is None:
            return batch
        return mix(
            batch,
            self.mixing,
            self.settings.num_classes,
            random_numbers("mix", self.settings.seed, *key),
        )


class BadRowError(Exception):
    """A row that is skipped: its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason


class RecordsReader(torch.utils.data.Dataset[Read]):
    """Reads plans from a split. `DataLoader` sees each plan as an index and each batch as an item.

    Args:
        records: The split.
        targets: Class index of each row. None: not known.
        reader: What is done with a row.
        cache: Keeps decoded pictures, where there is one input. Its samples are named by their row.
    """

    def __init__(
        self,
        records: Records,
        targets: Sequence[int] | None,
        reader: Reader,
        cache: PictureCache | None = None,
    ) -> None:
        self.records = records
        self.targets = None if targets is None else np.asarray(targets, dtype=np.int64)
        self.reader = reader
        self.cache = cache

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def __getitem__(self, plan: Plan) -> Read:
        """Return the batch of a plan, with what went wrong."""
        return guarded(lambda: self._read(plan))

    def _read(self, plan: Plan) -> Read:
        samples: list[Sample] = []
        bad: list[tuple[str, str]] = []
        notes: Counter[str] = Counter()
        first_partner = len(plan.rows) // 2 if self.reader.mixing else len(plan.rows)
        rows = plan.rows.tolist()
        keys = [(plan.epoch, row, int(place >= first_partner)) for place, row in enumerate(rows)]
        with quiet_pillow:
            for index, chance in zip(rows, self.reader.chances(keys), strict=True):
                target = None if self.targets is None else int(self.targets[index])
                try:
                    images, name = self._images(index, notes)
                    samples.append(Sample(self.reader.transform(images, chance), target, name))
                except BadRowError as error:
                    bad.append((error.name, error.reason))
        if plan.epoch:
            notes.clear()  # each picture was counted in the first epoch
        batch = self.reader.collate(samples, (plan.epoch, plan.number, self.reader.settings.rank))
        return Read(batch=batch, num_rows=len(plan.rows), bad=tuple(bad), notes=dict(notes))

    def _images(self, index: int, notes: Counter[str]) -> tuple[dict[str, Image.Image], str]:
        if self.cache is not None and (pixels := self.cache.get(index)) is not None:
            modality = next(iter(self.reader.columns))
            return {modality: _as_image(pixels)}, f"row {index}"
        pictures, name = self.reader.decode(self._row(index))
        for decoded in pictures.values():
            notes.update(decoded.notes)
        images = {modality: decoded.image for modality, decoded in pictures.items()}
        if self.cache is None:
            return images, name
        self.cache.put(index, as_pixels(next(iter(images.values()))))
        return images, f"row {index}"

    def _row(self, index: int) -> Mapping[str, Any]:
        try:
            return self.records.row(index)
        except (OSError, ValueError) as error:
            raise BadRowError(f"row {index}", f"Row {index}: {error}") from error


def _as_image(pixels: Pixels) -> Image.Image:
    height, width, channels = (
        pixels.shape
    )  # faster than Image.fromarray, which matters for small ones
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), pixels.tobytes())


def guarded(read: Callable[[], Read]) -> Read:
    """Return what `read` returns. In a worker, an error in the data or settings becomes `Read.failure`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except KeyError as error:
        return Read(failure=(KeyError, str(error.args[0])))
    except TypeError as error:
        return Read(failure=(TypeError, str(error)))
    except (OSError, ValueError) as error:
        return Read(failure=(ValueError, str(error)))
