import numpy as np
import pytest
from PIL import Image

from perceivers.explain.contents.array import ArrayContent
from perceivers.explain.contents.audio import SpectrogramContent, WaveformContent
from perceivers.explain.contents.base import ElementsContent
from perceivers.explain.contents.image import ImageContent
from perceivers.explain.contents.points import PointsContent
from perceivers.explain.contents.series import SeriesContent
from perceivers.explain.contents.table import TableContent
from perceivers.explain.contents.text import TextContent
from perceivers.explain.contents.video import VideoContent

RNG = np.random.default_rng(0)
DRAWN = [
    ImageContent(pixels=RNG.integers(0, 256, (300, 600, 3), dtype=np.uint8)),
    VideoContent(frames=RNG.integers(0, 256, (9, 30, 40, 3), dtype=np.uint8), rate=10.0),
    WaveformContent(samples=RNG.normal(size=(4000, 1)).astype(np.float32), rate=8000.0),
    SpectrogramContent(
        values=RNG.normal(size=(50, 16)).astype(np.float32),
        seconds=1.0,
        hertz=np.linspace(100, 4000, 16, dtype=np.float32),
    ),
    PointsContent(points=RNG.normal(size=(200, 3)).astype(np.float32)),
    SeriesContent(
        values=RNG.normal(size=(60, 2)).astype(np.float32),
        times=np.arange(60) / 10,
        channels=("x", "y"),
    ),
    ArrayContent(values=RNG.normal(size=(12, 4)).astype(np.float32)),
]


@pytest.mark.parametrize("content", DRAWN, ids=lambda content: type(content).__name__)
def test_a_thumbnail_is_small_and_not_blank(content):
    image = content.thumbnail()
    assert isinstance(image, Image.Image)
    assert 40 <= max(image.size) <= 360
    assert len(np.unique(np.asarray(image))) > 4


def test_texts_and_rows_of_tables_are_texts():
    units = np.frombuffer(("Größe " * 100).encode(), dtype=np.uint8).astype(np.int64)
    text = TextContent(units=units).thumbnail()
    assert text.startswith("Größe Größe")
    assert len(text) == 300
    fields = tuple(f"field {number}" for number in range(14))
    row = TableContent(fields=fields, texts=("1.5", "", *["x"] * 12)).thumbnail()
    assert row.startswith("field 0 = 1.5, field 1 = (missing), field 2 = x")
    assert row.endswith("field 11 = x, 2 more")


def test_contents_without_a_view_have_no_thumbnail():
    assert ElementsContent(values=np.zeros((3, 2))).thumbnail() is None


def test_few_pixels_are_enlarged_without_blur():
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    image = ImageContent(pixels=pixels).thumbnail()
    assert image.size == (240, 240)
    assert set(np.unique(np.asarray(image))) == {0, 255}
