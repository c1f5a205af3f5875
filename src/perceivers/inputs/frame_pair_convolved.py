"""Two frames as input elements after a convolved stem over both: fewer elements, each of which has compared pixels."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from einops import rearrange
from pydantic import ConfigDict
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.frame_pair import check_pairs
from perceivers.inputs.positions import FourierPositionsConfig, PositionsConfig, build_positions
from perceivers.inputs.stems import ConvStem
from perceivers.typing import Bool, Float, Tensor

__all__ = ["ConvFramePairInput", "ConvFramePairInputConfig"]


@dataclass(frozen=True, kw_only=True)
class ConvFramePairInputConfig:
    """Every cell of both frames, convolved together, is an element.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of a frame, 3 for RGB.
        stem_channels: Channels after each convolution.
        kernel: Side of each convolution.
        stride: Of each convolution: two of stride 2 make one cell of 4 x 4 pixels.
        positions: Where a cell is.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["frame_pair_convolved"] = "frame_pair_convolved"
    size: tuple[int, int] | None = None
    num_channels: int = 3
    stem_channels: tuple[int, ...] = (48, 96)
    kernel: int = 6
    stride: int = 2
    positions: PositionsConfig = field(default_factory=FourierPositionsConfig)


class ConvFramePairInput(nn.Module):
    """Makes an element of each cell: the channels of both frames side by side go through the stem.

    Args:
        config: Size of the frames and of the stem.

    Raises:
        ValueError: If the size is not known.

    Source: Perceiver IO (arXiv:2107.14795), table 6, "flow conv, concatenated": there one convolution and a maximum;
    this stem has a norm that sees no other samples and no padding.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: ConvFramePairInputConfig) -> None:
        super().__init__()
        if config.size is None:
            msg = "Expected the size of the frames, size=(height, width), got None."
            raise ValueError(msg)
        self.config, self.size = config, config.size
        self.stem = ConvStem(
            2 * config.num_channels,
            config.stem_channels,
            kernel=config.kernel,
            stride=config.stride,
            num_axes=2,
        )
        self.axes = self.stem.grid(config.size)
        self.num_elements = math.prod(self.axes)
        self.positions = build_positions(config.positions, self.axes)
        self.channels = config.stem_channels[-1] + self.positions.channels

    def forward(
        self, frames: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B 1"] | None = None
    ) -> Elements:
        """Return the elements of pairs of frames, in reading order.

        Args:
            frames: Pixels in [-1, 1] of the first and the second frame. Frames of another size than the configured
                are read with positions of their own.
            mask: True where a sample has frames at all. None: all have.

        Raises:
            ValueError: If they are no pairs, or have another number of channels.
        """
        check_pairs(frames, self.config.num_channels)
        cells, _ = self.stem(rearrange(frames, "B T C Y X -> B (T C) Y X"))
        positions = self.positions((cells.shape[2], cells.shape[3]), frames.device)
        content = rearrange(cells, "B C Y X -> B (Y X) C")
        if mask is not None:
            mask = mask.expand(-1, content.shape[1])
        return Elements(content, positions, mask=mask)

    def example(self, batch_size: int) -> Float[Tensor, "B 2 Ci Y X"]:
        """Return made-up frames of the configured size."""
        return torch.zeros(batch_size, 2, self.config.num_channels, *self.size)
