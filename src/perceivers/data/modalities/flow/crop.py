"""Windows of frames and of what belongs to them: one moment gives all of them the same window, and the same mirror."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from perceivers.registry import configclass
from perceivers.typing import Float, Tensor

_DIGITS = 4096.0  # a moment's further digits tell the column, and those behind them the mirror


@configclass
class PairAugmentConfig:
    """What is random about a pair of frames and its flow in training. Both take the same, or they would not fit.

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
    """Return the window of some size at a moment in [0, 1]: at 0.5 in the middle, otherwise anywhere.

    A moment is one number, of which all modalities of a sample know; its digits are drawn independently of each other.

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
