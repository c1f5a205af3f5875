"""Pairs of frames whose flow is known exactly: an image or a made texture, moved by a smooth random field.

The second frame is a window of the image itself. The first is the image looked up where its pixels go: with the
flow f, `first(x) = second(x + f(x))` by definition, so that the flow of the first frame is exact, to the rounding of
pixels to 8 bits and, between them, to the cubic interpolation.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

_BEND = 3  # waves of the low-frequency part, along each axis at most one and a half over the frame


@dataclass(frozen=True, slots=True)
class MotionPair:
    """Two frames and how the first moves to the second.

    Attributes:
        first: Y x X x 3.
        second: Y x X x 3.
        flow: Y x X x 2: for each pixel of the first frame, how many pixels it goes to the right and down.
    """

    first: Pixels
    second: Pixels
    flow: Vectors


def synthetic_pair(
    numbers: np.random.Generator,
    *,
    size: tuple[int, int],
    largest: float,
    image: Pixels | None = None,
) -> MotionPair:
    """Return a pair of frames with a known flow.

    Args:
        numbers: Random numbers.
        size: Height and width of the frames.
        largest: No pixel moves farther, in pixels.
        image: Y x X x 3, at least `largest` + 2 pixels larger than the frames on each side; a random window of it
            moves. None: a synthetic texture.

    Raises:
        ValueError: If the image is too small.
    """
    margin = int(np.ceil(largest)) + 2
    height, width = size[0] + 2 * margin, size[1] + 2 * margin
    if image is None:
        image = synthetic_texture(numbers, (height, width))
    if image.shape[0] < height or image.shape[1] < width:
        raise ValueError(
            f"Expected an image of at least {height} x {width} pixels for frames of {size[0]} x {size[1]} that move "
            f"by up to {largest:g} pixels, got {image.shape[0]} x {image.shape[1]}."
        )
    top = int(numbers.integers(image.shape[0] - height + 1))
    left = int(numbers.integers(image.shape[1] - width + 1))
    window = image[top : top + height, left : left + width]
    flow = synthetic_flow(numbers, size, largest)
    first = _looked_up(window, flow, margin)
    second = window[margin : margin + size[0], margin : margin + size[1]]
    return MotionPair(first, np.ascontiguousarray(second), flow)


def synthetic_flow(numbers: np.random.Generator, size: tuple[int, int], largest: float) -> Vectors:
    """Return a smooth field: a translation, an affine part and a few low waves, of random shares.

    Args:
        numbers: Random numbers.
        size: Height and width.
        largest: Length of the longest vector that is possible. That of this field is drawn evenly from its third on.

    Returns:
        Y x X x 2, to the right and down, in pixels.
    """
    down, right = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    shares = numbers.dirichlet((1.0, 1.0, 1.0))
    angle = numbers.uniform(0, 2 * np.pi)
    moved = np.broadcast_to([np.cos(angle), np.sin(angle)], (*size, 2))
    turned = np.stack([right, down], axis=-1) @ numbers.normal(size=(2, 2))
    bent = np.zeros((*size, 2))
    for _ in range(_BEND):
        waves, phase = numbers.uniform(-1.5, 1.5, 2) * np.pi, numbers.uniform(0, 2 * np.pi)
        wave = np.sin(waves[0] * down + waves[1] * right + phase)
        bent += wave[..., None] * numbers.normal(size=2)
    parts = [
        share * part / max(float(_lengths(part).max()), 1e-6)
        for share, part in zip(shares, (moved, turned, bent), strict=True)
    ]
    field = np.sum(parts, axis=0)
    length = numbers.uniform(largest / 3, largest)
    return (field * (length / max(float(_lengths(field).max()), 1e-6))).astype(np.float32)


def synthetic_texture(numbers: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Return a colored texture: noise of a natural spectrum, in two layers with sharp edges between them.

    Args:
        numbers: Random numbers.
        size: Height and width.

    Returns:
        Y x X x 3.
    """
    falls = np.concatenate([numbers.uniform(0.7, 1.5, 8), [2.0]])
    *noises, edges = _noises(numbers, size, falls)
    layers: list[npt.NDArray[np.float64]] = []
    for gray, *colors in (noises[:4], noises[4:]):
        contrast, tint = numbers.uniform(30, 70), numbers.uniform(60, 195, 3)
        own = numbers.uniform(0.1, 0.6)  # share of what each color does by itself
        layers.append(contrast * ((1 - own) * gray[..., None] + own * np.stack(colors, -1)) + tint)
    mixed = np.where((edges > numbers.normal(0, 0.5))[..., None], *layers)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _noises(
    numbers: np.random.Generator, size: tuple[int, int], falls: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return noises whose amplitude falls as frequency ** -fall, each of mean 0 and deviation 1."""
    down, right = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    frequency = np.hypot(down, right)
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(numbers.normal(size=(len(falls), *size)))
    waves *= np.exp(-falls[:, None, None] * np.log(frequency))
    noises = np.fft.irfft2(waves, s=size)
    noises -= noises.mean(axis=(1, 2), keepdims=True)
    return noises / np.maximum(noises.std(axis=(1, 2), keepdims=True), 1e-9)


def _lengths(field: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.linalg.norm(field, axis=-1)


def _looked_up(window: Pixels, flow: Vectors, margin: int) -> Pixels:
    """Return the window looked up at x + f(x), by cubic interpolation."""
    height, width = window.shape[:2]
    down, right = np.meshgrid(*(np.arange(n) + margin for n in flow.shape[:2]), indexing="ij")
    at = np.stack([right + flow[..., 0], down + flow[..., 1]], axis=-1)
    at = 2 * at / [width - 1, height - 1] - 1
    pixels = torch.from_numpy(window.transpose(2, 0, 1).astype(np.float32))[None]
    found = grid_sample(
        pixels, torch.from_numpy(at.astype(np.float32))[None], mode="bicubic", align_corners=True
    )
    return found[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
