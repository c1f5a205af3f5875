"""Pictures that move: a film frame by frame, a cloud that turns, and of all else one map after another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from perceivers.explain.attribution.contents import Cloud, Film
from perceivers.explain.attribution.explanation import Explanation, View
from perceivers.explain.render.drawing import draw_explanation
from perceivers.explain.render.drawing_video import draw_turned
from perceivers.explain.render.plot import HEAT, INK, heat_top, read_maps, read_titles

SIDE = 256  # pixels of the longer side of a frame, at least
TURNS = 24
SLOW = 1400  # milliseconds for each map

Pixels = npt.NDArray[np.uint8]


def write_moving(explanation: Explanation, out: Path) -> None:
    """Write an animated GIF: of a film if there is one, or else of a cloud, or else of depth.

    Raises:
        OSError: If `out` cannot be written.
    """
    film = next((view for view in explanation.views if isinstance(view.content, Film)), None)
    cloud = next((view for view in explanation.views if isinstance(view.content, Cloud)), None)
    if film is not None:
        assert isinstance(film.content, Film)
        frames, each = _film(film), max(1000 / film.content.rate, 40)
    elif cloud is not None:
        frames, each = _cloud(cloud), 120
    else:
        frames, each = _depth(explanation), SLOW
    images = [
        Image.fromarray(frame).quantize(colors=256, dither=Image.Dither.NONE) for frame in frames
    ]
    images[0].save(
        out, format="GIF", save_all=True, append_images=images[1:], duration=round(each), loop=0
    )


def _film(view: View) -> Iterator[Pixels]:
    """Yield each frame beside what was looked at in it."""
    content = view.content
    assert isinstance(content, Film)
    attention = view.overall
    height, width = content.frames.shape[1:3]
    larger = max(1, round(SIDE / max(height, width)))
    top, step = heat_top(attention), content.step
    for place, frame in enumerate(content.frames):
        grid = attention[min(place // step[0], len(attention) - 1)]
        cells = grid.repeat(step[1], axis=0).repeat(step[2], axis=1)[:height, :width]
        level = np.clip(np.nan_to_num(cells) / top, 0, 1)
        gray = np.repeat(frame.mean(axis=2, keepdims=True), 3, axis=2)
        heat = 255 * np.asarray(colormaps[HEAT](level))[..., :3]
        alpha = np.where(np.isfinite(cells), 0.25 + 0.6 * level, 0)[..., None]
        laid = np.rint((1 - alpha) * gray + alpha * heat).astype(np.uint8)
        both = np.concatenate([frame, np.full((height, 2, 3), 255, np.uint8), laid], axis=1)
        yield both.repeat(larger, axis=0).repeat(larger, axis=1)


def _cloud(view: View) -> Iterator[Pixels]:
    """Yield the cloud from all sides."""
    for turn in range(TURNS):
        figure = Figure(figsize=(4.4, 4.2), layout="constrained")
        draw_turned(figure, view, azimuth=-55 + 360 * turn / TURNS)
        yield _pixels(figure)


def _depth(explanation: Explanation) -> Iterator[Pixels]:
    """Yield a figure for each map: that of the whole model, then read after read."""
    titles = read_titles(explanation.views[0])
    maps = [read_maps(view) for view in explanation.views]
    for place, title in enumerate(titles):
        views = tuple(
            replace(
                view,
                attention=own[place][None],
                share=view.share.mean(keepdims=True),
                scores=view.scores[:1],
                summary=None,
                asked=None,
            )
            for view, own in zip(explanation.views, maps, strict=True)
        )
        figure = draw_explanation(replace(explanation, views=views, asked=None), latents=False)
        figure.text(
            0.5, 0.995, title, ha="center", va="top", color=INK, weight="bold", parse_math=False
        )
        yield _pixels(figure)


def _pixels(figure: Any) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(80)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
