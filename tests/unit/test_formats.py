"""Every suffix that is registered is read, from files and from bytes in tables."""

import struct

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.decode import decode_audio, read_audio_header
from perceivers.data.modalities.image.decode import decode
from perceivers.data.modalities.video.decode import decode_video, read_video_header
from perceivers.data.registry import get_modality, kind_of_bytes, kind_of_name
from support.media_files import UNWRITTEN, write_audio_as, write_image_as, write_video_as


def written(modality):
    return [one for one in get_modality(modality).suffixes if one not in UNWRITTEN]


@pytest.mark.parametrize("suffix", written("image"))
def test_images(tmp_path, suffix):
    path = write_image_as(tmp_path / f"a.{suffix}")
    assert decode(EncodedItem("a", path=path), num_channels=3).image.size == (32, 32)
    if suffix not in {"tga", "dib"}:  # have no first bytes of their own
        assert kind_of_bytes(path.read_bytes()) == "image"


@pytest.mark.parametrize("suffix", written("audio"))
def test_audio(tmp_path, suffix):
    path = write_audio_as(tmp_path / f"a.{suffix}")
    found = decode_audio(EncodedItem(path.name, path=path), sample_rate=8000, num_channels=1)
    header = read_audio_header(EncodedItem(path.name, path=path))
    assert abs(found.value.samples.size / 8000 - 1) < 0.15
    assert header.seconds is None or abs(header.seconds - 1) < 0.15
    assert 0.2 < np.abs(found.value.samples).max() < 1
    data = path.read_bytes()
    assert kind_of_bytes(data) == "audio"
    again = decode_audio(EncodedItem("a cell", data=data), sample_rate=8000, num_channels=1)
    np.testing.assert_array_equal(again.value.samples, found.value.samples)


@pytest.mark.parametrize("suffix", written("video"))
def test_video(tmp_path, suffix):
    path = write_video_as(tmp_path / f"a.{suffix}")
    found, _ = decode_video(EncodedItem("a", path=path), frame_rate=10)
    assert found.frames.shape[0] >= 4
    assert 0.3 < read_video_header(EncodedItem("a", path=path)).seconds < 1.4
    if suffix not in {"m2v", "dv"}:  # frames without a container
        assert kind_of_bytes(path.read_bytes()) == "video"


def test_a_suffix_belongs_to_one_modality():
    assert [kind_of_name(name) for name in ("a.WMA", "a.wmv", "a.ts", "a.HEIC")] == [
        *("audio", "video", "video", "image")
    ]


@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_that_was_streamed_has_no_length_in_its_header(tmp_path, riff, size):
    samples = (np.sin(np.arange(800) / 10) * 20_000).astype("<i2")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16_000, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + b"LIST\2\0\0\0ab"
    path = tmp_path / "a.wav"
    path.write_bytes(head + struct.pack("<4sI", b"data", size) + samples.tobytes())
    for item in (EncodedItem("a", path=path), EncodedItem("a", data=path.read_bytes())):
        found = decode_audio(item).value
        np.testing.assert_array_equal(found.samples[:, 0], samples / np.float32(32768))
        assert read_audio_header(item).seconds == 0.1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\x0a" + bytes(40), "it is JPEG XL, which is not read; convert it to PNG or JPEG"),
        (b"%PDF-1.7\n" + bytes(40), "it is PDF, which is not read"),
        (bytes(128) + b"DICM", "it is DICOM"),
        (b"RIFF\0\0\0\0WAVEfmt ", "it holds audio"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "it is HEIC, which is damaged or cut off"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    ],
)
def test_formats_that_are_not_read_are_named(data, words):
    with pytest.raises(ValueError, match=words):
        decode(EncodedItem("a.png", data=data), num_channels=3)


def test_without_the_extra_a_heic_image_asks_for_it(tmp_path, monkeypatch):
    path = write_image_as(tmp_path / "IMG_3.HEIC")
    monkeypatch.setattr("perceivers.data.modalities.image.decode._register_heif", lambda: False)
    with pytest.raises(ValueError, match=r'it is HEIC, .* pip install "perceivers\[heic\]"'):
        decode(EncodedItem("a", path=path), num_channels=3)
