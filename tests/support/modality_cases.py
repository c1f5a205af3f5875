"""Small data of every modality, and the flags that make the model of each small."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support import modality_data as made
from support.runs import TINY

__all__ = ["CASES", "SMALL", "Case"]

# What TINY says of the model, not of pictures and epochs.
SMALL = [*TINY[TINY.index("--encoder.num-latents") : TINY.index("--max-epochs")]]
SMALL += ["--workers", "0", "--no-progress", "--max-steps", "2", "--batch-size", "4"]


def table(folder: Path) -> Path:
    folder.mkdir()
    return made.make_table(folder / "table.csv")


TABLE = ["--columns", "age:number,color:category", "--split-column", "split"]


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


# Strides and counts are stated, so that the elements can be told by hand, whatever suits real data best.
SOUND = ("--inputs.audio.stem-channels", "4", "8", "--inputs.audio.stride", "2", "2")
FILM = (
    *("--inputs.video.stem-channels", "4", "8", "--inputs.video.stride", "2"),
    *("--inputs.video.frame-step", "2"),
)
CLOUD = ("--inputs.points.mlp-channels", "8", "8", "--preprocess.points.num-points")
WORDS = ("--inputs.text.stem-channels", "8", "--inputs.text.stride", "1", "--inputs.text.pool", "8")
STEPS = ("--inputs.series.stem-channels", "4", "8", "--inputs.series.stride", "2")
RAW = ("--inputs.audio.stem-channels", "4", "4", "8", "--inputs.audio.stride", "4")

CASES = {
    # 0.25 s become 0.3 s: 30 frames of 64 bands, and a stem of two strides of 2.
    "audio": Case(made.make_audio, "test/low/low6.wav", 8 * 16, SOUND),
    # 1200 samples, and three strides of 4: 300, 75, 19.
    "audio_raw": Case(made.make_audio, "test/low/low6.wav", 19, ("--recipe", "audio_raw", *RAW)),
    # 8 frames of 16 x 24, a stem of two strides of 2, and two frames in an element.
    "video": Case(
        lambda folder: made.make_videos(folder, sound=False), "test/low/low6.mp4", 4 * 4 * 6, FILM
    ),
    # The same, and the sound of the 0.8 s that its frames last: 80 frames of 64 bands, strides of 2.
    "audio_video": Case(
        lambda folder: made.make_videos(folder, sound=True),
        "test/low/low6.mp4",
        4 * 4 * 6 + 20 * 16,
        (*FILM, *SOUND),
    ),
    "meshes": Case(made.make_meshes, "test/low/low6.off", 64, (*CLOUD, "64")),
    "clouds": Case(made.make_point_table, "test.npz", 20, (*CLOUD, "20"), samples=6),
    # At most 64 bytes, and 8 in an element.
    "text": Case(made.make_texts, "test/low/low6.txt", 8, WORDS),
    # 30 steps, and two strides of 2.
    "recordings": Case(made.make_series, "test/low/low6.csv", 8, STEPS),
    "series_table": Case(made.make_series_table, "test.parquet", 5, STEPS, samples=6),
    "arrays": Case(
        made.make_arrays, "test/low/low6.npz", 12, ("--inputs.array.project-channels", "8")
    ),
    "table": Case(table, "", 2, (*TABLE, "--label", "label"), samples=40, measured=8),
    "several_labels": Case(
        table,
        "",
        2,
        (*TABLE, "--label", "tags", "--target", "labels"),
        samples=40,
        measured=8,
        metric="mAP",
    ),
    "numbers": Case(
        table, "", 2, (*TABLE, "--label", "price"), samples=40, measured=8, metric="rmse"
    ),
    # A picture of 10 x 10 after a stride of 2 and a pool of 2, the sound above, 20 steps of a series.
    "mixed": Case(
        made.make_mixed,
        "test.parquet",
        9 + 128 + 5,
        ("--inputs.image.stem-channels", "8", *SOUND, *STEPS),
        samples=6,
    ),
}
