"""Small synthetic data with the file names of the documentation pages, for running their commands."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from support.files import png_bytes, wav_bytes, write_video

__all__ = ["DATA", "make_data"]

_RNG = np.random.default_rng(0)


def make_data(page: str, folder: Path) -> None:
    """Write the input files of the commands of a page.

    Args:
        page: Name of the page without suffix.
        folder: Working directory of the commands.
    """
    DATA[page](folder)


def _audio(folder: Path) -> None:
    for label, pitch in (("cat", 300), ("dog", 900)):
        for number in range(6):
            _write(folder / "audio" / label / f"{number}.wav", _wav(pitch + 10 * number))
    for number in range(2):
        _write(folder / "new" / f"{number}.wav", _wav(500))
    _write(folder / "interview.wav", _wav(400, seconds=1.5))
    files = sorted((folder / "audio").rglob("*.wav"))
    pd.DataFrame(
        {
            "file": [str(path.relative_to(folder)) for path in files],
            "animal": [path.parent.name for path in files],
            "fold": [1 + place % 3 for place in range(len(files))],
        }
    ).to_csv(folder / "clips.csv", index=False)


def _video(folder: Path) -> None:
    for label, pitch in (("clap", 300), ("wave", 900)):
        for number in range(4):
            _write(folder / "videos" / label / f"{number}.mp4", _mp4(pitch))
    _write(folder / "new" / "a.mp4", _mp4(500))
    _write(folder / "match.mp4", _mp4(500, frames=20))


def _autoencoding(folder: Path) -> None:
    _video(folder)
    for label, low in (("sea", 0), ("wood", 150)):
        for number in range(6):
            _write(folder / "photos" / label / f"{number}.png", _png(low))


def _explain(folder: Path) -> None:
    for label, low in (("robin", 0), ("wren", 150)):
        for number in range(6):
            _write(folder / "birds" / label / f"{number}.png", _png(low))
    _write(folder / "robin.jpg", _png(50))
    _write(folder / "four.png", _png(50))


def _points(folder: Path) -> None:
    for split in ("train", "test"):
        for label, height in (("flat", 0.2), ("tall", 2.0)):
            for number in range(4):
                shape = _off(height + 0.01 * number)
                _write(folder / "meshes" / split / label / f"{number}.off", shape)
    _write(folder / "chair.off", _off(1.0).replace(b"OFF\n", b"OFF"))
    np.save(folder / "scan.npy", _RNG.normal(size=(50, 3)).astype(np.float32))


def _text(folder: Path) -> None:
    rows = [("What a film! " * 10, "good"), ("Two hours of my life. " * 8, "bad")] * 6
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "reviews.csv", index=False)
    for number, (words, label) in enumerate(rows):
        _write(folder / "documents" / label / f"{number}.txt", words.encode())
    _write(folder / "new" / "a.txt", "Köstlich. 美味しい。".encode())
    questions = [("Is it late?", "It is.", "yes"), ("Does it rain?", "The sun is out.", "no")] * 6
    pairs = pd.DataFrame(questions, columns=["question", "answer", "label"])
    pairs.to_csv(folder / "answers.csv", index=False)


def _series(folder: Path) -> None:
    for label, speed in (("run", 3.0), ("walk", 1.0)):
        for number in range(6):
            _write(
                folder / "sensors" / label / f"{number}.csv", _series_csv(speed, gaps=number % 2)
            )
    _write(folder / "new.csv", _series_csv(2.0))
    activities = ["run", "walk"] * 8
    table = {
        name: [_RNG.normal(size=16).astype(np.float32) for _ in activities]
        for name in ("acc_x", "acc_y", "acc_z")
    }
    subjects = [place // 4 for place in range(len(activities))]
    pd.DataFrame({**table, "activity": activities, "subject": subjects}).to_parquet(
        folder / "watch.parquet"
    )
    pd.DataFrame(table).head(3).to_parquet(folder / "new.parquet")


def _arrays(folder: Path) -> None:
    places = _RNG.uniform(size=(12, 2)).astype(np.float32)
    for label, low in (("rough", 0.0), ("smooth", 1.0)):
        for number in range(6):
            values = _RNG.normal(low, size=(12, 3)).astype(np.float32)
            path = folder / "touches" / label / f"{number}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, values=values, coordinates=places)
            grid = folder / "grids" / label / f"{number}.npy"
            grid.parent.mkdir(parents=True, exist_ok=True)
            np.save(grid, _RNG.normal(low, size=(4, 4, 2)).astype(np.float32))
    np.savez(folder / "touch.npz", values=values, coordinates=places)


def _multimodal(folder: Path) -> None:
    rows = 12
    table: dict[str, list[object]] = {
        "photo": [_png(20 * place) for place in range(rows)],
        "sound": [_wav(300 + 50 * place) if place % 4 else None for place in range(rows)],
        **{name: [_RNG.normal(size=16) for _ in range(rows)] for name in ("x", "y")},
        "age": [20 + place for place in range(rows)],
        "ward": ["north", "south", "east"] * 4,
        "label": ["calm", "tired"] * 6,
    }
    pd.DataFrame(table).to_parquet(folder / "visits.parquet")
    pd.DataFrame({name: table[name] for name in ("age", "ward", "label")}).to_csv(
        folder / "wards.csv", index=False
    )
    _write(folder / "a.png", _png(100))
    _write(folder / "b.wav", _wav(500))


def _scale(folder: Path) -> None:
    for label, low in (("robin", 0), ("wren", 150)):
        for number in range(6):
            _write(folder / "birds" / label / f"{number}.png", _png(low))


def _tasks(folder: Path) -> None:
    rows = 12
    for number in range(rows):
        _write(folder / "street" / f"{number}.wav", _wav(300 + 50 * number))
    names = [f"street/{number}.wav" for number in range(rows)]
    kinds = ["car", "car;rain", "rain", "", "bell;car", "bell"] * 2
    decibels = [50.5 + number for number in range(rows)]
    scenes = ["day", "night", ""] * 4
    table = {"file": names, "heard": kinds, "loudness": decibels, "scene": scenes}
    pd.DataFrame(table).to_csv(folder / "street.csv", index=False)
    for label, low in (("robin", 0), ("wren", 150)):
        for number in range(6):
            _write(folder / "birds" / label / f"{number}.png", _png(low))
    for number in range(4):
        _write(folder / "street" / "images" / f"{number}.png", _png(40 * number))
        with io.BytesIO(_png(40 * number)) as file:
            mask = Image.open(file).convert("L").point(lambda value: int(value > 100))
        (folder / "street" / "masks").mkdir(exist_ok=True)
        mask.save(folder / "street" / "masks" / f"{number}.png")


def _perceiver_io(folder: Path) -> None:
    words = "The cat sat on the mat, and the dog on the cat. Nobody sat on the dog. "
    _write(folder / "book.txt", (words * 60).encode())
    rows = [("What a film! " * 10, "good"), ("Two hours of my life. " * 8, "bad")] * 6
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "reviews.csv", index=False)
    for name in ("a", "b"):
        _write(folder / "new" / f"{name}.txt", b"The [MASK][MASK][MASK] sat.")
    pairs = [
        ("A man sings.", "Somebody sings.", "entailment"),
        ("It is night.", "It is noon.", "contradiction"),
    ]
    table = pd.DataFrame(pairs * 6, columns=["premise", "hypothesis", "label"])
    table.to_csv(folder / "pairs.csv", index=False)
    import transformers  # takes seconds, which the other pages need not wait for

    config = transformers.PerceiverConfig(
        num_latents=4,
        d_latents=16,
        d_model=512,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
        image_size=8,
    )
    model = transformers.PerceiverForImageClassificationLearned(config)
    model.save_pretrained(folder / "theirs")


def _flow(folder: Path) -> None:
    for name, low in (("a", 40), ("b", 90)):
        _write(folder / f"{name}.png", _png(low))


def _readme(folder: Path) -> None:
    for number in range(2):
        _write(folder / "quickstart" / "digits" / f"0{number}-is-3.png", _png(50))


def _nothing(folder: Path) -> None:
    """Write nothing, for pages that create their data."""


DATA: dict[str, Callable[[Path], None]] = {
    "README": _readme,
    "audio": _audio,
    "video": _video,
    "points": _points,
    "text": _text,
    "series": _series,
    "arrays": _arrays,
    "flow": _flow,
    "migration": _nothing,
    "autoencoding": _autoencoding,
    "embeddings": _explain,
    "explain": _explain,
    "multimodal": _multimodal,
    "perceiver_io": _perceiver_io,
    "scale": _scale,
    "sharing": _scale,
    "tasks": _tasks,
    "trust": _scale,
}
"""Function that writes the data of each page."""


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _tone(pitch: float, seconds: float, rate: int) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def _wav(pitch: float, *, seconds: float = 0.3, rate: int = 8000) -> bytes:
    return wav_bytes(_tone(pitch, seconds, rate), rate)


def _mp4(pitch: float, *, frames: int = 8, rate: int = 10, audio_rate: int = 16_000) -> bytes:
    """Return a video of noise with a tone."""
    file = io.BytesIO()
    noise = _RNG.integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8)
    audio = _tone(pitch, frames / rate, audio_rate)
    write_video(file, noise, rate=rate, audio=audio, audio_rate=audio_rate)
    return file.getvalue()


def _off(height: float) -> bytes:
    """Return a pyramid on four corners."""
    vertices = f"0 0 0\n1 0 0\n1 1 0\n0 1 0\n0.5 0.5 {height}\n"
    faces = "3 0 1 4\n3 1 2 4\n3 2 3 4\n3 3 0 4\n"
    return f"OFF\n5 4 0\n{vertices}{faces}".encode()


def _series_csv(speed: float, *, gaps: bool = False) -> bytes:
    lines = ["time,x,y"]
    for step in range(24):
        value = np.sin(speed * step / 4)
        lines.append(f"{step / 10:.1f},{value:.3f},{'' if gaps and step == 5 else value**2}")
    return "\n".join(lines).encode()


def _png(low: int) -> bytes:
    return png_bytes(_RNG.integers(low % 200, low % 200 + 50, (16, 16, 3), dtype=np.uint8))
