"""Frame pairs and the flow between them as modalities: cut to one window, mirrored alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
    read_cells,
)
from perceivers.data.modalities.flow.decode import read_flow
from perceivers.data.modalities.image.decode import decode
from perceivers.data.modalities.image.modality import image_upload_sizes
from perceivers.data.registry import ColumnKind, ModalitySpec, Preprocessing, register_modality
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

_DIGITS = 4096.0  # further digits of a clip position give the column, and the next ones the mirror


@configclass
class PairAugmentConfig:
    """Augmentation of a frame pair and its flow in training, the same for both.

    Attributes:
        mirror: Whether half of the windows are mirrored left to right, and half top to bottom.
    """

    kind: Literal["pair"] = "pair"
    mirror: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a frame.

    Attributes:
        rows: Its first row and the one behind its last.
        columns: The same of columns.
        flips: Whether it is mirrored top to bottom, and left to right.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    flips: tuple[bool, bool] = (False, False)

    def of(self, values: npt.NDArray[Any], *, axis: int) -> npt.NDArray[Any]:
        """Return this part of an array.

        Args:
            values: An array with rows and columns.
            axis: That of the rows; the columns' follows.
        """
        place = [slice(None)] * values.ndim
        place[axis], place[axis + 1] = slice(*self.rows), slice(*self.columns)
        flipped = tuple(axis + number for number, flip in enumerate(self.flips) if flip)
        return np.flip(values[tuple(place)], flipped)


def window_at(
    clip_position: float, extent: tuple[int, int], size: tuple[int, int], *, mirror: bool = False
) -> Window:
    """Return the window of some size at a clip position in [0, 1]: at 0.5 in the middle, otherwise anywhere.

    A clip position is one number, shared by all modalities of a sample; its digits are drawn independently.

    Args:
        clip_position: Drawn for the sample.
        extent: Height and width of what a window is cut from. Smaller than `size`, it is taken whole.
        size: Height and width of the window.
        mirror: Whether it may be mirrored.
    """
    second = (clip_position * _DIGITS + 0.5) % 1.0
    third = (clip_position * _DIGITS**2) % 1.0
    sides: list[tuple[int, int]] = []
    for share, there, wanted in zip((clip_position, second), extent, size, strict=True):
        spare = max(there - wanted, 0)
        begin = min(int(share * (spare + 1)), spare)
        sides.append((begin, min(begin + wanted, there)))
    flips = (third % 0.5 >= 0.25, third >= 0.5) if mirror else (False, False)
    return Window(sides[0], sides[1], flips)


def stack_fields(
    arrays: Sequence[npt.NDArray[np.float32] | None], *, like: tuple[int, ...]
) -> Float[Tensor, "B ..."]:
    """Return arrays whose last two axes are rows and columns as one tensor, zeros below and beside the smaller ones.

    Args:
        arrays: Each of the shape of `like` but for rows and columns. None is missing: zeros.
        like: Shape of one sample; no sample takes less room.
    """
    shapes = [like[-2:], *(array.shape[-2:] for array in arrays if array is not None)]
    rows, columns = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    stacked = np.zeros((len(arrays), *like[:-2], rows, columns), dtype=np.float32)
    for place, array in enumerate(arrays):
        if array is not None:
            stacked[place, ..., : array.shape[-2], : array.shape[-1]] = array
    return torch.from_numpy(stacked)


_LARGEST = (368, 496)  # of windows, where the size is taken from the data


@configclass
class FramePairPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of two images into a pair of frames.

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
        """Return sizes that are assumed without data."""
        return {"size": (64, 64)}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"size": self.size, "num_channels": self.num_channels}


class _Windowed:
    """Base of modalities that are cut to one window for each sample."""

    has_clips = True  # the clip position gives the window
    noun: str

    def __init__(self, preprocess: Any, augment: PairAugmentConfig | None = None) -> None:
        if preprocess.size is None:
            raise ValueError(
                f"Expected the size of the {self.noun}, size=(height, width), got None."
            )
        self.preprocess, self.augment, self.size = preprocess, augment, preprocess.size

    def window(self, clip_position: float, extent: tuple[int, int]) -> Window:
        """Return the window at a clip position; the middle one and never mirrored without augmentation."""
        if self.augment is None:
            return window_at(0.5, extent, self.size, mirror=False)
        return window_at(clip_position, extent, self.size, mirror=self.augment.mirror)


class FramePairModality(_Windowed):
    """Modality of pairs of frames. See `perceivers.data.modalities.base.Modality`.

    Raises:
        ValueError: If the size is not known.
    """

    preprocess: FramePairPreprocessConfig
    noun = "frames"

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return both frames as they are, 2 x Y x X x C of uint8."""
        return _decoded(media, self.preprocess.num_channels)

    def extent(self, value: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Return height and width, which all that belongs to the frames must have."""
        return value.shape[1], value.shape[2]

    def transform(
        self,
        value: npt.NDArray[np.uint8],
        *,
        clip_position: float = 0.5,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.uint8]:
        """Return both frames in the window of the clip position, 2 x C x Y x X."""
        if not self.preprocess.whole:
            value = self.window(clip_position, self.extent(value)).of(value, axis=1)
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

    Raises:
        ValueError: If no pair can be read.
    """
    if config.size is not None:
        return config
    decode_pair = partial(_decoded, num_channels=config.num_channels)
    sizes = [one.value.shape[1:3] for one in read_cells(cells, decode_pair, "frame pair")]
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


@configclass
class FlowPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a file into a field of flow.

    Attributes:
        size: Height and width of the window that is read. None: that of the frames.
        whole: Fields are never cut, as the frames of `evaluate` are not.
    """

    kind: Literal["flow"] = "flow"
    size: tuple[int, int] | None = None
    whole: bool = False


class FlowModality(_Windowed):
    """Modality of fields of flow. See `perceivers.data.modalities.base.Modality`.

    Raises:
        ValueError: If the size is not known.
    """

    preprocess: FlowPreprocessConfig
    noun = "flow"

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return a field as it is: Y x X x 3, to the right, down, and whether it is known."""
        if media.is_missing:
            raise MissingValueError(f"{media.name} is empty: expected a flow, got nothing.")
        return DecodedValue(read_flow(media))

    def extent(self, value: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Return height and width, which must be those of the frames."""
        return value.shape[0], value.shape[1]

    def transform(
        self,
        value: npt.NDArray[np.float32],
        *,
        clip_position: float = 0.5,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        """Return the field in the window of the clip position, 3 x Y x X. A mirrored window mirrors its motion."""
        if self.preprocess.whole:
            return np.ascontiguousarray(value.transpose(2, 0, 1))
        window = self.window(clip_position, self.extent(value))
        down, right = (-1.0 if flip else 1.0 for flip in window.flips)
        field = window.of(value, axis=0) * np.array([right, down, 1.0], dtype=np.float32)
        return np.ascontiguousarray(field.transpose(2, 0, 1))

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B 3 Y X"], Bool[Tensor, "B 1"] | None]:
        """Return fields of one size, nothing known where one has ended; and which are there, if some are missing."""
        least = (1, 1) if self.preprocess.whole else self.size
        fields = stack_fields(samples, like=(3, *least))
        there = [sample is not None for sample in samples]
        return fields, None if all(there) else torch.tensor(there)[:, None]


register_modality(
    ModalitySpec(
        name="frame_pair",
        noun="frame pairs",
        preprocessing=(Preprocessing(FramePairPreprocessConfig, FramePairModality),),
        augment=PairAugmentConfig,
        column_kinds={"frame": ColumnKind("frames", stored_as=("image",))},
        accepts=("image",),
        upload_sizes=image_upload_sizes,
    )
)
register_modality(
    ModalitySpec(
        name="flow",
        noun="flow",
        preprocessing=(Preprocessing(FlowPreprocessConfig, FlowModality),),
        augment=PairAugmentConfig,
        suffixes=("flo",),
        magic=lambda data: data.startswith(b"PIEH"),
        column_kinds={"flow": ColumnKind("flow", stored_as=("image", "array"))},
    )
)
