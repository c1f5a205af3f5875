import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image import decode as module
from perceivers.data.modalities.image.decode import (
    MAX_PIXELS,
    decode,
    decode_image,
    quiet_pillow,
    read_header,
)

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
REFUSED = r"Cannot read 'it.png' as an image: .*Replace it or take it out of the data\."


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return EncodedItem("it.png", data=file.getvalue())


def values_of(image):
    """Return the values, or tuples of colors, in reading order."""
    pixels = np.asarray(image)
    return [tuple(v) if pixels.ndim == 3 else v for row in pixels.tolist() for v in row]


def photograph(width=40, height=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tiff_of(values):
    """A TIFF of one gray channel of 16 or 32 bits, written by hand: Pillow writes no I;16B."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return EncodedItem("deep.tif", data=file.getvalue())


def png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\x00\x00\x10\x00IDAT"
    )


def test_one_channel_is_gray_and_three_are_rgb():
    media = encoded(photograph())
    assert decode_image(media, num_channels=3).mode == "RGB"
    assert decode_image(media, num_channels=1).mode == "L"


def test_lossless_pixels_come_back_unchanged():
    image = photograph()
    np.testing.assert_array_equal(decode_image(encoded(image), num_channels=3), image)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"num_channels=1 \(gray\) or 3 \(RGB\); got 4"):
        decode_image(encoded(photograph()), num_channels=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_undone(orientation):
    upright = Image.new("L", (4, 2))
    upright.putdata([10 * n for n in range(8)])
    undo = module._TURNS.get(orientation)
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright if undo is None else upright.transpose(module._TURNS[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    media = encoded(stored, exif=exif)
    decoded = decode(media, num_channels=1)
    np.testing.assert_array_equal(decoded.image, upright)
    assert decoded.notes == (() if undo is None else ("turned as EXIF states",))
    header = read_header(media)
    assert (header.height, header.width, header.gray) == (2, 4, True)


def test_broken_exif_costs_only_the_turn(monkeypatch):
    def broken(_):
        raise struct.error("unpack requires a buffer of 12 bytes")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    media = encoded(photograph(), "JPEG")
    assert decode(media, num_channels=3).notes == ("EXIF not readable",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    image = Image.new("RGB", (16, 16), RED).convert("CMYK")
    pixel = decode_image(encoded(image, kind), num_channels=3).getpixel((8, 8))
    assert np.allclose(pixel, RED, atol=3)


def test_ycck_becomes_rgb():
    # What Photoshop writes: the Adobe marker with transform 2, CMYK stored inverted.
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG").data
    assert b"Adobe" in data
    at = data.index(b"Adobe") + 11
    ycck = EncodedItem("it.jpg", data=data[:at] + b"\x02" + data[at + 1 :])
    assert decode_image(ycck, num_channels=3).mode == "RGB"


def test_16_bit_gray_is_scaled_not_clipped():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for media in (encoded(Image.fromarray(values)), tiff_of(values)):
        decoded = decode(media, num_channels=1)
        assert values_of(decoded.image) == [0, 1, 128, 255]
        assert decoded.notes == ("scaled to 8 bit",)


def test_16_bit_pgm_is_scaled():
    media = EncodedItem("it.pgm", data=b"P5 2 1 65535\n" + struct.pack(">HH", 100, 65535))
    assert values_of(decode_image(media, num_channels=1)) == [0, 255]


def test_16_bit_color_is_scaled():
    rows = b"\x00" + struct.pack(">HHH", 0, 32768, 65535)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
    ]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IEND", b"")]:
        data += (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
    assert decode_image(EncodedItem("it.png", data=data), num_channels=3).getpixel((0, 0)) == (
        0,
        128,
        255,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 256, 65535]], dtype=np.int32), [0, 1, 255]),
        (np.array([[0, -5, 1_000_000]], dtype=np.int32), [0, 0, 255]),
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, np.nan]], dtype=np.float32), [0, 100, 0]),
        (np.array([[0.0, np.inf, 40_000.0]], dtype=np.float32), [0, 0, 156]),
    ],
)
def test_32_bit_numbers_are_scaled_by_the_first_white_that_holds_them(values, expected):
    assert values_of(decode_image(tiff_of(values), num_channels=1)) == expected


def test_palette_becomes_rgb():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert values_of(decode_image(encoded(image), num_channels=3)) == [RED, GREEN]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_palette_is_laid_on_white_without_a_warning(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    decoded = decode(encoded(image, transparency=transparency), num_channels=3)
    assert values_of(decoded.image) == [RED, WHITE]
    assert decoded.notes == ("transparent parts laid on white",)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (0, 0, 0, 127), (128, 128, 128)),
        ("LA", (0, 0), WHITE),
        ("LA", (77, 255), (77, 77, 77)),
    ],
)
def test_alpha_is_laid_on_white(mode, color, expected):
    image = decode_image(encoded(Image.new(mode, (3, 3), color)), num_channels=3)
    assert image.getpixel((1, 1)) == expected


def test_one_bit_is_black_and_white():
    image = Image.new("1", (2, 1))
    image.putdata([0, 255])
    assert values_of(decode_image(encoded(image), num_channels=1)) == [0, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_of_several_frames_counts(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN)]
    media = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    decoded = decode(media, num_channels=3)
    assert np.allclose(decoded.image.getpixel((4, 4)), RED, atol=3)
    assert decoded.notes == ("first of several frames",)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 2), (2, 3, 3), (2, 3, 4)])
def test_arrays_are_pictures(shape):
    media = EncodedItem("row 3", array=np.full(shape, 255, dtype=np.uint8))
    assert decode_image(media, num_channels=3).getpixel((2, 1)) == WHITE
    header = read_header(media)
    assert (header.height, header.width, header.gray) == (2, 3, len(shape) == 2 or shape[2] < 3)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4)), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(array):
    media = EncodedItem("row 3", array=np.zeros((4, 4), np.uint8))
    object.__setattr__(media, "array", array)
    with pytest.raises(ValueError, match=r"Expected 'row 3' to be an array of uint8 .* got .* x 4"):
        decode_image(media, num_channels=3)


def test_a_picture_of_one_pixel_works():
    assert decode_image(encoded(Image.new("RGB", (1, 1), RED)), num_channels=3).size == (1, 1)


def test_truncated_jpeg_is_refused():
    data = encoded(photograph(200, 200), "JPEG").data
    with pytest.raises(ValueError, match=REFUSED + "|damaged or cut off .*truncated"):
        decode_image(EncodedItem("it.png", data=data[: len(data) // 2]), num_channels=3)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_other_truncated_files_are_refused(kind):
    data = encoded(photograph(100, 100), kind).data
    with pytest.raises(ValueError, match=REFUSED):
        decode_image(EncodedItem("it.png", data=data[: len(data) // 2]), num_channels=3)


def test_corrupt_jpeg_is_refused():
    data = bytearray(encoded(photograph(), "JPEG").data)
    data[20:300] = bytes(280)
    with pytest.raises(ValueError, match=REFUSED):
        decode_image(EncodedItem("it.png", data=bytes(data)), num_channels=3)


def test_text_named_png_is_told_by_its_first_words():
    with pytest.raises(
        ValueError, match=r"'it.png' as an image: it holds text that begins with 'hello"
    ):
        decode_image(EncodedItem("it.png", data=b"hello world, this is no picture"), num_channels=3)


def test_damaged_header_is_told_from_an_unknown_format():
    with pytest.raises(ValueError, match="its header is damaged or cut off"):
        decode_image(EncodedItem("it.png", data=b"\x89PNG\r\n\x1a\n" + bytes(40)), num_channels=3)


def test_unknown_bytes_are_shown():
    with pytest.raises(ValueError, match=r"no image format .* begins with the bytes 00 01 02"):
        decode_image(EncodedItem("it.png", data=bytes(range(64))), num_channels=3)


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "nothing.jpg"
    path.touch()
    with pytest.raises(
        ValueError, match=r"Cannot read '.*nothing.jpg' as an image: the file is empty"
    ):
        decode_image(EncodedItem(str(path), path=path), num_channels=3)


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_file_that_cannot_be_opened_is_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ValueError, match=r"cannot be read: .*Replace it or take it out"):
        decode_image(EncodedItem(str(path), path=path), num_channels=3)


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(ValueError, match="it is PostScript, which is not read"):
        decode_image(encoded(photograph(), "EPS"), num_channels=3)


@pytest.mark.parametrize(("side", "pixels"), [(20_000, "400,000,000"), (10_001, "100,020,001")])
def test_bomb_is_refused_by_its_header(side, pixels):
    media = EncodedItem("bomb.png", data=png_that_claims(side, side))
    for read in (lambda: decode_image(media, num_channels=3), lambda: read_header(media)):
        with pytest.raises(
            ValueError, match=rf"'bomb.png': its header claims {pixels} pixels; at most"
        ):
            read()


def test_an_array_that_is_too_large_is_refused():
    row = np.zeros((1, MAX_PIXELS + 1), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"'row 1': its header claims 100,000,001 pixels"):
        decode_image(EncodedItem("row 1", array=row), num_channels=1)


def test_warnings_of_pillow_reach_nobody_and_others_do():
    with quiet_pillow, quiet_pillow:
        warnings.warn_explicit("cut off", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
    with pytest.raises(UserWarning, match="cut off"), quiet_pillow:
        warnings.warn_explicit("cut off", UserWarning, "x.py", 1, module="mine")
    with pytest.raises(UserWarning, match="cut off"):
        warnings.warn_explicit("cut off", UserWarning, "x.py", 1, module="PIL.Image")
