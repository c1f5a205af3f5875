"""Images as input elements, in four ways: single pixels, patches, or after one of two convolved stems."""

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Any, Literal

from einops import rearrange
from pydantic import Field
from torch import nn
from torch.nn.functional import pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import FourierPositionsConfig, GridInput, PositionsConfig
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import ResidualStem, ResidualStemConfig
from perceivers.nn.init import truncated_linear, truncated_normal_
from perceivers.nn.patches import pad_to_multiple, space_to_depth
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted


class _ImageGrid:
    size: tuple[int, int] | None
    num_channels: int

    @property
    def element_patch(self) -> tuple[int, int] | None:
        """Height and width of the pixels that an element stands for. None: elements overlap."""
        return None

    @property
    def value_grid(self) -> dict[str, Any]:
        """Size, channels and flags of the grid of values that autoencoding reconstructs."""
        return {"size": self.size, "num_channels": self.num_channels}


@configclass
class PixelInputConfig(_ImageGrid):
    """Every pixel is an element.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of the image, 3 for RGB.
        positions: Where a pixel is. None: the model cannot know.
        project_channels: Width of the colors after a linear layer. None: as they are. Perceiver IO's model
            with learned positions uses 256.
    """

    kind: Literal["pixels"] = "pixels"
    size: tuple[int, int] | None = (224, 224)
    num_channels: int = 3
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)
    project_channels: int | None = None

    @property
    def element_patch(self) -> tuple[int, int]:
        """A single pixel."""
        return 1, 1


@configclass
class PatchInputConfig(_ImageGrid):
    """Every patch of pixels is an element.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of the image, 3 for RGB.
        patch: Height and width of a patch in pixels.
        positions: Where a patch is. None: the model cannot know.
        project_channels: Width of a patch after a linear layer. None: its pixels as they are.
    """

    kind: Literal["patches"] = "patches"
    size: tuple[int, int] | None = (224, 224)
    num_channels: int = 3
    patch: tuple[int, int] = (4, 4)
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)
    project_channels: int | None = None

    @property
    def element_patch(self) -> tuple[int, int]:
        """The patch."""
        return self.patch


@configclass
class ConvInputConfig(_ImageGrid):
    """Every cell of a convolved and pooled image is an element.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of the image, 3 for RGB.
        stem_channels: Channels after the convolution.
        kernel: Side of the convolution in pixels. Its stride is 2.
        pool: Whether a 3 x 3 maximum of stride 2 follows, as in Perceiver IO.
        padding: `same` gives half the size, rounded up, at each step, as in DeepMind's release: 224 pixels become 56
            cells. `symmetric` pads the convolution alike on both sides and the pool not at all, as in Hugging Face's
            model: 55 cells.
        positions: Where a cell is. None: the model cannot know.
    """

    kind: Literal["convolved"] = "convolved"
    size: tuple[int, int] | None = (224, 224)
    num_channels: int = 3
    stem_channels: int = 64
    kernel: int = 7
    pool: bool = True
    padding: Literal["same", "symmetric"] = "same"
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)


@configclass
class ResidualInputConfig(_ImageGrid):
    """Every cell of an image after a residual stem is an element. Not in the papers.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: Channels of the image, 3 for RGB.
        stem: Levels of the stem. The default turns 32 x 32 pixels into 8 x 8 cells of 128 channels.
        positions: Where a cell is. None: the model cannot know. Few frequencies, since small data sets are learned by
            heart with many.
    """

    kind: Literal["residual"] = "residual"
    size: tuple[int, int] | None = None
    num_channels: int = 3
    stem: ResidualStemConfig = field(default_factory=ResidualStemConfig)
    positions: PositionsConfig | None = field(
        default_factory=lambda: FourierPositionsConfig(num_bands=2, max_resolution=(4, 4))
    )

    @property
    def element_patch(self) -> tuple[int, int]:
        """The pixels from one cell to the next."""
        return self.stem.element_step


ImageInputConfig = Annotated[
    PixelInputConfig | PatchInputConfig | ConvInputConfig | ResidualInputConfig,
    Field(discriminator="kind"),
]


class _ImageInput(GridInput, ABC):
    """Base of image adapters: content channels become elements with positions."""

    begins_alike = False  # an image of another size shows the same

    def __init__(
        self,
        config: PixelInputConfig | PatchInputConfig | ConvInputConfig | ResidualInputConfig,
        content_channels: int,
    ) -> None:
        if config.size is None:
            raise ValueError("Expected the size of the images, size=(height, width), got None.")
        super().__init__(
            (config.num_channels, *config.size),
            self.grid(*config.size),
            content_channels,
            config.positions,
            f"more channels, or project_channels; got num_channels={config.num_channels} and positions=None",
        )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the elements of an image of this size in pixels."""
        return height, width

    @abstractmethod
    def content(
        self, image: Float[Tensor, "B Ci Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B Cc Yg Xg"]:
        """Return the contents of the elements, still on their grid; the mask states which samples have an image."""

    def forward(
        self, image: Float[Tensor, "B Ci Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of images, in reading order.

        Raises:
            ValueError: If the image has another number of channels than the configuration states.
        """
        channels = self.shape[0]
        if image.shape[1] != channels:
            raise ValueError(
                f"Expected images of {counted(channels, 'channel')} (B x {channels} x height x width), got shape "
                f"{tuple(image.shape)}."
            )
        content = self.content(image, mask)
        grid = (content.shape[2], content.shape[3])
        positions = None if self.positions is None else self.positions(grid, image.device)
        content = rearrange(content, "B C Y X -> B (Y X) C")
        if mask is not None:
            mask = mask.expand(-1, content.shape[1])
        return Elements(content, positions, mask=mask)


class PixelInput(_ImageInput):
    """Makes an element of each pixel. Nothing is mixed and nothing is known of neighbors.

    Reference: Perceiver (arXiv:2103.03206), section 4.1; 3 + 2 (2 * 64 + 1) = 261 channels on ImageNet.
    """

    def __init__(self, config: PixelInputConfig) -> None:
        width = config.project_channels
        super().__init__(config, config.num_channels if width is None else width)
        self.config = config
        self.project = None if width is None else truncated_linear(config.num_channels, width)

    def content(
        self,
        image: Float[Tensor, "B Ci Y X"],
        mask: Bool[Tensor, "B L"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "B Cc Y X"]:
        """Return the pixels, projected if the configuration states so."""
        return _project(image, self.project)


class PatchInput(_ImageInput):
    """Makes an element of each patch: its pixels in reading order, the colors of a pixel together.

    An image that does not divide into patches gets zeros (the mean color) behind its last row and column.

    Reference: Perceiver IO (arXiv:2107.14795), appendix H, where patches feed optical flow.
    """

    def __init__(self, config: PatchInputConfig) -> None:
        self.patch = config.patch  # before the base class asks for the grid
        width, values = config.project_channels, config.num_channels * math.prod(config.patch)
        super().__init__(config, values if width is None else width)
        self.config = config
        self.project = None if width is None else truncated_linear(values, width)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of patches."""
        return -(-height // self.patch[0]), -(-width // self.patch[1])

    def content(
        self,
        image: Float[Tensor, "B Ci Y X"],
        mask: Bool[Tensor, "B L"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "B Cc Yg Xg"]:
        """Return the values of each patch, projected if the configuration states so."""
        patches = space_to_depth(pad_to_multiple(image, self.patch), self.patch)
        return _project(rearrange(patches, "B Y X V -> B V Y X"), self.project)


class ConvInput(_ImageInput):
    """Makes an element of each cell of a 4 times coarser image: convolution, norm, ReLU, maximum.

    All borders are padded so that 224 pixels give 112 and then 56 cells (TensorFlow's "SAME"), unless the
    configuration states otherwise.

    Reference: Perceiver IO (arXiv:2107.14795), appendix A.1, "2D conv + maxpool preprocessing".
    """

    def __init__(self, config: ConvInputConfig) -> None:
        self.config = config  # before the base class asks for the grid
        super().__init__(config, config.stem_channels)
        self.convolution = nn.Conv2d(
            config.num_channels, config.stem_channels, config.kernel, stride=2, bias=False
        )
        truncated_normal_(self.convolution.weight, (config.num_channels * config.kernel**2) ** -0.5)
        self.norm = nn.BatchNorm2d(config.stem_channels)
        self.pool = nn.MaxPool2d(3, stride=2) if config.pool else None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns after the stem."""

        def after(cells: int) -> int:
            cells = -(-cells // 2)
            if not self.config.pool:
                return cells
            return -(-cells // 2) if self.config.padding == "same" else (cells - 1) // 2

        return after(height), after(width)

    def content(
        self,
        image: Float[Tensor, "B Ci Y X"],
        mask: Bool[Tensor, "B L"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "B Cc Yg Xg"]:
        """Return the stem's output."""
        kernel, is_same = self.config.kernel, self.config.padding == "same"
        before, behind = (kernel - 1) // 2, kernel // 2
        image = _pad_same(image, kernel) if is_same else pad(image, (before, behind) * 2)
        x = self.norm(self.convolution(image)).relu()
        if self.pool is None:
            return x
        # After the ReLU zeros are the smallest values, so padding never wins a maximum.
        return self.pool(_pad_same(x, 3) if is_same else x)


class ResidualInput(_ImageInput):
    """Makes an element of each cell after a residual stem."""

    def __init__(self, config: ResidualInputConfig) -> None:
        self.config = config
        self.element_step = config.stem.element_step
        super().__init__(config, config.stem.channels[-1])
        self.stem = ResidualStem(config.num_channels, config.stem)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns after the stem."""
        return self.config.stem.grid((height, width))

    def content(
        self, image: Float[Tensor, "B Ci Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B Cc Yg Xg"]:
        """Return the stem's output. Missing images are no part of the statistics of a batch."""
        there = None if mask is None else mask.any(dim=1, keepdim=True)
        return self.stem(image, there)[0]


def _project(x: Float[Tensor, "B C Y X"], linear: nn.Module | None) -> Float[Tensor, "B Co Y X"]:
    """Apply a linear layer to the channels of each cell."""
    if linear is None:
        return x
    return rearrange(linear(rearrange(x, "B C Y X -> B Y X C")), "B Y X C -> B C Y X")


def _pad_same(x: Float[Tensor, "B C Y X"], kernel: int) -> Float[Tensor, "B C Yp Xp"]:
    """Pad so that a kernel of stride 2 gives half the size, rounded up; the odd cell goes behind."""
    missing = [max((-(-n // 2) - 1) * 2 + kernel - n, 0) for n in x.shape[2:]]
    before = [m // 2 for m in missing]
    return pad(x, (before[1], missing[1] - before[1], before[0], missing[0] - before[0]))


def _default(stem_channels: int) -> ResidualInputConfig:
    # Widths for images of 32 x 32 pixels; rules choose the levels by the size of the images.
    channels = stem_channels // 2, stem_channels, 2 * stem_channels
    return ResidualInputConfig(stem=ResidualStemConfig(channels=channels))


register_input(
    PixelInputConfig,
    PixelInput,
    preprocess="image",
    raw=lambda: PixelInputConfig(size=None, positions=None),
)
register_input(PatchInputConfig, PatchInput, preprocess="image")
register_input(ConvInputConfig, ConvInput, preprocess="image")
register_input(ResidualInputConfig, ResidualInput, preprocess="image", default=_default)
