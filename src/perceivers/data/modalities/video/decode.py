"""Decoding of video: upright RGB frames at a stated rate, the same whether a window or the whole is decoded."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, TooLongError
from perceivers.data.modalities.image.decode import IMAGE_BRANDS
from perceivers.optional import require

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


_ASF, _ASF_VIDEO = (
    bytes.fromhex("3026b2758e66cf11"),
    bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b"),
)
_HEAD = 1 << 16  # bytes in which Matroska, Ogg and ASF name their codecs


def tracks(data: bytes) -> Literal["audio", "video"] | None:
    """Return whether a container holds video, or audio only, by its bytes; None if it is no container.

    A container whose tracks are not in the bytes counts as video, unless its type states otherwise.
    """
    kind, form, head = data[4:8], data[8:12], data[:_HEAD]
    if kind == b"ftyp" or (kind in {b"moov", b"mdat", b"wide"} and not data[0]):
        if form in IMAGE_BRANDS and kind == b"ftyp":
            return None
        handlers = {data[i + 12 : i + 16] for i in _positions(data, b"hdlr")}
        is_audio = (b"soun" in handlers and b"vide" not in handlers) or form[:3] in {b"M4A", b"M4B"}
        return "audio" if is_audio else "video"
    if data.startswith(b"\x1a\x45\xdf\xa3"):  # EBML: Matroska, WebM
        return "audio" if b"A_" in head and b"V_" not in head else "video"
    if data.startswith(b"OggS"):
        codecs = (b"\x80theora", b"OVP80", b"\x01video", b"BBCD\0")
        return "video" if any(codec in head[:4096] for codec in codecs) else "audio"
    if data.startswith(_ASF):
        return "video" if _ASF_VIDEO in head else "audio"
    if data.startswith(b"FLV\x01"):
        return "audio" if data[4:5] == b"\x04" else "video"
    if data.startswith(b".RMF"):
        return "video" if b"VIDO" in head else "audio"
    is_stream = data.startswith((b"\x00\x00\x01\xba", b"\x06\x0e\x2b\x34", b"nut/multimedia"))
    is_avi = data[:4] == b"RIFF" and form == b"AVI "
    is_mpegts = any(data[first::step][:3] == b"GGG" for first, step in ((0, 188), (4, 192)))
    return "video" if is_stream or is_avi or is_mpegts else None


def _positions(data: bytes, word: bytes) -> Iterator[int]:
    """Yield the positions of a word in bytes."""
    place = data.find(word)
    while place >= 0:
        yield place
        place = data.find(word, place + 1)


class VideoError(ValueError):
    """A complete message, distinguished from FFmpeg's own errors, which are ValueErrors too."""


class QuietFile:
    """File for FFmpeg whose seeks before its beginning fail with a number.

    PyAV keeps the exception of a failed seek, and prints it with its traceback when another one follows.

    Args:
        file: The opened file.
    """

    def __init__(self, file: Any) -> None:
        self.read, self.tell = file.read, file.tell
        self._seek = file.seek

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return the new position, or -22 (invalid argument)."""
        try:
            return int(self._seek(offset, whence))
        except (OSError, ValueError, OverflowError):
            return -22


@contextmanager
def open_video(media: EncodedItem) -> Generator[tuple[Any, Any]]:
    """Open a file with FFmpeg and find its video stream. Failures within the `with` become one sentence."""
    av = require("av", "video")
    if media.is_missing:
        raise MissingValueError(f"{media.name} is empty: expected a video, got nothing.")
    try:
        file = media.open()
    except OSError as error:
        raise VideoError(f"{error} Replace it or take it out of the data.") from error
    try:
        with file, av.open(QuietFile(file), mode="r", options=_OPTIONS) as container:
            yield container, _video_stream(container, media.name)
    except (VideoError, TooLongError, MissingValueError):
        raise
    except Exception as error:  # damaged files make PyAV raise errors of many classes
        raise damaged(media.name, error) from error


def _video_stream(container: Any, name: str) -> Any:
    """Return the video stream, set up to decode on one core: several processes share them."""
    cover = 0x400  # FFmpeg's "attached picture": the cover of a record is no video
    streams = [s for s in container.streams.video if not int(s.disposition) & cover]
    if not streams:
        raise MissingValueError(f"'{name}' has no video stream: expected a video, got only audio.")
    codec = streams[0].codec_context
    if codec is None:
        raise VideoError(
            f"Cannot read '{name}' as a video: its codec is not known here. Convert it, for example to H.264."
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
    """Return the error that states that a file cannot be decoded, and FFmpeg's reason."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return VideoError(
        f"Cannot read '{name}' as a video: it is damaged, cut off or in no format that is known here "
        f"({reason}). Replace it or take it out of the data."
    )


def no_frames(name: str) -> ValueError:
    """Return the error that states that a video shows nothing."""
    return VideoError(
        f"Cannot read '{name}' as a video: it has no frames. Replace it or take it out of the data."
    )


def has_index(stream: Any) -> bool:
    """Return whether times are stored with the frames, so that they can be sought. Not in MPEG-1 and raw streams."""
    return stream.start_time is not None and stream.container.format.name != "mpeg"


def average_rate(stream: Any) -> float:
    """Return the average frames per second; 25 if nothing is known."""
    return float(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def video_seconds(media: EncodedItem, stream: Any) -> float:
    """Return the length of the video in seconds. A container that does not state it is read through, not decoded.

    Args:
        media: The file.
        stream: Its video stream, opened.
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
            continue  # the last one only states that nothing follows
        stamp = packet.dts if packet.pts is None else packet.pts
        begin = number * frame if stamp is None else stamp * step
        first = min(first, begin)
        end = max(end, begin + ((packet.duration or 0) * step or frame))
    return max(end - first, frame)


MAX_VIDEO_BYTES = 512 * 1024**2  # of the frames kept of one video, at the size and rate asked for
# Containers write times in steps of up to a millisecond: 1/30 s is kept as 33 ms, two of it as 67.
EPSILON = 1e-3
# A header may promise a little more than there is (audio that ends later, a rounded length).
MISSING_SECONDS = 0.5
STEPS_BACK = (0.0, 1.0, 8.0)  # seconds before the window at which a keyframe is looked for

Fit = Callable[[int, int], tuple[int, int]]
Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Video:
    """Frames that follow one another at a steady rate.

    Attributes:
        frames: T x H x W x 3, RGB, upright, with square pixels.
        frame_rate: Of `frames`, in frames per second.
        start: Time of `frames[0]` in seconds from the beginning of the video stream.
        duration: Length of the whole video in seconds, also where `frames` are a window of it.
    """

    frames: Frames
    frame_rate: float
    start: float
    duration: float


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """Header of a video.

    Attributes:
        height: Rows, upright and with square pixels.
        width: Columns, likewise.
        frame_rate: Frames per second, on average where it varies.
        seconds: Length of the video stream, which the audio may exceed.
        has_audio: Whether there is an audio track.
    """

    height: int
    width: int
    frame_rate: float
    seconds: float
    has_audio: bool


def window_of(
    duration: float, *, frame_rate: float, clip: tuple[int, float] | None
) -> tuple[int, int]:
    """Return the first frame and the number of frames of a clip, counted at `frame_rate` from the beginning.

    The clip begins at `clip_position * (duration - its own length)`, on the nearest frame. So it shows the window that
    the audio of the same moment is cut from, and the frames that the whole video has there.

    Args:
        duration: Length of the video in seconds.
        frame_rate: At which frames are taken.
        clip: Number of frames, and the moment from 0 to 1. None: the whole video.
    """
    total = max(1, math.ceil(duration * frame_rate - EPSILON))
    if clip is None or clip[0] >= total:
        return 0, total
    frames, clip_position = clip
    start = clip_position * max(0.0, duration - frames / frame_rate)
    return min(total - frames, max(0, math.floor(start * frame_rate + 0.5))), frames


def read_video_header(media: EncodedItem) -> VideoHeader:
    """Return the header of a video. One frame is decoded, since the rotation is part of it.

    Raises:
        MissingValueError: If there is nothing, or only audio.
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    given = _given_frames(media)
    if given is not None:
        frames, rate = given
        height, width = frames.shape[1:3]
        return VideoHeader(height, width, rate, len(frames) / rate, has_audio=False)
    with open_video(media) as (container, stream):
        seconds = video_seconds(media, stream)
        for frame in container.decode(stream):
            height, width = _upright_size(frame, stream)
            rate = average_rate(stream)
            return VideoHeader(height, width, rate, seconds, bool(container.streams.audio))
    raise no_frames(media.name)


def decode_video(
    media: EncodedItem,
    *,
    frame_rate: float,
    fit: Fit | None = None,
    clip: tuple[int, float] | None = None,
) -> tuple[Video, tuple[str, ...]]:
    """Return the frames on screen at 0, 1, 2, ... times 1 / `frame_rate` seconds, and notes on what was decided.

    Frames are selected by their time stamps, so variable frame rates and reordered frames are handled. A window equals
    the same part of a full decode.

    Args:
        media: A file or its bytes; or frames as an array of uint8, T x H x W x 3, taken as 25 per second unless it
            is a mapping of `frames` and `frame_rate`.
        frame_rate: Frames per second wanted.
        fit: Height and width of the upright frames -> those wanted. Frames are scaled while they are converted to
            RGB, except those of an array. None: as they are.
        clip: Number of frames and moment, see `window_of`: only that window is decoded. None: everything.

    Raises:
        MissingValueError: If there is nothing, or only audio.
        TooLongError: If the frames would need more than `MAX_VIDEO_BYTES`.
        ValueError: If it cannot be read, has no frames, or is cut off before the end of the window. The message
            names the file and the reason.
    """
    given = _given_frames(media)
    if given is not None:
        return _sampled(*given, frame_rate, clip), ()
    with open_video(media) as (container, stream):
        seconds = video_seconds(media, stream)
        first, count = window_of(seconds, frame_rate=frame_rate, clip=clip)
        sampler = _Sampler(media.name, (first + np.arange(count)) / frame_rate, seconds, fit)
        frames = _sought(container, stream, sampler)
    if frames is None:  # not every container can be sought in
        with open_video(media) as (container, stream):
            frames = sampler.take(_timed(container.decode(stream), stream), stream)
    return Video(frames, frame_rate, first / frame_rate, seconds), tuple(sampler.notes)


class _Sampler:
    """Takes the frames that are on screen at the wanted times from frames that come in order."""

    def __init__(
        self, name: str, times: npt.NDArray[np.float64], seconds: float, fit: Fit | None
    ) -> None:
        self.name, self.times, self.seconds, self.fit = name, times, seconds, fit
        self.notes: list[str] = []
        # One for all frames: the tables for scaling are made once.
        self.reformatter = require("av.video.reformatter", "video").VideoReformatter()

    def take(self, frames: Iterator[tuple[float, Any]], stream: Any) -> Frames:
        """Return the frames wanted, T x H x W x 3.

        Args:
            frames: Time in seconds and frame. The first is the first of the video, or not after the first wanted.
            stream: The video stream of the frames.
        """
        taken, count = 0, len(self.times)
        result: Frames | None = None
        shown: Any = None  # the frame on screen
        last = 0.0
        damage: Exception | None = None
        try:
            for time, frame in frames:
                # All that is wanted before this frame comes shows the one before it.
                until = int(np.searchsorted(self.times, time - EPSILON, side="left"))
                if shown is not None and until > taken:
                    result = self._fill(result, slice(taken, until), shown, stream)
                    taken = until
                    if taken == count:
                        return result
                shown, last = frame, time
        except require("av", "video").error.FFmpegError as error:
            damage = error
        if shown is None:
            raise damaged(self.name, damage) if damage else no_frames(self.name)
        length = float((shown.duration or 0) * (shown.time_base or 0)) or 1 / average_rate(stream)
        missing = float(self.times[-1]) - (last + length)
        if missing > MISSING_SECONDS:
            raise VideoError(
                f"Cannot read '{self.name}' as a video: it is cut off or damaged. Its frames end after "
                f"{last + length:.2f} s of {self.seconds:.2f} s. Replace it or take it out of the data."
            )
        if missing > EPSILON:
            self.notes.append("last frame held to the end")
        return self._fill(result, slice(taken, count), shown, stream)

    def _fill(self, result: Frames | None, places: slice, frame: Any, stream: Any) -> Frames:
        """Write a frame into some places, of a new array if there is none yet."""
        turns = _turns(frame)
        if result is None:
            height, width = _upright_size(frame, stream)
            size = (height, width) if self.fit is None else self.fit(height, width)
            result = self._room(*size)
            if turns:
                self.notes.append("turned as its rotation states")
        height, width = result.shape[1:3][:: -1 if turns % 2 else 1]
        plane = self.reformatter.reformat(frame, width, height, "rgb24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        pixels = rows[:height, : width * 3].reshape(height, width, 3)
        result[places] = np.rot90(pixels, turns) if turns else pixels
        return result

    def _room(self, height: int, width: int) -> Frames:
        count = len(self.times)
        if count * height * width * 3 > MAX_VIDEO_BYTES:
            raise TooLongError(
                f"'{self.name}' is too long to be kept as a whole: {count:,} frames of {height} x {width} are more "
                f"than {MAX_VIDEO_BYTES >> 20} MiB. Decode clips of it (clip_position=...), or fewer or smaller frames."
            )
        return np.empty((count, height, width, 3), np.uint8)


def _sought(container: Any, stream: Any, sampler: _Sampler) -> Frames | None:
    """Return the frames wanted, beginning at a keyframe before them; None if none can be found."""
    wanted = float(sampler.times[0])
    error = require("av", "video").error.FFmpegError
    if wanted <= EPSILON:
        return sampler.take(_timed(container.decode(stream), stream), stream)
    if not has_index(stream):
        return None
    origin = _origin(container, stream)
    for back in STEPS_BACK:
        if wanted - back <= 0:
            break
        try:
            place = stream.start_time + math.floor((wanted - back) / float(stream.time_base))
            container.seek(place, stream=stream, backward=True)
            packets = container.demux(stream)
            key = next((packet for packet in packets if packet.is_keyframe), None)
            frames = _timed(_decoded(key, packets), stream, origin)
            start = None if key is None or key.pts is None else next(frames, None)
        except error:
            return None
        # Some containers are sought by the order of storage, and a keyframe may come on screen too late for it;
        # and some streams need a while to recover before they show anything.
        if start is not None and start[0] <= wanted + EPSILON:
            return sampler.take(chain([start], frames), stream)
    return None


def _decoded(first: Any, packets: Iterator[Any]) -> Iterator[Any]:
    if first is not None:
        yield from first.decode()
    for packet in packets:
        yield from packet.decode()


def _timed(
    frames: Iterator[Any], stream: Any, origin: int | None = None
) -> Iterator[tuple[float, Any]]:
    """Yield frames with their time in seconds from the beginning of the video stream."""
    if origin is None and not _starts_late(stream):
        origin = stream.start_time
    step, rate = float(stream.time_base), average_rate(stream)
    for number, frame in enumerate(frames):
        stamp = _stamp(frame)
        if stamp is None:
            yield number / rate, frame
            continue
        origin = stamp if origin is None else origin
        yield (stamp - origin) * step, frame


def _origin(container: Any, stream: Any) -> int | None:
    """Return the time stamp of the beginning where only the first frame gives it. That frame is taken."""
    if not _starts_late(stream):
        return None
    first = next(container.decode(stream), None)
    return None if first is None else _stamp(first)


def _starts_late(stream: Any) -> bool:
    """Return whether frames come on screen later than they state: AVI numbers them as they are stored."""
    return stream.container.format.name == "avi"


def _stamp(frame: Any) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _turns(frame: Any) -> int:
    """Return the quarter turns to the left that make a frame upright."""
    return round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4


def _upright_size(frame: Any, stream: Any) -> tuple[int, int]:
    """Return height and width of a frame once it is upright and its pixels are square."""
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    width = round(frame.width * aspect) if 0.1 < aspect < 10 else frame.width
    width = max(1, width)
    return (width, frame.height) if _turns(frame) % 2 else (frame.height, width)


def _given_frames(media: EncodedItem) -> tuple[Frames, float] | None:
    """Return frames that come decoded, and their rate; None where there is a file."""
    frames: Any = media.array if media.array is not None else media.value
    if frames is None:
        return None
    rate = DEFAULT_RATE
    if isinstance(frames, Mapping):
        parts = cast("Mapping[str, Any]", frames)
        frames, rate = parts.get("frames"), float(parts.get("frame_rate") or DEFAULT_RATE)
    shape = getattr(frames, "shape", ())
    if getattr(frames, "dtype", None) != np.uint8 or len(shape) != 4 or shape[3] != 3:
        found = (
            f"{frames.dtype} of shape {' x '.join(map(str, shape))}"
            if shape
            else type(frames).__name__
        )
        raise ValueError(
            f"Expected '{media.name}' to be frames as an array of uint8 of shape T x H x W x 3 (or a mapping of "
            f"frames and frame_rate), got {found}."
        )
    if 0 in shape:
        raise no_frames(media.name)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"Expected '{media.name}' to have a frame_rate above 0, got {rate}.")
    return frames, rate


def _sampled(frames: Frames, rate: float, wanted: float, clip: tuple[int, float] | None) -> Video:
    """Return frames of a steady rate at another one."""
    duration = len(frames) / rate
    first, count = window_of(duration, frame_rate=wanted, clip=clip)
    times = (first + np.arange(count)) / wanted
    places = np.minimum(np.floor((times + EPSILON) * rate).astype(int), len(frames) - 1)
    return Video(frames[places], wanted, first / wanted, duration)
