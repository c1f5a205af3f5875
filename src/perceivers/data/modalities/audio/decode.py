"""Decoding of audio: samples in [-1, 1] of a stated rate and number of channels. Every failure becomes one sentence."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.decode_av import (
    MOST_SAMPLES,
    AudioError,
    AudioHeader,
    Clip,
    RawAudio,
    Samples,
    check_length,
    container_header,
    decode_track,
    unreadable,
)
from perceivers.data.modalities.base import DecodedValue, MissingValueError
from perceivers.data.registry import kind_of_bytes, kind_of_name
from perceivers.optional import require

FULL_SCALE = 0.999  # 16-bit audio ends at 32767/32768
CLIPPED = 0.001  # share of samples at full scale from which on audio counts as clipped
_HEAD = 1 << 16  # bytes of a WAV file in which its samples begin
_UNKNOWN = (
    1 << 62
)  # from here on libsndfile's number of frames states that the header does not give


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio, or a part of one.

    Attributes:
        samples: n x channels, float32. Those of lossy formats may exceed 1.
        sample_rate: Samples a second.
        start: Seconds of the first sample in the file; of a video, since the first frame.
        duration: Seconds of the whole file; of a video, those of its frames.
    """

    samples: Samples
    sample_rate: int
    start: float
    duration: float


def decode_audio(
    media: EncodedItem,
    *,
    sample_rate: int | None = None,
    num_channels: int | None = None,
    seconds: float | None = None,
    clip_position: float | None = None,
) -> DecodedValue:
    """Return the audio of a file as an `Audio`, with notes on what was decided.

    Args:
        media: A file or its bytes; or a value: `{"array": ..., "sampling_rate": ...}` or (array, rate), where an array
            of two axes has channels on its shorter one and whole numbers are scaled by their type.
        sample_rate: Samples a second wanted. None: those of the file.
        num_channels: 1: the mean of all. More: the file's are dealt out in turn. None: those of the file.
        seconds: Length of the clip that is wanted at `clip_position`.
        clip_position: Decode only the clip, where that is cheaper: 0 the first possible, 1 the last. None: everything.

    Raises:
        MissingValueError: If there is nothing, or a video without an audio track.
        ValueError: If it cannot be decoded. The message names the file and the reason.
    """
    clip = (
        None
        if seconds is None or clip_position is None
        else Clip(clip_position, seconds, sample_rate)
    )
    raw = _raw_audio(media, clip)
    notes = list(raw.notes)
    _check_values(media.name, raw.samples, notes)
    samples = _with_channels(raw.samples, num_channels, notes)
    rate = raw.sample_rate if sample_rate is None else sample_rate
    samples = resample(samples, raw.sample_rate, rate)
    start = raw.start + raw.first / raw.sample_rate
    return DecodedValue(Audio(samples, rate, start, raw.duration), tuple(notes))


def read_audio_header(media: EncodedItem) -> AudioHeader:
    """Return rate, channels and length of audio without decoding it.

    Raises:
        MissingValueError: If there is nothing, or a video without an audio track.
        ValueError: If it is no audio. The message names the file and the reason.
    """
    _refuse_missing(media)
    if media.value is not None:
        samples, rate = _from_value(media)
        return AudioHeader(rate, samples.shape[1], samples.shape[0] / rate)
    file = _audio_file(media)
    if file is None:
        return container_header(media)
    with file:
        return AudioHeader(file.samplerate, file.channels, file.frames / file.samplerate)


def cut_audio(audio: Audio, *, clip_position: float, seconds: float) -> Samples:
    """Return a clip of audio, n x channels, or all of one that is shorter.

    Parts of the clip outside a video's audio track are silent.

    Args:
        audio: All of it, or the part that `decode_audio` gave for the same `clip_position` and at least `seconds`.
        clip_position: 0 the first possible clip, 1 the last: it starts at `clip_position * max(0, duration - seconds)`.
        seconds: Length of the clip.
    """
    rate = audio.sample_rate
    total = max(1, round(audio.duration * rate))
    count = min(total, max(1, round(seconds * rate)))
    begin = min(round(clip_position * max(0.0, audio.duration - seconds) * rate), total - count)
    begin -= round(audio.start * rate)
    piece = audio.samples[max(begin, 0) : max(begin + count, 0)]
    if piece.shape[0] == count:
        return piece
    clip = np.zeros((count, piece.shape[1]), dtype=np.float32)
    place = max(-begin, 0)
    clip[place : place + piece.shape[0]] = piece
    return clip


def resample(samples: Samples, rate: float, wanted: float, quality: str = "HQ") -> Samples:
    """Return samples of another rate, n x channels; at least one if there is one.

    Args:
        samples: n x channels.
        rate: Samples a second that they have.
        wanted: Samples a second that they get.
        quality: Of soxr: `HQ` is beyond 16 bit; `MQ` and `LQ` are faster.
    """
    if rate == wanted or not samples.shape[0]:
        return samples
    soxr = require("soxr", "audio")
    count = max(1, round(samples.shape[0] * wanted / rate))
    changed = soxr.resample(np.ascontiguousarray(samples), rate, wanted, quality)
    if changed.shape[0] == count:
        return changed
    # The filter leaves out what it cannot compute, which of one sample is all.
    if changed.shape[0] == 0:
        changed = samples[:1]
    return np.concatenate([changed, np.repeat(changed[-1:], count, axis=0)])[:count]


def _refuse_missing(media: EncodedItem) -> None:
    if media.is_missing:
        raise MissingValueError(f"{media.name} is empty: expected audio, got nothing.")


def _raw_audio(media: EncodedItem, clip: Clip | None) -> RawAudio:
    _refuse_missing(media)
    if media.value is not None:
        samples, rate = _from_value(media)
        return RawAudio(samples, rate, 0, 0.0, samples.shape[0] / rate)
    file = _audio_file(media)
    if file is None:
        return decode_track(media, clip)
    try:
        with file:
            return _read(media.name, file, clip)
    except AudioError:
        raise
    except Exception as error:  # damaged files make libsndfile raise errors of several classes
        words = str(error).removeprefix("Error : ").rstrip(".") or type(error).__name__
        reason = f"it is damaged or cut off ({words})"
        raise unreadable(media.name, reason) from error


def _audio_file(media: EncodedItem) -> Any | None:
    """Open a file with libsndfile. Return None if it cannot and FFmpeg may.

    FFmpeg reads other formats, and streams that do not state how long they are.

    Raises:
        ValueError: If it is certainly no audio. The message names the file and the reason.
        ImportError: If it needs PyAV, which is not installed.
    """
    if media.data is None and media.path is None:
        raise unreadable(media.name, "it is an image")
    file = _open_sndfile(media)
    if file is not None:
        return file
    start = _first_bytes(media)
    if not start:
        raise unreadable(media.name, "the file is empty")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        reason = f"it holds text that begins with {start[:16].decode('ascii')!r}"
        raise unreadable(media.name, reason)
    if kind_of_bytes(start) == "image":
        raise unreadable(media.name, "it is an image")
    try:
        require("av", "video")
    except ImportError:
        if {kind_of_bytes(start), kind_of_name(media.name)} & {"audio", "video"}:
            raise
        reason = f"libsndfile does not know it; it begins with the bytes {start[:8].hex(' ')}"
        raise unreadable(media.name, reason) from None
    return None


def _open_sndfile(media: EncodedItem) -> Any | None:
    """Open a file with libsndfile. Return None if it cannot, or if the file does not state how long it is."""
    soundfile = require("soundfile", "audio")
    source = str(media.path) if media.data is None else io.BytesIO(media.data)
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: `.raw`, which has no header
        return None
    streamed = None if file.frames else _streamed_wav(media)
    if streamed is not None:
        return soundfile.SoundFile(streamed)
    if file.frames < _UNKNOWN:
        return file
    file.close()
    return None


def _streamed_wav(media: EncodedItem) -> io.BytesIO | None:
    """Return a WAV file whose header gives its samples no length as one of unknown length; None for another file.

    Programs that write to a pipe leave the length 0.
    """
    place, head = 12, _first_bytes(media, _HEAD)
    while head[:4] == b"RIFF" and place + 8 < len(head):
        size = int.from_bytes(head[place + 4 : place + 8], "little")
        if head[place : place + 4] == b"data":
            if size:
                return None
            data = _first_bytes(media, 4 * MOST_SAMPLES)
            return io.BytesIO(data[: place + 4] + b"\xff" * 4 + data[place + 8 :])
        place += 8 + size + size % 2
    return None


def _first_bytes(media: EncodedItem, count: int = 32) -> bytes:
    try:
        with media.open() as file:
            return file.read(count)
    except OSError as error:
        raise AudioError(f"{error} Replace it or take it out of the data.") from error


def _read(name: str, file: Any, clip: Clip | None) -> RawAudio:
    """Return samples of an open file, read by libsndfile."""
    rate, channels, total = file.samplerate, file.channels, file.frames
    if total == 0:
        raise unreadable(name, "it holds no samples")
    first, last = (0, total) if clip is None else clip.indices(rate, total / rate)
    last = min(last, total)
    check_length(name, (last - first) * channels)
    if first:
        file.seek(first)
    samples = file.read(last - first, dtype="float32", always_2d=True)
    if samples.shape[0] == 0:
        raise unreadable(name, "it is damaged or cut off: its header is followed by no samples")
    short = samples.shape[0] < last - first
    duration = samples.shape[0] / rate if short and clip is None else total / rate
    return RawAudio(
        samples, rate, first, 0.0, duration, ("shorter than its header states",) if short else ()
    )


def _from_value(media: EncodedItem) -> tuple[Samples, int]:
    """Return decoded samples as n x channels of float32, and their rate."""
    value = media.value
    if isinstance(value, Mapping):
        cell = cast("Mapping[str, Any]", value)
        array, rate = cell.get("array"), cell.get("sampling_rate")
    elif isinstance(value, tuple) and len(cast("tuple[Any, ...]", value)) == 2:
        array, rate = cast("tuple[Any, Any]", value)
    else:
        array, rate = value, None
    if array is None:
        raise MissingValueError(f"{media.name} is empty: expected audio, got nothing.")
    if not isinstance(rate, int | float | np.integer | np.floating) or not rate >= 1:
        raise AudioError(
            f"{media.name}: expected samples with their rate, as {{'array': ..., 'sampling_rate': 16000}} or "
            f"(array, 16000), got the rate {rate!r}."
        )
    return _as_samples(media.name, array), int(rate)


def _as_samples(name: str, array: Any) -> Samples:
    values: npt.NDArray[Any] = np.asarray(array)
    if values.ndim not in (1, 2) or values.dtype.kind not in "iuf":
        raise AudioError(
            f"{name}: expected samples as numbers, n or n x channels, got an array of {values.dtype} of shape "
            f"{values.shape}."
        )
    if values.size == 0:
        raise unreadable(name, "it holds no samples")
    if values.ndim == 1:
        values = values[:, None]
    elif values.shape[0] < values.shape[1]:
        values = values.T
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    full = float(1 << (8 * values.dtype.itemsize - 1))
    shift = full if values.dtype.kind == "u" else 0.0
    return ((values.astype(np.float64) - shift) / full).astype(np.float32)


def _check_values(name: str, samples: Samples, notes: list[str]) -> None:
    """Refuse what is not finite; note what is silent or clipped."""
    if not samples.size:
        return
    peak = max(float(samples.max()), -float(samples.min()))  # NaN if one is
    if not np.isfinite(peak):
        bad = int(samples.size - np.isfinite(samples).sum())
        raise unreadable(
            name, f"{bad:,} of {samples.size:,} samples are not finite (NaN or infinite)"
        )
    if peak == 0.0:
        notes.append("silent")
    elif peak >= FULL_SCALE and float((np.abs(samples) >= FULL_SCALE).mean()) >= CLIPPED:
        notes.append("clipped")


def _with_channels(samples: Samples, wanted: int | None, notes: list[str]) -> Samples:
    """Return samples of a number of channels: channel j is the mean of the file's j, j + wanted, ..."""
    given = samples.shape[1]
    if wanted is None or wanted == given:
        return samples
    if wanted > given:
        notes.append("channels repeated")
        return samples[:, np.arange(wanted) % given]
    notes.append("mixed to mono" if wanted == 1 else f"mixed to {wanted} channels")
    mixed = np.empty((samples.shape[0], wanted), dtype=np.float32)
    for channel in range(wanted):
        parts = range(channel, given, wanted)
        column = samples[:, channel].copy()
        for part in parts[1:]:
            column += samples[:, part]
        mixed[:, channel] = column * np.float32(1 / len(parts))
    return mixed
