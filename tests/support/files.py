"""Writers of the file formats that data come in."""

import csv
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = [
    "RATE",
    "deep_png",
    "png_bytes",
    "wav_bytes",
    "write_csv",
    "write_jsonl",
    "write_off",
    "write_parquet",
    "write_series",
    "write_tar",
    "write_video",
    "write_wav",
]

RATE = 4000  # audio samples per second: enough for tones below 2 kHz, and little to compute

Numbers = npt.NDArray[Any]
File = TypeVar("File", Path, io.BytesIO)


def png_bytes(pixels: Numbers) -> bytes:
    """Return pixels, Y x X or Y x X x 3 of uint8, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def deep_png(values, *, filters=None, head=None, level=6) -> bytes:
    """Return Y x X x 3 of uint16 as a PNG, each row under one of the five filters of the format."""
    height, width = values.shape[:2]
    raw = values.astype(">u2").tobytes()
    rows = [list(raw[i * width * 6 : (i + 1) * width * 6]) for i in range(height)]
    filters = [row % 5 for row in range(height)] if filters is None else filters
    packed = bytearray()
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else [0] * len(row)
        packed.append(filters[number])
        for place, byte in enumerate(row):
            left = row[place - 6] if place >= 6 else 0
            corner = above[place - 6] if place >= 6 else 0
            up = above[place]
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda one: abs(guess - one))
            guess_of = (0, left, up, (left + up) // 2, nearest)[min(filters[number], 4)]
            packed.append((byte - guess_of) % 256)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0) if head is None else head
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(packed), level)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def write_wav(path: Path, samples: Numbers, rate: int = RATE, **how: Any) -> Path:
    """Write samples, n or n x channels, as an audio file."""
    import soundfile

    soundfile.write(path, samples, rate, **how)
    return path


def wav_bytes(samples: Numbers, rate: int = RATE) -> bytes:
    """Return samples as a WAV file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()


def write_video(
    file: File,
    images: Numbers,
    *,
    rate: int = 10,
    audio: Numbers | None = None,
    audio_rate: int = 16_000,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
) -> File:
    """Write frames, T x H x W x 3, as MP4; `times` are those of the frames in hundredths of a second."""
    import av

    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        base = Fraction(1, rate) if times is None else Fraction(1, 100)
        stream.codec_context.time_base = base
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(rotation)
        track: Any = None
        if audio is not None:
            track = output.add_stream("aac", rate=audio_rate, layout="mono")
        for number, pixels in enumerate(images):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (number if times is None else times[number]), base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if audio is not None:
            samples = (audio * 32767).astype(np.int16)[None]
            heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            heard.sample_rate, heard.pts = audio_rate, 0
            output.mux(track.encode(heard))
            output.mux(track.encode())
    return file


def write_off(path: Path, points: Numbers, faces: Sequence[Sequence[int]] = ()) -> Path:
    """Write a mesh, or without faces points, as OFF."""
    lines = ["OFF", f"{len(points)} {len(faces)} 0"]
    lines += [" ".join(f"{number:g}" for number in point) for point in points]
    lines += [" ".join(map(str, (len(face), *face))) for face in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_series(path: Path, columns: dict[str, Numbers]) -> Path:
    """Write columns as CSV; NaN becomes an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for cells in zip(*columns.values(), strict=True):
            writer.writerow(["" if np.isnan(cell) else f"{cell:.5f}" for cell in cells])
    return path


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """Write files, and symbolic links to paths, as a tar archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def write_parquet(
    path: Path, columns: dict[str, object], features: object = None, row_group_size: int = 4
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
