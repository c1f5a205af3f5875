"""Twelve small images, and writers of every data format for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from support.files import png_bytes, write_csv, write_jsonl, write_parquet, write_tar

CLASSES = ("cat", "dog", "eel")
SPLITS = {"train": range(9), "test": range(9, 12)}
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(CLASSES)}}


def pixels(number: int) -> np.ndarray:
    """Return the image of a number: 5 x 4 of RGB, no two alike."""
    return np.random.default_rng(number).integers(0, 256, (5, 4, 3), dtype=np.uint8)


def png(number: int) -> bytes:
    return png_bytes(pixels(number))


def label(number: int) -> int:
    return number % 3


def name(number: int) -> str:
    return CLASSES[label(number)]


def write_png(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(number))
    return path


def cells(numbers: range) -> dict[str, object]:
    """Return the columns of a Parquet file."""
    return {
        "image": [{"bytes": png(n), "path": f"{n}.png"} for n in numbers],
        "label": [label(n) for n in numbers],
    }


def members(numbers: range) -> dict[str, bytes]:
    """Return the members of a WebDataset shard."""
    found: dict[str, bytes] = {}
    for n in numbers:
        found[f"{n:03d}.png"] = png(n)
        found[f"{n:03d}.cls"] = name(n).encode()
    return found


def dataset_dict():
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(cells(numbers), features=features)
            for split, numbers in SPLITS.items()
        }
    )


def _classes(folder: Path) -> Path:
    for split, numbers in SPLITS.items():
        for n in numbers:
            write_png(folder / split / name(n) / f"{n}.png", n)
    return folder


def _files(suffix: str) -> Callable[[Path], Path]:
    writer = {".csv": write_csv, ".jsonl": write_jsonl}[suffix]

    def write(folder: Path) -> Path:
        for split, numbers in SPLITS.items():
            for n in numbers:
                write_png(folder / "images" / f"{n}.png", n)
            rows = [{"picture": f"images/{n}.png", "label": name(n)} for n in numbers]
            writer(folder / f"{split}{suffix}", rows)
        return folder

    return write


def _parquet(folder: Path) -> Path:
    for split, numbers in SPLITS.items():
        half = len(numbers) // 2 + 1
        for shard, part in enumerate((numbers[:half], numbers[half:])):
            path = folder / f"{split}-{shard:05d}-of-00002.parquet"
            write_parquet(path, cells(part), FEATURES)
    return folder


def _plain_parquet(folder: Path) -> Path:
    """No metadata: the schema and the first bytes must suffice. Labels are strings."""
    for split, numbers in SPLITS.items():
        columns = {"image": [png(n) for n in numbers], "label": [name(n) for n in numbers]}
        write_parquet(folder / f"{split}.parquet", columns)
    return folder


def _tar(folder: Path) -> Path:
    for split, numbers in SPLITS.items():
        write_tar(folder / f"{split}-000.tar", members(numbers[:2]))
        write_tar(folder / f"{split}-001.tar", members(numbers[2:]))
    return folder


def _npz(folder: Path) -> Path:
    folder.mkdir()
    for split, numbers in SPLITS.items():
        np.savez(
            folder / f"{split}.npz",
            images=np.stack([pixels(n) for n in numbers]),
            label=np.array([label(n) for n in numbers]),
            label_names=np.array(CLASSES),
        )
    return folder


def _metadata(folder: Path) -> Path:
    """A table in the folder of each split, as Hugging Face's imagefolder has it."""
    for split, numbers in SPLITS.items():
        for n in numbers:
            write_png(folder / split / f"{n}.png", n)
        rows = [{"file_name": f"{n}.png", "label": name(n)} for n in numbers]
        write_jsonl(folder / split / "metadata.jsonl", rows)
    return folder


def _one_metadata(folder: Path) -> Path:
    rows: list[dict[str, object]] = []
    for split, numbers in SPLITS.items():
        for n in numbers:
            write_png(folder / split / f"{n}.png", n)
            rows.append({"file_name": f"{split}/{n}.png", "label": name(n)})
    write_csv(folder / "metadata.csv", rows)
    return folder


def _saved(folder: Path) -> Path:
    dataset_dict().save_to_disk(str(folder))
    return folder


def _data_frame(folder: Path) -> object:
    import pandas as pd

    rows = [
        {"picture": str(write_png(folder / f"{n}.png", n)), "label": name(n), "split": split}
        for split, numbers in SPLITS.items()
        for n in numbers
    ]
    return pd.DataFrame(rows)


def _single(folder: Path) -> Path:
    rows = [{**row, "split": split} for split in SPLITS for row in _rows(folder, SPLITS[split])]
    write_csv(folder / "birds.csv", rows)
    return folder


def _rows(folder: Path, numbers: range) -> list[dict[str, object]]:
    for n in numbers:
        write_png(folder / f"{n}.png", n)
    return [{"picture": f"{n}.png", "label": name(n)} for n in numbers]


FORMS: dict[str, Callable[[Path], object]] = {
    "folder of classes": _classes,
    "csv files": _files(".csv"),
    "jsonl files": _files(".jsonl"),
    "parquet files": _parquet,
    "plain parquet files": _plain_parquet,
    "tar files": _tar,
    "npz files": _npz,
    "metadata of each split": _metadata,
    "one metadata table": _one_metadata,
    "saved data set": _saved,
    "data set object": lambda folder: dataset_dict(),
    "data frame": _data_frame,
    "one table": _single,
}
WITH_SPLIT_COLUMN = ("data frame", "one table")
STREAMED = ("csv files", "jsonl files", "parquet files", "tar files", "data set object")
