"""The colors of the Middlebury benchmark, held against what its figure shows."""

import numpy as np
import pytest

from perceivers.tasks.flow_colors import flow_colors


def color(right, down, largest=1.0):
    return flow_colors(np.float32([[[right, down]]]), largest=largest)[0, 0].astype(int)


def test_what_does_not_move_is_white():
    assert (flow_colors(np.zeros((2, 3, 2), np.float32)) == 255).all()


@pytest.mark.parametrize(
    ("right", "down", "strong", "weak"),
    [
        (1, 0, (0,), (1, 2)),  # red
        (0, 1, (0, 1), (2,)),  # yellow
        (-1, 0, (1, 2), (0,)),  # between green and blue
        (0, -1, (2,), (1,)),  # blue to magenta
    ],
)
def test_hue_says_where(right, down, strong, weak):
    found = color(right, down)
    assert min(found[list(strong)]) > max(found[list(weak)]) + 60


def test_strength_says_how_far_and_too_far_is_darker():
    reds = [color(length, 0)[1] for length in (0.0, 0.25, 0.5, 1.0)]
    assert reds == sorted(reds, reverse=True)
    assert reds[0] == 255
    assert reds[-1] < 20
    assert color(1.0, 0)[0] == 255
    assert color(3.0, 0)[0] == 191  # three quarters


def test_hues_change_slowly_all_around():
    angles = np.linspace(-np.pi, np.pi, 400, dtype=np.float32)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None]
    colors = flow_colors(ring, largest=1.001)[0].astype(int)
    assert np.abs(np.diff(colors, axis=0)).max() < 20
    assert np.abs(colors[0] - colors[-1]).max() < 20
