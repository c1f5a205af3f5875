"""Synthetic frame pairs with exactly known flow, made in memory (`builtin:flow`) or written as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.base import atomic_write, atomic_write_text
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.flow.decode import write_flo
from perceivers.data.modalities.flow.synthetic import MotionPair, synthetic_pair
from perceivers.data.modalities.image.decode import decode
from perceivers.data.registry import kind_of_name
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.folders import media_files
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import Field, Table
from perceivers.wording import counted

SIZE, LARGEST = (48, 48), 3.0  # frame size and largest displacement, in pixels
_ROWS = {"train": 10_000, "validation": 500, "test": 500}
_SEEDS = {"train": 0, "validation": 1, "test": 2}
_FIELDS = {"first": Field("image"), "second": Field("image"), "flow": Field("flow")}


@dataclass(frozen=True, kw_only=True)
class SyntheticFlowTable(Table):
    """A table of frame pairs generated on demand: row i of a seed is the same in every process.

    Attributes:
        rows: Number of rows.
        seed: Random seed.
        size: Height and width of the frames in pixels.
        largest: Largest displacement in pixels.
        images: Image files to move, one drawn per row. Empty: textures are generated.
    """

    name: str
    rows: int
    seed: int
    size: tuple[int, int] = SIZE
    largest: float = LARGEST
    images: tuple[Path, ...] = ()
    fields: Mapping[str, Field] = field(default_factory=lambda: dict(_FIELDS))
    folder: Path = field(default_factory=Path)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    def pair(self, index: int) -> MotionPair:
        """Return the frame pair of a row.

        Raises:
            ValueError: If its image cannot be decoded, or is too small.
        """
        numbers = np.random.default_rng((self.seed, index))
        image: npt.NDArray[np.uint8] | None = None
        if self.images:
            path = self.images[int(numbers.integers(len(self.images)))]
            image = np.asarray(decode(EncodedItem(str(path), path=path), num_channels=3).image)
        try:
            return synthetic_pair(numbers, size=self.size, largest=self.largest, image=image)
        except ValueError as error:
            raise ValueError(f"{self.where(index)}: {error}") from error

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        pair, where = self.pair(index), self.where(index)
        cells = {
            "first": EncodedItem(where, array=pair.first),
            "second": EncodedItem(where, array=pair.second),
            "flow": EncodedItem(where, value=pair.flow),
        }
        return {name: cells[name] for name in self.fields}

    def column(self, name: str) -> Sequence[Any]:
        """Return None for each row: there are no scalars."""
        return [None] * self.rows if name in self.fields else []

    def keep(self, fields: Mapping[str, Field]) -> "SyntheticFlowTable":
        """Return the table with these columns only."""
        return replace(self, fields=dict(fields))


def synthetic_flow() -> DatasetBundle:
    """Return pairs of textures of 48 x 48 pixels that move by up to 3 pixels, the same ones every time.

    Train, validation and test have different textures and motion.
    """
    splits = {
        split: SyntheticFlowTable(name=f"builtin:flow ({split})", rows=rows, seed=_SEEDS[split])
        for split, rows in _ROWS.items()
    }
    rows = ", ".join(f"{split} {counted(len(table), 'row')}" for split, table in splits.items())
    return DatasetBundle(
        form="made pairs of moving textures",
        splits=splits,
        inputs={
            "frame_pair": InputColumn(
                "first", "frame_pair", ("first", "second"), ("image", "image")
            ),
            "flow": InputColumn("flow", "flow"),
        },
        target=None,
        label_names=(),
        notes=(
            f"Made pairs of moving textures, {SIZE[0]} x {SIZE[1]} pixels that move by up to {LARGEST:g}: {rows}.",
        ),
    )


def write_pairs(
    out: Path,
    *,
    count: int,
    size: tuple[int, int] = SIZE,
    largest: float = LARGEST,
    seed: int = 0,
    images: Path | None = None,
    validation: float = 0.1,
) -> int:
    """Write synthetic pairs in the layout of FlyingChairs, with its list of splits; return the number for validation.

    Args:
        out: A new or empty folder.
        count: Number of pairs.
        size: Height and width of the frames in pixels.
        largest: Largest displacement in pixels.
        seed: Random seed.
        images: Folder of images to move, searched recursively. Train and validation use different images. None:
            textures are generated.
        validation: Share of pairs for validation.

    Raises:
        ValueError: If an argument is invalid, `out` is not empty, or an image is too small or cannot be read.
        OSError: If a file cannot be written.
    """
    if count < 2 or largest <= 0 or min(size) < 2 or not 0 < validation < 1:
        raise ValueError(
            "Expected at least two pairs of frames of at least 2 x 2 pixels, a motion above 0 and a share of "
            f"validation in (0, 1); got count={count}, size={size}, largest={largest:g}, validation={validation:g}."
        )
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Give a new folder for the pairs (--out).")
    held_out = min(max(round(count * validation), 1), count - 1)
    files = _image_files(images) if images is not None else ()
    apart = min(max(round(len(files) * validation), 1), max(len(files) - 1, 0))
    parts = {"1": files[apart:], "2": files[:apart]}
    marks = ["1"] * (count - held_out) + ["2"] * held_out
    tables = {
        mark: SyntheticFlowTable(
            name="made pairs", rows=count, seed=seed, size=size, largest=largest, images=files
        )
        for mark, files in parts.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    for index, mark in enumerate(marks):
        pair, number = tables[mark].pair(index), f"{index + 1:05d}"
        for name, frame in (("img1", pair.first), ("img2", pair.second)):
            with atomic_write(out / f"{number}_{name}.ppm", sync=False) as new:
                Image.fromarray(frame).save(new, format="PPM")
        write_flo(out / f"{number}_flow.flo", pair.flow)
    atomic_write_text(out / "FlyingChairs_train_val.txt", "\n".join(marks) + "\n")
    return held_out


def _image_files(folder: Path) -> tuple[Path, ...]:
    """Return the images below a folder, shuffled.

    Raises:
        ValueError: If there are fewer than two.
    """
    files = [path for path in media_files(folder) if kind_of_name(path.name) == "image"]
    if len(files) < 2:
        raise ValueError(
            f"Expected images in the folder '{folder}', some for train and some for validation; found {len(files)}."
        )
    order = np.random.default_rng(0).permutation(len(files))
    return tuple(files[index] for index in order)
