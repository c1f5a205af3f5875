"""The color scale of attention has one end, with one meaning, in figures, the HTML page and the page of the server."""

from dataclasses import replace

import numpy as np
import pytest

from perceivers.explain.render.explanation_json import explanation_json, views_json
from perceivers.explain.render.figure import draw_explanation
from support.explanations import explanation, view


def ticks(found) -> set[str]:
    """Return the texts at the color scales and axes of a figure."""
    figure = draw_explanation(found)
    figure.canvas.draw()
    return {
        text.get_text()
        for axes in figure.axes
        for text in (*axes.get_yticklabels(), *axes.get_xticklabels())
    }


@pytest.mark.parametrize("name", ["picture", "wave", "cloud", "short text", "fields", "film"])
@pytest.mark.parametrize("peak", [1.0, 500.0])
def test_figure_and_pages_end_at_the_same_value(name, peak):
    one = view(name)
    attention = np.ones_like(one.attention) * 3
    attention.reshape(len(attention), -1)[0, 0] = 3 * peak
    one = replace(one, attention=attention)
    found = explanation(one)
    (page,), (served,) = explanation_json(found)["views"], views_json(found)
    assert page["high"] == served["high"] == pytest.approx(one.scale, abs=1e-3)
    assert page["largest"] == served["largest"] == pytest.approx(3 * peak)
    is_clipped = page["largest"] > page["high"]
    assert is_clipped == (peak > 1)
    assert f"{'≥' if is_clipped else ''}{page['high']:.1f}x" in ticks(found)
