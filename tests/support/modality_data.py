"""Tiny data of every modality: two separable classes, in common files and tables."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.files import (
    RATE,
    Numbers,
    png_bytes,
    wav_bytes,
    write_off,
    write_parquet,
    write_series,
    write_video,
    write_wav,
)

__all__ = [
    "CASES",
    "LABELS",
    "Case",
    "frames",
    "make_arrays",
    "make_audio",
    "make_classes",
    "make_meshes",
    "make_mixed",
    "make_point_table",
    "make_series",
    "make_series_table",
    "make_table",
    "make_texts",
    "make_videos",
    "png",
    "points",
    "sentence",
    "series",
    "tone",
]

LABELS = ("low", "high")
TRAIN, TEST = 6, 3  # files of each class


def make_classes(folder: Path, write: Callable[[Path, int, int], object]) -> Path:
    """Write `folder/train/low/0`, ... and `folder/test/...` by a function of path, class and number of the file."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for place, label in enumerate(LABELS):
            inner = folder / split / label
            inner.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                number = index if split == "train" else TRAIN + index
                write(inner / f"{label}{number}", place, number)
    return folder


def tone(place: int, number: int, *, seconds: float = 0.25, rate: int = RATE) -> Numbers:
    """Return a tone with a little noise; that of the second class is higher."""
    rng = np.random.default_rng((place, number))
    frequency = (200.0, 900.0)[place] * rng.uniform(0.9, 1.1)
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.02 * rng.standard_normal(time.size)
    return (0.4 * np.sin(2 * np.pi * frequency * time) + noise).astype(np.float32)


def make_audio(folder: Path) -> Path:
    """Write WAV files of a quarter of a second."""
    return make_classes(
        folder, lambda path, place, number: write_wav(path.with_suffix(".wav"), tone(place, number))
    )


def frames(
    place: int, number: int, *, count: int = 8, height: int = 16, width: int = 24
) -> Numbers:
    """Return frames, T x H x W x 3, in which a bar moves to the right, or in the second class down."""
    rng = np.random.default_rng((place, number))
    video = np.full((count, height, width, 3), rng.integers(20, 60), np.uint8)
    for index in range(count):
        if place:
            video[index, (2 * index) % height : (2 * index) % height + 3] = 220
        else:
            video[index, :, (3 * index) % width : (3 * index) % width + 3] = 220
    return video


def make_videos(folder: Path, *, audio: bool) -> Path:
    """Write videos of 0.8 s, 8 frames of 16 x 24 pixels, with an audio track or without."""

    def write(path: Path, place: int, number: int) -> None:
        heard = tone(place, number, seconds=0.8, rate=16_000) if audio else None
        write_video(path.with_suffix(".mp4"), frames(place, number), audio=heard)

    return make_classes(folder, write)


def points(place: int, number: int, *, count: int = 24) -> Numbers:
    """Return points in a ball, or in the second class near a plane."""
    rng = np.random.default_rng((place, number))
    return (rng.standard_normal((count, 3)) * (1, 1, (1, 0.05)[place])).astype(np.float32)


def make_meshes(folder: Path) -> Path:
    """Write OFF files of triangles between random points."""
    faces = [(i, i + 1, i + 2) for i in range(10)]
    return make_classes(
        folder,
        lambda path, place, number: write_off(
            path.with_suffix(".off"), points(place, number, count=12), faces
        ),
    )


def make_point_table(folder: Path) -> Path:
    """Write `train.npz` and `test.npz`: 24 points in each row, with their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        rows = [(place, number) for place in (0, 1) for number in numbers]
        np.savez(
            folder / f"{split}.npz",
            points=np.stack([points(*row) for row in rows]),
            label=np.array([place for place, _ in rows]),
            label_names=np.array(LABELS),
        )
    return folder


WORDS = (
    ["slow", "dull", "bad", "boring", "grey", "flat"],
    ["bright", "fun", "good", "lively", "wild", "sharp"],
)


def sentence(place: int, number: int) -> str:
    """Return some words of a class."""
    rng = np.random.default_rng((place, number))
    return " ".join(rng.choice(WORDS[place], size=5 + number % 4)) + " é"


def make_texts(folder: Path) -> Path:
    """Write text files of a few words."""
    return make_classes(
        folder,
        lambda path, place, number: path.with_suffix(".txt").write_text(
            sentence(place, number), encoding="utf-8"
        ),
    )


def series(place: int, number: int, *, length: int = 30) -> dict[str, Numbers]:
    """Return a series with time stamps of 20 a second: two channels, faster in the second class."""
    rng = np.random.default_rng((place, number))
    time = np.arange(length) / 20
    phase = rng.uniform(0, 6)
    turn = 2 * np.pi * (1.0, 4.0)[place] * time + phase
    noise = 0.05 * rng.standard_normal((2, length))
    return {"time": time, "x": np.sin(turn) + noise[0], "y": np.cos(turn) + noise[1]}


def make_series(folder: Path) -> Path:
    """Write CSV files of 28 to 30 rows."""
    return make_classes(
        folder,
        lambda path, place, number: write_series(
            path.with_suffix(".csv"), series(place, number, length=28 + number % 3)
        ),
    )


def make_series_table(folder: Path) -> Path:
    """Write `train.parquet` and `test.parquet`: two channels as lists of 20 numbers, and a subject to be ignored."""
    for split, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        rows = [(place, number) for number in numbers for place in (0, 1)]
        found = [series(*row, length=20) for row in rows]
        write_parquet(
            folder / f"{split}.parquet",
            {
                "x": [one["x"].tolist() for one in found],
                "y": [one["y"].tolist() for one in found],
                "subject": [f"s{number}" for _, number in rows],
                "label": [LABELS[place] for place, _ in rows],
            },
        )
    return folder


def make_arrays(folder: Path, *, places: bool = True) -> Path:
    """Write arrays of 10 to 12 elements x 3 channels, with a mask, and coordinates of two axes or none."""

    def write(path: Path, place: int, number: int) -> None:
        rng = np.random.default_rng((place, number))
        length = 10 + number % 3
        values = rng.standard_normal((length, 3)).astype(np.float32) + 2 * place
        mask = np.arange(length) > 0  # the first is not real
        more = {"positions": rng.uniform(0, 1, (length, 2))} if places else {}
        np.savez(path.with_suffix(".npz"), values=values, mask=mask, **more)

    return make_classes(folder, write)


def make_table(path: Path, *, count: int = 40) -> Path:
    """Write a CSV table of numbers and a category: a class, several labels and a quantity follow from them."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "color", "split", "label", "tags", "price"])
        for index in range(count):
            place = index % 2
            age = rng.normal(30 + 40 * place, 5)
            color = ("red", "blue")[index // 2 % 2]
            split = "test" if index >= count - 8 else "train"
            tags = ";".join([LABELS[place], *([color] if index % 3 else [])])
            shown = "" if index % 7 == 3 else f"{age:.1f}"
            writer.writerow([shown, color, split, LABELS[place], tags, f"{2 * age + 1:.2f}"])
    return path


def png(place: int, number: int, *, size: int = 10) -> bytes:
    """Return an image, darker or in the second class lighter, as PNG."""
    rng = np.random.default_rng((place, number))
    pixels = rng.integers(150 * place, 150 * place + 80, (size, size, 3), dtype=np.uint8)
    return png_bytes(pixels)


def make_mixed(folder: Path) -> Path:
    """Write Parquet tables of images, audio and a series, of which every third row lacks one."""
    for split, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        rows = [(place, number) for number in numbers for place in (0, 1)]
        found = [series(*row, length=20) for row in rows]
        columns: dict[str, list[Any]] = {
            "photo": [png(*row) for row in rows],
            "voice": [wav_bytes(tone(*row)) for row in rows],
            "x": [one["x"].tolist() for one in found],
            "y": [one["y"].tolist() for one in found],
            "label": [LABELS[place] for place, _ in rows],
        }
        for index in range(len(rows)):
            if index % 3 == 1:
                columns["voice"][index] = None
            if index % 3 == 2:
                columns["photo"][index] = None
            if index % 4 == 3:
                columns["x"][index] = columns["y"][index] = None
        write_parquet(folder / f"{split}.parquet", columns)
    return folder


def table(folder: Path) -> Path:
    folder.mkdir()
    return make_table(folder / "table.csv")


TABLE_FLAGS = ["--columns", "age:number,color:category", "--split-column", "split"]


@dataclass(frozen=True)
class Case:
    """Data of one kind, the flags that make their model small, and what is known of it."""

    make: Callable[[Path], Path]
    file: str
    num_elements: int
    flags: tuple[str, ...]
    samples: int = 1  # in `file`
    measured: int = 6  # in the test split
    metric: str = "accuracy"
    num_steps: int = 0  # of a series, whose maps are of time steps instead of elements


# Strides and counts are stated, so that the elements can be told by hand, whatever suits real data best.
def stem_flags(name: str) -> tuple[str, ...]:
    """Return flags of a residual stem of two levels of few channels: a stride of 2 and a pool of 2."""
    levels = {"channels": ("4", "8"), "blocks": ("0", "1"), "pools": ("1", "2"), "stride": ("2",)}
    return tuple(
        word
        for field, values in levels.items()
        for word in (f"--inputs.{name}.stem.{field}", *values)
    )


AUDIO_FLAGS = stem_flags("audio")
VIDEO_FLAGS = (*stem_flags("video"), "--inputs.video.frame-step", "2")
POINTS_FLAGS = (
    *("--inputs.points.stem-channels", "8", "8", "--inputs.points.num-neighbors", "4"),
    "--preprocess.points.num-points",
)
TEXT_FLAGS = ("--inputs.text.stride", "8", "--inputs.text.units.word-channels", "8")
SERIES_FLAGS = (
    *("--inputs.series.channels", "8", "--inputs.series.stem-channels", "4", "8"),
    *("--inputs.series.thresholds", "1", "--inputs.series.groups", "4"),
)
RAW_AUDIO_FLAGS = ("--inputs.audio.stem-channels", "4", "4", "8", "--inputs.audio.stride", "4")

CASES = {
    # 0.25 s become 0.3 s: 30 frames of 64 bands, and a stem with a stride and a pool of 2.
    "audio": Case(make_audio, "test/low/low6.wav", 8 * 16, AUDIO_FLAGS),
    # 1200 samples, and three strides of 4: 300, 75, 19.
    "audio_raw": Case(
        make_audio, "test/low/low6.wav", 19, ("--recipe", "audio_raw", *RAW_AUDIO_FLAGS)
    ),
    # 8 frames of 16 x 24, a stem with a stride and a pool of 2, and two frames in an element.
    "video": Case(
        lambda folder: make_videos(folder, audio=False), "test/low/low6.mp4", 4 * 4 * 6, VIDEO_FLAGS
    ),
    # The same, and the sound of the 0.8 s that its frames last: 80 frames of 64 bands, the same stem.
    "audio_video": Case(
        lambda folder: make_videos(folder, audio=True),
        "test/low/low6.mp4",
        4 * 4 * 6 + 20 * 16,
        (*VIDEO_FLAGS, *AUDIO_FLAGS),
    ),
    "meshes": Case(make_meshes, "test/low/low6.off", 64, (*POINTS_FLAGS, "64")),
    "clouds": Case(make_point_table, "test.npz", 20, (*POINTS_FLAGS, "20"), samples=6),
    # At most 64 bytes, and 8 in an element.
    "text": Case(make_texts, "test/low/low6.txt", 8, TEXT_FLAGS),
    # Values and differences at dilations 1, 2 and 3 of 30 steps, 1 and 2 of 20 steps, four groups of kernels each,
    # and cells of 8 steps.
    "recordings": Case(make_series, "test/low/low6.csv", 2 * 3 * 4 + 4, SERIES_FLAGS, num_steps=32),
    "series_table": Case(
        make_series_table, "test.parquet", 2 * 2 * 4 + 3, SERIES_FLAGS, samples=6, num_steps=20
    ),
    "arrays": Case(make_arrays, "test/low/low6.npz", 12, ("--inputs.array.project-channels", "8")),
    "table": Case(table, "", 2, (*TABLE_FLAGS, "--label", "label"), samples=40, measured=8),
    "several_labels": Case(
        table,
        "",
        2,
        (*TABLE_FLAGS, "--label", "tags", "--target", "labels"),
        samples=40,
        measured=8,
        metric="mAP",
    ),
    "numbers": Case(
        table, "", 2, (*TABLE_FLAGS, "--label", "price"), samples=40, measured=8, metric="rmse"
    ),
    # A picture of 10 x 10 after a stride of 2 and a pool of 2, the sound and the 20 steps above.
    "mixed": Case(
        make_mixed,
        "test.parquet",
        9 + 128 + 19,
        (*stem_flags("image"), *AUDIO_FLAGS, *SERIES_FLAGS),
        samples=6,
    ),
}
