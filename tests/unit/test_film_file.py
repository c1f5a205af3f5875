"""Film files: what is opened as a film and what is refused, in one sentence."""

import struct

import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.video import decode as film_file
from perceivers.data.modalities.video.decode import decode_video

pytest.importorskip("av")


def test_the_cover_of_a_record_is_no_film():
    class Stream:
        disposition = 0x400

    class Streams:
        video = (Stream(),)

    class Container:
        streams = Streams()

    with pytest.raises(MissingValueError, match="only audio"):
        film_file._video_stream(Container(), "song.mp3")


def test_an_unknown_codec_is_refused():
    class Stream:
        disposition = 0
        codec_context = None

    class Streams:
        video = (Stream(),)

    class Container:
        streams = Streams()

    with pytest.raises(ValueError, match="its codec is not known here"):
        film_file._video_stream(Container(), "a.mov")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, cut off or in no format"),
        (b"these are words and no film " * 20, "damaged, cut off or in no format"),
        (
            b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            "no format that is known here",
        ),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no format that is known here"),
        (struct.pack(">I4s", 8, b"ftyp") + b"isom" * 8, "no format that is known here"),
    ],
)
def test_what_is_no_film_is_refused_in_one_sentence(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        decode_video(EncodedItem("odd.mp4", data=data), frame_rate=25.0)
    assert "\n" not in str(caught.value)
    assert "odd.mp4" in str(caught.value)
