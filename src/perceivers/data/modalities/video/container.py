"""Film files are opened with FFmpeg: which stream is the picture, how long it is, and why one cannot be read."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from perceivers.data.base import require
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, TooLongError

DEFAULT_RATE = 25.0  # frames per second where nothing is known

# 8K has 33 million. A decoder keeps up to 16 frames, so that a small file could ask for gigabytes.
MAX_FRAME_PIXELS = 50_000_000
# Playlists (HLS, DASH, concat) are not among them: they make FFmpeg open other files and addresses.
FORMATS = (
    *(
        "mov",
        "matroska",
        "avi",
        "flv",
        "live_flv",
        "asf",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "m4v",
        "h264",
    ),
    *(
        "hevc",
        "av1",
        "obu",
        "ivf",
        "gif",
        "apng",
        "nut",
        "ogg",
        "mxf",
        "rm",
        "dv",
        "mjpeg",
        "swf",
        "gxf",
    ),
    *(
        "yuv4mpegpipe",
        "wtv",
        "wav",
        "w64",
        "aiff",
        "mp3",
        "flac",
        "aac",
        "ac3",
        "eac3",
        "au",
        "amr",
    ),
)
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}


class VideoError(ValueError):
    """A complete message, told apart from FFmpeg's own errors, which are ValueErrors too."""


@contextmanager
def open_video(media: EncodedItem) -> Generator[tuple[Any, Any]]:
    """Open a file with FFmpeg and find its picture. Every failure until the end of the `with` becomes one sentence."""
    av = require("av", "video")
    if media.is_missing:
        raise MissingValueError(f"{media.name} is empty: expected a film, got nothing.")
    try:
        file = media.open()
    except OSError as error:
        raise VideoError(f"{error} Replace it or take it out of the data.") from error
    try:
        with file, av.open(file, mode="r", options=_OPTIONS) as container:
            yield container, _picture(container, media.name)
    except (VideoError, TooLongError, MissingValueError):
        raise
    except Exception as error:  # damaged files make PyAV raise errors of many classes
        raise damaged(media.name, error) from error


def _picture(container: Any, name: str) -> Any:
    """Return the stream of pictures, set up to decode on one core: several processes share them."""
    cover = 0x400  # FFmpeg's "attached picture": the cover of a record is no film
    streams = [s for s in container.streams.video if not int(s.disposition) & cover]
    if not streams:
        raise MissingValueError(f"'{name}' has no pictures: expected a film, got only sound.")
    codec = streams[0].codec_context
    if codec is None:
        raise VideoError(
            f"Cannot read '{name}' as a film: its codec is not known here. Convert it, for example to H.264."
        )
    if codec.width * codec.height > MAX_FRAME_PIXELS:
        raise VideoError(
            f"Cannot read '{name}': its header claims frames of {codec.width * codec.height:,} pixels; at most "
            f"{MAX_FRAME_PIXELS:,} are decoded, since a small file could fill the memory. Make it smaller."
        )
    codec.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # frames may grow later on
    codec.thread_count = 1
    return streams[0]


def damaged(name: str, error: Exception) -> ValueError:
    """Return the error that says that a file cannot be decoded, and FFmpeg's reason."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return VideoError(
        f"Cannot read '{name}' as a film: it is damaged, cut off or in no format that is known here "
        f"({reason}). Replace it or take it out of the data."
    )


def no_frames(name: str) -> ValueError:
    """Return the error that says that a film shows nothing."""
    return VideoError(
        f"Cannot read '{name}' as a film: it has no frames. Replace it or take it out of the data."
    )


def has_index(stream: Any) -> bool:
    """Return whether times are stored with the frames, so that they can be sought. Not in MPEG-1 and raw streams."""
    return stream.start_time is not None and stream.container.format.name != "mpeg"


def average_rate(stream: Any) -> float:
    """Return the average frames per second; 25 if nothing is known."""
    return float(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def video_seconds(media: EncodedItem, stream: Any) -> float:
    """Return the length of the picture in seconds. A container that does not tell is read through, not decoded.

    Args:
        media: The file.
        stream: Its picture, opened.
    """
    step = float(stream.time_base)
    seconds = (stream.duration or 0) * step
    if seconds > 0 and has_index(stream):  # others guess it from the bit rate
        return seconds
    try:
        hours, minutes, rest = stream.metadata.get("DURATION", "").split(":")  # Matroska's
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds
    with open_video(media) as (container, again):
        return _scanned_seconds(container, again)


def _scanned_seconds(container: Any, stream: Any) -> float:
    """Return the time from the first frame's beginning to the last one's end."""
    step, frame = float(stream.time_base), 1 / average_rate(stream)
    first, end = math.inf, 0.0
    for number, packet in enumerate(container.demux(stream)):
        if not packet.size:
            continue  # the last one only says that nothing follows
        stamp = packet.dts if packet.pts is None else packet.pts
        begin = number * frame if stamp is None else stamp * step
        first = min(first, begin)
        end = max(end, begin + ((packet.duration or 0) * step or frame))
    return max(end - first, frame)
