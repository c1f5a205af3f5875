"""Files that are not as expected, of every modality: which are refused and why, and which are read all the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support import modality_data as made
from support.files import write_off, write_series, write_video, write_wav

__all__ = [
    "ARRAY",
    "AUDIO",
    "POINTS",
    "SERIES",
    "TEXT",
    "VIDEO",
    "Bad",
    "longer_audio",
    "rotated",
    "vary",
]


@dataclass(frozen=True)
class Bad:
    """A file that is not as expected.

    `why` is part of the message with which it is refused, "" for a file that is read; `note` is what fit's report
    then counts.
    """

    name: str
    write: Callable[[Path], object]
    why: str = ""
    note: str = ""


def wav(samples: np.ndarray, **how: object) -> Callable[[Path], object]:
    return lambda path: write_wav(path, np.asarray(samples, np.float32), **how)


def with_nan() -> np.ndarray:
    samples = made.tone(0, 0)
    samples[7] = np.nan
    return samples


AUDIO = [
    Bad("nothing.wav", lambda path: path.write_bytes(b""), "the file is empty"),
    Bad("zero.wav", wav(np.zeros(0)), "no samples"),
    Bad("nan.wav", wav(with_nan(), subtype="FLOAT"), "not finite"),
    Bad("words.wav", lambda path: path.write_text("This is no sound."), "it holds text"),
    Bad("silent.wav", wav(np.zeros(900)), note="silent"),
    Bad("clipped.wav", wav(np.clip(20 * made.tone(0, 0), -1, 1)), note="clipped"),
    Bad("one.wav", wav(np.full(1, 0.5))),
    Bad("seven.wav", wav(np.stack([made.tone(0, n) for n in range(7)], 1)), note="mixed to mono"),
]


def no_frames(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="avi") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv420p"
        output.start_encoding()


def cut_video(path: Path) -> None:
    write_video(path, made.frames(0, 0))
    path.write_bytes(path.read_bytes()[:400])


def vary(path: Path) -> None:
    write_video(path, made.frames(0, 0), times=[0, 5, 10, 40, 42, 44, 70, 100])


def rotated(path: Path) -> None:
    write_video(path, made.frames(0, 0), rotation=90)


def longer_audio(path: Path) -> None:
    audio = made.tone(0, 0, seconds=2.5, rate=16_000)
    write_video(path, made.frames(0, 0), audio=audio)


VIDEO = [
    Bad("no_frames.avi", no_frames, "no_frames.avi"),
    Bad("cut.mp4", cut_video, "damaged"),
    Bad("one_frame.mp4", lambda path: write_video(path, made.frames(0, 0, count=1))),
    Bad("varying.mp4", vary),
    Bad("rotated.mp4", rotated, note="turned as its rotation states"),
    Bad("longer_audio.mp4", longer_audio),
]

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)


def cloud_of(points: np.ndarray) -> Callable[[Path], object]:
    return lambda path: np.save(path, np.asarray(points, np.float32))


POINTS = [
    Bad("nothing.off", lambda path: path.write_bytes(b""), "the file is empty"),
    Bad("empty.off", lambda path: write_off(path, np.zeros((0, 3))), "no points"),
    Bad("nan.xyz", lambda path: path.write_text("0 0 0\n1 nan 1\n"), "nan"),
    Bad(
        "flat.off",
        lambda path: write_off(path, CORNERS, [(0, 0, 1), (2, 2, 2)]),
        "none of its 2 faces has an area",
    ),
    Bad("one.xyz", lambda path: path.write_text("1 2 3\n")),
    Bad(
        "same.xyz",
        lambda path: path.write_text("1 2 3\n" * 50),
        note="all points are the same",
    ),
    Bad("no_faces.off", lambda path: write_off(path, CORNERS), note="mesh without faces"),
]

TEXT = [
    Bad("empty.txt", lambda path: path.write_bytes(b""), "expected a text, got nothing"),
    Bad("picture.txt", lambda path: path.write_bytes(made.png(0, 0)), "it holds image"),
    Bad(
        "latin.txt", lambda path: path.write_bytes(b"tr\xe8s bon \xff\xfe"), note="not valid UTF-8"
    ),
    Bad(
        "ten_megabytes.txt", lambda path: path.write_text("a good film. " * 800_000), note="cut to"
    ),
]


def recorded(**changes: object) -> Callable[[Path], object]:
    """Return a writer of a series file some columns of which are changed by a function."""

    def write(path: Path) -> None:
        columns = made.series(0, 0)
        for name, change in changes.items():
            columns[name] = change(columns[name].copy())
        write_series(path, columns)

    return write


def ragged(path: Path) -> None:
    write_series(path, made.series(0, 0))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5] + ",7", *lines[6:]]))


def with_gap(values: np.ndarray) -> np.ndarray:
    values[3:6] = np.nan
    return values


SERIES = [
    Bad("nothing.csv", lambda path: path.write_bytes(b""), "nothing.csv"),
    Bad("header.csv", lambda path: path.write_text("time,x,y\n"), "header.csv"),
    Bad("ragged.csv", ragged, "expected 3 cells"),
    Bad("all_missing.csv", recorded(x=lambda v: v * np.nan, y=lambda v: v * np.nan), "no value"),
    Bad("other.csv", lambda path: path.write_text("time,z\n0,1\n1,2\n"), "no channel 'x'"),
    Bad("gap.csv", recorded(x=with_gap)),
    Bad("constant.csv", recorded(y=lambda v: v * 0 + 4)),
    Bad("unsorted.csv", recorded(time=lambda v: np.roll(v, 3)), note="sorted by time"),
    Bad("repeated.csv", recorded(time=lambda v: v.round(1)), note="repeated time stamps averaged"),
]

ARRAY = [
    Bad("nothing.npy", lambda path: path.write_bytes(b""), "the file is empty"),
    Bad("nan.npy", lambda path: np.save(path, np.full((4, 3), np.nan)), "nan or infinite"),
    Bad("wide.npy", lambda path: np.save(path, np.zeros((4, 7))), "Expected 3 channels"),
    Bad(
        "pickle.npy",
        lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
        "pickle.npy",
    ),
    Bad(
        "long.npy", lambda path: np.save(path, np.zeros((500, 3), np.float32)), note="cut to length"
    ),
]
