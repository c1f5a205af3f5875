"""Texts and other sequences as tokens, which an autoregressive model embeds itself."""

from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor


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


class TokenInput(nn.Module):
    """Passes tokens on.

    Raises:
        ValueError: If the length is not known.
    """

    channels = 1
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: TokenInputConfig) -> None:
        super().__init__()
        if config.max_length is None:
            raise ValueError("Expected the most tokens of a sequence (max_length), got None.")
        self.config = config
        self.num_elements = config.max_length
        self.axes = (config.max_length,)

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the tokens as the content of elements, B x L x 1."""
        content: Float[Tensor, "B L 1"] = ids[..., None].to(torch.float32)
        return Elements(content, mask=None if mask is None else mask.expand(ids.shape))

    def example(self, batch_size: int) -> Int[Tensor, "B L"]:
        """Return the longest sequences, of one token."""
        return torch.full((batch_size, self.num_elements), self.config.vocab_size - 1)


register_input(TokenInputConfig, TokenInput, preprocess="text", joins_columns=True)
