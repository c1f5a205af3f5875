"""Malformed files of every modality, made with a fixed seed from valid ones: bit flips, truncations, header values.

Run as a program, it predicts a folder with a run by the command, measures the slowest file, and prints the figures:

    python tests/support/fuzz.py RUN FOLDER OUT
"""

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from support import modality_data as made
from support.files import write_off, write_series, write_video, write_wav
from support.media_files import write_audio_as, write_image_as, write_video_as

__all__ = ["MODALITIES", "malformed", "valid_files"]

MODALITIES = ("image", "audio", "video", "points", "text", "series", "array")
HEADER = 256  # bytes in which numbers are replaced
NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
DIGITS = (
    b"0",
    b"-1",
    b"1e38",
    b"nan",
    b"inf",
    b"999999999999",
    b"1e-320",
    b"0x10",
    b"",
    b"9" * 400,
)


def valid_files(kind: str) -> dict[str, bytes]:
    """Return small valid files of a modality, one of each format, by suffix."""
    with tempfile.TemporaryDirectory() as folder:
        found = dict(_BUILDERS[kind](Path(folder)))
    assert found
    return found


def malformed(kind: str, *, count: int = 300, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the names and bytes of malformed files of a modality, always the same ones.

    Some remain readable: a flipped bit of a pixel is no damage that a decoder could see.
    """
    seeds = sorted(valid_files(kind).items())
    for number in range(count):
        suffix, data = seeds[number % len(seeds)]
        # One generator for each file, so that a file does not depend on those before it.
        rng = random.Random(f"{kind} {seed} {number}")
        name, change = rng.choice(_CHANGES)
        yield f"{number:03d}-{name}{suffix}", change(data, rng)


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_header(data: bytes, rng: random.Random) -> bytes:
    end = min(HEADER, len(data))
    return _flip_bits(data[:end], rng) + data[end:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, rng.randrange(len(data)), len(data) - 1))]


def _number(data: bytes, rng: random.Random) -> bytes:
    """Replace one to three binary numbers of the header by extreme ones."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        size, order = rng.choice((1, 2, 4, 8)), rng.choice("<>")
        at = rng.randrange(max(1, min(HEADER, len(changed) - size)))
        value = rng.choice(NUMBERS) % 2 ** (8 * size)
        changed[at : at + size] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value)
    return bytes(changed)


def _digits(data: bytes, rng: random.Random) -> bytes:
    """Replace one to three numbers in text by extreme ones."""
    for _ in range(rng.randint(1, 3)):
        places = [at for at in range(min(len(data), 4096)) if data[at : at + 1].isdigit()]
        if not places:
            return _number(data, rng)
        at = end = rng.choice(places)
        while data[end : end + 1].isdigit():
            end += 1
        data = data[:at] + rng.choice(DIGITS) + data[end:]
    return data


def _splice(data: bytes, rng: random.Random) -> bytes:
    """Repeat, remove or move a part."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice(
        (
            data[:last] + data[first:],
            data[:first] + data[last:],
            data[first:] + data[:first],
            data[:first] + bytes(last - first) + data[last:],
        )
    )


_CHANGES: tuple[tuple[str, Callable[[bytes, random.Random], bytes]], ...] = (
    ("bits", _flip_bits),
    ("head", _flip_header),
    ("cut", _truncate),
    ("number", _number),
    ("digits", _digits),
    ("splice", _splice),
)


def _images(folder: Path) -> Iterator[tuple[str, bytes]]:
    from PIL import Image

    image = Image.open(io.BytesIO(made.png(0, 0, size=24))).convert("RGB")
    for suffix in (".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ppm"):
        image.save(folder / f"a{suffix}")
        yield suffix, (folder / f"a{suffix}").read_bytes()
    for suffix in (".heic", ".avif", ".jp2", ".ico", ".tga", ".sgi", ".pcx"):
        yield suffix, write_image_as(folder / f"b{suffix}").read_bytes()


def _audio(folder: Path) -> Iterator[tuple[str, bytes]]:
    for suffix, how in ((".wav", {}), (".flac", {}), (".ogg", {}), (".mp3", {}), (".aiff", {})):
        path = folder / f"a{suffix}"
        write_wav(path, made.tone(0, 0), 8000, **how)
        yield suffix, path.read_bytes()
    for suffix in (".m4a", ".caf", ".au", ".w64", ".mka", ".wma", ".ac3", ".weba"):
        yield suffix, write_audio_as(folder / f"b{suffix}", seconds=0.3).read_bytes()


def _videos(folder: Path) -> Iterator[tuple[str, bytes]]:
    import av

    write_video(folder / "a.mp4", made.frames(0, 0))
    yield ".mp4", (folder / "a.mp4").read_bytes()
    for suffix, form in ((".avi", "avi"), (".mkv", "matroska")):
        path = folder / f"a{suffix}"
        with av.open(str(path), "w", format=form) as output:
            stream = output.add_stream("mpeg4", rate=10)
            stream.height, stream.width, stream.pix_fmt = *made.frames(0, 0).shape[1:3], "yuv420p"
            for pixels in made.frames(0, 0):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
        yield suffix, path.read_bytes()
    for suffix in (".webm", ".ts", ".flv", ".wmv", ".3gp", ".mpg", ".mxf"):
        yield suffix, write_video_as(folder / f"b{suffix}").read_bytes()


def _points(folder: Path) -> Iterator[tuple[str, bytes]]:
    import trimesh

    cloud = made.points(0, 0)
    write_off(folder / "a.off", cloud)
    yield ".off", (folder / "a.off").read_bytes()
    yield ".xyz", "\n".join(" ".join(map(str, row)) for row in cloud.tolist()).encode()
    yield from _pcd(cloud.astype("<f4"))
    mesh = trimesh.creation.icosphere(subdivisions=1)
    for suffix in (".ply", ".stl", ".obj", ".glb"):
        exported = mesh.export(file_type=suffix[1:])
        yield suffix, exported if isinstance(exported, bytes) else exported.encode()


def _pcd(cloud: "np.ndarray[Any, Any]") -> Iterator[tuple[str, bytes]]:
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {len(cloud)}\nHEIGHT 1\nPOINTS {len(cloud)}\nDATA "
    )
    yield (
        ".pcd",
        f"{head}ascii\n".encode()
        + "\n".join(" ".join(map(str, row)) for row in cloud[:, :3].tolist()).encode(),
    )
    data = cloud[:, :3].tobytes()
    yield ".binary.pcd", f"{head}binary\n".encode() + data
    parts = [data[at : at + 32] for at in range(0, len(data), 32)]
    packed = b"".join(bytes([len(part) - 1]) + part for part in parts)
    sizes = struct.pack("<II", len(packed), len(data))
    yield ".packed.pcd", f"{head}binary_compressed\n".encode() + sizes + packed


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    yield ".txt", (made.sentence(0, 0) * 4 + " 12 naïve 鳥").encode()


def _series(folder: Path) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = made.series(0, 0)
    write_series(folder / "a.csv", columns)
    yield ".csv", (folder / "a.csv").read_bytes()
    yield ".tsv", (folder / "a.csv").read_bytes().replace(b",", b"\t")
    pq.write_table(pa.table(columns), folder / "a.parquet")
    yield ".parquet", (folder / "a.parquet").read_bytes()


def _arrays(folder: Path) -> Iterator[tuple[str, bytes]]:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save(folder / "a.npy", values)
    np.savez(folder / "a.npz", values=values)
    np.savez_compressed(folder / "b.npz", values=values)
    yield ".npy", (folder / "a.npy").read_bytes()
    yield ".npz", (folder / "a.npz").read_bytes()
    yield ".big.npz", (folder / "b.npz").read_bytes()


_BUILDERS: dict[str, Callable[[Path], Iterator[tuple[str, bytes]]]] = {
    "image": _images,
    "audio": _audio,
    "video": _videos,
    "points": _points,
    "text": _texts,
    "series": _series,
    "array": _arrays,
}


def main(run: str, folder: str, out: str) -> int:
    """Predict a folder by the command; print its status, the slowest file and the peak of memory as JSON."""
    from perceivers.cli.main import main as command
    from perceivers.evaluation.predict import Predictor

    seconds: dict[str, float] = {}
    attempt = Predictor._attempt

    def timed(predictor, sample):
        started = time.monotonic()
        try:
            return attempt(predictor, sample)
        finally:
            seconds[sample.name] = time.monotonic() - started

    Predictor._attempt = timed
    status = command(["predict", run, folder, "--format", "jsonl", "--out", out])
    slowest = max(seconds, key=seconds.__getitem__)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {"slowest": slowest, "seconds": seconds[slowest], "peak": peak}
    print(json.dumps({"status": status, "tried": len(seconds), **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
