"""Videos as input elements: patches of space and time (or single pixels), or cells after a stem on every frame."""

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Any, Literal

import torch
from einops import rearrange, repeat

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import (
    FourierPositionsConfig,
    GridInput,
    PositionsConfig,
    first_cells,
)
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import ResidualStem, ResidualStemConfig, pooled_mask
from perceivers.nn.init import truncated_linear
from perceivers.nn.patches import pad_to_multiple, space_to_depth
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted


class _VideoGrid:
    num_frames: int | None
    size: tuple[int, int] | None
    num_channels: int

    @property
    def value_grid(self) -> dict[str, Any]:
        """Size, channels and flags of the grid of values that autoencoding reconstructs."""
        return {
            "size": (self.num_frames, *(self.size or ())),
            "num_channels": self.num_channels,
        }


@configclass
class VideoInputConfig(_VideoGrid):
    """Every patch of space and time is an element. The defaults are the paper's: 12,544 elements of 384 values.

    Attributes:
        num_frames: Frames of a clip. None: taken from the data before the model is built.
        size: Height and width in pixels. None: taken from the data.
        num_channels: Channels of a frame, 3 for RGB.
        patch: Frames, rows and columns of a patch. (1, 1, 1): every pixel of every frame is an element.
        positions: Where a patch is in time, height and width. None: the model cannot know.
        project_channels: Width of a patch after a linear layer. None: its pixels as they are.

    Raises:
        ValueError: If a patch is empty.
    """

    kind: Literal["video"] = "video"
    num_frames: int | None = 32
    size: tuple[int, int] | None = (224, 224)
    num_channels: int = 3
    patch: tuple[int, int, int] = (2, 8, 8)
    positions: PositionsConfig | None = field(
        default_factory=lambda: FourierPositionsConfig(num_bands=16)
    )
    project_channels: int | None = None

    def __post_init__(self) -> None:
        if min(self.patch) < 1:
            raise ValueError(
                f"Expected patch=(frames, rows, columns) of at least 1 each, got {self.patch}."
            )


@configclass
class ResidualVideoInputConfig(_VideoGrid):
    """Every cell of a frame after a residual stem is an element, or the same cell of a few frames. Not in the papers.

    Attributes:
        num_frames: Frames of a clip. None: taken from the data before the model is built.
        size: Height and width in pixels. None: taken from the data.
        num_channels: Channels of a frame, 3 for RGB.
        stem: Levels of the stem.
        frame_step: Frames that make one element, their channels side by side.
        difference: Add the change since the frame before as further channels of a frame, so that the stem sees
            motion.
        positions: Where a cell is in time, height and width. None: the model cannot know. Few frequencies, since
            small data sets are learned by heart with many.

    Raises:
        ValueError: If a step is below 1.
    """

    kind: Literal["video_residual"] = "video_residual"
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    num_channels: int = 3
    stem: ResidualStemConfig = field(default_factory=ResidualStemConfig)
    frame_step: int = 1
    difference: bool = False
    positions: PositionsConfig | None = field(
        default_factory=lambda: FourierPositionsConfig(num_bands=2, max_resolution=(4, 4, 4))
    )

    def __post_init__(self) -> None:
        if self.frame_step < 1:
            raise ValueError(f"frame_step must be at least 1, got {self.frame_step}.")


class _VideoInput(GridInput, ABC):
    """Base of video adapters: frames become elements with positions; padding is masked."""

    def __init__(
        self,
        config: VideoInputConfig | ResidualVideoInputConfig,
        grid: tuple[int, int, int],
        content_channels: int,
        frame_step: int,
    ) -> None:
        frames, *size = _sizes(config)
        super().__init__(
            (frames, config.num_channels, *size),
            grid,
            content_channels,
            config.positions,
            "or more channels; got positions=None",
        )
        self.frame_step = frame_step

    @abstractmethod
    def content(
        self, clip: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B Tg Yg Xg Cc"]:
        """Return the contents of the elements on their grid. Masked frames are zero already."""

    def forward(
        self, clip: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of clips, frame by frame, each in reading order.

        Raises:
            ValueError: If frames have another number of channels than the configuration states.
        """
        channels = self.shape[1]
        if clip.shape[2] != channels:
            raise ValueError(
                f"Expected clips of {counted(channels, 'channel')} (B x frames x {channels} x height x width), got "
                f"shape {tuple(clip.shape)}."
            )
        if mask is not None:
            mask = mask.expand(-1, clip.shape[1])
            clip = clip.masked_fill(~mask[:, :, None, None, None], 0.0)
        content = self.content(clip, mask)
        frames, rows, columns = content.shape[1:4]
        positions = None
        if (
            self.positions is not None
        ):  # those of the first frames of a clip of the configured length, or of this one
            grid = (max(frames, self.axes[0]), rows, columns)
            positions = first_cells(self.positions(grid, clip.device), frames, rows * columns)
        if mask is not None:
            mask = repeat(pooled_mask(mask, self.frame_step), "B T -> B (T Y X)", Y=rows, X=columns)
        return Elements(rearrange(content, "B T Y X C -> B (T Y X) C"), positions, mask=mask)


class VideoInput(_VideoInput):
    """Makes an element of each patch of space and time: its pixels in order of time, rows and columns.

    A clip that does not divide into patches gets zeros (the mean color) behind its last frame, row and column.

    Reference: Perceiver (arXiv:2103.03206), section 4.2; 2 x 8 x 8 x 3 + 3 (2 * 16 + 1) = 483 channels on AudioSet.
    """

    def __init__(self, config: VideoInputConfig) -> None:
        frames, height, width = _sizes(config)
        patch = config.patch
        grid = (-(-frames // patch[0]), -(-height // patch[1]), -(-width // patch[2]))
        values, channels = config.num_channels * math.prod(patch), config.project_channels
        super().__init__(config, grid, values if channels is None else channels, patch[0])
        self.config = config
        self.project = None if channels is None else truncated_linear(values, channels)

    def content(
        self,
        clip: Float[Tensor, "B T Ci Y X"],
        mask: Bool[Tensor, "B T"] | None,  # noqa: ARG002
    ) -> Float[Tensor, "B Tg Yg Xg Cc"]:
        """Return the values of each patch, projected if the configuration states so."""
        pixels = rearrange(clip, "B T C Y X -> B C T Y X")
        patches = space_to_depth(pad_to_multiple(pixels, self.config.patch), self.config.patch)
        return patches if self.project is None else self.project(patches)


class ResidualVideoInput(_VideoInput):
    """Makes an element of each cell of the frames after a residual stem, which sees every frame by itself."""

    def __init__(self, config: ResidualVideoInputConfig) -> None:
        frames, height, width = _sizes(config)
        step, (down, across) = config.frame_step, config.stem.element_step
        grid = (-(-frames // step), *config.stem.grid((height, width)))
        super().__init__(config, grid, config.stem.channels[-1] * step, step)
        self.config, self.element_step = config, (step, down, across)
        self.stem = ResidualStem(config.num_channels * (2 if config.difference else 1), config.stem)

    def content(
        self, clip: Float[Tensor, "B T Ci Y X"], mask: Bool[Tensor, "B T"] | None
    ) -> Float[Tensor, "B Tg Yg Xg Cc"]:
        """Return the stem's output for each frame, that of a few frames side by side."""
        if self.config.difference:
            change = clip.diff(dim=1, prepend=clip[:, :1])  # nothing is known before the first
            clip = torch.cat([clip, change], dim=2)
        real = None if mask is None else mask.reshape(-1, 1)  # each frame is a sample of the stem
        frames, _ = self.stem(rearrange(clip, "B T C Y X -> (B T) C Y X"), real)
        if self.config.frame_step == 1:
            return rearrange(frames, "(B T) C Y X -> B T Y X C", B=clip.shape[0])
        cells = rearrange(frames, "(B T) C Y X -> B C T Y X", B=clip.shape[0])
        step = (self.config.frame_step, 1, 1)
        return space_to_depth(pad_to_multiple(cells, step), step)


def _sizes(config: VideoInputConfig | ResidualVideoInputConfig) -> tuple[int, int, int]:
    """Return frames, height and width of a clip."""
    if config.num_frames is None or config.size is None:
        raise ValueError(
            "Expected the length and size of the clips, num_frames and size=(height, width), got "
            f"num_frames={config.num_frames} and size={config.size}."
        )
    return config.num_frames, *config.size


def _default(stem_channels: int) -> ResidualVideoInputConfig:
    channels = stem_channels // 2, stem_channels, 2 * stem_channels
    return ResidualVideoInputConfig(stem=ResidualStemConfig(channels=channels, stride=2))


register_input(
    VideoInputConfig,
    VideoInput,
    preprocess="video",
    raw=lambda: VideoInputConfig(num_frames=None, size=None, patch=(1, 4, 4), positions=None),
)
register_input(ResidualVideoInputConfig, ResidualVideoInput, preprocess="video", default=_default)
