"""Two frames as input elements: every pixel with its neighborhood in both, for optical flow."""

import math
from dataclasses import field
from typing import Literal

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import FourierPositionsConfig, PositionsConfig, build_positions
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import ConvStem
from perceivers.nn.init import truncated_linear
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


@configclass
class FramePairInputConfig:
    """Every pixel is an element, with the pixels around it, of both frames. The defaults are the papers'.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of a frame, 3 for RGB.
        patch: Side of the neighborhood in pixels, odd. Zeros lie beyond the border.
        project_channels: Width of both neighborhoods after a linear layer. None: as they are.
        positions: Where a pixel is.
    """

    kind: Literal["frame_pair"] = "frame_pair"
    size: tuple[int, int] | None = (368, 496)
    num_channels: int = 3
    patch: int = 3
    project_channels: int | None = 64
    positions: PositionsConfig = field(default_factory=FourierPositionsConfig)

    def __post_init__(self) -> None:
        """Refuse a neighborhood without a middle."""
        if self.patch < 1 or self.patch % 2 == 0:
            raise ValueError(
                f"Expected patch, the side of a pixel's neighborhood, to be odd, got {self.patch}."
            )


class FramePairInput(nn.Module):
    """Makes an element of each pixel: its neighborhood in the first frame, then that in the second.

    Raises:
        ValueError: If the size is not known.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H. The linear layer acts on the neighborhoods,
    before positions are put behind, as in DeepMind's release.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: FramePairInputConfig) -> None:
        super().__init__()
        if config.size is None:
            raise ValueError("Expected the size of the frames, size=(height, width), got None.")
        self.config, self.size, self.axes = config, config.size, config.size
        self.num_elements = config.size[0] * config.size[1]
        self.channels = 2 * config.num_channels * config.patch**2
        self.project: nn.Module = nn.Identity()
        if config.project_channels is not None:
            self.project = truncated_linear(self.channels, config.project_channels)
            self.channels = config.project_channels
        self.positions = build_positions(config.positions, config.size)
        self.channels += self.positions.channels

    def forward(
        self, frames: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B 1"] | None = None
    ) -> Elements:
        """Return the elements of pairs of frames, in reading order.

        Raises:
            ValueError: If they are no pairs, or have another number of channels.
        """
        check_pairs(frames, self.config.num_channels)
        side = self.config.patch
        padded = pad(frames, (side // 2,) * 4)
        around = padded.unfold(3, side, 1).unfold(4, side, 1)
        content = self.project(rearrange(around, "B T C Y X y x -> B (Y X) (T y x C)"))
        grid = (frames.shape[3], frames.shape[4])
        positions = self.positions(grid, frames.device)
        if mask is not None:
            mask = mask.expand(-1, content.shape[1])
        return Elements(content, positions, mask=mask)

    def example(self, batch_size: int) -> Float[Tensor, "B 2 Ci Y X"]:
        """Return made-up frames of the configured size."""
        return torch.zeros(batch_size, 2, self.config.num_channels, *self.size)


def check_pairs(frames: Float[Tensor, "B T Ci Y X"], num_channels: int) -> None:
    """Refuse what are no pairs of frames.

    Args:
        frames: Whatever was given.
        num_channels: Channels of a frame.

    Raises:
        ValueError: If there are not two frames, or they have another number of channels.
    """
    if tuple(frames.shape[1:3]) != (2, num_channels):
        raise ValueError(
            f"Expected pairs of frames (B x 2 x {num_channels} x height x width), got shape {tuple(frames.shape)}."
        )


@configclass
class ConvFramePairInputConfig:
    """Every cell of both frames, convolved together, is an element.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of a frame, 3 for RGB.
        stem_channels: Channels after each convolution.
        kernel: Side of each convolution.
        stride: Stride of each convolution: two of stride 2 make one cell of 4 x 4 pixels.
        positions: Where a cell is.
    """

    kind: Literal["frame_pair_convolved"] = "frame_pair_convolved"
    size: tuple[int, int] | None = None
    num_channels: int = 3
    stem_channels: tuple[int, ...] = (48, 96)
    kernel: int = 6
    stride: int = 2
    positions: PositionsConfig = field(default_factory=FourierPositionsConfig)


class ConvFramePairInput(nn.Module):
    """Makes an element of each cell: the channels of both frames side by side go through the stem.

    Raises:
        ValueError: If the size is not known.

    Reference: Perceiver IO (arXiv:2107.14795), table 6, "flow conv, concatenated": there one convolution and a maximum;
    this stem has a norm that sees no other samples and no padding.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: ConvFramePairInputConfig) -> None:
        super().__init__()
        if config.size is None:
            raise ValueError("Expected the size of the frames, size=(height, width), got None.")
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


register_input(FramePairInputConfig, FramePairInput, preprocess="frame_pair")
register_input(ConvFramePairInputConfig, ConvFramePairInput, preprocess="frame_pair")
