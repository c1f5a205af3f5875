"""Explanations as PNG figures and animated GIFs."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from perceivers.data.base import atomic_write
from perceivers.escaping import escape_line
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.faithfulness import MeanCurves
from perceivers.explain.contents import plot
from perceivers.explain.contents.base import View
from perceivers.explain.contents.plot import BAR, INK, PALE, QUIET, shorten

BARS = 5  # most probable labels
NUMBERS = 8  # of a regression
SECONDS = 1.4  # of a map in an animation
SHARES = [BAR, "#e39b3b", "#5f9e6e", "#b0577d", "#7d6bb2", "#8a8f98", "#3aa6a6", "#c25b4a"]
_STYLES: dict[str, dict[str, Any]] = {
    "class": {"color": "#b3242b", "label": "class: roll-up weighted by its gradient"},
    "rollup": {"color": "#3b6fb6", "label": "rollup: attention through all layers"},
    "mean": {"color": "#e39b3b", "label": "mean of all cross-attentions"},
    "last": {"color": "#5f9e6e", "label": "last cross-attention"},
    "gradients": {"color": "#7d6bb2", "linestyle": (0, (4, 2)), "label": "input gradients"},
    "random": {"color": "#6b7280", "linestyle": (0, (1, 1.5)), "label": "a random order"},
}


def draw_explanation(explanation: Explanation, *, latents: bool = True) -> Figure:
    """Return a figure with the output of the model and, for each modality, the input and the maps of attention.

    With `latents`, the scores of single latents are drawn below a single image.
    """
    views = explanation.views
    several = len(views) > 1
    num_bars = max(
        min(len(explanation.label_names), NUMBERS if _is_regression(explanation) else BARS), 2
    )
    head = 0.8 + 0.26 * num_bars
    if several:
        head = max(head, 1.0 + 0.24 * (len(views[0].share) + 1))
    sections = [(view.content.size(view), view.content.draw, view) for view in views]
    heights = [head, *(height + 0.35 * several for (_, height), _, _ in sections)]
    for view in views if latents and not several else ():
        if (size := view.content.latents_size(view)) is not None:
            draw_latents = partial(view.content.draw_latents, latents=explanation.latents)
            sections.append((size, draw_latents, view))
            heights.append(size[1])
    heights.append(0.5)
    width = max(8.0, *(width for (width, _), _, _ in sections))
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.05)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    title = shorten(escape_line(explanation.name), 90, keep_end=True)
    parts[0].suptitle(title, x=0.01, ha="left", color=INK, fontsize=11, parse_math=False)
    halves: Any = parts[0].subfigures(1, 2)
    _draw_answer(halves[0].subplots(), explanation, num_bars)
    if several:
        _draw_shares(halves[1].subplots(), views)
    for part, ((wide, _), draw, view) in zip(parts[1:-1], sections, strict=True):
        # Sections keep the width that they are made for, at the left.
        narrow = wide < 0.95 * width
        draw(part.subfigures(1, 2, width_ratios=[wide, width - wide])[0] if narrow else part, view)
        if several:
            title = f"{view.name}: {100 * view.share.mean():.0f} % of all attention"
            how: dict[str, Any] = {"color": INK, "fontsize": 11, "weight": "bold"}
            part.suptitle(title, x=0.01, ha="left", parse_math=False, **how)
    how = {"ha": "center", "va": "center", "fontsize": 8.5, "color": QUIET}
    parts[-1].text(0.5, 0.5, _caption(explanation), parse_math=False, **how)
    return figure


def _is_regression(explanation: Explanation) -> bool:
    return explanation.task == "regression"


def _draw_answer(axes: Any, explanation: Explanation, rows: int) -> None:
    """Draw the most probable labels or the predicted numbers as bars, with room for `rows`."""
    regression, values = _is_regression(explanation), explanation.probabilities
    best = np.arange(len(values))[:NUMBERS] if regression else np.argsort(-values)[:BARS]
    names = [shorten(explanation.label_names[index], 28) for index in best]
    values = values[best]
    if regression:
        chosen, title = np.ones(len(best), bool), "predicted"
    elif explanation.task == "multilabel":
        chosen = values >= explanation.threshold
        labels = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
        title = f"predicted: {shorten(', '.join(labels) or 'none', 44)}"
    else:
        chosen, title = np.arange(len(best)) == 0, f"predicted: {names[0]}"
    texts = [f"{value:.4g}" if regression else f"{100 * value:.1f} %" for value in values]
    colors = [BAR if is_chosen else PALE for is_chosen in chosen]
    plot.draw_bars(axes, names, values, colors, dict(enumerate(texts)))
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    span = high - low or 1.0
    axes.set_xlim(*((low - 0.02 * span, high + 0.25 * span) if regression else (0, 1.25)))
    axes.set_ylim(max(len(best), rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=PALE, linewidth=0.8)
    axes.set_title(title, color=INK, loc="left", parse_math=False)


def _draw_shares(axes: Any, views: tuple[View, ...]) -> None:
    """Draw the fraction of attention of each modality, one stacked bar for each cross-attention."""
    left: Any = 0.0
    for index, view in enumerate(views):
        parts = np.array([*view.share, view.even])
        how: dict[str, Any] = {"color": SHARES[index % len(SHARES)], "label": view.name}
        bars = axes.barh(range(len(parts)), parts, left=left, height=0.72, **how)
        bars[-1].set_alpha(0.35)
        texts = [f"{100 * part:.0f} %" if part >= 0.08 else "" for part in parts]
        written = axes.bar_label(bars, texts, label_type="center", fontsize=8, color="white")
        written[-1].set_color(INK)
        left = left + parts
    count = len(views[0].share)
    names = [*(f"cross-attention {place + 1}" for place in range(count)), "if even"]
    axes.set_yticks(range(count + 1), names, fontsize=8, color=INK)
    axes.set_ylim(count + 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("share of all attention", color=INK, loc="left")
    where: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02)}
    axes.legend(ncols=min(len(views), 4), frameon=False, fontsize=8, **where)


def _caption(explanation: Explanation) -> str:
    """Return sentences that explain the maps."""
    about = shorten(str(explanation.about), 40)
    words = {
        "class": f"'for {about}': attention through all layers, as far as more of it would make that output larger.",
        "rollup": "'all layers': attention rolled up from the output to the elements.",
        "last": "'last cross-attention': its attention.",
    }.get(explanation.map, "'all cross-attentions': their mean attention.")
    within = " within the modality" if len(explanation.views) > 1 else ""
    words += (
        "\nCross-attentions: attention of all latents and heads, in multiples of an even share"
        f"{within} (1x: uniform)."
    )
    if explanation.query is not None:
        best = np.argsort(-explanation.query, kind="stable")[:5]
        parts = ", ".join(f"{latent} ({100 * explanation.query[latent]:.0f} %)" for latent in best)
        words += f"\nThe query of the first blank attends to latents {parts}, and through them to the elements."
    if explanation.missing:
        words += f" Missing: {', '.join(explanation.missing)}."
    return words


def write_gif(explanation: Explanation, out: Path) -> None:
    """Write an animated GIF: the frames of a video, points that turn, or else one map after another."""
    animated = [view for view in explanation.views if view.content.num_frames]
    frames = _animation(animated[0]) if animated else _depth(explanation)
    seconds = animated[0].content.frame_seconds if animated else SECONDS
    images = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    how: dict[str, Any] = {"save_all": True, "append_images": images[1:], "loop": 0}
    with atomic_write(out) as new:
        images[0].save(new, format="GIF", duration=round(1000 * seconds), **how)


def _animation(view: View) -> Iterator[npt.NDArray[np.uint8]]:
    for frame in range(view.content.num_frames):
        figure = Figure(layout="constrained")
        view.content.draw_frame(figure, view, frame)
        yield _pixels(figure)


def _depth(explanation: Explanation) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield a figure for each map: the whole model, then each cross-attention."""
    for key, (title, _) in explanation.views[0].maps.items():
        views = tuple(
            replace(
                view,
                attention=view.maps.get(key, ("", view.overall))[1][None],
                share=view.share.mean(keepdims=True),
                summary=view.maps.get(key, ("", view.overall))[1],
                summary_title=title,
                query=None,
            )
            for view in explanation.views
        )
        figure = draw_explanation(replace(explanation, views=views, query=None), latents=False)
        how: dict[str, Any] = {"ha": "center", "va": "top", "color": INK, "weight": "bold"}
        figure.text(0.5, 0.995, title, parse_math=False, **how)
        yield _pixels(figure)


def _pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(80)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_curves(curves: MeanCurves) -> Figure:
    """Return a figure with the deletion and the insertion curves of all maps."""
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    areas = curves.areas()
    drawn = [*curves.deletion.values(), *curves.insertion.values()]
    top = 1.05 * max(float(curve.max()) for curve in drawn)
    halves: Any = figure.subplots(1, 2, sharey=True)
    parts = (
        ("deletion", curves.deletion, "strongest elements removed first", "removed", "lower"),
        ("insertion", curves.insertion, "strongest elements inserted first", "inserted", "higher"),
    )
    for place, (axes, part) in enumerate(zip(halves, parts, strict=True)):
        title, by_map, order, verb, better = part
        for name, curve in by_map.items():
            style = {"label": name} | _STYLES.get(name, {"color": "#1b1f27"})
            label = f"{areas[name][place]:.3f}  {style['label']}"
            axes.plot(100 * curves.fractions, curve, **style | {"label": label})
        axes.set_title(f"{title}: {order}", loc="left", fontsize=10)
        axes.set_xlabel(f"% of elements {verb}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, top)
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "title_fontsize": 8}
        words = f"area under the curve ({better} is better)"
        axes.legend(fontsize=8, frameon=False, title=words, **where)
    samples = f"mean of {curves.samples} samples" if curves.samples > 1 else "one sample"
    halves[0].set_ylabel(f"probability of the class, {samples}", fontsize=9)
    return figure
