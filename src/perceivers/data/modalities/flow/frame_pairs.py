"""Pairs of frames as a modality: two pictures of one size, cut to the same window."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem, as_encoded_item
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    MissingValueError,
)
from perceivers.data.modalities.flow.crop import PairAugmentConfig, stack_fields, window_at
from perceivers.data.modalities.image.decode import decode
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

_LARGEST = (368, 496)  # of windows, where the size is taken from the data


@configclass
class FramePairPreprocessConfig(BasePreprocessConfig):
    """What turns two pictures into a pair of frames.

    Attributes:
        size: Height and width of the window that is read, in pixels. Larger frames are cut, anywhere in training and in
            the middle otherwise; smaller ones get zeros below and beside them, of which nothing is asked. None: that of
            the smallest frames of the data, up to 368 x 496.
        num_channels: 3 for RGB, 1 for gray.
        whole: Frames are never cut, as `evaluate` and `predict` want them, which read larger ones window by window.
    """

    kind: Literal["frame_pair"] = "frame_pair"
    size: tuple[int, int] | None = None
    num_channels: int = 3
    whole: bool = False

    def measure(self, cells: CellSampler) -> "FramePairPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_frame_pairs`."""
        return measure_frame_pairs(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return what is assumed where no data are at hand."""
        return {"size": (64, 64)}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"size": self.size, "num_channels": self.num_channels}


class FramePairModality:
    """How cells become pairs of frames. See `perceivers.data.modalities.base.Modality`.

    Args:
        preprocess: Size of the window.
        augment: What is random. None: nothing.

    Raises:
        ValueError: If the size is not known.
    """

    has_clips = True  # the moment tells the window

    def __init__(
        self, preprocess: FramePairPreprocessConfig, augment: PairAugmentConfig | None = None
    ) -> None:
        if preprocess.size is None:
            raise ValueError("Expected the size of the frames, size=(height, width), got None.")
        self.preprocess, self.augment, self.size = preprocess, augment, preprocess.size

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return both frames as they are, 2 x Y x X x C of uint8.

        Args:
            media: Its value is a mapping or a list of two cells, files or arrays; or one array of both frames.
            clip_position: Frames are decoded whole.

        Raises:
            MissingValueError: If a frame is missing.
            ValueError: If one cannot be decoded, there are not two, or they have different sizes.
        """
        return _decoded(media, self.preprocess.num_channels)

    def extent(self, value: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Return height and width, which all that belongs to the frames must have."""
        return value.shape[1], value.shape[2]

    def prepare(
        self,
        value: npt.NDArray[np.uint8],
        *,
        clip_position: float = 0.5,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.uint8]:
        """Return both frames in the window of this moment, 2 x C x Y x X.

        Args:
            value: Of `decode`.
            clip_position: Tells the window, and in training whether it is mirrored.
            rng: The moment is all that is random, as the flow must be cut in the same way.
        """
        if not self.preprocess.whole:
            mirror = self.augment is not None and self.augment.mirror
            at = 0.5 if self.augment is None else clip_position
            window = window_at(at, self.extent(value), self.size, mirror=mirror)
            value = window.of(value, axis=1)
        return np.ascontiguousarray(value.transpose(0, 3, 1, 2))

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B 2 C Y X"], Bool[Tensor, "B 1"] | None]:
        """Return pairs in [-1, 1], 0 where a frame has ended; and which of them are there, if some are missing."""
        scaled = [
            None if one is None else (one.astype(np.float32) / 127.5 - 1.0) for one in samples
        ]
        least = (1, 1) if self.preprocess.whole else self.size
        frames = stack_fields(scaled, like=(2, self.preprocess.num_channels, *least))
        there = [sample is not None for sample in samples]
        return frames, None if all(there) else torch.tensor(there)[:, None]


def measure_frame_pairs(cells: Any, config: FramePairPreprocessConfig) -> FramePairPreprocessConfig:
    """Return the preprocessing with its size filled in: that of the smallest frames, up to the paper's.

    Args:
        cells: Some pairs of the training data.
        config: Kept where it says a size.

    Raises:
        ValueError: If no pair can be read.
    """
    if config.size is not None:
        return config
    sizes: list[tuple[int, ...]] = []
    reason = "there are none"
    for media in cells:
        try:
            sizes.append(_decoded(media, config.num_channels).value.shape[1:3])
        except ValueError as error:
            reason = str(error)
    if not sizes:
        raise ValueError(f"No pair of frames could be read, so their size is not known: {reason}")
    height, width = (min(size[axis] for size in (*sizes, _LARGEST)) for axis in (0, 1))
    return replace(config, size=(height, width))


def _decoded(media: EncodedItem, num_channels: int) -> DecodedValue:
    first, second = _frames(media)
    pixels: list[npt.NDArray[np.uint8]] = []
    notes: tuple[str, ...] = ()
    for frame in (first, second):
        if frame.is_missing:
            raise MissingValueError(f"{frame.name} is empty: expected a frame, got nothing.")
        found = decode(frame, num_channels=num_channels)
        array = np.asarray(found.image)
        pixels.append(array[..., None] if array.ndim == 2 else array)
        notes += found.notes
    if pixels[0].shape != pixels[1].shape:
        (y, x), (other_y, other_x) = (one.shape[:2] for one in pixels)
        raise ValueError(
            f"The frames of a pair must have one size: '{first.name}' is {y} x {x} and '{second.name}' is "
            f"{other_y} x {other_x}."
        )
    return DecodedValue(np.stack(pixels), notes)


def _frames(media: EncodedItem) -> tuple[EncodedItem, EncodedItem]:
    """Return the cells of both frames.

    Raises:
        MissingValueError: If there is nothing.
        ValueError: If there are not two.
    """
    if media.is_missing:
        raise MissingValueError(f"{media.name} is empty: expected two frames, got nothing.")
    held: Any = media.value if media.array is None else media.array
    if isinstance(held, Mapping):
        held = list(cast("Mapping[str, Any]", held).values())
    if not isinstance(held, list | tuple | np.ndarray) or len(held) != 2:
        got = f"{len(held)}" if isinstance(held, list | tuple | np.ndarray) else "one file"
        raise ValueError(f"{media.name}: expected two frames, the first and the second, got {got}.")
    first, second = (
        as_encoded_item(cell, f"frame {number} of {media.name}", Path(), kind="image")
        for number, cell in enumerate(cast("Sequence[Any]", held), 1)
    )
    return first, second
