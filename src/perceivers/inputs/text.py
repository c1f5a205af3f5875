"""Texts as input elements: every byte, or every cell of convolved bytes."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import max_pool1d, pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.registry import register_input
from perceivers.inputs.series import RowPositions
from perceivers.inputs.stems import ConvStem, pooled_mask
from perceivers.nn.init import truncated_normal_
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
    """

    kind: Literal["bytes"] = "bytes"
    max_length: int | None = 2048
    vocab_size: int = 262
    channels: int = 768
    embedding_scale: float = 1.0
    position_init_scale: float = 0.02


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


TextConfig = Annotated[TextInputConfig | ConvTextInputConfig, Field(discriminator="kind")]


class _TextInput(nn.Module):
    """Base of text adapters: byte ids become vectors."""

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(
        self,
        config: TextInputConfig | ConvTextInputConfig,
        *,
        width: int,
        channels: int,
        step: int,
    ) -> None:
        super().__init__()
        if config.max_length is None:
            raise ValueError("Expected the length of texts in bytes, max_length, got None.")
        self.max_length = config.max_length
        self.channels = channels
        self.num_elements = -(-config.max_length // step)
        self.axes = (self.num_elements,)
        self.embedding = nn.Embedding(config.vocab_size, width)
        truncated_normal_(self.embedding.weight, config.embedding_scale)

    def embedded(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L E"]:
        """Return the vectors of bytes.

        Raises:
            ValueError: If there are more of them than `max_length`.
        """
        if ids.shape[1] > self.max_length:
            raise ValueError(
                f"Expected texts of at most {self.max_length} bytes, got shape {tuple(ids.shape)}. Cut them, or build "
                "the model with a larger max_length."
            )
        return self.embedding(ids)

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the learned vectors of places of another text, in the number that this one has."""
        mine, other = (getattr(part, "places", None) for part in (self, theirs))
        if type(theirs) is not type(self) or mine is None or other is None:
            return {}
        if other.shape[1] != mine.shape[1]:
            return {}
        return {"places": resize_row(other.detach(), mine.shape[0])}

    def example(self, batch_size: int) -> Int[Tensor, "B L"]:
        """Return texts of the configured length: the letter a, again and again."""
        return torch.full(
            (batch_size, self.max_length), min(_LETTER, self.embedding.num_embeddings - 1)
        )


class BytesInput(_TextInput):
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
        return Elements(self.embedded(ids) + self.places[: ids.shape[1]], mask=mask)


class ConvBytesInput(_TextInput):
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
        cells, mask = self.stem(self.embedded(ids).movedim(2, 1), mask)
        if self.config.pool > 1:
            # After the ReLU zeros are the smallest values, so padding never wins a maximum.
            cells = pad(cells, (0, -cells.shape[2] % self.config.pool))
            cells = max_pool1d(cells, self.config.pool)
            mask = None if mask is None else pooled_mask(mask, self.config.pool)
        content = cells.movedim(1, 2)
        if self.places is not None:
            return Elements(content + self.places[: content.shape[1]], mask=mask)
        assert self.positions is not None
        return Elements(content, self.positions(content.shape[1], ids.device), mask=mask)


def _default(stem_channels: int) -> ConvTextInputConfig:
    return ConvTextInputConfig(
        max_length=None,
        embedding_channels=stem_channels,
        stem_channels=(2 * stem_channels,),
        stride=1,
        pool=8,
        positions="learned",
    )


register_input(TextInputConfig, BytesInput, preprocess="text")
register_input(ConvTextInputConfig, ConvBytesInput, preprocess="text", default=_default)
