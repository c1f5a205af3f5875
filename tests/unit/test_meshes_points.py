import io

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.points import decode as meshes
from perceivers.data.modalities.points.decode import read_points

h5py = pytest.importorskip("h5py")

CORNERS = [[0, 0, 0], [2, 0, 0], [0, 2, 0]]


def read(name, data):
    return read_points(EncodedItem(name, data=data))


def refused(reason):
    expected = rf"Cannot read '[^']*' as a point cloud: .*{reason}.*Replace it or take it out"
    return pytest.raises(ValueError, match=expected)


def saved(array, **arrays):
    file = io.BytesIO()
    if arrays:
        np.savez(file, **arrays)
    else:
        np.save(file, array)
    return file.getvalue()


def hdf5(**arrays):
    file = io.BytesIO()
    with h5py.File(file, "w") as group:
        for name, array in arrays.items():
            group[name] = array
    return file.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        b"1 2 3\n4 5 6\n",
        b"1,2,3\r\n4,5,6\r\n",
        b"x;y;z\n1;2;3\n4;5;6",
        b"//X Y Z\n1\t2\t3\n4 5 6",
        b"# comment\n\n2\n1 2 3\n4 5 6 # more\n",
        b"  1e0 +2 3.0\n4 5 6",
    ],
)
def test_text_of_points_is_read(text):
    for name in ("a.xyz", "a.txt", "a.pts"):
        cloud = read(name, text)
        np.testing.assert_array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
        assert cloud.faces is None


def test_text_without_a_suffix_is_told_by_its_beginning():
    assert read("row 3", b" 1.5 2 3\n").points.shape == (1, 3)
    assert read("row 3", b"# obj\nv 1 2 3\n").points.shape == (1, 3)
    with refused("in no format of points that is known here; it begins with the bytes 00 01"):
        read("row 3", b"\x00\x01")


def test_columns_of_a_text_behind_the_third_are_further_channels():
    assert read("a.xyz", b"1 2 3 255 0 0\n").points.tolist() == [[1, 2, 3, 255, 0, 0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"1 2 3\n1 2\n", "number of columns changed from 3 to 2"),
        (b"hello\nworld\n", "could not convert"),
        (b"1 2\n3 4\n", r"expected n x \(3 \+ further channels\) numbers, got shape \(2, 2\)"),
        (b"# nothing\n", "it holds no points"),
        (b"1 2 3\nnan 2 3\n1 inf 3\n", "2 of its 3 points hold nan, infinity or a number above 1e"),
        (b"nan 2 3\n", "1 of its 1 points hold nan"),
        (b"1e300 2 3\n", "1 of its 1 points hold nan"),
    ],
)
def test_damaged_text_is_refused(text, reason):
    with refused(reason):
        read("a.xyz", text)


def test_a_long_text_is_thinned_at_random(monkeypatch):
    monkeypatch.setattr(meshes, "MAX_LINES", 10)
    text = "x y z\n" + "".join(f"{i} {i} {i}\n" for i in range(1000))
    cloud = read("a.xyz", text.encode())
    assert cloud.notes == ("text thinned at random",)
    assert 9 <= cloud.points.shape[0] <= 10
    assert (np.diff(cloud.points[:, 0]) > 0).all()
    assert np.ptp(cloud.points[:, 0]) > 300
    np.testing.assert_array_equal(read("a.xyz", text.encode()).points, cloud.points)


def test_more_points_than_are_ever_read_are_refused(monkeypatch):
    monkeypatch.setattr(meshes, "MAX_POINTS", 2)
    with refused("claims 3 lines; at most 2 are read"):
        read("a.xyz", b"1 2 3\n" * 3)
    with refused("claims 3 points; at most 2 are read. Thin it first"):
        read_points(EncodedItem("row", value=np.zeros((3, 3))))


def test_arrays_of_points_are_read():
    points = np.arange(12, dtype=np.float16).reshape(4, 3)
    for name in ("a.npy", "row 3"):
        cloud = read(name, saved(points))
        np.testing.assert_array_equal(cloud.points, points)
        assert cloud.points.dtype == np.float32
    for arrays in ({"points": points, "label": 3}, {"xyz": points}, {"any": points}):
        np.testing.assert_array_equal(read("a.npz", saved(None, **arrays)).points, points)
    with refused("expected an array called points or xyz"):
        read("a.npz", saved(None, a=points, b=points))
    with refused("neither .npy nor .npz"):
        read("a.npy", b"hello")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "i4", "u1"])
def test_numbers_of_any_type_become_floats(dtype):
    cloud = read_points(EncodedItem("row", value=np.array(CORNERS, dtype=dtype)))
    assert cloud.points.dtype.isnative
    assert cloud.points.dtype.kind == "f"
    np.testing.assert_array_equal(cloud.points, CORNERS)


def test_values_are_checked_too():
    np.testing.assert_array_equal(read_points(EncodedItem("row", value=CORNERS)).points, CORNERS)
    with refused("it holds no points"):
        read_points(EncodedItem("row", value=[]))
    with refused(r"got shape \(3,\)"):
        read_points(EncodedItem("row", value=[1, 2, 3]))
    with pytest.raises(
        MissingValueError, match="row 3 is empty: expected a point cloud, got nothing"
    ):
        read_points(EncodedItem("row 3"))


def test_clouds_in_hdf5_are_read():
    points = np.arange(12.0).reshape(4, 3)
    for arrays in ({"points": points, "label": 1}, {"data": points}, {"any": points}):
        np.testing.assert_array_equal(read("a.h5", hdf5(**arrays)).points, points)
    assert read("row 3", hdf5(xyz=points)).points.shape == (4, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            lambda: hdf5(a=np.ones((2, 3)), b=np.ones((2, 3))),
            r"called points, xyz or data, got \['a', 'b'\]",
        ),
        (
            lambda: hdf5(data=np.ones((5, 2, 3))),
            r"it holds 5 point clouds, \(5, 2, 3\); expected one",
        ),
        (lambda: hdf5(data=1.0), r"got shape \(\)"),
        (lambda: hdf5(data=np.ones((2, 3)))[:900], "damaged or cut off"),
        (lambda: b"\x89HDF\r\n", "damaged or cut off"),
    ],
)
def test_damaged_hdf5_is_refused(data, reason):
    with refused(reason):
        read("a.h5", data())
