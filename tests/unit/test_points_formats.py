"""PCD, OBJ with negative indices, text with decimal commas."""

import struct

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.points.decode import has_decimal_commas, read_points
from perceivers.data.registry import kind_of_bytes, kind_of_name

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(50, 3)).astype("<f4")
COLORS = RNG.integers(0, 256, (50, 3)).astype(np.uint32)
PACKED = COLORS[:, 0] << 16 | COLORS[:, 1] << 8 | COLORS[:, 2]


def pcd(encoding, body, *, fields="x y z", size="4 4 4", kind="F F F", count="1 1 1", points=50):
    head = (
        f"# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {fields}\nSIZE {size}\nTYPE {kind}\n"
        f"COUNT {count}\nWIDTH {points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {encoding}\n"
    )
    return head.encode() + body


def lzf(data):
    """Compress with back references to the last place of the same three bytes."""
    out, literals, seen, place = bytearray(), bytearray(), {}, 0

    def flush():
        for start in range(0, len(literals), 32):
            part = literals[start : start + 32]
            out.append(len(part) - 1)
            out.extend(part)
        literals.clear()

    while place < len(data):
        before = seen.get(data[place : place + 3])
        seen[data[place : place + 3]] = place
        length = 0
        if before is not None and place - before <= 8192:
            while (
                length < 264
                and data[before + length : before + length + 1]
                == data[place + length : place + length + 1]
            ):
                length += 1
                if place + length >= len(data):
                    break
        if length < 3:
            literals.append(data[place])
            place += 1
            continue
        flush()
        offset, short = place - before - 1, length - 2
        head = bytes([min(short, 7) << 5 | offset >> 8]) + (
            bytes([short - 7]) if short >= 7 else b""
        )
        out.extend(head + bytes([offset & 255]))
        place += length
    flush()
    return bytes(out)


def compressed(data):
    packed = lzf(data)
    return struct.pack("<II", len(packed), len(data)) + packed


def cloud(data, name="a.pcd"):
    return read_points(EncodedItem(name, data=data))


def test_pcd_is_a_format_of_points():
    assert kind_of_name("scan.PCD") == "points"
    assert kind_of_bytes(pcd("binary", XYZ.tobytes())) == "points"


@pytest.mark.parametrize("name", ["a.pcd", "a cell"])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_coordinates(encoding, name):
    body = {
        "ascii": "\n".join(" ".join(map(repr, row)) for row in XYZ.tolist()).encode(),
        "binary": XYZ.tobytes(),
        "binary_compressed": compressed(XYZ.T.tobytes()),
    }[encoding]
    np.testing.assert_array_equal(cloud(pcd(encoding, body), name).points, XYZ)


@pytest.mark.parametrize("kind", ["F", "U"])
@pytest.mark.parametrize("encoding", ["binary", "binary_compressed"])
def test_pcd_with_colors_normals_and_padding(encoding, kind):
    parts = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", 4), ("rgb", "<u4")]
    parts += [(f"normal_{axis}", "<f4") for axis in "xyz"] + [
        ("intensity", "<f4"),
        ("label", "<u2"),
    ]
    records = np.zeros(50, parts)
    for i, axis in enumerate("xyz"):
        records[axis], records[f"normal_{axis}"] = XYZ[:, i], XYZ[:, 2 - i]
    records["rgb"], records["intensity"] = PACKED, np.arange(50)
    body = records.tobytes()
    if encoding == "binary_compressed":
        body = compressed(b"".join(records[name].tobytes() for name in records.dtype.names))
    fields = " ".join(records.dtype.names)
    data = pcd(
        encoding,
        body,
        fields=fields,
        size="4 4 4 1 4 4 4 4 4 2",
        kind=f"F F F U {kind} F F F F U",
        count="1 1 1 4 1 1 1 1 1 1",
    )
    points = cloud(data).points
    np.testing.assert_array_equal(points[:, :3], XYZ)
    np.testing.assert_allclose(points[:, 3:6] * 255, COLORS)
    np.testing.assert_array_equal(points[:, 6:9], XYZ[:, ::-1])
    np.testing.assert_array_equal(points[:, 9], np.arange(50))


def test_points_without_coordinates_are_left_out():
    holes = XYZ.copy()
    holes[::5] = np.nan
    assert len(cloud(pcd("binary", holes.tobytes())).points) == 40


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pcd("binary", XYZ.tobytes()[:-1]), "promises 600 bytes of points, 599 are there"),
        (pcd("ascii", b"1 2 3\n4 5 6\n"), "promises 50 points of 3 numbers, got 2 of 3"),
        (pcd("zip", b""), "its data are 'zip': expected ascii, binary or binary_compressed"),
        (pcd("binary", bytes(600), fields="x y w"), "it has no field 'z'"),
        (pcd("binary", bytes(600), size="4 4"), "that do not fit each other"),
        (pcd("binary", bytes(600), size="4 4 3"), "that do not fit each other"),
        (pcd("binary", b"", points=-1), "do not fit each other"),
        (pcd("binary", b"", points=10**12), "at most 20,000,000 are read"),
        (pcd("binary", b"", points="many"), "no whole number"),
        (b"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\n", "does not end with a line DATA"),
        (pcd("binary_compressed", struct.pack("<II", 3, 600) + b"\x20\x00\x00"), "compressed data are"),
        (pcd("binary_compressed", struct.pack("<II", 2, 600) + b"\x00a"), "hold 1 bytes instead of 600"),
        (pcd("binary_compressed", struct.pack("<II", 2, 1 << 31) + b"\x00a"), "which do not fit"),
        (pcd("binary", b"", points=0), "it holds no points"),
    ],
)  # fmt: skip
def test_damaged_pcd_files_are_named(data, words):
    with pytest.raises(ValueError, match=rf"^Cannot read 'a\.pcd' as a point cloud: .*{words}"):
        cloud(data)


PLAIN = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nv 0 0 1\nv 1 0 1\nv 0 1 1\nf 4/1 5/2 6/3\n"
NEGATIVE = (
    b"vt 0 0\nvt 1 0\nvt 0 1\n"
    b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 0 0 1\nv 1 0 1\nv 0 1 1\nf -3/-3 \\\n -2/-2 -1/-1\n"
)


def test_negative_indices_of_obj_count_back_from_their_line():
    pytest.importorskip("trimesh")
    expected, found = cloud(PLAIN, "a.obj"), cloud(NEGATIVE, "a.obj")
    np.testing.assert_array_equal(found.points[found.faces], expected.points[expected.faces])
    with pytest.raises(ValueError, match="a face names vertex -4, but 3 stand before it"):
        cloud(b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 -2 -1\nv 0 0 0\n", "a.obj")
    for face in (b"f 0 1 2", b"f 1/1 2/2 0/1", b"f 1 2 0"):
        with pytest.raises(ValueError, match="a face names vertex 0, but vertices count from 1"):
            cloud(b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + face + b"\n", "a.obj")
    cloud(
        b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 10/0 2 3\n".replace(b"10/0", b"4"), "a.obj"
    )


@pytest.mark.parametrize("mark", [" ", "; ", ";", "\t"])
def test_decimal_commas(mark):
    rows = [mark.join(f"{value:.3f}".replace(".", ",") for value in row) for row in XYZ[:5]]
    found = cloud("\n".join(["x y z", *rows, ""]).encode(), "a.xyz")
    np.testing.assert_allclose(found.points, XYZ[:5], atol=6e-4)
    assert found.notes == ("decimal commas",)


@pytest.mark.parametrize(
    "text", [b"1,2,3\n4,5,6\n", b"1, 2, 3\n", b"0.5,1.5,2.5\n", b"0.5, 1,5 2\n", b"1 2 3\n", b""]
)
def test_commas_between_numbers(text):
    assert not has_decimal_commas(text)
