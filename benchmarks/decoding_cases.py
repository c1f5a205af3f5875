"""The files that decoding is measured on, made here, and the two ways to read each."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.modality import ArrayPreprocessConfig
from perceivers.data.modalities.audio.modality import WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.points.modality import PointsPreprocessConfig
from perceivers.data.modalities.registry import build_modality
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig

__all__ = ["CASES", "Case"]

Ways = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One kind of file.

    Attributes:
        name: As it is shown.
        kind: Its modality.
        unit: Unit that a call decodes.
        make: Makes a file in a folder and returns the bare library's way to read it, and ours.
    """

    name: str
    kind: str
    unit: str
    make: Callable[[Path], Ways]


def _ours(
    config: Any, media: EncodedItem, *, clip_position: float | None = None
) -> Callable[[], object]:
    modality = build_modality(config)
    return lambda: modality.decode(media, clip_position=clip_position)


def _jpeg(_: Path) -> Ways:
    from PIL import Image

    x, y = np.meshgrid(np.linspace(0, 9, 500), np.linspace(0, 7, 375))
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x * y)], axis=-1) * 100 + 128
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    data = file.getvalue()

    def bare() -> object:
        return Image.open(io.BytesIO(data)).convert("RGB")

    return bare, _ours(ImagePreprocessConfig.imagenet(), EncodedItem("a.jpg", data=data))


def _audio(form: str, subtype: str | None = None) -> Callable[[Path], Ways]:
    def make(_: Path) -> Ways:
        import soundfile

        time = np.arange(10 * 16_000) / 16_000
        noise = np.random.default_rng(0).normal(0, 0.05, time.size)
        file = io.BytesIO()
        samples = 0.4 * np.sin(2 * np.pi * (300 + 50 * time) * time) + noise
        soundfile.write(file, samples, 16_000, format=form, subtype=subtype)
        data = file.getvalue()
        config = WavePreprocessConfig(sample_rate=16_000, seconds=10.0, scale=1.0)
        bare = lambda: soundfile.read(io.BytesIO(data), dtype="float32")  # noqa: E731
        return bare, _ours(config, EncodedItem(f"a.{form.lower()}", data=data))

    return make


def _video(_: Path) -> Ways:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        x, y = np.meshgrid(np.arange(320), np.arange(240))
        for number in range(100):
            plane = 128 + 100 * np.sin((x + 3 * number) / 25) * np.cos((y - number) / 30)
            pixels = np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    data = file.getvalue()

    def bare() -> object:
        with av.open(io.BytesIO(data)) as container:
            source = container.streams.video[0]
            source.codec_context.thread_count = 1
            size = {"width": 128, "height": 96, "format": "rgb24"}
            return np.stack([frame.to_ndarray(**size) for frame in container.decode(source)])

    config = VideoPreprocessConfig(
        num_frames=32, frame_rate=25.0, size=(96, 128), mean=(0.5,) * 3, std=(0.2,) * 3
    )
    return bare, _ours(config, EncodedItem("a.mp4", data=data))


def _sphere(rings: int) -> tuple[Any, Any]:
    """Return vertices and triangles of a sphere."""
    u, v = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, rings))
    vertices = np.stack([np.sin(u) * np.cos(v), np.sin(u) * np.sin(v), np.cos(u)], -1)
    at = np.arange(rings * rings).reshape(rings, rings)
    a, b, c, d = at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)


def _mesh(suffix: str) -> Callable[[Path], Ways]:
    def make(folder: Path) -> Ways:
        import trimesh

        vertices, faces = _sphere(40)
        path = folder / f"a.{suffix}"
        trimesh.Trimesh(vertices, faces, process=False).export(path)
        config = PointsPreprocessConfig(num_points=1024, num_channels=0)

        def bare() -> object:
            return trimesh.load(path, process=False).sample(4096)

        return bare, _ours(config, EncodedItem(str(path), path=path))

    return make


def _text(folder: Path) -> Ways:
    path = folder / "a.txt"
    path.write_text("Quite a container, and hardly a minute too long. " * 30, encoding="utf-8")
    return lambda: path.read_text(encoding="utf-8").encode(), _ours(
        TextPreprocessConfig(max_length=2048), EncodedItem(str(path), path=path)
    )


def _csv(folder: Path) -> Ways:
    import csv

    path = folder / "a.csv"
    values = np.random.default_rng(0).normal(size=(2000, 6)).round(4)
    header = ",".join(f"c{i}" for i in range(6))
    np.savetxt(path, values, delimiter=",", header=header, comments="", fmt="%.4f")

    def bare() -> object:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        return np.array(rows[1:], dtype=np.float32)

    config = SeriesPreprocessConfig(
        length=2000,
        channels=tuple(f"c{i}" for i in range(6)),
        irregular=False,
        has_missing=False,
        mean=(0.0,) * 6,
        std=(1.0,) * 6,
    )
    return bare, _ours(config, EncodedItem(str(path), path=path))


def _npz(folder: Path) -> Ways:
    path = folder / "a.npz"
    rng = np.random.default_rng(0)
    np.savez(path, values=rng.normal(size=(5000, 8)), coordinates=rng.random((5000, 3)))

    def bare() -> object:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in archive.files}

    config = ArrayPreprocessConfig(
        length=5000,
        num_channels=8,
        num_coordinates=3,
        mean=(0.0,) * 8,
        std=(1.0,) * 8,
        low=(0.0,) * 3,
        high=(1.0,) * 3,
    )
    return bare, _ours(config, EncodedItem(str(path), path=path))


CASES = (
    Case("JPEG, 500 x 375 (Pillow)", "image", "pictures", _jpeg),
    Case("WAV, 10 s (soundfile)", "audio", "sounds", _audio("WAV")),
    Case("FLAC, 10 s (soundfile)", "audio", "sounds", _audio("FLAC")),
    Case("Vorbis, 10 s (soundfile)", "audio", "sounds", _audio("OGG", "VORBIS")),
    Case("H.264, 100 frames (PyAV)", "video", "films", _video),
    Case("OFF, 3,042 faces (trimesh)", "points", "meshes", _mesh("off")),
    Case("PLY, 3,042 faces (trimesh)", "points", "meshes", _mesh("ply")),
    Case("STL, 3,042 faces (trimesh)", "points", "meshes", _mesh("stl")),
    Case("text, 1.3 kB (open)", "text", "texts", _text),
    Case("CSV, 2,000 x 6 (csv, numpy)", "series", "recordings", _csv),
    Case("npz, 5,000 x 8 + 3 (numpy)", "array", "arrays", _npz),
)
