"""Made explanations of every kind of content, for what draws them."""

from dataclasses import replace

import numpy as np

from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.contents.array import ArrayContent
from perceivers.explain.contents.audio import SpectrogramContent, WaveformContent
from perceivers.explain.contents.base import Content, ElementsContent, View
from perceivers.explain.contents.image import ImageContent
from perceivers.explain.contents.points import PointsContent
from perceivers.explain.contents.series import SeriesContent
from perceivers.explain.contents.table import TableContent
from perceivers.explain.contents.text import TextContent
from perceivers.explain.contents.video import VideoContent

__all__ = ["CONTENTS", "RANDOM", "explanation", "image", "passage", "series", "view"]

RANDOM = np.random.default_rng(0)


def image(height=8, width=8) -> ImageContent:
    return ImageContent(pixels=RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))


def passage(text: str) -> TextContent:
    units = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    return TextContent(units=units, marks=("PAD",))


def series(steps=30, channels=3, unit="s") -> SeriesContent:
    values = RANDOM.normal(size=(steps, channels)).astype(np.float32)
    values[3:6, 0] = np.nan
    values[:, -1] = np.nan
    return SeriesContent(
        values=values,
        times=np.arange(steps) / 10,
        channels=tuple(f"$channel_{i}$" for i in range(channels)),
        unit=unit,
        step=2,
    )


CONTENTS: dict[str, tuple[Content, tuple[int, ...]]] = {
    "picture": (image(), (4, 4)),
    "wave": (
        WaveformContent(
            samples=RANDOM.normal(size=(4000, 2)).astype(np.float32), rate=8000.0, step=100
        ),
        (40,),
    ),
    "silence": (
        WaveformContent(samples=np.zeros((50, 1), np.float32), rate=8000.0, step=100),
        (1,),
    ),
    "long wave": (
        WaveformContent(
            samples=RANDOM.normal(size=(4000, 1)).astype(np.float32), rate=8000.0, step=4
        ),
        (1000,),
    ),
    "spectrogram": (
        SpectrogramContent(
            values=RANDOM.normal(size=(30, 40)).astype(np.float32),
            seconds=0.3,
            hertz=np.geomspace(50, 8000, 40).astype(np.float32),
            step=(4, 4),
        ),
        (8, 10),
    ),
    "unknown bands": (
        SpectrogramContent(
            values=np.full((6, 5), np.nan, np.float32),
            seconds=0.3,
            hertz=np.zeros(0, np.float32),
        ),
        (6, 5),
    ),
    "film": (
        VideoContent(
            frames=RANDOM.integers(0, 256, (10, 9, 17, 3), dtype=np.uint8),
            rate=12.5,
            step=(2, 8, 8),
        ),
        (8, 2, 3),
    ),
    "one frame": (VideoContent(frames=np.zeros((1, 80, 60, 3), np.uint8), rate=1.0), (1, 4, 4)),
    "cloud": (PointsContent(points=RANDOM.normal(size=(50, 3)).astype(np.float32)), (50,)),
    "one point": (PointsContent(points=np.zeros((1, 3), np.float32)), (1,)),
    "large cloud": (
        PointsContent(points=RANDOM.normal(size=(7000, 3)).astype(np.float32)),
        (7000,),
    ),
    "short text": (
        passage("Grüße aus 東京 \N{GRINNING FACE}\n\tund e\N{COMBINING ACUTE ACCENT}"),
        (44,),
    ),
    "one long word": (passage("a " + "x" * 198), (200,)),
    "long text": (passage("The film was long. " * 200), (3800,)),
    "recording": (series(), (15,)),
    "one step": (series(steps=1, unit="step"), (1,)),
    "many channels": (series(channels=30), (15,)),
    "values": (ArrayContent(values=RANDOM.normal(size=(20, 4)).astype(np.float32)), (20,)),
    "positive values": (ArrayContent(values=RANDOM.random((20, 1)).astype(np.float32)), (20,)),
    "nothing measured": (ArrayContent(values=np.full((3, 2), np.nan, np.float32)), (3,)),
    "elements": (ElementsContent(values=RANDOM.random((6, 4, 2))), (6, 4)),
    "fields": (TableContent(fields=("$age$", "sex", "city"), texts=("4", "", "Rome")), (3,)),
    "many fields": (TableContent(fields=("field",) * 50, texts=("1",) * 50), (50,)),
}


def view(
    name="picture", *, reads=2, latents=3, modality="one", share=1.0, even=1.0, hidden=0, kept=None
) -> View:
    content, axes = CONTENTS[name]
    attention = (RANDOM.random((reads, *axes)) * 2).astype(np.float32)
    if hidden:
        attention[:, -hidden:] = np.nan
    return View(
        name=modality,
        content=content,
        attention=attention,
        share=np.full(reads, share, np.float32),
        even=even,
        scores=RANDOM.random((reads, latents, *axes)).astype(np.float32),
        **({} if kept is None else _whole(attention, kept, latents)),
    )


def _whole(attention, title: str, latents: int) -> dict:
    """Return the fields that `explain` adds: a map of the whole model, and maps of single latents."""
    single = np.repeat(attention[:, None], latents, axis=1)
    return {
        "summary": attention.mean(axis=0),
        "summary_title": title,
        "latents": single,
        "rolled": single[0],
        "heads": attention[:, None],
        "head_scores": single[:, None],
    }


def explanation(*views: View, labels=4, **changes) -> Explanation:
    views = views or (view(),)
    return replace(
        Explanation(
            name="a $picture^.png",
            label_names=tuple(
                f"label ${i}$ with a name that is far too long" for i in range(labels)
            ),
            probabilities=np.full(labels, 1 / labels, np.float32),
            views=views,
            latents=tuple(range(views[0].scores.shape[1])),
        ),
        **changes,
    )
