"""Two frames as input elements: every pixel with its neighborhood in both, for optical flow."""

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Literal

from einops import rearrange
from torch import nn
from torch.nn.functional import pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import FourierPositionsConfig, GridInput, PositionsConfig
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
        if self.patch < 1 or self.patch % 2 == 0:
            raise ValueError(
                f"Expected patch, the side of a pixel's neighborhood, to be odd, got {self.patch}."
            )


class _FramePairInput(GridInput, ABC):
    """Base of adapters of two frames: content on a grid becomes elements with positions."""

    begins_alike = False

    def __init__(
        self,
        config: "FramePairInputConfig | ConvFramePairInputConfig",
        grid: tuple[int, ...],
        content_channels: int,
    ) -> None:
        shape = (2, config.num_channels, *_size(config))
        super().__init__(shape, grid, content_channels, config.positions, "got positions=None")

    @abstractmethod
    def content(self, frames: Float[Tensor, "B 2 Ci Y X"]) -> Float[Tensor, "B Yg Xg Cc"]:
        """Return the contents of the elements on their grid."""

    def forward(
        self, frames: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B 1"] | None = None
    ) -> Elements:
        """Return the elements of pairs of frames, in reading order.

        Raises:
            ValueError: If they are no pairs, or have another number of channels.
        """
        channels = self.shape[1]
        if tuple(frames.shape[1:3]) != (2, channels):
            raise ValueError(
                f"Expected pairs of frames (B x 2 x {channels} x height x width), got shape {tuple(frames.shape)}."
            )
        content = self.content(frames)
        assert self.positions is not None
        positions = self.positions((content.shape[1], content.shape[2]), frames.device)
        content = content.flatten(1, 2)
        return Elements(
            content, positions, mask=None if mask is None else mask.expand(-1, content.shape[1])
        )


class FramePairInput(_FramePairInput):
    """Makes an element of each pixel: its neighborhood in the first frame, then that in the second.

    Raises:
        ValueError: If the size is not known.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H. The linear layer acts on the neighborhoods,
    before positions are put behind, as in DeepMind's release.
    """

    def __init__(self, config: FramePairInputConfig) -> None:
        values, width = 2 * config.num_channels * config.patch**2, config.project_channels
        project = nn.Identity() if width is None else truncated_linear(values, width)
        super().__init__(config, _size(config), values if width is None else width)
        self.config, self.project = config, project

    def content(self, frames: Float[Tensor, "B 2 Ci Y X"]) -> Float[Tensor, "B Y X Cc"]:
        """Return the neighborhoods of each pixel, projected if the configuration states so."""
        side = self.config.patch
        around = pad(frames, (side // 2,) * 4).unfold(3, side, 1).unfold(4, side, 1)
        return self.project(rearrange(around, "B T C Y X y x -> B Y X (T y x C)"))


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


class ConvFramePairInput(_FramePairInput):
    """Makes an element of each cell: the channels of both frames side by side go through the stem.

    Raises:
        ValueError: If the size is not known.

    Reference: Perceiver IO (arXiv:2107.14795), table 6, "flow conv, concatenated": there one convolution and a maximum;
    this stem has a norm that sees no other samples and no padding.
    """

    def __init__(self, config: ConvFramePairInputConfig) -> None:
        stem = ConvStem(
            2 * config.num_channels,
            config.stem_channels,
            kernel=config.kernel,
            stride=config.stride,
            num_axes=2,
        )
        super().__init__(config, stem.grid(_size(config)), config.stem_channels[-1])
        self.config, self.stem = config, stem

    def content(self, frames: Float[Tensor, "B 2 Ci Y X"]) -> Float[Tensor, "B Yg Xg Cc"]:
        """Return the stem's output."""
        cells, _ = self.stem(rearrange(frames, "B T C Y X -> B (T C) Y X"))
        return cells.movedim(1, -1)


def _size(config: FramePairInputConfig | ConvFramePairInputConfig) -> tuple[int, int]:
    if config.size is None:
        raise ValueError("Expected the size of the frames, size=(height, width), got None.")
    return config.size


register_input(FramePairInputConfig, FramePairInput, preprocess="frame_pair")
register_input(ConvFramePairInputConfig, ConvFramePairInput, preprocess="frame_pair")
