"""Files of points and meshes become one point cloud: points, and the triangles between them where there are any."""

import io
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.decode import (
    ReasonError,
    load_arrays,
    one_sentence,
    read_bytes,
)
from perceivers.data.modalities.points.pcd import read_pcd, read_pcd_header
from perceivers.optional import require

Array = npt.NDArray[Any]

# Points or triangles of one file. Scanners write some million; a few bytes of a header can claim any number.
MAX_POINTS = 20_000_000
MAX_LINES = 250_000  # of text that are read, which takes half a second; of more, so many at random
LARGEST = 1e30  # of a coordinate: its square is a float64, and the number itself a float32

_NOUN = "a point cloud"
_SUFFIXES = {
    **{f".{kind}": kind for kind in ("off", "ply", "obj", "stl", "glb", "xyz", "pcd")},
    **dict.fromkeys((".txt", ".pts", ".asc"), "xyz"),
    **dict.fromkeys((".npy", ".npz"), "numpy"),
    **dict.fromkeys((".h5", ".hdf5"), "hdf5"),
}
_MAGIC = (
    (re.compile(rb"(ST)?C?N?4?OFF"), "off"),
    (re.compile(rb"ply\s"), "ply"),
    (re.compile(rb"glTF"), "glb"),
    (re.compile(rb"\x93NUMPY|PK\x03\x04"), "numpy"),
    (re.compile(rb"\x89HDF"), "hdf5"),
    (re.compile(rb"(\s*#.*\n)*\s*VERSION\s+\.?\d"), "pcd"),
    (re.compile(rb"(\s*#.*\n)*\s*(v|vn|vt|g|o|mtllib) "), "obj"),
    (re.compile(rb"\s*(#.*\n\s*)*[-+.\d]"), "xyz"),
    (re.compile(rb"solid"), "stl"),
)


@dataclass(frozen=True, slots=True)
class PointCloud:
    """Points in space, and the surface that they span if there is one.

    Attributes:
        points: n x (3 + E), float32 or float64: x, y, z and further channels (colors, normals).
        faces: f x 3, int32: for each triangle its corners' rows in `points`. None: there are only points.
        notes: Decisions made in decoding.
    """

    points: Array
    faces: Array | None = None
    notes: tuple[str, ...] = ()


def read_points(media: EncodedItem) -> PointCloud:
    """Return the points of a file, or of a value, checked.

    Args:
        media: OFF, PLY, OBJ, STL, GLB, PCD, text of `x y z ...`, NPY, NPZ or HDF5, recognized by the suffix of its
            name, else by the first bytes; or numbers, n x (3 + E).

    Raises:
        MissingValueError: If the cell is empty.
        ValueError: If it cannot be read, or holds no points, points that are not finite, or triangles between
            points that are not there. The message names the file and the reason.
    """
    if media.value is not None or media.array is not None:
        points = load_arrays(media, _NOUN, ("points", "xyz"))[0]
        assert points is not None
        with one_sentence(media.name, _NOUN):
            return _checked(PointCloud(points))
    data = read_bytes(media, _NOUN)
    with one_sentence(media.name, _NOUN):
        kind = _kind(media, data)
    if kind == "numpy":
        points = load_arrays(EncodedItem(media.name, data=data), _NOUN, ("points", "xyz"))[0]
        assert points is not None
        with one_sentence(media.name, _NOUN):
            return _checked(PointCloud(points))
    library = {"hdf5": "h5py", "off": None, "xyz": None, "pcd": None}.get(kind, "trimesh")
    if library is not None:
        require(library, "points")  # its ImportError is no fault of the file
    with one_sentence(media.name, _NOUN):
        return _checked(_READERS.get(kind, _read_by_trimesh)(data, kind))


def sample_surface(mesh: PointCloud, count: int, rng: np.random.Generator) -> Array:
    """Return points drawn from the surface, evenly over its area: count x (3 + E), in no order.

    Further channels are interpolated between a triangle's corners.

    Args:
        mesh: Points with faces.
        count: Number of points.
        rng: Where they are drawn from.

    Raises:
        ReasonError: If no triangle has an area.
    """
    assert mesh.faces is not None
    origin = mesh.points[:, :3].astype(np.float64)
    a, b, c = (origin[mesh.faces[:, corner]] for corner in range(3))
    scale = float(np.abs(origin - origin[0]).max()) or 1.0  # so that no product leaves float64
    areas = np.linalg.norm(np.cross((b - a) / scale, (c - a) / scale), axis=1)
    total = np.cumsum(areas)
    if not total[-1] > 0:
        reason = f"none of its {areas.size:,} faces has an area"
        raise ReasonError(reason)
    drawn = np.searchsorted(total, rng.random(count) * total[-1], side="right")
    corners = mesh.points[mesh.faces[np.minimum(drawn, areas.size - 1)]]
    # The square root spreads points evenly: without it they gather at the first corner.
    root, second = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    first = corners[:, 0] * (1 - root) + corners[:, 1] * (root * (1 - second))
    return first + corners[:, 2] * (root * second)


def draw_points(points: Array, count: int, rng: np.random.Generator) -> Array:
    """Return so many of the points, each at most once, at random and in no order. All if there are no more."""
    if points.shape[0] <= count:
        return points
    return points[rng.choice(points.shape[0], count, replace=False)]


def seed_of(cloud: PointCloud) -> int:
    """Return a number that is the same for the same points, so that what is drawn of them repeats."""
    return zlib.crc32(np.ascontiguousarray(cloud.points).tobytes())


def _kind(media: EncodedItem, data: bytes) -> str:
    # A cell of a table is called "table, row 3 (chair.off)".
    name = media.name.rstrip(")") if media.path is None else media.path.name
    kind = _SUFFIXES.get("." + name.rpartition(".")[2].lower())
    if kind is not None:
        return kind
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        return "stl"  # a binary one may begin with anything
    start = data[:4096]
    kind = next((kind for magic, kind in _MAGIC if magic.match(start)), None)
    if kind is None:
        reason = f"it is in no format of points that is known here; it begins with the bytes {data[:8].hex(' ')}"
        raise ReasonError(reason)
    return kind


def _checked(cloud: PointCloud) -> PointCloud:
    """Return a valid point cloud of floats, or raise the reason why it is none."""
    points, faces = cloud.points, cloud.faces
    if points.size == 0:
        reason = "it holds no points"
        raise ReasonError(reason)
    if points.ndim != 2 or points.shape[1] < 3:
        reason = f"expected n x (3 + further channels) numbers, got shape {points.shape}"
        raise ReasonError(reason)
    _bounded(points.shape[0], "points")
    if points.dtype.str[1:] not in {"f4", "f8"} or not points.dtype.isnative:
        points = points.astype(np.float32 if points.dtype.itemsize <= 2 else np.float64)
    if not (points.max() <= LARGEST and points.min() >= -LARGEST):  # nan is neither
        wrong = points.shape[0] - int((np.abs(points) <= LARGEST).all(axis=1).sum())
        reason = (
            f"{wrong:,} of its {points.shape[0]:,} points hold nan, infinity or a number above "
            f"{LARGEST:g}"
        )
        raise ReasonError(reason)
    if faces is None:
        return PointCloud(points, None, cloud.notes)
    if not faces.size:
        return PointCloud(points, None, (*cloud.notes, "mesh without faces"))
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= points.shape[0]:
        place = low if low < 0 else high
        reason = (
            f"a face names vertex {place:,}, but there are vertices 0 to {points.shape[0] - 1:,}"
        )
        raise ReasonError(reason)
    return PointCloud(points, faces.astype(np.int32, copy=False), cloud.notes)


def _bounded(count: int, noun: str) -> None:
    if count > MAX_POINTS:
        reason = f"it claims {count:,} {noun}; at most {MAX_POINTS:,} are read. Thin it first"
        raise ReasonError(reason)


def _read_off(data: bytes, _: str) -> PointCloud:
    """Read vertices and polygons; ModelNet's files famously lack the line break after `OFF`."""
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    header = re.match(
        rb"\s*(?:((?:ST)?C?N?4?)OFF)?\s*(\d+)\s+(\d+)(?:\s+\d+)?[ \t\r]*(?:\n|$)", data
    )
    if header is None:
        reason = f"expected OFF and its counts of vertices and faces, got {data[:24]!r}"
        raise ReasonError(reason)
    num_vertices, num_faces = int(header[2]), int(header[3])
    _bounded(num_vertices, "points")
    _bounded(num_faces, "faces")
    body = data[header.end() :]
    # A plain file holds coordinates only; with letters before OFF, colors or normals stand behind them.
    width = len(body.lstrip().partition(b"\n")[0].split()) if header[1] else 3
    numbers = _numbers(body)
    vertices = numbers[: num_vertices * width]
    triangles = numbers[num_vertices * width :]
    plain = vertices.size == num_vertices * width and triangles.size == num_faces * 4
    if plain and (triangles[::4] == 3).all() and (np.abs(triangles) < 2**31).all():
        return PointCloud(
            vertices.reshape(-1, width), triangles.reshape(-1, 4)[:, 1:].astype(np.int64)
        )
    return _off_by_lines(body, num_vertices, num_faces)


def _numbers(text: bytes) -> Array:
    """Return the numbers of a text up to the first thing that is none."""
    try:
        return np.fromstring(text, dtype=np.float64, sep=" ")  # pyright: ignore[reportArgumentType]
    except (ValueError, DeprecationWarning):  # numpy's way to state so is about to change
        return np.empty(0)


def _off_by_lines(body: bytes, num_vertices: int, num_faces: int) -> PointCloud:
    """Read what needs the line breaks: polygons of several sizes, and colors behind a vertex or a face."""
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) != num_vertices + num_faces:
        reason = (
            f"its header promises {num_vertices:,} vertices and {num_faces:,} faces, but {len(lines):,} "
            "lines follow; it is damaged or cut off"
        )
        raise ReasonError(reason)
    vertices = [[float(word) for word in line.split()] for line in lines[:num_vertices]]
    faces: list[tuple[int, int, int]] = []
    for number, line in enumerate(lines[num_vertices:], start=1):
        size, *corners = line.split()
        polygon = [int(corner) for corner in corners[: int(size)]]
        if len(polygon) != int(size):
            reason = f"face {number} promises {int(size)} corners, got {len(polygon)}"
            raise ReasonError(reason)
        faces += [(polygon[0], *pair) for pair in pairwise(polygon[1:])]
    width = min(map(len, vertices), default=3)
    points = np.array([vertex[:width] for vertex in vertices]).reshape(-1, width)
    return PointCloud(points, np.array(faces, dtype=np.int64).reshape(-1, 3))


def _read_by_trimesh(data: bytes, kind: str) -> PointCloud:
    if kind == "ply":
        for claim in re.findall(rb"element (?:vertex|face) (\d+)", data[:4096]):
            _bounded(int(claim), "points or faces")
    elif kind == "stl" and b"facet" not in data[:4096]:
        data = _binary_stl(data)
    elif kind in {"stl", "obj"}:  # comments in an older encoding are no reason to fail
        data = data.decode("utf-8", errors="replace").encode()
        data = _absolute_indices(data) if kind == "obj" else data
    parts = _loaded_parts(data, kind)
    there = sum(points.shape[0] for points, _ in parts)
    claim = re.search(rb"element vertex (\d+)", data[:4096]) if kind == "ply" else None
    if claim is not None and there < int(claim[1]):
        reason = f"its header promises {int(claim[1]):,} points, {there:,} are there"
        raise ReasonError(reason)
    meshes = [part for part in parts if part[1] is not None and part[1].size]
    bare = kind in {"obj", "stl", "glb"} or any(faces is not None for _, faces in parts)
    parts = meshes or parts
    if not parts:
        return PointCloud(np.empty((0, 3)))
    shared = min(points.shape[1] for points, _ in parts)  # colors of some are colors of none
    joined = _together([points[:, :shared] for points, _ in parts])
    if not meshes:
        return PointCloud(joined, np.empty((0, 3)) if bare else None)
    first = np.cumsum([0, *[points.shape[0] for points, _ in parts]])
    faces = [
        faces + start if start else faces
        for (_, faces), start in zip(parts, first, strict=False)
        if faces is not None
    ]
    return PointCloud(joined, _together(faces))


def _absolute_indices(data: bytes) -> bytes:
    """Return an OBJ file whose faces name vertices from 1 on: negative indices count back from the face's line."""
    data = re.sub(rb"\\\r?\n", b" ", data)  # a backslash continues the line
    if re.search(rb"(?m)^[ \t]*f[ \t](?:[^\n]*[ \t])?0+(?:[/ \t\r]|$)", data):
        raise ReasonError("a face names vertex 0, but vertices count from 1")
    if not re.search(rb"(?m)^[ \t]*f[ \t][^\n]*-", data):
        return data
    counts = {b"v": 0, b"vt": 0, b"vn": 0}
    lines: list[bytes] = []
    for line in data.split(b"\n"):
        word, *corners = line.split() or [b""]
        if word in counts:
            counts[word] += 1
        elif word == b"f" and b"-" in line:
            lines.append(b" ".join([word, *(_absolute_corner(one, counts) for one in corners)]))
            continue
        lines.append(line)
    return b"\n".join(lines)


def _absolute_corner(corner: bytes, counts: Mapping[bytes, int]) -> bytes:
    """Return `-1/-1/-1`, a corner of a face, with the numbers of its vertex, texture coordinate and normal."""
    found: list[bytes] = []
    for part, count in zip(corner.split(b"/"), counts.values(), strict=False):
        number = int(part) if part else 0
        if number < -count:
            reason = f"a face names vertex {number:,}, but {count:,} stand before it"
            raise ReasonError(reason)
        found.append(b"%d" % (number + count + 1) if number < 0 else part)
    return b"/".join(found)


def _together(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _loaded_parts(data: bytes, kind: str) -> list[tuple[Array, Array | None]]:
    """Return points and faces of what in a file has vertices, moved to where the file puts it."""
    trimesh = require("trimesh", "points")
    options = {"fix_texture": False} if kind == "ply" else {}
    loaded = trimesh.load(
        io.BytesIO(data), file_type=kind, process=False, skip_materials=True, **options
    )
    if not isinstance(loaded, trimesh.Scene):
        used = [(loaded, np.eye(4))]
    else:  # by hand: its `dump` makes copies of all that a part knows
        nodes = [loaded.graph[node] for node in loaded.graph.nodes_geometry]
        used = [(loaded.geometry[name], np.asarray(matrix)) for matrix, name in nodes]
    used = [(part, matrix) for part, matrix in used if len(getattr(part, "vertices", ()))]
    _bounded(sum(len(part.vertices) for part, _ in used), "points")  # each use of a part is a copy
    parts: list[tuple[Array, Array | None]] = []
    for part, matrix in used:
        xyz = np.asarray(part.vertices)
        if not np.array_equal(matrix, np.eye(4)):
            xyz = xyz @ matrix[:3, :3].T + matrix[:3, 3]
        faces = getattr(part, "faces", None)
        extras = _extras(part)
        points = np.concatenate([xyz, *extras], axis=1) if extras else xyz
        parts.append((points, None if faces is None else np.asarray(faces)))
    return parts


def _binary_stl(data: bytes) -> bytes:
    """Return a binary STL without what stands behind its last triangle."""
    claimed = int.from_bytes(data[80:84], "little")
    there = max(len(data) - 84, 0) // 50
    if len(data) < 84:
        reason = "it holds no triangles"
        raise ReasonError(reason)
    if there < claimed:
        reason = f"its header promises {claimed:,} triangles, {there:,} are there; it is damaged or cut off"
        raise ReasonError(reason)
    _bounded(claimed, "faces")
    return data[: 84 + 50 * claimed]


def _extras(part: Any) -> list[Array]:
    """Return the colors of vertices in [0, 1], and behind them the normals that a PLY file states."""
    count = len(part.vertices)
    columns: list[Array] = []
    visual = getattr(part, "visual", None)
    if getattr(visual, "kind", None) == "vertex":
        colors = np.asarray(cast("Any", visual).vertex_colors)
        if colors.shape[:1] == (count,) and colors.ndim == 2:  # no colors have a shape of their own
            columns.append(colors[:, :3] / 255)
    stated: Any = part.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = stated.dtype.names or () if isinstance(stated, np.ndarray) else stated
    normals = [np.reshape(stated[name], (-1, 1)) for name in ("nx", "ny", "nz") if name in names]
    if len(normals) == 3 and normals[0].shape[0] == count:
        columns += normals
    return columns


def _read_text(data: bytes, _: str) -> PointCloud:
    """Read lines of `x y z ...`, parted by blanks, commas or semicolons.

    The first may hold the columns' names, or how many lines follow.
    """
    notes: tuple[str, ...] = ()
    count = data.count(b"\n")
    _bounded(count, "lines")
    if count > MAX_LINES:
        data, notes = _drawn_lines(data), ("text thinned at random",)
    if b"#" in data:
        data = re.sub(rb"#[^\n]*", b"", data)
    if has_decimal_commas(data[:65536]):
        data, notes = data.replace(b",", b"."), (*notes, "decimal commas")
    data = data.translate(bytes.maketrans(b",;\r", b"  \n"))
    first = next((line for line in data[:65536].split(b"\n") if line.strip()), b"")
    if re.match(rb"\s*(//|[\"A-Za-z_](?!an\b|nf)|\d+\s*$)", first):
        data = data.replace(first, b"", 1)
    if not data.strip():
        return PointCloud(np.empty((0, 3)))
    points = np.loadtxt(io.BytesIO(data), dtype=np.float64, ndmin=2, comments=None)
    return PointCloud(points, None, notes)


DECIMAL_COMMAS = re.compile(rb"[-+]?\d+(,\d+)?([eE][-+]?\d+)?([ \t;]+|$)")


def has_decimal_commas(text: bytes) -> bool:
    """Return whether commas in lines of numbers are decimal marks: blanks or semicolons part the numbers.

    All of at least three numbers in a line have one comma at most and no point. The first line may hold names.
    """
    lines = [line.strip() for line in text.splitlines()[:-1] or [text] if line.strip()]
    lines = lines[1:] if lines and re.match(rb"[^-+\d]", lines[0]) else lines
    if not lines or not any(b"," in line for line in lines):
        return False
    return all(
        DECIMAL_COMMAS.sub(b"", line) == b"" and len(DECIMAL_COMMAS.findall(line)) >= 3
        for line in lines
    )


def _drawn_lines(data: bytes) -> bytes:
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    rng = np.random.default_rng(zlib.crc32(data[: 1 << 20]))
    drawn = np.sort(rng.choice(ends.size - 1, MAX_LINES - 1, replace=False))
    starts, stops = ends[drawn] + 1, ends[drawn + 1]
    kept = [data[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    return b"\n".join([data[: ends[0]], *kept])


def _read_hdf5(data: bytes, _: str) -> PointCloud:
    h5py = require("h5py", "points")
    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        name = next((name for name in ("points", "xyz", "data") if name in arrays), None)
        if name is None and len(arrays) == 1:
            name = next(iter(arrays))
        if name is None:
            reason = f"expected a data set called points, xyz or data, got {sorted(file)}"
            raise ReasonError(reason)
        shape = tuple(arrays[name].shape)
        if len(shape) == 3:
            reason = f"it holds {shape[0]:,} point clouds, {shape}; expected one, n x (3 + further channels)"
            raise ReasonError(reason)
        _bounded(shape[0] if shape else 0, "points")
        return PointCloud(np.asarray(arrays[name]))


def _read_pcd(data: bytes, _: str) -> PointCloud:
    _bounded(read_pcd_header(data).count, "points")
    return PointCloud(read_pcd(data))


_READERS: dict[str, Callable[[bytes, str], PointCloud]] = {
    "pcd": _read_pcd,
    "off": _read_off,
    "xyz": _read_text,
    "hdf5": _read_hdf5,
}
