"""Audio as input elements: patches of a waveform, cells of a spectrogram, or either after a convolved stem.

Positions are those of the configured length. A shorter batch has the first of them, so that padding changes nothing.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import (
    FourierPositionsConfig,
    GridInput,
    PositionsConfig,
    first_cells,
)
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import (
    ConvStem,
    MaskedBatchNorm,
    ResidualStem,
    ResidualStemConfig,
    pooled_mask,
)
from perceivers.nn.init import truncated_linear
from perceivers.nn.patches import pad_to_multiple, space_to_depth
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


class _WaveGrid:
    num_samples: int | None
    num_channels: int

    @property
    def value_grid(self) -> dict[str, Any]:
        """Size, channels and flags of the grid of values that autoencoding reconstructs."""
        return {"size": (self.num_samples,), "num_channels": self.num_channels}


@configclass
class WaveInputConfig(_WaveGrid):
    """Every stretch of samples is an element.

    Attributes:
        num_samples: Samples of a clip; 61,440 are the paper's 1.28 s at 48 kHz. None: taken from the data before the
            model is built.
        num_channels: Channels of the audio, 1 for mono.
        patch: Samples of an element. The paper's 128 give 480 elements.
        positions: When an element is. None: the model cannot know.
        project_channels: Width of an element's samples after a linear layer. None: as they are.
    """

    kind: Literal["wave"] = "wave"
    num_samples: int | None = None
    num_channels: int = 1
    patch: int = 128
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)
    project_channels: int | None = None


@configclass
class ConvWaveInputConfig(_WaveGrid):
    """Every cell of a convolved waveform is an element.

    Attributes:
        num_samples: Samples of a clip. None: taken from the data before the model is built.
        num_channels: Channels of the audio, 1 for mono.
        stem_channels: Channels after each convolution.
        kernel: Samples (then cells) under each convolution.
        stride: Stride of each convolution. Three of 4 give an element for every 64 samples.
        positions: When a cell is. None: the model cannot know.
    """

    kind: Literal["wave_convolved"] = "wave_convolved"
    num_samples: int | None = None
    num_channels: int = 1
    stem_channels: tuple[int, ...] = (32, 64, 128)
    kernel: int = 8
    stride: int = 4
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)


class _SpectrogramGrid:
    size: tuple[int, int] | None

    @property
    def value_grid(self) -> dict[str, Any]:
        """Size, channels and flags of the grid of values that autoencoding reconstructs."""
        return {"size": self.size, "num_channels": 1}


@configclass
class SpectrogramInputConfig(_SpectrogramGrid):
    """Every value of a spectrogram, or every patch of them, is an element.

    Attributes:
        size: Frames and bands. None: taken from the data before the model is built.
        patch: Frames and bands of an element.
        positions: When and at which band an element is. None: the model cannot know.
        project_channels: Width of an element's values after a linear layer. None: as they are.
    """

    kind: Literal["spectrogram"] = "spectrogram"
    size: tuple[int, int] | None = None
    patch: tuple[int, int] = (1, 1)
    positions: PositionsConfig | None = field(default_factory=FourierPositionsConfig)
    project_channels: int | None = None


@configclass
class ResidualSpectrogramInputConfig(_SpectrogramGrid):
    """Every cell of a spectrogram after a residual stem is an element. Not in the papers.

    Attributes:
        size: Frames and bands. None: taken from the data before the model is built.
        stem: Levels of the stem, its axes frames and bands. The default turns 8 frames of 16 bands into one element.
        normalize_bands: Standardize each band by its mean and deviation in training (BatchNorm) before the stem.
        positions: When and at which band a cell is. None: the model cannot know. Few frequencies, since small data
            sets are learned by heart with many.
    """

    kind: Literal["spectrogram_residual"] = "spectrogram_residual"
    size: tuple[int, int] | None = None
    stem: ResidualStemConfig = field(
        default_factory=lambda: ResidualStemConfig(
            channels=(32, 64, 128, 128), blocks=(0, 1, 1, 1), pools=(1, 2, 2, (1, 2)), stride=2
        )
    )
    normalize_bands: bool = True
    positions: PositionsConfig | None = field(
        default_factory=lambda: FourierPositionsConfig(num_bands=2)
    )


AudioInputConfig = Annotated[
    WaveInputConfig | ConvWaveInputConfig | SpectrogramInputConfig | ResidualSpectrogramInputConfig,
    Field(discriminator="kind"),
]


class AudioInput(GridInput, ABC):
    """Base of audio adapters: cells become elements with positions, and padding is masked.

    Args:
        size: Length of a clip, then the values at each place: samples x channels or frames x bands.
        grid: Elements along each axis.
        content_channels: Width of an element without its position.
        positions: Where an element is.
    """

    def __init__(
        self,
        size: tuple[int, int],
        grid: tuple[int, ...],
        content_channels: int,
        positions: PositionsConfig | None,
    ) -> None:
        advice = "a larger patch, or project_channels; got positions=None"
        super().__init__(size, grid, content_channels, positions, advice)

    @abstractmethod
    def content(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B *grid Cc"], Bool[Tensor, "B Lo"] | None]:
        """Return the contents of the elements on their grid, and a mask of its first axis."""

    def forward(
        self, x: Float[Tensor, "B Lx V"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of clips, in reading order: all of the first moment, then the next.

        Raises:
            ValueError: If the input does not have the configured size.
        """
        length, values = self.shape
        if x.shape[2] != values or x.shape[1] > length:
            raise ValueError(
                f"Expected clips of shape batch x length x {values} with a length of at most {length}, "
                f"got shape {tuple(x.shape)}."
            )
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
            # What is padded shares patches with what is real.
            x = x.masked_fill(~mask[..., None], 0.0)
        content, mask = self.content(x, mask)
        across = math.prod(content.shape[2:-1])
        if mask is not None:
            mask = mask[:, :, None].expand(-1, -1, across).flatten(1)
        positions = None
        if self.positions is not None:
            configured = self.positions(self.axes, content.device)
            positions = first_cells(configured, content.shape[1], across)
        return Elements(content.flatten(1, -2), positions, mask=mask)


class _PatchedAudio(AudioInput):
    """Makes an element of each patch of a grid: its values in reading order. Zeros lie behind the last."""

    def __init__(
        self,
        size: tuple[int, int],
        patch: tuple[int, ...],
        config: WaveInputConfig | SpectrogramInputConfig,
    ) -> None:
        grid = tuple(-(-n // step) for n, step in zip(size, patch, strict=False))
        values = math.prod(patch) * math.prod(size[len(patch) :])
        width = config.project_channels
        super().__init__(size, grid, values if width is None else width, config.positions)
        self.config, self.patch = config, patch
        self.project = None if width is None else truncated_linear(values, width)

    def content(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B *grid Cc"], Bool[Tensor, "B Lo"] | None]:
        """Return the values of each patch, projected if the configuration states so."""
        cells = _channels_first(x, len(self.patch))
        patches = space_to_depth(pad_to_multiple(cells, self.patch), self.patch)
        if self.project is not None:
            patches = self.project(patches)
        return patches, None if mask is None else pooled_mask(mask, self.patch[0])


class WaveInput(_PatchedAudio):
    """Makes an element of each stretch of samples, all channels of a sample together.

    Reference: Perceiver (arXiv:2103.03206), section 4.2: 1.28 s at 48 kHz are 480 elements of 128 samples.
    """

    def __init__(self, config: WaveInputConfig) -> None:
        super().__init__(_wave_size(config), (config.patch,), config)


class ConvWaveInput(AudioInput):
    """Makes an element of each cell of a convolved waveform."""

    def __init__(self, config: ConvWaveInputConfig) -> None:
        if not config.stem_channels:
            raise ValueError("Expected channels of at least one convolution, got stem_channels=().")
        size, channels = _wave_size(config), config.stem_channels
        stem = ConvStem(size[1], channels, kernel=config.kernel, stride=config.stride)
        super().__init__(size, stem.grid(size[:1]), channels[-1], config.positions)
        self.config, self.stem = config, stem

    def content(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B *grid Cc"], Bool[Tensor, "B Lo"] | None]:
        """Return the stem's output."""
        cells, mask = self.stem(x.transpose(1, 2), mask)
        return cells.movedim(1, -1), mask


class SpectrogramInput(_PatchedAudio):
    """Makes an element of each value of a spectrogram, or of each patch of them.

    Reference: Perceiver (arXiv:2103.03206), section 4.2: 4,800 values of a mel spectrogram are 4,800 elements.
    """

    def __init__(self, config: SpectrogramInputConfig) -> None:
        super().__init__(_known_size(config.size), config.patch, config)


class ResidualSpectrogramInput(AudioInput):
    """Makes an element of each cell of a spectrogram after a residual stem.

    Reference: PANNs (arXiv:1912.10211) standardize each band by BatchNorm before the convolutions, too.
    """

    def __init__(self, config: ResidualSpectrogramInputConfig) -> None:
        size, stem = _known_size(config.size), config.stem
        super().__init__(size, stem.grid(size), stem.channels[-1], config.positions)
        self.config, self.element_step = config, stem.element_step
        self.norm = MaskedBatchNorm(size[1]) if config.normalize_bands else None
        self.stem = ResidualStem(1, stem)

    def content(
        self, x: Float[Tensor, "B L F"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B *grid Cc"], Bool[Tensor, "B Lo"] | None]:
        """Return the stem's output."""
        if self.norm is not None:  # bands are the channels of the norm
            # Contiguous: torch 2.13 gives wrong gradients of a norm's weights for other strides and a last axis of 1.
            bands = x.transpose(1, 2).contiguous()[..., None]
            x = self.norm(bands, mask)[..., 0].transpose(1, 2)
        cells, mask = self.stem(x[:, None], mask)
        return cells.movedim(1, -1), mask


def _wave_size(config: WaveInputConfig | ConvWaveInputConfig) -> tuple[int, int]:
    if config.num_samples is None:
        raise ValueError("Expected the samples of a clip, num_samples=rate x seconds, got None.")
    return config.num_samples, config.num_channels


def _known_size(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise ValueError("Expected the size of the spectrograms, size=(frames, bands), got None.")
    return size


def _channels_first(x: Float[Tensor, "B L V"], num_axes: int) -> Float[Tensor, "B Ci *sizes"]:
    """Return samples x channels as channels of one axis, frames x bands as one channel of two."""
    return x.transpose(1, 2) if num_axes == 1 else x[:, None]


def _default_wave(stem_channels: int) -> ConvWaveInputConfig:
    return ConvWaveInputConfig(
        stem_channels=(stem_channels // 2, stem_channels, 2 * stem_channels),
        positions=FourierPositionsConfig(num_bands=None),
    )


def _default_spectrogram(stem_channels: int) -> ResidualSpectrogramInputConfig:
    # Strides for spectrograms of some 250 frames; rules choose them by the length of the clips.
    channels = stem_channels // 2, stem_channels, 2 * stem_channels, 2 * stem_channels
    stem = ResidualStemConfig(
        channels=channels, blocks=(0, 1, 1, 1), pools=(1, 2, 2, (1, 2)), stride=2
    )
    return ResidualSpectrogramInputConfig(stem=stem)


register_input(
    WaveInputConfig,
    WaveInput,
    preprocess="wave",
    raw=lambda: WaveInputConfig(patch=8, positions=None),
)
register_input(ConvWaveInputConfig, ConvWaveInput, preprocess="wave", default=_default_wave)
register_input(
    SpectrogramInputConfig,
    SpectrogramInput,
    preprocess="mel",
    raw=lambda: SpectrogramInputConfig(positions=None),
)
register_input(
    ResidualSpectrogramInputConfig,
    ResidualSpectrogramInput,
    preprocess="mel",
    default=_default_spectrogram,
)
