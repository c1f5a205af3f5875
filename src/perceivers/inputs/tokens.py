"""Texts and other sequences as tokens, which an autoregressive model embeds itself."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor

_EXAMPLE = 3  # a token of every vocabulary
_EXAMPLE_WORD = (38, 103)  # the bytes " a" as texts are prepared, a single token of most tokenizers


@configclass
class TokenInputConfig:
    """Every token is an element.

    Attributes:
        max_length: Tokens at most. None: taken from the data before the model is built.
        vocab_size: Number of different tokens: 256 bytes and 6 special marks.
    """

    kind: Literal["tokens"] = "tokens"
    max_length: int | None = None
    vocab_size: int = 262


@configclass
class SubwordInputConfig:
    """Every subword of a text is an element: a token of the vocabulary `subwords`.

    Attributes:
        max_length: Bytes at most of a text as it is prepared. None: taken from the data.
        num_tokens: Tokens at most that are read. Of a longer text these are the last ones.
        vocab_size: Number of different tokens.
    """

    kind: Literal["subwords"] = "subwords"
    max_length: int | None = None
    num_tokens: int = 1023
    vocab_size: int = 32_000


class TokenInput(nn.Module):
    """Passes tokens on.

    Args:
        length: Tokens at most. None is refused.
        vocab_size: Number of different tokens.

    Raises:
        ValueError: If the length is not known.
    """

    channels = 1
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, length: int | None, vocab_size: int) -> None:
        super().__init__()
        if length is None:
            raise ValueError("Expected the most tokens of a sequence (max_length), got None.")
        self.vocab_size = vocab_size
        self.num_elements = length
        self.axes = (length,)

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the tokens as the content of elements, B x L x 1."""
        content: Float[Tensor, "B L 1"] = ids[..., None].to(torch.float32)
        return Elements(content, mask=None if mask is None else mask.expand(ids.shape))

    def example(self, batch_size: int) -> Int[Tensor, "B L"]:
        """Return the longest sequences, of one token."""
        return torch.full((batch_size, self.num_elements), self.vocab_size - 1)


class SubwordInput(TokenInput):
    """Passes the last tokens on, as many as the model reads with the start: a text may have more."""

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the last tokens as the content of elements, B x l x 1. Rows are padded on the left."""
        last = slice(-self.num_elements - 1, None)
        if mask is not None:
            mask = mask.expand(ids.shape)[:, last]
        return super().forward(ids[:, last], mask)

    def example(self, batch_size: int) -> Int[Tensor, "B Lb"]:
        """Return texts of about as many tokens as are read, as they are prepared; their bytes are tokens, too."""
        text = torch.tensor(_EXAMPLE_WORD).clamp_max(self.vocab_size - 1)
        return text.repeat(batch_size, self.num_elements)


class IndexedTokenInput(nn.Module, ABC):
    """Base of adapters of tokens with rows of position tables, which a subclass computes from their places.

    Args:
        num_elements: Tokens at most.
        num_axes: Number of position tables.
    """

    axes: tuple[int, ...]

    def __init__(self, num_elements: int, num_axes: int) -> None:
        super().__init__()
        self.num_elements = num_elements
        self.channels = 1 + num_axes
        self.axes = (num_elements,)

    @abstractmethod
    def position_indices(self, places: Int[Tensor, "..."]) -> Int[Tensor, "... A"]:
        """Return the rows of the position tables of tokens, by their places in a sequence: 0 is its start."""

    def forward(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None = None) -> Elements:
        """Return tokens and the rows of their positions as the content of elements, B x L x (1 + A)."""
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        if mask is not None:
            places = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        content = torch.cat([ids[..., None], self.position_indices(places)], dim=-1)
        return Elements(content.to(torch.float32), mask=mask)

    def example(self, batch_size: int) -> Int[Tensor, "B L"]:
        """Return the longest sequences, of one token."""
        return torch.full((batch_size, self.num_elements), _EXAMPLE)


@configclass
class PixelTokenInputConfig:
    """Every channel of every pixel is an element: a token of the vocabulary `pixels`.

    Attributes:
        size: Height and width in pixels. None: taken from the data before the model is built.
        num_channels: 3 for RGB, 1 for gray. None: taken from the data.
    """

    kind: Literal["pixel_tokens"] = "pixel_tokens"
    size: tuple[int, int] | None = None
    num_channels: int | None = None


class PixelTokenInput(IndexedTokenInput):
    """Passes the tokens of pixels on, with the rows of three position tables: of row, column and channel.

    The first pixel has row 2 of each table, the start of an image row 1, as in DeepMind's release; its padding row 0.

    Raises:
        ValueError: If the size or the number of channels is not known.
    """

    def __init__(self, config: PixelTokenInputConfig) -> None:
        if config.size is None or config.num_channels is None:
            raise ValueError(f"Expected size and num_channels of the images, got {config}.")
        height, self.width = config.size
        self.num_channels = config.num_channels
        super().__init__(height * self.width * self.num_channels, num_axes=3)

    def position_indices(self, places: Int[Tensor, "..."]) -> Int[Tensor, "... 3"]:
        """Return row, column and channel of each place, counted from 2; those of the start are 1."""
        value = places - 1
        cells = value.div(self.num_channels, rounding_mode="floor")
        rows = cells.div(self.width, rounding_mode="floor")
        found = torch.stack([rows, cells % self.width, value % self.num_channels], dim=-1) + 2
        return found.where(places[..., None] > 0, 1)


@configclass
class SeriesTokenInputConfig:
    """Every channel of every step is an element: a token of the vocabulary `series_values`.

    Attributes:
        length: Steps of a window. None: taken from the data before the model is built.
        num_channels: Channels of the series. None: taken from the data.
        has_missing: Whether values are flagged as known in preprocessing, which the vocabulary reads.
        irregular: Whether times are prepared, too. They are no tokens.
    """

    kind: Literal["series_tokens"] = "series_tokens"
    length: int | None = None
    num_channels: int | None = None
    has_missing: bool = False
    irregular: bool = False


class SeriesTokenInput(IndexedTokenInput):
    """Passes the tokens of series on, with the row of one position table: 0 of the start, then that of the channel.

    Raises:
        ValueError: If the length or the number of channels is not known.
    """

    def __init__(self, config: SeriesTokenInputConfig) -> None:
        if config.length is None or config.num_channels is None:
            raise ValueError(f"Expected length and num_channels of the series, got {config}.")
        self.num_channels = config.num_channels
        super().__init__(config.length * config.num_channels, num_axes=1)

    def position_indices(self, places: Int[Tensor, "..."]) -> Int[Tensor, "... 1"]:
        """Return the channel of each place, counted from 1; that of the start is 0."""
        return (1 + (places - 1) % self.num_channels).where(places > 0, 0)[..., None]


register_input(
    TokenInputConfig,
    lambda config: TokenInput(config.max_length, config.vocab_size),
    preprocess="text",
    joins_columns=True,
)
register_input(
    SubwordInputConfig,
    lambda config: SubwordInput(config.num_tokens, config.vocab_size),
    preprocess="text",
    joins_columns=True,
)
register_input(PixelTokenInputConfig, PixelTokenInput, preprocess="image")
register_input(SeriesTokenInputConfig, SeriesTokenInput, preprocess="series")
