"""Texts as input elements: every byte, every cell of convolved bytes, or every cell of hashed words and byte runs."""

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import max_pool1d, pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.hashed_units import HashedUnits, HashedUnitsConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.registry import register_input
from perceivers.inputs.series import RowPositions
from perceivers.inputs.stems import ConvStem, pooled_mask
from perceivers.nn.init import truncated_linear, truncated_normal_
from perceivers.nn.position import resize_row
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor

_LETTER = 97 + 6  # "a" behind the six special marks


@configclass
class TextInputConfig:
    """Every byte is an element: its learned vector, plus the learned vector of its place.

    Attributes:
        max_length: Bytes at most. None: taken from the data before the model is built.
        vocab_size: Different numbers that a text may hold: 256 bytes and 6 special marks.
        channels: Width of an element.
        embedding_scale: Standard deviation of the bytes' vectors at the start, 1.0 in DeepMind's release.
        position_init_scale: Standard deviation of the places' vectors at the start.
        hashed: Hashed words and byte runs that begin at a byte, whose vectors are added to it. None: none.
    """

    kind: Literal["bytes"] = "bytes"
    max_length: int | None = 2048
    vocab_size: int = 262
    channels: int = 768
    embedding_scale: float = 1.0
    position_init_scale: float = 0.02
    hashed: HashedUnitsConfig | None = None


@configclass
class ConvTextInputConfig:
    """Every cell of convolved bytes is an element: fewer of them, for long texts on small machines.

    Attributes:
        max_length: Bytes at most. None: taken from the data before the model is built.
        vocab_size: Different numbers that a text may hold.
        embedding_channels: Width of a byte's vector.
        embedding_scale: Standard deviation of the bytes' vectors at the start.
        stem_channels: Channels after each convolution.
        kernel: Bytes (then cells) that a convolution sees.
        stride: Bytes (then cells) from one cell to the next, of every convolution.
        pool: Cells of which the largest value of each channel is kept. With a stride of 1, what a convolution looks
            for is found wherever it begins.
        positions: Position encoding of a cell: `fourier` features behind its content, or `learned` vectors added to it.
        num_bands: Frequencies of the Fourier features. None: one for each whole frequency, at most 64.
        position_init_scale: Standard deviation of the learned vectors at the start.
        hashed: Hashed words and byte runs that begin in a cell, whose vectors are added to it. None: none.
    """

    kind: Literal["bytes_convolved"] = "bytes_convolved"
    max_length: int | None = 2048
    vocab_size: int = 262
    embedding_channels: int = 64
    embedding_scale: float = 1.0
    stem_channels: tuple[int, ...] = (128,)
    kernel: int = 8
    stride: int = 4
    pool: int = 1
    positions: Literal["fourier", "learned"] = "fourier"
    num_bands: int | None = None
    position_init_scale: float = 0.02
    hashed: HashedUnitsConfig | None = None


@configclass
class HashedTextInputConfig:
    """Every cell of bytes is an element: the sums of the learned vectors of hashed words and byte runs in it.

    Attributes:
        max_length: Bytes at most. None: taken from the data before the model is built.
        vocab_size: Different numbers that a text may hold.
        stride: Bytes of a cell.
        units: Hashed words, phrases and byte runs.
        num_bands: Frequencies of the Fourier features of a cell's position. 0: no positions.
        element_dropout: Share of the elements that are masked in training. A text keeps at least one.

    Raises:
        ValueError: If `element_dropout` is not in [0, 1).
    """

    kind: Literal["text_hashed"] = "text_hashed"
    max_length: int | None = 2048
    vocab_size: int = 262
    stride: int = 8
    units: HashedUnitsConfig = field(default_factory=HashedUnitsConfig)
    num_bands: int = 0
    element_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.element_dropout < 1:
            raise ValueError(
                f"Expected a share of the elements in [0, 1), got element_dropout={self.element_dropout}."
            )


TextConfig = Annotated[
    TextInputConfig | ConvTextInputConfig | HashedTextInputConfig, Field(discriminator="kind")
]


class _TextInput(nn.Module):
    """Base of text adapters.

    Args:
        config: Length of a text and number of different ids.
        channels: Width of an element.
        step: Bytes of an element.

    Raises:
        ValueError: If the length is not known.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(
        self,
        config: TextInputConfig | ConvTextInputConfig | HashedTextInputConfig,
        *,
        channels: int,
        step: int,
    ) -> None:
        super().__init__()
        if config.max_length is None:
            raise ValueError("Expected the length of texts in bytes, max_length, got None.")
        self.max_length, self.vocab_size = config.max_length, config.vocab_size
        self.channels = channels
        self.num_elements = -(-config.max_length // step)
        self.axes = (self.num_elements,)

    def check(self, ids: Int[Tensor, "B L"]) -> None:
        """Refuse texts of more bytes than `max_length`.

        Raises:
            ValueError: If there are more.
        """
        if ids.shape[1] > self.max_length:
            raise ValueError(
                f"Expected texts of at most {self.max_length} bytes, got shape {tuple(ids.shape)}. Cut them, or build "
                "the model with a larger max_length."
            )

    def hashed_units(
        self, config: HashedUnitsConfig | None, *, cell: int, channels: int
    ) -> nn.ModuleList:
        """Return the sums of hashed units in cells of bytes and their projection to `channels`; nothing for None."""
        if config is None:
            return nn.ModuleList()
        units = HashedUnits(
            config, cell=cell, max_length=self.max_length, vocab_size=self.vocab_size
        )
        return nn.ModuleList([units, truncated_linear(units.channels, channels)])

    def example(self, batch_size: int) -> Int[Tensor, "B L"]:
        """Return texts of the configured length: the letter a, again and again."""
        return torch.full((batch_size, self.max_length), min(_LETTER, self.vocab_size - 1))


class _EmbeddedTextInput(_TextInput):
    """Base of text adapters with a learned vector of each byte, of `width` channels."""

    def __init__(
        self,
        config: TextInputConfig | ConvTextInputConfig,
        *,
        width: int,
        channels: int,
        step: int,
    ) -> None:
        super().__init__(config, channels=channels, step=step)
        self.embedding = nn.Embedding(config.vocab_size, width)
        truncated_normal_(self.embedding.weight, config.embedding_scale)
        self.hashed = self.hashed_units(config.hashed, cell=step, channels=channels)

    def embedded(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L E"]:
        """Return the vectors of bytes.

        Raises:
            ValueError: If there are more of them than `max_length`.
        """
        self.check(ids)
        return self.embedding(ids)

    def with_hashed(
        self,
        content: Float[Tensor, "B M C"],
        ids: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None,
    ) -> Float[Tensor, "B M C"]:
        """Return elements with the sums of hashed units added to them, if the adapter has such."""
        if not self.hashed:
            return content
        units, project = self.hashed
        return content + project(units(ids, mask))

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the learned vectors of places of another text, in the number that this one has."""
        mine, other = (getattr(part, "places", None) for part in (self, theirs))
        if type(theirs) is not type(self) or mine is None or other is None:
            return {}
        if other.shape[1] != mine.shape[1]:
            return {}
        return {"places": resize_row(other.detach(), mine.shape[0])}


class BytesInput(_EmbeddedTextInput):
    """Makes an element of each byte. Its place is added, so that positions take no channels.

    Raises:
        ValueError: If the length is not known.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.1; 2,048 elements of 768 channels.
    """

    def __init__(self, config: TextInputConfig) -> None:
        super().__init__(config, width=config.channels, channels=config.channels, step=1)
        self.config = config
        self.places = nn.Parameter(torch.empty(self.max_length, config.channels))
        truncated_normal_(self.places, config.position_init_scale)

    @property
    def token_positions(self) -> nn.Parameter:
        """Learned vector of each position, L x C."""
        return self.places

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the elements of texts.

        Raises:
            ValueError: If texts are longer than `max_length`.
        """
        if mask is not None:
            mask = mask.expand(-1, ids.shape[1])
        content = self.embedded(ids) + self.places[: ids.shape[1]]
        return Elements(self.with_hashed(content, ids, mask), mask=mask)


class ConvBytesInput(_EmbeddedTextInput):
    """Makes an element of each cell after convolutions with a stride over the bytes' vectors.

    Raises:
        ValueError: If the length is not known.
    """

    def __init__(self, config: ConvTextInputConfig) -> None:
        width, channels = config.embedding_channels, config.stem_channels[-1]
        step = config.pool * config.stride ** len(config.stem_channels)
        super().__init__(config, width=width, channels=channels, step=step)
        self.config = config
        self.stem = ConvStem(
            width, config.stem_channels, kernel=config.kernel, stride=config.stride
        )
        self.positions = None
        self.places = None
        if config.positions == "learned":
            self.places = nn.Parameter(torch.empty(self.num_elements, channels))
            truncated_normal_(self.places, config.position_init_scale)
        else:
            fourier = FourierPositionsConfig(num_bands=config.num_bands)
            self.positions = RowPositions(fourier, self.num_elements)
            self.channels += self.positions.channels

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the elements of texts.

        Raises:
            ValueError: If texts are longer than `max_length`.
        """
        if mask is not None:
            mask = mask.expand(-1, ids.shape[1])
        cells, pooled = self.stem(self.embedded(ids).movedim(2, 1), mask)
        if self.config.pool > 1:
            # After the ReLU zeros are the smallest values, so padding never wins a maximum.
            cells = pad(cells, (0, -cells.shape[2] % self.config.pool))
            cells = max_pool1d(cells, self.config.pool)
            pooled = None if pooled is None else pooled_mask(pooled, self.config.pool)
        content = self.with_hashed(cells.movedim(1, 2), ids, mask)
        if self.places is not None:
            return Elements(content + self.places[: content.shape[1]], mask=pooled)
        assert self.positions is not None
        return Elements(content, self.positions(content.shape[1], ids.device), mask=pooled)


class HashedTextInput(_TextInput):
    """Makes an element of each cell of bytes: sums of the vectors of the hashed units that begin in it.

    A learned vector is added to every element, so that the LayerNorm of a cross-attention keeps differences in
    magnitude between cells.

    Raises:
        ValueError: If the length is not known.
    """

    def __init__(self, config: HashedTextInputConfig) -> None:
        super().__init__(config, channels=config.units.channels, step=config.stride)
        self.config = config
        self.units = HashedUnits(
            config.units,
            cell=config.stride,
            max_length=self.max_length,
            vocab_size=config.vocab_size,
        )
        self.offset = nn.Parameter(torch.empty(self.channels))
        truncated_normal_(self.offset, 1.0)
        self.positions = None
        if config.num_bands:
            fourier = FourierPositionsConfig(num_bands=config.num_bands)
            self.positions = RowPositions(fourier, self.num_elements)
            self.channels += self.positions.channels

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the elements of texts.

        Raises:
            ValueError: If texts are longer than `max_length`.
        """
        self.check(ids)
        if mask is not None:
            mask = mask.expand(-1, ids.shape[1])
        content = self.units(ids, mask) + self.offset
        positions = None
        if self.positions is not None:
            positions = self.positions(content.shape[1], ids.device)
        if mask is not None:
            mask = pooled_mask(mask, self.config.stride)
        if self.training and self.config.element_dropout:
            mask = self._thinned(content, mask)
        return Elements(content, positions, mask=mask)

    def linear_features(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None
    ) -> Float[Tensor, "B R"]:
        """Return the weight of each vector of a unit in the mean content of a text, a sparse tensor."""
        self.check(ids)
        return self.units.mean_weights(ids, None if mask is None else mask.expand(ids.shape))

    def write_vectors(
        self, weights: Float[Tensor, "R K"]
    ) -> tuple[Float[Tensor, "K C"], Float[Tensor, " K"]]:
        """Write vectors of units that hold the weights of a linear model.

        Returns:
            The projection of the mean content that gives the outputs of the linear model, and a constant to subtract:
            that of the vector which is added to every element.
        """
        projection = self.units.write_vectors(weights)
        return projection, projection @ self.offset.detach()

    def _thinned(
        self, content: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None
    ) -> Bool[Tensor, "B M"]:
        """Return a mask without a random share of the elements; texts that would lose all of them keep all."""
        kept = torch.rand(content.shape[:2], device=content.device) >= self.config.element_dropout
        kept = kept if mask is None else kept & mask
        real = torch.ones_like(kept) if mask is None else mask
        return kept.where(kept.any(dim=1, keepdim=True), real)


def _default(stem_channels: int) -> HashedTextInputConfig:
    units = HashedUnitsConfig(
        word_channels=stem_channels // 2,
        run_channels=stem_channels // 4,
        phrase_channels=stem_channels // 4,
    )
    return HashedTextInputConfig(max_length=None, units=units)


register_input(
    TextInputConfig,
    BytesInput,
    preprocess="text",
    raw=lambda: TextInputConfig(max_length=None, channels=64),
    joins_columns=True,
)
register_input(ConvTextInputConfig, ConvBytesInput, preprocess="text", joins_columns=True)
register_input(
    HashedTextInputConfig,
    HashedTextInput,
    preprocess="text",
    default=_default,
    joins_columns=True,
)
