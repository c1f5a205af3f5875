"""Files of flow: read as they were written, and refused in one sentence where they are damaged."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.flow.decode import read_flow, write_flo
from perceivers.data.registry import kind_of_bytes, kind_of_name
from support.files import deep_png
from support.flow_data import pair

FLOW = pair(size=(5, 7)).flow


def flo(flow=FLOW, magic=202021.25):
    height, width = flow.shape[:2]
    return struct.pack("<fii", magic, width, height) + flow.astype("<f4").tobytes()


def read(data):
    return read_flow(EncodedItem("a.flo", data=data))


def test_flo_is_read_as_it_was_written(tmp_path):
    write_flo(tmp_path / "a.flo", FLOW)
    assert (tmp_path / "a.flo").read_bytes() == flo()
    found = read_flow(EncodedItem("a.flo", path=tmp_path / "a.flo"))
    assert found.dtype == np.float32
    assert (found[..., :2] == FLOW).all()
    assert (found[..., 2] == 1).all()
    assert kind_of_name("a.flo") == kind_of_bytes(flo()) == "flow"


def test_pixels_that_are_not_known_are_zero():
    flow = FLOW.copy()
    flow[1, 2] = 1.6e9
    found = read(flo(flow))
    assert not found[1, 2].any()
    assert found[..., 2].sum() == 34


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PIEH", "is no .flo file: it has 4 bytes, fewer than its head of 12"),
        (flo(magic=1.0), r"expected it to begin with the number 202021.25 \(as text, PIEH\)"),
        (flo()[:-3], "is cut off: a flow of 5 x 7 has 292 bytes, and it has 289"),
        (flo() + b"x", "is too long: a flow of 5 x 7 has 292 bytes, and it has 293"),
        (struct.pack("<fii", 202021.25, -3, 5), "-3 pixels wide and 5 high: its head is damaged"),
        (struct.pack("<fii", 202021.25, 2**30, 2**30), "its head is damaged"),
        (flo(np.full((2, 2, 2), 2e9, np.float32)), "knows the motion of no pixel"),
    ],
)
def test_a_damaged_flo_says_what_is_wrong(data, message):
    with pytest.raises(ValueError, match=rf"'a.flo'.*{message}"):
        read(data)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_motions_that_are_no_numbers_are_refused(wrong):
    flow = FLOW.copy()
    flow[1, 2, 0] = wrong
    with pytest.raises(ValueError, match="no number at row 1, column 2"):
        read(flo(flow))


def test_arrays_say_what_is_known_by_nan_or_a_third_channel():
    flow = FLOW.copy()
    flow[0, 0] = np.nan
    found = read_flow(EncodedItem("it", value=flow))
    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[..., 2].sum() == 34
    again = read_flow(EncodedItem("it", value=found.tolist()))
    assert (again == found).all()
    with pytest.raises(ValueError, match=r"it: expected a flow of height x width x 2 .* got shape"):
        read_flow(EncodedItem("it", value=FLOW[..., 0]))
    with pytest.raises(ValueError, match="expected a flow as numbers, got str"):
        read_flow(EncodedItem("it", value="far"))
    broken = found.copy()
    broken[1, 1, 0] = np.nan
    with pytest.raises(ValueError, match="no number at row 1, column 1"):
        read_flow(EncodedItem("it", value=broken))


def kitti():
    stored = np.concatenate([np.rint(FLOW * 64 + 2**15), np.ones((5, 7, 1))], axis=-1)
    stored[2, 3, 2] = 0
    return stored.astype(np.uint16)


def test_kittis_png_is_read_to_a_64th_of_a_pixel():
    found = read(deep_png(kitti()))
    assert not found[2, 3].any()
    known = found[..., 2] > 0
    assert known.sum() == 34
    assert np.abs(found[..., :2] - FLOW)[known].max() <= 0.5 / 64


def test_all_sixteen_bits_are_there_under_every_filter():
    values = np.random.default_rng(0).integers(0, 2**16, (11, 6, 3)).astype(np.uint16)
    values[..., 2] |= 1  # every motion is known
    for stored, filters in ((values, None), (values.transpose(1, 0, 2), [4] * 6)):
        expected = (stored[..., :2].astype(np.float32) - 2**15) / 64
        assert (read(deep_png(stored, filters=filters))[..., :2] == expected).all()


def test_it_is_the_format_that_another_decoder_reads():
    values = np.random.default_rng(0).integers(0, 2**16, (10, 6, 3)).astype(np.uint16)
    with Image.open(io.BytesIO(deep_png(values))) as image:
        eight = np.asarray(image.convert("RGB"))
    assert (eight == (values >> 8)).all()


def eight_bit():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    return buffer.getvalue()


GOOD = deep_png(kitti())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (eight_bit(), "got 8 bit, color type 2"),
        (GOOD[:60], "is damaged or cut off"),
        (GOOD[:-20], "is damaged or cut off"),
        (GOOD[:20], "cut off: it has 20 bytes, fewer than the head of a PNG"),
        (b"\x89PNG\r\n\x1a\n", "cut off: it has 8 bytes"),
        (GOOD[:50] + b"\xff" + GOOD[51:], "is damaged or cut off"),
        (
            deep_png(kitti(), head=struct.pack(">IIBBBBB", 2**20, 2**20, 16, 2, 0, 0, 0)),
            "its head is damaged",
        ),
    ],
)
def test_a_png_that_is_no_flow_says_why(data, message):
    with pytest.raises(ValueError, match=rf"'a.flo'.*({message})"):
        read(data)
