"""Tiny runs that are served within a test, good files for each modality, and many that are malformed."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from starlette.testclient import TestClient

from perceivers.server.access import AccessRules
from perceivers.server.app import create_app
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings, UploadLimits
from support import modality_data as made
from support.files import write_off, write_series, write_video, write_wav
from support.models import save_untrained

__all__ = ["BOUNDS", "GOOD_SUFFIX", "Sent", "bad_files", "bad_forms", "client_of", "good_file"]

GOOD_SUFFIX = {
    "image": ".png",
    "audio": ".wav",
    "video": ".mp4",
    "points": ".off",
    "text": ".txt",
    "series": ".csv",
    "array": ".npy",
}


@contextmanager
def client_of(
    folder: Path,
    *kinds: str,
    limits: UploadLimits | None = None,
    token: str | None = None,
    origins: frozenset[str] = frozenset(),
) -> Iterator[TestClient]:
    """Serve a tiny run to a client within this process. `client.service` is what answers."""
    run = folder / "-".join(kinds)
    if not run.exists():
        save_untrained(run, *kinds)
    service = Service(ServerSettings(str(run), device="cpu", limits=limits or UploadLimits()))
    access = AccessRules(hosts=frozenset(("localhost",)), origins=origins)
    app = create_app(service, token=token, access=access)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        client.service = service
        yield client


def good_file(kind: str, folder: Path) -> bytes:
    """Return a file that a tiny run of this kind reads."""
    path = folder / f"good-{kind}{GOOD_SUFFIX[kind]}"
    if not path.exists():
        if kind == "image":
            path.write_bytes(made.png(0, 0))
        elif kind == "audio":
            write_wav(path, made.tone(0, 0))
        elif kind == "video":
            write_video(path, made.frames(0, 0))
        elif kind == "points":
            write_off(path, made.points(0, 0))
        elif kind == "text":
            path.write_text(made.sentence(0, 0))
        elif kind == "series":
            write_series(path, made.series(0, 0))
        else:
            np.save(path, np.zeros((5, 3), np.float32))
    return path.read_bytes()


@dataclass(frozen=True)
class Sent:
    """A file that is malformed for a run of a kind."""

    kind: str
    name: str
    data: bytes


def _png_claiming(width: int, height: int) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = part(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + rows + part(b"IEND", b"")


def _wav_claiming(frames: int, rate: int) -> bytes:
    size = min(2 * frames, 2**32 - 100)
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + bytes(2 * min(frames, 50_000))


def _npy_claiming(shape: str, descr: str = "<f4") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)


def _npz_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", _npy_claiming("(5, 3)") + bytes(30_000_000))
    return buffer.getvalue()


def _parquet(rows: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    column = pa.array(np.zeros(rows, np.float32))
    pq.write_table(pa.table({"time": column, "x": column, "y": column}), buffer)
    return buffer.getvalue()


def _bombs() -> dict[str, dict[str, bytes]]:
    """Return files that claim or unpack to more than `Limits` of the tests allow, by kind and name."""
    stl = bytes(80) + struct.pack("<I", 900_000_000) + bytes(50)
    ply = b"ply\nformat ascii 1.0\nelement vertex 999999999\nproperty float x\nend_header\n0\n"
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\x80\0\0\0\0\0\xff\xff\xff"
    gif += b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02D\x01\0;"
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    bmp += struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return {
        "image": {
            "wide.png": _png_claiming(60_000, 60_000),
            "tall.png": _png_claiming(1, 2_000_000_000),
            "nothing.png": _png_claiming(0, 0),
            "above.png": _png_claiming(3000, 3000),
            "bomb.gif": gif,
            "bomb.bmp": bmp,
            "bomb.pgm": b"P5 90000 90000 255\n" + bytes(100),
        },
        "audio": {
            "slow.wav": _wav_claiming(50_000, 100),
            "none.wav": _wav_claiming(0, 8000),
        },
        "video": {
            "empty.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
            "cut.avi": b"RIFF\0\0\0\0AVI ",
        },
        "points": {
            "many.off": b"OFF\n999999999 999999999 0\n0 0 0\n",
            "many.stl": stl,
            "many.ply": ply,
            "many.xyz": b"0 0 0\n" * 30_000,
            "many.npy": _npy_claiming("(999999999, 3)"),
            "many.obj": b"v 0 0 0\n" * 20_000,
            "short.glb": b"glTF" + struct.pack("<II", 2, 2**31) + bytes(20),
        },
        "text": {"long.txt": b"a good film " * 5000, "binary.txt": bytes(range(256)) * 8},
        "series": {
            "rows.csv": b"time,x,y\n" + b"0,1,2\n" * 80_000,
            "rows.parquet": _parquet(400_000),
            "damaged.parquet": b"PAR1" + bytes(60) + b"PAR1",
        },
        "array": {
            "huge.npy": _npy_claiming("(9999999999, 3)"),
            "objects.npy": _npy_claiming("(3,)", "|O"),
            "bomb.npz": _npz_bomb(),
            "damaged.npz": b"PK\x03\x04" + bytes(40),
            "negative.npy": _npy_claiming("(-4, 3)"),
        },
    }


BOUNDS = UploadLimits(
    pixels=4_000_000, seconds=60, points=10_000, characters=50_000, numbers=200_000, bytes=4_000_000
)
"""Small enough for a bomb to be a small file."""


def bad_files(folder: Path) -> list[Sent]:
    """Return files that are malformed, each for a run of its kind."""
    good = {kind: good_file(kind, folder) for kind in GOOD_SUFFIX}
    noise = np.random.default_rng(0).bytes(700)
    found = [
        Sent(kind, name, data) for kind, files in _bombs().items() for name, data in files.items()
    ]
    for kind, suffix in GOOD_SUFFIX.items():
        found.append(Sent(kind, f"empty{suffix}", b""))
        found.append(Sent(kind, f"noise{suffix}", b"\x00\x01" + noise))
        if kind != "text":  # which may be made of anything
            found.append(Sent(kind, f"zeros{suffix}", bytes(500)))
        found.append(Sent(kind, "no-suffix", b"\x00\x01" + noise))
        for other, data in good.items():
            if other == kind or (other in ("points", "series") and kind == "text"):
                continue  # a list of numbers is a text as well
            if (kind, other) != ("points", "array"):  # which are points
                found.append(Sent(kind, f"other{GOOD_SUFFIX[other]}", data))
            found.append(Sent(kind, f"disguised{suffix}", data))
        if kind not in ("text", "series", "points"):  # what is cut of these is still one
            found += [
                Sent(kind, f"cut-{count}{suffix}", good[kind][:count]) for count in (3, 9, 20)
            ]
    for name in (
        "../../etc/passwd",
        "..\\..\\boot.ini",
        "/dev/zero",
        "a\0b",
        "x" * 5000,
        ".png.exe",
    ):
        found += [Sent(kind, name, b"\x00\x01" + noise) for kind in ("image", "audio", "array")]
    return found


def bad_forms(good: bytes) -> list[tuple[str, bytes]]:
    """Return content types and bodies that are invalid for a run on images, or ask for something unknown.

    Args:
        good: A valid image.
    """
    kind = "multipart/form-data; boundary=mark"

    def part(head: bytes, body: bytes = good) -> bytes:
        return b"--mark\r\n" + head + b"\r\n\r\n" + body + b"\r\n"

    file = b'Content-Disposition: form-data; name="image"; filename="a.png"'
    end = b"--mark--\r\n"
    return [
        ("", part(file) + end),
        ("application/json", b'{"image": "a.png"}'),
        ("text/plain", b"a"),
        ("multipart/form-data", part(file) + end),
        ("multipart/form-data; boundary=", part(file) + end),
        ("multipart/form-data; boundary=other", part(file) + end),
        ("multipart/mixed; boundary=mark", part(file) + end),
        (kind, b""),
        (kind, end),
        (kind, part(file)[:40]),
        (kind, part(file)[:-30]),
        (kind, b"--mark\r\n" + file),
        (kind, part(b'Content-Disposition: form-data; filename="a.png"') + end),
        (kind, part(b"X-Nothing: 1") + end),
        (kind, part(b"Content-Disposition form-data") + end),
        (kind, part(b'Content-Disposition: form-data; name="image"') + end),
        (kind, part(b'Content-Disposition: form-data; name="audio"; filename="a.wav"') + end),
        (kind, part(b'Content-Disposition: form-data; name="\xff\xfe"; filename="a.png"') + end),
        (kind, part(b'Content-Disposition: form-data; name=""; filename="a.png"') + end),
        (
            kind,
            b"".join(
                part(b'Content-Disposition: form-data; name="%d"' % i, b"1") for i in range(200)
            )
            + end,
        ),
        (kind, part(b'Content-Disposition: form-data; name="top"', b"many") + part(file) + end),
        (kind, part(b'Content-Disposition: form-data; name="top"', b"-1") + part(file) + end),
        ("application/x-www-form-urlencoded", b"image=%FF%FE"),
        ("application/x-www-form-urlencoded", b"a=1&" * 300),
        (
            kind + "; charset=no-such",
            part(b'Content-Disposition: form-data; name="image"', b"\xff") + end,
        ),
    ]
