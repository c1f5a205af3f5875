"""Fields of flow as pictures: hue says where a pixel goes, strength of the color how far."""

import numpy as np
import numpy.typing as npt

# Steps between the six colors of the wheel, more where the eye tells more hues apart: red to yellow, yellow to green,
# green to cyan, cyan to blue, blue to magenta, magenta to red.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))


def flow_colors(
    flow: npt.NDArray[np.float32], *, largest: float | None = None
) -> npt.NDArray[np.uint8]:
    """Return a field in the colors of the Middlebury benchmark: white does not move, red goes to the right.

    Args:
        flow: Y x X x 2, to the right and down, in pixels.
        largest: Motion of full color; what goes farther is darker. None: the largest of this field.

    Returns:
        Y x X x 3.

    Reference: S. Baker et al., A Database and Evaluation Methodology for Optical Flow (2011), figure 7.
    """
    right, down = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    length = np.hypot(right, down)
    full = float(length.max()) if largest is None else largest
    share = length / max(full, 1e-9)
    wheel = _wheel()
    turn = np.arctan2(-down, -right) / np.pi  # -1 to 1, and 0 to the left, half the wheel from red
    place = (turn + 1) / 2 * len(wheel)
    low = np.floor(place).astype(int)
    between = (place - low)[..., None]
    color = (1 - between) * wheel[low % len(wheel)] + between * wheel[(low + 1) % len(wheel)]
    pale = 1 - np.minimum(share, 1)[..., None] * (1 - color)
    shown = np.where(share[..., None] <= 1 + 1e-6, pale, 0.75 * color)
    return np.floor(255 * shown).astype(np.uint8)


def _wheel() -> npt.NDArray[np.float64]:
    """Return the colors of the wheel, each channel in [0, 1], once around from red."""
    colors = np.array(_CORNERS, dtype=np.float64) / 255
    following = np.roll(colors, -1, axis=0)
    return np.concatenate(
        [
            begin + (end - begin) * (np.arange(steps) / steps)[:, None]
            for begin, end, steps in zip(colors, following, _STEPS, strict=True)
        ]
    )
