"""Drawings of reconstructions: the original, what the model received, and the original with hidden parts predicted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.tasks.prediction import Reconstruction

Array = npt.NDArray[Any]

_GAP = 2  # pixels between images, before they are enlarged
_SHOWN_ROWS = 192  # smaller images and videos are enlarged to about so many rows
_FRAMES = 6  # of a video in a drawing
_GRAY = 128
_CHANNELS = 6  # curves of a series in a drawing
_BLANK = "_"
_TITLES = ("original", "visible", "predicted")

Drawing = Callable[[Reconstruction], "Image.Image | str"]

_DRAWINGS: dict[str, Drawing] = {}


def register_drawing(kind: str, draw: Drawing) -> None:
    """Register the function that draws the reconstruction of a modality, by the `kind` of its preprocessing.

    Args:
        kind: `image`, `mel`, `points`, ...
        draw: Returns an image, or lines of text. It may raise ImportError where matplotlib is missing.
    """
    _DRAWINGS[kind] = draw


def draw_reconstruction(pair: Reconstruction) -> Image.Image | str:
    """Return a reconstruction beside its original and, if parts were hidden, what was visible: an image or text.

    Values of a kind without a registered drawing are drawn as curves.

    Raises:
        ImportError: If it is drawn by matplotlib, which is missing.
    """
    return _DRAWINGS.get(pair.kind, _curves)(pair)


def side_by_side(pair: Reconstruction) -> npt.NDArray[np.uint8]:
    """Return an image, or a video frame by frame, next to its reconstruction; small ones are enlarged.

    If parts were hidden, what was visible stands between the two, with gray in place of hidden pixels.
    """
    parts = [pair.original, *([] if pair.hidden is None else [_visible(pair)]), pair.restored]
    gap = np.full_like(pair.original[..., :_GAP, :], 255)
    row = [part for one in parts for part in (one, gap)][:-1]
    both = np.concatenate(row, axis=-2)
    times = max(1, _SHOWN_ROWS // both.shape[-3])
    both = both.repeat(times, axis=-3).repeat(times, axis=-2)
    return both[..., 0] if both.shape[-1] == 1 else both


def _visible(pair: Reconstruction) -> Array:
    assert pair.hidden is not None
    return np.where(pair.hidden[..., None], np.asarray(_GRAY, pair.original.dtype), pair.original)


def _image(pair: Reconstruction) -> Image.Image:
    return Image.fromarray(side_by_side(pair))


def _video(pair: Reconstruction) -> Image.Image:
    """Draw a few frames below each other."""
    frames = side_by_side(pair)
    shown = np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))
    gap = np.full_like(frames[0][:_GAP], 255)
    rows = [part for index in shown for part in (frames[index], gap)][:-1]
    return Image.fromarray(np.concatenate(rows))


def _spectrogram(pair: Reconstruction) -> Image.Image:
    """Draw spectrograms below each other, low bands at the bottom."""
    hidden = pair.hidden
    shown = [pair.original, pair.restored]
    if hidden is not None:
        shown.insert(1, np.where(hidden[..., None], np.nan, pair.original))
    low, high = np.nanpercentile(pair.original, [1, 99.5])

    def draw(figure: Any) -> None:
        rows = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
        for axes, values, title in zip(rows, shown, _titles(pair), strict=True):
            axes.imshow(values[..., 0].T, origin="lower", aspect="auto", vmin=low, vmax=high)
            axes.set_ylabel(title, fontsize=8)
            axes.set_yticks([])
        rows[-1].set_xlabel("frame", fontsize=8)

    return _drawn(draw, 7.0, 1.3 * len(shown))


def _curves(pair: Reconstruction) -> Image.Image:
    """Draw each channel over the axis of rows, hidden stretches shaded, with the prediction in them."""
    original = pair.original.reshape(len(pair.original), -1)
    restored = pair.restored.reshape(len(pair.restored), -1)
    count = min(original.shape[1], _CHANNELS)
    hidden = pair.hidden
    predicted = restored if hidden is None else np.where(hidden[:, None], restored, np.nan)
    places = np.arange(len(original))
    seconds = 1.0 if pair.rate is None else pair.rate

    def draw(figure: Any) -> None:
        rows = np.atleast_1d(figure.subplots(count, 1, sharex=True))
        for channel, axes in enumerate(rows):
            axes.plot(places / seconds, original[:, channel], color="#6b7280", lw=0.8)
            axes.plot(places / seconds, predicted[:, channel], color="#d9412e", lw=1.0)
            for begin, end in _stretches(hidden):
                axes.axvspan(begin / seconds, end / seconds, color="#c9d3e0", alpha=0.5, lw=0)
            axes.tick_params(labelsize=7)
        label = "row" if pair.rate is None else "seconds"
        about = "" if hidden is None else ", hidden where shaded"
        rows[-1].set_xlabel(f"{label} (gray: original{about}; red: predicted)", fontsize=8)

    return _drawn(draw, 7.0, 0.6 + 0.9 * count)


def _points(pair: Reconstruction) -> Image.Image:
    """Draw point clouds side by side, seen from one side."""
    clouds = [pair.original, pair.restored]
    if pair.hidden is not None:
        clouds.insert(1, pair.original[~pair.hidden])
    turn = np.deg2rad(35)
    visible = 0 if pair.hidden is None else int((~pair.hidden).sum())

    def draw(figure: Any) -> None:
        row = figure.subplots(1, len(clouds), sharex=True, sharey=True)
        for place, (axes, points, title) in enumerate(zip(row, clouds, _titles(pair), strict=True)):
            across = points[:, 0] * np.cos(turn) - points[:, 1] * np.sin(turn)
            depth = points[:, 0] * np.sin(turn) + points[:, 1] * np.cos(turn)
            new = (np.arange(len(points)) >= visible) & (place == len(clouds) - 1)
            colors = np.where(new, "#d9412e", "#3b6fb6") if pair.hidden is not None else "#3b6fb6"
            axes.scatter(across, points[:, 2] + 0.35 * depth, c=colors, s=4, lw=0)
            axes.set_title(title, fontsize=8)
            axes.set_aspect("equal")
            axes.set_axis_off()

    return _drawn(draw, 2.6 * len(clouds), 2.8)


def _text(pair: Reconstruction) -> str:
    """Return lines of the original, what was visible, and the text with predicted bytes."""
    lines = [pair.original, pair.restored]
    if pair.hidden is not None:
        lines.insert(1, np.where(pair.hidden, np.uint8(ord(_BLANK)), pair.original))
    texts = (line.astype(np.uint8).tobytes().decode("utf-8", errors="replace") for line in lines)
    return "\n".join(f"{title}: {text}" for title, text in zip(_titles(pair), texts, strict=True))


def _table(pair: Reconstruction) -> str:
    """Return a line for each field that was hidden, with the prediction; then the visible ones."""
    hidden = np.zeros(len(pair.original), np.bool_) if pair.hidden is None else pair.hidden
    lines = [
        f"{original}, predicted {str(restored).partition(': ')[2]}" if is_hidden else str(original)
        for original, restored, is_hidden in zip(pair.original, pair.restored, hidden, strict=True)
    ]
    order = np.argsort(~hidden, kind="stable")
    return "\n".join(lines[place] for place in order)


def _titles(pair: Reconstruction) -> tuple[str, ...]:
    return _TITLES if pair.hidden is not None else (_TITLES[0], "reconstructed")


def _stretches(hidden: npt.NDArray[np.bool_] | None) -> list[tuple[int, int]]:
    """Return begin and end of each run of hidden rows."""
    if hidden is None:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(np.int8), [0]])))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _drawn(draw: Callable[[Any], None], width: float, height: float) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


register_drawing("image", _image)
register_drawing("video", _video)
register_drawing("mel", _spectrogram)
register_drawing("points", _points)
register_drawing("text", _text)
register_drawing("table", _table)
