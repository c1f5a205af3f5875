import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceivers.data.encoded_item import EncodedItem, as_encoded_item, to_uint8_images
from perceivers.data.registry import kind_of_bytes, kind_of_name
from support.image_data import pixels, png, write_png


def test_bytes_and_files_are_read_alike(tmp_path):
    path = write_png(tmp_path / "a.png", 1)
    assert EncodedItem("a", data=png(1)).read() == EncodedItem("a", path=path).read() == png(1)
    with EncodedItem("a", data=png(1)).open() as file:
        assert file.read() == png(1)


def test_missing_file_is_named(tmp_path):
    media = as_encoded_item("gone.png", "row 1", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'.*gone\.png' cannot be read: No such file"):
        media.read()


def test_file_that_must_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    media = EncodedItem("secret.png", path=tmp_path / "secret.png")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"'secret\.png' cannot be read: Permission denied"):
        media.read()


def test_disk_that_fails_while_reading_names_the_file(tmp_path, monkeypatch):
    class Broken(io.BufferedReader):
        def __init__(self):
            super().__init__(io.BytesIO())

        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda path, mode: Broken())
    with pytest.raises(OSError, match=r"'a\.png' cannot be read: Input/output error"):
        EncodedItem("a.png", path=tmp_path / "a.png").read()


def test_nothing_to_open_is_said():
    with pytest.raises(ValueError, match="t, row 3 is empty: expected a file, got nothing"):
        as_encoded_item(None, "t, row 3", Path()).read()
    with pytest.raises(ValueError, match="t, row 3 is empty"):
        as_encoded_item(float("nan"), "t, row 3", Path()).open()
    with pytest.raises(ValueError, match="digit is a decoded image and has no bytes"):
        EncodedItem("digit", array=pixels(1)).open()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "image"),
        ("a.b.webp", "image"),
        ("a.wav", "audio"),
        ("a.mp4", "video"),
        ("a.off", "points"),
        ("a.txt", "text"),
        ("a.xyz1", None),
        ("jpg", None),
    ],
)
def test_suffix_tells_the_kind(name, kind):
    assert kind_of_name(name) == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(0), "image"),
        (b"\xff\xd8\xff\xe0", "image"),
        (b"RIFF....WEBPVP8 ", "image"),
        (b"RIFF....WAVEfmt ", "audio"),
        (b"RIFF....????", None),
        (b"OggS", "audio"),
        (b"....ftypisom", "video"),
        (b"....ftypavif", "image"),
        (b"hello", None),
        (b"", None),
    ],
)
def test_first_bytes_tell_the_kind(data, kind):
    assert kind_of_bytes(data) == kind


def test_every_kind_of_cell_becomes_media(tmp_path):
    write_png(tmp_path / "1.png", 1)
    image = Image.fromarray(pixels(1))
    media = EncodedItem("m", data=b"x")
    assert as_encoded_item(media, "w", tmp_path) is media
    assert as_encoded_item("1.png", "w", tmp_path).name == str(tmp_path / "1.png")
    assert as_encoded_item(Path("1.png"), "w", tmp_path).read() == png(1)
    assert as_encoded_item(str(tmp_path / "1.png"), "w", Path("elsewhere")).read() == png(1)
    assert as_encoded_item(bytearray(png(1)), "w", tmp_path).read() == png(1)
    assert as_encoded_item({"bytes": png(1), "path": "x.png"}, "w", tmp_path).name == "w (x.png)"
    assert as_encoded_item({"bytes": png(1), "path": None}, "w", tmp_path).name == "w"
    assert as_encoded_item({"bytes": None, "path": "1.png"}, "w", tmp_path).read() == png(1)
    assert (as_encoded_item(pixels(1), "w", tmp_path).array == pixels(1)).all()
    assert (as_encoded_item(image, "w", tmp_path).array == pixels(1)).all()


def test_other_cells_are_refused():
    with pytest.raises(TypeError, match=r"t, row 1: expected a path, .* got int"):
        as_encoded_item(3, "t, row 1", Path())


@pytest.mark.parametrize("mode", ["1", "P", "LA", "I;16", "F", "CMYK"])
def test_unusual_pil_images_keep_their_mode(mode):
    media = as_encoded_item(Image.new(mode, (3, 2)), "w", Path())
    assert Image.open(io.BytesIO(media.read())).mode == mode


def test_pil_images_that_no_file_holds_are_converted():
    assert as_encoded_item(Image.new("HSV", (3, 2)), "w", Path()).array.shape == (2, 3, 3)
    palette = Image.new("P", (3, 2))
    palette.info["transparency"] = 0
    assert as_encoded_item(palette, "w", Path()).array.shape == (2, 3, 4)


def test_pil_images_are_turned_as_their_exif_says():
    buffer = io.BytesIO()
    image = Image.new("RGB", (3, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, format="JPEG", exif=exif)
    assert as_encoded_item(Image.open(buffer), "w", Path()).array.shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([0, 200], dtype=np.uint8), [0, 200]),
        (np.array([True, False]), [255, 0]),
        (np.array([0.0, 0.5, 1.0], dtype=np.float32), [0, 128, 255]),
        (np.array([0, 255], dtype=np.int64), [0, 255]),
        (np.zeros(0), []),
    ],
)
def test_numbers_become_bytes(array, expected):
    pictures = to_uint8_images(array, "w")
    assert pictures.dtype == np.uint8
    assert pictures.tolist() == expected


def test_numbers_of_unknown_scale_are_refused():
    with pytest.raises(ValueError, match=r"w: expected .* got float64 from -1 to 1\. Scale them"):
        to_uint8_images(np.array([-1.0, 1.0]), "w")
    with pytest.raises(ValueError, match="got int64 from 0 to 4095"):
        to_uint8_images(np.array([0, 4095]), "w")
    with pytest.raises(ValueError, match="expected images as numbers, got an array of <U1"):
        to_uint8_images(np.array(["a"]), "w")


def test_media_are_sent_to_other_processes():
    media = pickle.loads(pickle.dumps(EncodedItem("a", data=b"x")))
    assert media == EncodedItem("a", data=b"x")
