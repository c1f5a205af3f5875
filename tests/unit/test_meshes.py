import struct

import numpy as np
import pytest

from perceivers import optional
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.points import decode as meshes
from perceivers.data.modalities.points.decode import (
    PointCloud,
    draw_points,
    read_points,
    sample_surface,
    seed_of,
)

trimesh = pytest.importorskip("trimesh")

TRIANGLE = b"3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 0 1 2\n"
CORNERS = [[0, 0, 0], [2, 0, 0], [0, 2, 0]]


def read(name, data):
    return read_points(EncodedItem(name, data=data))


def refused(reason):
    expected = rf"Cannot read '[^']*' as a point cloud: .*{reason}.*Replace it or take it out"
    return pytest.raises(ValueError, match=expected)


def box(kind, **options):
    data = trimesh.creation.box().export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


def ply(*rows, fields="xyz", count=None, faces=0):
    names = {"x": "x", "y": "y", "z": "z", "1": "nx", "2": "ny", "3": "nz"}
    head = [
        "ply",
        "format ascii 1.0",
        f"element vertex {len(rows) if count is None else count}",
        *(f"property float {names[field]}" for field in fields),
        *([f"element face {faces}", "property list uchar int vertex_indices"] if faces else []),
        "end_header",
    ]
    return "\n".join([*head, *rows, ""]).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"OFF\n" + TRIANGLE,
        b"OFF" + TRIANGLE,
        b"OFF " + TRIANGLE,
        TRIANGLE,
        b"# a comment\nOFF # another\n" + TRIANGLE.replace(b"3 1 0\n", b"3 1 # counts\n"),
        (b"OFF\n" + TRIANGLE).replace(b"\n", b"\r\n"),
        b"OFF\n" + TRIANGLE.replace(b"3 0 1 2", b"3 0 1 2 255 0 0"),
        b"OFF\n" + TRIANGLE.rstrip(),
    ],
)
def test_off_is_read_however_it_is_written(data):
    cloud = read("a.off", data)
    np.testing.assert_array_equal(cloud.points, CORNERS)
    np.testing.assert_array_equal(cloud.faces, [[0, 1, 2]])
    assert cloud.faces is not None
    assert cloud.faces.dtype == np.int32
    assert cloud.notes == ()


def test_polygons_are_fanned_into_triangles():
    cloud = read("a.off", b"OFF\n5 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 2 0\n4 0 1 2 3\n3 0 1 4\n")
    np.testing.assert_array_equal(cloud.faces, [[0, 1, 2], [0, 2, 3], [0, 1, 4]])


def test_colors_of_vertices_are_read_from_off():
    colored = TRIANGLE.replace(b" 0\n", b" 0 9 8 7\n").replace(b"3 1 0 9 8 7", b"3 1 0")
    for data in (b"COFF\n" + colored, b"OFF\n" + colored):
        assert read("a.off", data).points[:, 3:].tolist() == [[9, 8, 7]] * 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"OFF\n", "expected OFF and its counts"),
        (b"OFF BINARY\n\x00", "expected OFF and its counts"),
        (b"OFF\n0 0 0\n", "it holds no points"),
        (
            b"OFF\n" + TRIANGLE[:18],
            "promises 3 vertices and 1 faces, but 2 lines follow; it is damaged",
        ),
        (b"OFF\n" + TRIANGLE.replace(b"3 1 0", b"9 1 0"), "9 vertices and 1 faces, but 4 lines"),
        (b"OFF\n" + TRIANGLE.replace(b"3 1 0", b"3 0 0"), "3 vertices and 0 faces, but 4 lines"),
        (b"OFF\n9 0 0\n0 0 0\n", "9 vertices and 0 faces, but 1 lines"),
        (b"OFF\n" + TRIANGLE.replace(b"0 1 2", b"0 1"), "face 1 promises 3 corners, got 2"),
        (
            b"OFF\n" + TRIANGLE.replace(b"0 1 2", b"0 1 7"),
            "names vertex 7, but there are vertices 0 to 2",
        ),
        (b"OFF\n" + TRIANGLE.replace(b"0 1 2", b"0 1 -1"), "names vertex -1"),
        (b"OFF\n" + TRIANGLE.replace(b"0 1 2", b"0 1 nan"), "damaged or cut off"),
        (b"OFF\n" + TRIANGLE.replace(b"2 0 0", b"x 0 0"), "damaged or cut off"),
        (b"OFF\n" + TRIANGLE.replace(b"2 0 0", b"nan 0 0"), "1 of its 3 points hold nan"),
        (b"OFF\n99999999 1 0\n", "claims 99,999,999 points; at most 20,000,000"),
        (b"OFF\n1 99999999 0\n", "claims 99,999,999 faces"),
    ],
)
def test_damaged_off_is_refused(data, reason):
    with refused(reason):
        read("a.off", data)


def test_a_parser_that_raises_is_no_number(monkeypatch):
    def fail(*_, **__):
        raise DeprecationWarning

    monkeypatch.setattr(np, "fromstring", fail)
    np.testing.assert_array_equal(read("a.off", b"OFF\n" + TRIANGLE).points, CORNERS)


@pytest.mark.parametrize(
    "data", [b"OFF\n3 0 0\n0 0 0\n2 0 0\n0 2 0\n", b"OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n2 0 1\n"]
)
def test_a_mesh_without_faces_is_a_cloud_of_its_vertices(data):
    cloud = read("a.off", data)
    np.testing.assert_array_equal(cloud.points, CORNERS)
    assert (cloud.faces, cloud.notes) == (None, ("mesh without faces",))


@pytest.mark.parametrize("kind", ["off", "ply", "obj", "stl", "glb"])
@pytest.mark.parametrize("name", ["a.{}", "rows.parquet, row 3 (a.{})", "row 3"])
def test_meshes_of_every_format_are_read(kind, name):
    cloud = read(name.format(kind), box(kind))
    assert cloud.faces is not None
    assert cloud.faces.shape == (12, 3)
    assert np.abs(cloud.points).max() == 0.5
    points = sample_surface(cloud, 100, np.random.default_rng(0))
    np.testing.assert_allclose(np.abs(points).max(axis=1), 0.5, atol=1e-6)


@pytest.mark.parametrize("kind", ["ply", "stl", "glb"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_files_cut_short_are_refused(kind, share):
    data = box(kind)
    with refused(""):
        read(f"a.{kind}", data[: int(len(data) * share)])


def test_an_obj_cut_short_is_refused_in_the_middle_of_a_line_only():
    data = box("obj")
    lines = data.splitlines(keepends=True)
    assert read("a.obj", b"".join(lines[:5])).points.shape == (
        4,
        3,
    )  # its lines stand for themselves
    with refused(r"got shape \(4, 2\)"):
        read("a.obj", b"".join(lines[:5])[:-13])


def test_a_text_stl_is_read():
    facet = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 2 0 0\nvertex 0 2 0\nendloop\nendfacet\n"
    cloud = read("a.stl", b"solid x\xe9\n" + facet.encode() + b"endsolid x\n")
    np.testing.assert_array_equal(cloud.points, CORNERS)
    with refused("it holds no triangles"):
        read("a.stl", b"solid x\nendsolid x\n")
    assert read("row 3", b"solid x\n" + facet.encode() + b"endsolid x\n").faces is not None


def test_a_binary_stl_may_be_followed_by_bytes_but_not_lack_any():
    data = box("stl")
    assert read("a.stl", data + b"more").points.shape == (36, 3)
    with refused("promises 12 triangles, 11 are there; it is damaged"):
        read("a.stl", data[:-1])
    with refused("promises 0 triangles|holds no points"):
        read("a.stl", data[:80] + bytes(4))
    with refused("promises 4,294,967,295 triangles"):
        read("a.stl", data[:80] + b"\xff" * 4)


def test_vertices_of_an_obj_without_faces_are_a_cloud():
    cloud = read("a.obj", b"# \xe9\nv 0 0 0\nv 2 0 0\nv 0 2 0\n")
    assert cloud.notes == ("mesh without faces",)
    np.testing.assert_array_equal(cloud.points, CORNERS)
    with refused("it holds no points"):
        read("a.obj", b"# nothing\n")


def test_points_of_a_ply_are_a_cloud():
    cloud = read("a.ply", ply("1 2 3", "4 5 6"))
    np.testing.assert_array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
    assert (cloud.faces, cloud.notes) == (None, ())


def test_normals_and_colors_of_a_ply_are_further_channels():
    cloud = read("a.ply", ply("1 2 3 0 0 1", "4 5 6 1 0 0", fields="xyz123"))
    np.testing.assert_array_equal(cloud.points, [[1, 2, 3, 0, 0, 1], [4, 5, 6, 1, 0, 0]])
    colors = np.array([[255, 0, 51, 255], [0, 255, 0, 255]], dtype=np.uint8)
    colored = trimesh.PointCloud([[1, 2, 3], [4, 5, 6]], colors=colors)
    cloud = read("a.ply", colored.export(file_type="ply"))
    np.testing.assert_allclose(cloud.points, [[1, 2, 3, 1, 0, 0.2], [4, 5, 6, 0, 1, 0]])
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = np.full((8, 4), 255, dtype=np.uint8)
    points = read("a.ply", mesh.export(file_type="ply", vertex_normal=True)).points
    np.testing.assert_array_equal(points[:, 3:6], 1)
    np.testing.assert_allclose(points[:, 6:], 2 * points[:, :3] / 3**0.5, rtol=1e-5)


def test_a_ply_that_promises_too_much_is_refused():
    with refused("promises 200 points, 2 are there"):
        read("a.ply", ply("1 2 3", "4 5 6", count=200))
    with refused("claims 99,999,999 points or faces"):
        read("a.ply", ply("1 2 3", count=99_999_999))
    with refused("claims 99,999,999 points or faces"):
        read("a.ply", ply("1 2 3", faces=99_999_999))


def test_parts_of_a_scene_are_put_together_where_they_stand():
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), node_name="a", geom_name="box")
    moved = np.eye(4)
    moved[0, 3] = 10
    scene.graph.update("b", matrix=moved, geometry="box")
    cloud = read("a.glb", scene.export(file_type="glb"))
    assert cloud.points[:, 0].tolist().count(10.5) == 4
    assert cloud.faces is not None
    assert cloud.faces.shape == (24, 3)
    assert cloud.faces.max() == 15


def test_a_scene_of_too_many_copies_is_refused(monkeypatch):
    monkeypatch.setattr(meshes, "MAX_POINTS", 7)
    with refused("claims 8 points; at most 7 are read"):
        read("a.glb", box("glb"))


def test_a_library_that_is_not_installed_is_no_fault_of_the_file(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'pip install "perceivers\[points\]"'):
        read("a.stl", b"x")
    with pytest.raises(ImportError, match="h5py is needed"):
        read("a.h5", b"x")
    np.testing.assert_array_equal(read("a.off", b"OFF\n" + TRIANGLE).points, CORNERS)


def test_a_file_on_the_disk_is_told_by_its_suffix(tmp_path):
    path = tmp_path / "a.OFF"
    path.write_bytes(b"OFF\n" + TRIANGLE)
    assert read_points(EncodedItem("anything", path=path)).faces is not None
    with pytest.raises(ValueError, match="gone' cannot be read: No such file"):
        read_points(EncodedItem("gone", path=tmp_path / "gone.off"))


def test_points_are_drawn_in_proportion_to_area():
    # Two triangles in the planes z = 0 and z = 1, the second with 9 times the area.
    points = np.array([*CORNERS, [0, 0, 1], [6, 0, 1], [0, 6, 1]], dtype=np.float32)
    cloud = PointCloud(points, np.array([[0, 1, 2], [3, 4, 5]]))
    drawn = sample_surface(cloud, 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, 3)
    assert drawn[:, 2].mean() == pytest.approx(0.9, abs=0.01)
    first = drawn[drawn[:, 2] == 0]
    np.testing.assert_allclose(first[:, :2].mean(axis=0), 2 / 3, atol=0.03)  # evenly inside it
    assert (first[:, :2].sum(axis=1) <= 2 + 1e-5).all()


def test_further_channels_are_interpolated_on_the_surface():
    points = np.concatenate([CORNERS, np.array([[0], [2], [4]])], axis=1).astype(np.float64)
    drawn = sample_surface(PointCloud(points, np.array([[0, 1, 2]])), 50, np.random.default_rng(0))
    np.testing.assert_allclose(drawn[:, 3], drawn[:, 0] + 2 * drawn[:, 1])


def test_a_face_without_area_gets_no_points_and_a_mesh_of_such_faces_is_refused():
    points = np.array([*CORNERS, [9, 9, 9]], dtype=np.float64)
    drawn = sample_surface(
        PointCloud(points, np.array([[3, 3, 3], [0, 1, 2], [3, 3, 3]])),
        500,
        np.random.default_rng(0),
    )
    assert drawn.max() <= 2
    with pytest.raises(ValueError, match="none of its 2 faces has an area"):
        sample_surface(
            PointCloud(points, np.array([[3, 3, 3], [0, 0, 1]])), 5, np.random.default_rng(0)
        )


@pytest.mark.parametrize("size", [1e-25, 1e30])
def test_tiny_and_huge_meshes_have_areas(size):
    cloud = PointCloud(np.array(CORNERS) * size / 2, np.array([[0, 1, 2]]))
    drawn = sample_surface(cloud, 10, np.random.default_rng(0))
    assert (drawn[:, :2].max(axis=0) > size / 10).all()


def test_what_is_drawn_repeats_for_the_same_points():
    cloud = read("a.off", b"OFF\n" + TRIANGLE)
    again = read("b.off", b"OFF" + TRIANGLE)
    assert seed_of(cloud) == seed_of(again) != seed_of(PointCloud(cloud.points + 1))


def test_points_are_drawn_without_repetition():
    points = np.arange(30).reshape(10, 3)
    drawn = draw_points(points, 4, np.random.default_rng(0))
    assert len({tuple(point) for point in drawn.tolist()}) == 4
    assert draw_points(points, 10, np.random.default_rng(0)) is points


def test_random_bytes_never_leave_a_traceback():
    rng = np.random.default_rng(0)
    for kind in ("off", "ply", "obj", "stl", "glb", "xyz", "npy", "npz", "h5"):
        start = {"ply": b"ply\n", "glb": b"glTF" + struct.pack("<I", 2), "off": b"OFF\n"}.get(
            kind, b""
        )
        for _ in range(5):
            with refused(""):
                read(f"a.{kind}", start + rng.bytes(200))
