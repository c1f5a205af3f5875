"""A small file of every suffix that is registered for audio, video and images, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

AUDIO_RATE, VIDEO_RATE = 16_000, 10
# Suffix -> container and codec of FFmpeg; those not named here are written by libsndfile or Pillow by their suffix.
_AUDIO = {
    **dict.fromkeys(("m4a", "m4b"), ("ipod", "aac")),
    "aac": ("adts", "aac"),
    "mp2": ("mp2", "mp2"),
    "opus": ("opus", "libopus"),
    "mka": ("matroska", "aac"),
    "weba": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
    "ac3": ("ac3", "ac3"),
    "eac3": ("eac3", "eac3"),
    "amr": ("amr", "libopencore_amrnb"),
    "tta": ("tta", "tta"),
    "wv": ("wv", "wavpack"),
    "ra": ("rm", "ac3"),
}
_SNDFILE = {
    "wav": "WAV",
    "wave": "WAV",
    "flac": "FLAC",
    "ogg": "OGG",
    "oga": "OGG",
    "mp3": "MP3",
    "aif": "AIFF",
    "aiff": "AIFF",
    "aifc": "AIFF",
    "caf": "CAF",
    "au": "AU",
    "snd": "AU",
    "w64": "W64",
    "rf64": "RF64",
    "voc": "VOC",
}
_VIDEO = {
    **dict.fromkeys(("mp4", "m4v", "mov", "qt", "3gp", "3g2", "f4v"), ("mp4", "mpeg4")),
    "mkv": ("matroska", "mpeg4"),
    "webm": ("webm", "libvpx"),
    "flv": ("flv", "flv"),
    "avi": ("avi", "mpeg4"),
    "divx": ("avi", "mpeg4"),
    "asf": ("asf", "wmv2"),
    "wmv": ("asf", "wmv2"),
    "mxf": ("mxf", "mpeg2video"),
    "nut": ("nut", "mpeg4"),
    **dict.fromkeys(("mpg", "mpeg", "mpe", "vob"), ("mpeg", "mpeg2video")),
    **dict.fromkeys(("ts", "mts", "m2ts"), ("mpegts", "mpeg2video")),
    "m2v": ("mpeg2video", "mpeg2video"),
    "ogv": ("ogg", "vp8"),
    "rm": ("rm", "rv10"),
    "rmvb": ("rm", "rv10"),
    "dv": ("dv", "dvvideo"),
}
_IMAGE = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "jpe": "JPEG",
    "jfif": "JPEG",
    "mpo": "MPO",
    "png": "PNG",
    "apng": "PNG",
    "gif": "GIF",
    "bmp": "BMP",
    "dib": "DIB",
    "webp": "WEBP",
    "tif": "TIFF",
    "tiff": "TIFF",
    "ppm": "PPM",
    "pgm": "PPM",
    "pbm": "PPM",
    "pnm": "PPM",
    "tga": "TGA",
    "ico": "ICO",
    "jp2": "JPEG2000",
    "jpf": "JPEG2000",
    "jpx": "JPEG2000",
    "j2k": "JPEG2000",
    "avif": "AVIF",
    "heic": "HEIF",
    "heif": "HEIF",
    "hif": "HEIF",
    "pcx": "PCX",
    "sgi": "SGI",
}
UNWRITTEN = {"ape", "mpc", "dsf", "dts"}
"""Suffixes of formats that no encoder here writes."""


def write_audio_as(path: Path, *, seconds: float = 1.0) -> Path:
    """Write a tone in the format of the path's suffix."""
    suffix = path.suffix[1:].lower()
    rate = 8000 if suffix == "amr" else 48_000 if suffix in {"opus", "weba"} else AUDIO_RATE
    rate = 48_000 if suffix in {"ac3", "eac3", "ra", "mp2"} else rate
    times = np.arange(round(seconds * rate)) / rate
    samples = (np.sin(2 * np.pi * 440 * times) * np.linspace(0.2, 0.8, times.size)).astype("f4")
    if suffix in _SNDFILE:
        import soundfile

        soundfile.write(path, samples, rate, format=_SNDFILE[suffix])
        return path
    import av

    container, codec = _AUDIO[suffix]
    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 12_200 if suffix == "amr" else 64_000
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or None
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def write_video_as(path: Path, *, count: int = 12) -> Path:
    """Write a moving bar in the format of the path's suffix."""
    import av

    suffix = path.suffix[1:].lower()
    container, codec = _VIDEO[suffix]
    rate = 25 if codec in {"mpeg2video", "dvvideo", "rv10"} else VIDEO_RATE
    height, width = (576, 720) if codec == "dvvideo" else (48, 64)
    with av.open(str(path), "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            pixels = np.full((height, width, 3), 30, np.uint8)
            pixels[:, number * width // count :][:, : width // 8] = (220, 180, 40)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def write_image_as(path: Path) -> Path:
    """Write a gradient in the format of the path's suffix."""
    suffix = path.suffix[1:].lower()
    if _IMAGE[suffix] == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp.T, 255 - ramp], axis=-1))
    image = image.convert({"pgm": "L", "pbm": "1"}.get(suffix, "RGB"))
    image.save(path, format=_IMAGE[suffix])
    return path
