import io
import zipfile

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array import decode as arrayfiles
from perceivers.data.modalities.array.decode import (
    as_numbers,
    load_arrays,
    one_sentence,
    read_array,
    read_bytes,
)
from perceivers.data.modalities.base import MissingValueError

REFUSED = r"Cannot read 'it' as an array: .*{}.*\. Replace it or take it out of the data\."


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def refused(reason):
    return pytest.raises(ValueError, match=REFUSED.format(reason))


def test_an_array_file_gives_its_numbers():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (read,) = load_arrays(EncodedItem("it", data=npy(array)), "an array", ("values",))
    assert read is not None
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.float32


@pytest.mark.parametrize("array", [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(2.5)])
def test_order_and_shape_of_an_array_file_are_kept(array):
    read = load_arrays(EncodedItem("it", data=npy(array)), "an array", ("values",))[0]
    np.testing.assert_array_equal(read, array)


def test_a_file_on_the_disk_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    path = tmp_path / "a.npy"
    read = load_arrays(EncodedItem(str(path), path=path), "an array", ("values",))[0]
    np.testing.assert_array_equal(read, [0, 1, 2])


def test_an_archive_gives_arrays_by_any_of_their_names():
    data = npz(x=np.arange(2), coords=np.arange(3), other=np.arange(4))
    x, places, mask = load_arrays(
        EncodedItem("it", data=data),
        "an array",
        ("values", "x"),
        ("coordinates", "coords"),
        ("mask",),
    )
    assert [None if a is None else a.size for a in (x, places, mask)] == [2, 3, None]


def test_the_only_array_of_an_archive_is_read_whatever_its_name():
    assert load_arrays(EncodedItem("it", data=npz(q=np.arange(2))), "an array", ("x",))[0].size == 2
    both = load_arrays(
        EncodedItem("it", data=npz(q=np.ones(2), m=np.ones(3))), "an array", ("x",), ("m",)
    )
    assert both[0].size == 2


def test_an_archive_of_unknown_names_lists_them():
    with refused(r"expected an array called values or x, got \['a', 'b'\]"):
        load_arrays(
            EncodedItem("it", data=npz(a=np.ones(1), b=np.ones(1))), "an array", ("values", "x")
        )


def test_pickled_objects_are_refused():
    with refused("pickled Python objects"):
        load_arrays(
            EncodedItem("it", data=npy(np.array([{}, 1], dtype=object))), "an array", ("x",)
        )
    with refused("pickled Python objects"):
        load_arrays(EncodedItem("it", data=npz(x=np.array([{}], dtype=object))), "an array", ("x",))


def test_a_file_cut_short_or_with_a_lying_header_is_refused():
    data = npy(np.arange(100.0))
    with refused("its header promises 800 bytes of numbers, 793 are there"):
        load_arrays(EncodedItem("it", data=data[:-7]), "an array", ("x",))
    with refused("it is damaged or cut off"):
        load_arrays(EncodedItem("it", data=data[:20]), "an array", ("x",))
    with refused("its header promises 8,000,000,000,000 bytes"):
        liar = data.replace(b"(100,), }" + b" " * 12, b"(1000000000000,), }  ")
        load_arrays(EncodedItem("it", data=liar), "an array", ("x",))
    with refused("it is damaged or cut off"):
        load_arrays(EncodedItem("it", data=npz(x=np.arange(9))[:-30]), "an array", ("x",))


def test_named_columns_are_refused():
    array = np.zeros(2, dtype=[("高", "f4")])
    with (
        refused(r"version \(3, 0\) is for named columns"),
        pytest.warns(UserWarning, match="format 3.0"),
    ):
        load_arrays(EncodedItem("it", data=npy(array)), "an array", ("x",))
    with refused(r"expected real numbers, got \[\('a', '<f4'\)\]"):
        load_arrays(
            EncodedItem("it", data=npy(np.zeros(2, dtype=[("a", "f4")]))), "an array", ("x",)
        )


def test_an_array_of_an_archive_that_claims_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(arrayfiles, "MAX_BYTES", 1000)
    data = npz(x=np.zeros(1000))
    assert len(data) < 1000
    with refused("its array 'x' claims 8,128 bytes; at most 1,000 are read"):
        load_arrays(EncodedItem("it", data=data), "an array", ("x",))


def test_a_file_too_large_is_refused_unread(monkeypatch, tmp_path):
    monkeypatch.setattr(arrayfiles, "MAX_BYTES", 10)
    path = tmp_path / "it"
    path.write_bytes(bytes(11))
    with refused("it has 11 bytes; at most 10 are read"):
        read_bytes(EncodedItem("it", path=path), "an array")


def test_what_is_no_array_file_is_refused():
    with refused("neither .npy nor .npz; it begins with the bytes 68 65 6c 6c 6f"):
        load_arrays(EncodedItem("it", data=b"hello"), "an array", ("x",))
    with refused("the file is empty"):
        load_arrays(EncodedItem("it", data=b""), "an array", ("x",))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"hello")
    with refused("it is damaged or cut off"):
        load_arrays(EncodedItem("it", data=file.getvalue()), "an array", ("x",))


def test_a_missing_file_and_an_empty_cell_are_told_apart(tmp_path):
    path = tmp_path / "gone.npy"
    with pytest.raises(ValueError, match=r"gone.npy' cannot be read: .*Replace it") as caught:
        read_bytes(EncodedItem(str(path), path=path), "an array")
    assert not isinstance(caught.value, MissingValueError)
    with pytest.raises(MissingValueError, match="row 3 is empty: expected an array, got nothing"):
        read_bytes(EncodedItem("row 3"), "an array")


def test_values_need_no_file():
    for value in ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), {"x": [[1, 2], [3, 4]]}):
        read = load_arrays(EncodedItem("it", value=value), "an array", ("x",))[0]
        np.testing.assert_array_equal(read, [[1, 2], [3, 4]])
    picture = EncodedItem("it", array=np.ones((2, 3), dtype=np.uint8))
    assert load_arrays(picture, "an array", ("x",), ("y",))[1] is None


def test_lists_of_a_table_become_numbers():
    rows = np.empty(2, dtype=object)
    rows[0], rows[1] = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    np.testing.assert_array_equal(as_numbers(rows), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(as_numbers([1, None]), [1, np.nan])


@pytest.mark.parametrize("value", [[[1, 2], [3]], [object()]])
def test_ragged_rows_and_no_numbers_are_refused(value):
    with refused("expected numbers in rows of one length"):
        load_arrays(EncodedItem("it", value=value), "an array", ("x",))


@pytest.mark.parametrize("value", [["a", "b"], [1j]])
def test_words_and_complex_numbers_are_refused(value):
    with refused("expected real numbers, got"):
        load_arrays(EncodedItem("it", value=value), "an array", ("x",))


def test_a_failure_without_words_is_named_by_its_kind():
    with refused(r"it is damaged or cut off \(MemoryError\)"), one_sentence("it", "an array"):
        raise MemoryError
    with pytest.raises(MissingValueError), one_sentence("it", "an array"):
        raise MissingValueError


def test_rows_are_elements_and_columns_channels():
    array = read_array(EncodedItem("it", value=[[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(array.values, [[1, 2, 3], [4, 5, 6]])
    assert (array.coordinates, array.mask, array.values.dtype) == (None, None, np.float32)
    assert read_array(EncodedItem("it", value=[1, 2, 3])).values.shape == (3, 1)


def test_more_axes_are_flattened_and_their_cells_become_coordinates():
    array = read_array(EncodedItem("it", value=np.arange(12).reshape(2, 1, 3, 2)))
    assert array.made
    np.testing.assert_array_equal(array.values[:, 0], [0, 2, 4, 6, 8, 10])
    assert array.coordinates is not None
    expected = [[-1, 0, -1], [-1, 0, 0], [-1, 0, 1], [1, 0, -1], [1, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(array.coordinates, expected)


@pytest.mark.parametrize(
    ("values", "places", "shape"),
    [
        ((4, 2), (4,), (4, 1)),
        ((4, 2), (4, 3), (4, 3)),
        ((2, 2, 5), (2, 2, 3), (4, 3)),
        ((2, 2, 5), (4, 3), (4, 3)),
    ],
)
def test_stated_coordinates_are_read(values, places, shape):
    data = npz(values=np.ones(values), times=np.ones(places))
    array = read_array(EncodedItem("it", data=data))
    assert array.coordinates is not None
    assert array.coordinates.shape == shape
    assert not array.made


@pytest.mark.parametrize("places", [(3, 2), (8,), (2, 4)])
def test_coordinates_that_do_not_fit_are_refused(places):
    with refused(r"expected coordinates of \(4,\) elements, got shape"):
        read_array(
            EncodedItem("it", value={"values": np.ones((4, 1)), "coordinates": np.ones(places)})
        )


@pytest.mark.parametrize("value", [1.5, [], np.ones((3, 0))])
def test_an_array_without_elements_is_refused(value):
    with refused(r"expected M x C numbers, got shape"):
        read_array(EncodedItem("it", value=value))


def test_an_array_of_too_many_elements_is_refused(monkeypatch):
    monkeypatch.setattr(arrayfiles, "MAX_ELEMENTS", 3)
    with refused("it holds 4 elements; at most 3 are read"):
        read_array(EncodedItem("it", value=[1, 2, 3, 4]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_nan_is_refused_unless_a_mask_covers_it(bad):
    values = np.array([[1.0, 2.0], [3.0, bad]])
    with refused("1 of its 4 values are nan or infinite and no mask covers them"):
        read_array(EncodedItem("it", value=values))
    with refused("1 of its 4 values"):
        read_array(EncodedItem("it", value={"values": values, "mask": [False, True]}))
    array = read_array(EncodedItem("it", value={"values": values, "mask": [1, 0]}))
    np.testing.assert_array_equal(array.values, [[1, 2], [0, 0]])
    np.testing.assert_array_equal(array.mask, [True, False])


def test_nan_coordinates_are_refused():
    with refused("1 of its 2 coordinates are nan"):
        read_array(EncodedItem("it", value={"values": [1, 2], "coordinates": [0, np.nan]}))


def test_a_mask_of_values_masks_the_whole_element():
    array = read_array(EncodedItem("it", value={"x": [[1, 2], [3, 4]], "mask": [[1, 1], [1, 0]]}))
    np.testing.assert_array_equal(array.mask, [True, False])
    with refused(r"expected a mask of 2 elements, got shape \(3,\)"):
        read_array(EncodedItem("it", value={"x": [[1, 2], [3, 4]], "mask": [1, 1, 1]}))


def test_an_array_of_which_nothing_is_real_is_missing():
    with pytest.raises(
        MissingValueError, match="its mask states that none of its 2 elements is real"
    ):
        read_array(EncodedItem("it", value={"x": [1, 2], "mask": [0, 0]}))
    with pytest.raises(MissingValueError, match="expected an array, got nothing"):
        read_array(EncodedItem("it"))
