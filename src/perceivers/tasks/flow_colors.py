"""Color image of optical flow: hue is the direction, saturation the distance."""

import numpy as np
import numpy.typing as npt

# Steps between the six colors of the wheel, more where more hues can be distinguished: red to yellow, yellow to green,
# green to cyan, cyan to blue, blue to magenta, magenta to red.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))


def flow_colors(
    flow: npt.NDArray[np.float32], *, largest: float | None = None
) -> npt.NDArray[np.uint8]:
    """Return a field in the colors of the Middlebury benchmark: white does not move, red goes to the right.

    A larger motion than `largest` (default: that of this field) is darker. Motion is to the right and down, in pixels:
    Y x X x 2 -> Y x X x 3.

    Reference: S. Baker et al., A Database and Evaluation Methodology for Optical Flow (2011), figure 7.
    """
    right, down = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    length = np.hypot(right, down)
    full = float(length.max()) if largest is None else largest
    share = length / max(full, 1e-9)
    corners = np.array(_CORNERS, dtype=np.float64) / 255  # the wheel goes once around from red
    wheel = np.concatenate(
        [
            begin + (end - begin) * (np.arange(steps) / steps)[:, None]
            for begin, end, steps in zip(corners, np.roll(corners, -1, axis=0), _STEPS, strict=True)
        ]
    )
    turn = np.arctan2(-down, -right) / np.pi  # -1 to 1, and 0 to the left, half the wheel from red
    place = (turn + 1) / 2 * len(wheel)
    low = np.floor(place).astype(int)
    between = (place - low)[..., None]
    color = (1 - between) * wheel[low % len(wheel)] + between * wheel[(low + 1) % len(wheel)]
    pale = 1 - np.minimum(share, 1)[..., None] * (1 - color)
    shown = np.where(share[..., None] <= 1 + 1e-6, pale, 0.75 * color)
    return np.floor(255 * shown).astype(np.uint8)
