"""Puts figures together: the answer above, and a section for each modality below.

The files named `drawing` and `canvas` are the only ones that need matplotlib. They go without pyplot: no window
opens, and no state is shared with the caller.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from perceivers.explain.attribution.contents import (
    Cloud,
    Fields,
    Film,
    Passage,
    Picture,
    Recording,
    Spectrogram,
    Values,
    Wave,
)
from perceivers.explain.attribution.explanation import Explanation, View
from perceivers.explain.render.drawing_audio import (
    draw_spectrogram,
    draw_wave,
    spectrogram_size,
    wave_size,
)
from perceivers.explain.render.drawing_image import draw_picture, draw_single_picture, picture_size
from perceivers.explain.render.drawing_series import (
    draw_fields,
    draw_recording,
    draw_values,
    fields_size,
    recording_size,
    values_size,
)
from perceivers.explain.render.drawing_text import draw_text, text_size
from perceivers.explain.render.drawing_video import cloud_size, draw_cloud, draw_film, film_size
from perceivers.explain.render.plot import INK, QUIET, draw_bars, draw_shares, legend_of, shorten

_Size = Callable[[View], tuple[float, float]]
_Draw = Callable[[SubFigure, View], None]
_SECTIONS: dict[type, tuple[_Size, _Draw]] = {
    Picture: (picture_size, draw_picture),
    Wave: (wave_size, draw_wave),
    Spectrogram: (spectrogram_size, draw_spectrogram),
    Film: (film_size, draw_film),
    Cloud: (cloud_size, draw_cloud),
    Passage: (text_size, draw_text),
    Recording: (recording_size, draw_recording),
    Values: (values_size, draw_values),
    Fields: (fields_size, draw_fields),
}


def draw_explanation(explanation: Explanation, *, latents: bool = True) -> Figure:
    """Return a figure: what the model says and, for each modality, what it read and where each read looked.

    A single picture has a figure of its own, with the scores of single latents beside the attention; not without
    `latents`.
    """
    views = explanation.views
    single = len(views) == 1
    if latents and single and not explanation.missing and isinstance(views[0].content, Picture):
        return draw_single_picture(explanation)
    sizes = [_SECTIONS[type(view.content)][0](view) for view in views]
    rows = _num_bars(explanation)
    head = 0.8 + 0.26 * rows
    if not single:
        head = max(head, 1.0 + 0.24 * (len(views[0].share) + 1))
    heights = [head, *(height + 0.35 * (not single) for _, height in sizes), 0.5]
    width = max(8.0, *(width for width, _ in sizes))
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.05)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    _draw_head(parts[0], explanation, single=single)
    for part, view, (wide, _) in zip(parts[1:-1], views, sizes, strict=True):
        # Sections keep the width that they are made for, at the left.
        inner = part
        if wide < 0.95 * width:
            inner = part.subfigures(1, 2, width_ratios=[wide, width - wide])[0]
        _SECTIONS[type(view.content)][1](inner, view)
        if not single:
            title = f"{view.name}: {100 * view.share.mean():.0f} % of all attention"
            part.suptitle(
                title, x=0.01, ha="left", color=INK, fontsize=11, weight="bold", parse_math=False
            )
    parts[-1].text(
        0.5,
        0.5,
        _caption(explanation),
        ha="center",
        va="center",
        fontsize=8.5,
        color=QUIET,
        parse_math=False,
    )
    return figure


def _draw_head(figure: SubFigure, explanation: Explanation, *, single: bool) -> None:
    """Draw the answer as bars and, of several modalities, the share of attention of each."""
    figure.suptitle(
        shorten(explanation.name, 90), x=0.01, ha="left", color=INK, fontsize=11, parse_math=False
    )
    halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1])
    draw_bars(halves[0].subplots(), explanation, _num_bars(explanation))
    if not single:
        draw_shares(halves[1], explanation)


def _num_bars(explanation: Explanation) -> int:
    return max(min(len(explanation.label_names), 8 if explanation.task == "regression" else 5), 2)


def _caption(explanation: Explanation) -> str:
    words = "Reads: attention of all latents and heads, in multiples of an even share (1x: nowhere in particular)."
    if len(explanation.views) > 1:
        words = words.replace("an even share", "an even share within the modality")
    words = f"{legend_of(explanation)}\n{words}"
    if explanation.asked is not None:
        best = np.argsort(-explanation.asked, kind="stable")[:5]
        told = ", ".join(f"{latent} ({100 * explanation.asked[latent]:.0f} %)" for latent in best)
        words += f"\nThe first blank asked latents {told}: what they read is what it looked at."
    if explanation.missing:
        words += f" Not there: {', '.join(explanation.missing)}."
    return words
