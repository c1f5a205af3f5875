"""Audio tracks of containers (m4a, aac, mp4, mkv, webm, ...) by PyAV, on the time line of the video stream."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.video.decode import QuietFile, read_video_header
from perceivers.optional import require
from perceivers.wording import counted

Samples = npt.NDArray[np.float32]

# A file of a few bytes can claim any length. Four hours of one channel at 48 kHz are 2.8 GB once decoded.
MOST_SAMPLES = 4 * 3600 * 48_000

# FFmpeg reads many more. Left out: what is an image, a script or a list of other files that it would open.
FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "mpeg", "mpegts", "ogg", "mp3", "aac", "flac", "wav"),
    *("w64", "aiff", "au", "caf", "ac3", "eac3", "amr", "dts", "ape", "tta", "wv", "mpc", "mpc8"),
    *("dsf", "rm", "voc", "mxf", "nut", "dv"),
)
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}

SEEK_AFTER = 3.0  # seconds; what lies nearer to the beginning is decoded from there
PREROLL = 1.0  # seconds decoded before what is wanted after a seek: decoders overlap frames

# FFmpeg's sample formats: type, what silence is, and full scale.
_TYPES: dict[str, tuple[Any, float, float]] = {
    "u8": (np.uint8, 128.0, 2.0**7),
    "s16": (np.int16, 0.0, 2.0**15),
    "s32": (np.int32, 0.0, 2.0**31),
    "s64": (np.int64, 0.0, 2.0**63),
    "flt": (np.float32, 0.0, 1.0),
    "dbl": (np.float64, 0.0, 1.0),
}


class AudioError(ValueError):
    """Audio that cannot be read. Its message is complete."""


@dataclass(frozen=True, slots=True)
class AudioHeader:
    """Header of an audio file.

    Attributes:
        sample_rate: Samples a second.
        num_channels: 1 for mono.
        seconds: Length; of a video, that of its frames. None: it is not stated.
    """

    sample_rate: int
    num_channels: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that is requested.

    Attributes:
        clip_position: 0 the first possible clip, 1 the last.
        seconds: Length.
        sample_rate: To which it is resampled afterwards. None: as it is.
    """

    clip_position: float
    seconds: float
    sample_rate: int | None = None

    def indices(self, rate: int, duration: float, start: float = 0.0) -> tuple[int, int]:
        """Return the first sample and the one after the last, with a margin for what resampling mixes.

        The first lies where a sample of the resampled whole lies, so that both give the same numbers.

        Args:
            rate: Samples a second.
            duration: Seconds of the whole.
            start: Seconds of the audio's first sample.
        """
        wanted = rate if self.sample_rate is None else self.sample_rate
        margin = 0.1 + 1024 / min(rate, wanted)
        begin = self.clip_position * max(0.0, duration - self.seconds) - start
        first = max(0, floor((begin - margin) * rate))
        first -= first % (rate // gcd(rate, wanted))
        return first, max(first, ceil((begin + self.seconds + margin) * rate))


@dataclass(frozen=True, slots=True)
class RawAudio:
    """Decoded samples before they are mixed and resampled.

    Attributes:
        samples: n x channels, float32.
        sample_rate: Samples a second.
        first: Index of the first of them in the whole audio.
        start: Seconds at which the whole audio begins.
        duration: Seconds of the whole file.
        notes: Decisions made in decoding.
    """

    samples: Samples
    sample_rate: int
    first: int
    start: float
    duration: float
    notes: tuple[str, ...] = ()


def unreadable(name: str, reason: str) -> AudioError:
    """Return the error that states why a file is no audio."""
    return AudioError(
        f"Cannot read '{name}' as audio: {reason}. Replace it or take it out of the data."
    )


def check_length(name: str, samples: int) -> None:
    """Refuse what would fill the memory.

    Args:
        name: Name of the file.
        samples: Number of samples of all channels together.

    Raises:
        ValueError: If they are more than `MOST_SAMPLES`.
    """
    if samples > MOST_SAMPLES:
        raise AudioError(
            f"Cannot read '{name}': it claims {samples:,} samples; at most {MOST_SAMPLES:,} are decoded (4 hours of "
            "one channel at 48 kHz), since a small file could fill the memory. Cut it into pieces."
        )


def container_header(media: EncodedItem) -> AudioHeader:
    """Return the header of a container's audio track.

    Raises:
        MissingValueError: If it has none.
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    with _opened(media) as container:
        codec = _audio_stream(container, media.name).codec_context
        seconds = _claimed_seconds(container, media)
        return AudioHeader(codec.sample_rate, codec.layout.nb_channels, seconds)


def decode_track(media: EncodedItem, clip: Clip | None = None) -> RawAudio:
    """Return a container's audio, or a clip of it with some margin.

    Time zero is that of the first frame; without frames, that of the first sample.

    Args:
        media: A file or its bytes.
        clip: The clip to decode. None: everything, as also where the length is known from decoding only.

    Raises:
        MissingValueError: If it has no audio track.
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    with _opened(media) as container:
        stream = _audio_stream(container, media.name)
        video = _video_stream(container)
        start = 0.0 if video is None else _start(stream) - _start(video)
        exact = "mov" in container.format.name  # others estimate it, or round it
        claimed = _claimed_seconds(container, media)
        seconds = claimed if video is not None or exact else None
        codec = stream.codec_context
        if clip is None or seconds is None:
            samples = int((claimed or 0.0) * codec.sample_rate)
            check_length(media.name, samples * codec.layout.nb_channels)
            reader = _Reader(media.name, stream)
        else:
            reader = _Reader(media.name, stream, clip=clip, duration=seconds, start=start)
            begin = clip.clip_position * max(0.0, seconds - clip.seconds) - start - PREROLL
            if exact and begin > SEEK_AFTER:
                time = int((_start(stream) + begin) / stream.time_base)
                container.seek(time, stream=stream)
        for frame in container.decode(stream):
            if not reader.take(frame):
                break
        return reader.audio(start, seconds)


class _Reader:
    """Collects the frames of an audio track, or of a clip of it."""

    def __init__(
        self,
        name: str,
        stream: Any,
        *,
        clip: Clip | None = None,
        duration: float = 0.0,
        start: float = 0.0,
    ) -> None:
        self.name, self.stream = name, stream
        self.clip, self.duration, self.start = clip, duration, start
        self.parts: list[Samples] = []
        self.form: tuple[int, int] | None = None
        self.first, self.last, self.place, self.kept = 0, -1, 0, 0

    def take(self, frame: Any) -> bool:
        """Keep what is wanted of a frame. Return whether more is."""
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if self.form is None:
            self.form = rate, channels
            if self.clip is not None:
                self.first, self.last = self.clip.indices(rate, self.duration, self.start)
                since = 0.0 if frame.pts is None else frame.pts * float(frame.time_base)
                self.place = round((since - _start(self.stream)) * rate)
        if self.form != (rate, channels):
            reason = (
                f"it changes from {self.form[0]} Hz and {counted(self.form[1], 'channel')} to {rate} Hz and "
                f"{counted(channels, 'channel')} on the way"
            )
            raise unreadable(self.name, reason)
        begin, end = self.place, self.place + frame.samples
        self.place = end
        skipped = max(0, self.first - begin)
        wanted = frame.samples if self.clip is None else min(frame.samples, self.last - begin)
        if skipped < wanted:
            self.parts.append(_as_float(frame)[skipped:wanted])
            self.kept += (wanted - skipped) * channels
            check_length(self.name, self.kept)
        return self.clip is None or end < self.last

    def audio(self, start: float, duration: float | None) -> RawAudio:
        """Return the collected samples."""
        if self.form is None:
            raise unreadable(self.name, "it holds no samples")
        rate, channels = self.form
        empty = np.zeros((0, channels), dtype=np.float32)
        samples = np.concatenate(self.parts) if self.parts else empty
        whole = samples.shape[0] / rate if duration is None else duration
        return RawAudio(samples, rate, self.first, start, whole)


@contextmanager
def _opened(media: EncodedItem) -> Generator[Any]:
    """Open a container. Every failure until the end of the `with` becomes one sentence."""
    av = require("av", "video")
    try:
        with (
            media.open() as file,
            av.open(QuietFile(file), mode="r", options=_OPTIONS) as container,
        ):
            yield container
    except (AudioError, MissingValueError):
        raise
    except Exception as error:  # damaged files make PyAV raise errors of many classes
        reason = f"it is in no known format, damaged or cut off ({_first_words(error)})"
        raise unreadable(media.name, reason) from error


def _first_words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _audio_stream(container: Any, name: str) -> Any:
    if not container.streams.audio:
        raise MissingValueError(f"'{name}' has no audio track.")
    return container.streams.audio[0]


def _video_stream(container: Any) -> Any | None:
    """Return the first video stream that is not a cover."""
    av = require("av", "video")
    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def _start(stream: Any) -> float:
    return 0.0 if stream.start_time is None else stream.start_time * float(stream.time_base)


def _claimed_seconds(container: Any, media: EncodedItem) -> float | None:
    """Return the length that is stored for the video stream, else for the audio, else for all streams together."""
    video = _video_stream(container)
    if video is not None:
        return _stream_seconds(video, media)
    for stream in container.streams.audio:
        if stream.duration is not None:
            return stream.duration * float(stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000


def _stream_seconds(stream: Any, media: EncodedItem) -> float:
    """Return the same length as `read_video_header`, without decoding where it is written in the file."""
    if stream.duration and stream.start_time is not None and stream.container.format.name != "mpeg":
        return stream.duration * float(stream.time_base)
    hours, *rest = stream.metadata.get("DURATION", "").split(":")  # Matroska's, HH:MM:SS.f
    if len(rest) == 2 and hours.isdigit() and rest[0].isdigit():
        return int(hours) * 3600 + int(rest[0]) * 60 + float(rest[1])
    return read_video_header(media).seconds


def _as_float(frame: Any) -> Samples:
    """Return the samples of a frame as n x channels, whole numbers scaled to [-1, 1]. The frame may own them."""
    planar, channels = frame.format.is_planar, frame.layout.nb_channels
    dtype, shift, scale = _TYPES[frame.format.name.removesuffix("p")]
    count = frame.samples if planar else frame.samples * channels
    planes = [np.frombuffer(plane, dtype, count) for plane in frame.planes]
    one = len(planes) == 1
    array = planes[0].reshape(frame.samples, channels) if one else np.stack(planes, axis=1)
    if scale == 1:
        return array.astype(np.float32, copy=False)
    values = array.astype(np.float32)
    values -= np.float32(shift)
    values *= np.float32(1 / scale)
    return values
