"""Subwords of texts by a tokenizer of Hugging Face's `tokenizers`, as published models of language have."""

from collections.abc import Sequence
from dataclasses import field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch

from perceivers.optional import require
from perceivers.registry import configclass
from perceivers.tasks.byte_tokens import FIRST_BYTE, VOCAB_SIZE
from perceivers.tasks.vocabulary import BaseVocabulary, register_vocabulary
from perceivers.typing import Bool, Int, Tensor

_STARTS = ("</s>", "<|endoftext|>", "<eos>", "<eod>", "[SEP]")


@configclass
class SubwordVocabulary(BaseVocabulary):
    """Subwords of texts, which are prepared as bytes.

    Attributes:
        tokenizer: Content of a `tokenizer.json`. It needs the package `tokenizers`.
        start: Token before the first one of a text: the one that ends a document in the training of the model. None:
            the first special token of the tokenizer among `</s>`, `<|endoftext|>`, `<eos>`, `<eod>` and `[SEP]`.

    Raises:
        ValueError: If the tokenizer cannot be read, or the start is none of its tokens.
    """

    kind: Literal["subwords"] = "subwords"
    tokenizer: str = field(default="", repr=False)
    start: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    unit: ClassVar[str] = "token"
    units: ClassVar[str] = "tokens"
    first: ClassVar[int] = 0
    is_text: ClassVar[bool] = True
    is_chunked: ClassVar[bool] = True
    is_of_elements: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.start is None:
            known = (read_tokenizer(self.tokenizer).token_to_id(name) for name in _STARTS)
            found = next((token for token in known if token is not None), None)
            if found is None:
                raise ValueError(
                    f"The tokenizer has none of the tokens {', '.join(_STARTS)}, one of which ends a document. State "
                    "the number of the token that does as `start`."
                )
            object.__setattr__(self, "start", found)
        if self.start not in range(self.size):
            raise ValueError(f"Expected a start of 0 to {self.size - 1}, got {self.start}.")

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return read_tokenizer(self.tokenizer).get_vocab_size()

    @property
    def data_tokens(self) -> Sequence[int]:
        """All tokens that are not special."""
        return _data_tokens(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, without special ones."""
        found = read_tokenizer(self.tokenizer).encode_batch([*texts], add_special_tokens=False)
        return [one.ids for one in found]

    def tokens(
        self, content: Int[Tensor, "B Lb"], mask: Bool[Tensor, "B Lm"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the tokens of texts that are prepared as bytes, and which are real. Bytes that are no UTF-8 are lost.

        L is the largest number of tokens of a text, and at least 1.
        """
        is_byte = (content >= FIRST_BYTE) & (content < VOCAB_SIZE)
        real = is_byte if mask is None else mask & is_byte
        pairs = zip(content.cpu(), real.cpu(), strict=True)
        bytes_of = (bytes((row[kept] - FIRST_BYTE).tolist()) for row, kept in pairs)
        rows = self.encode([one.decode(errors="ignore") for one in bytes_of])
        most = max(1, *map(len, rows))
        ids = torch.tensor([row + [0] * (most - len(row)) for row in rows])
        lengths = torch.tensor([[len(row)] for row in rows])
        return ids.to(content.device), (torch.arange(most) < lengths).to(content.device)

    def token_name(self, token: int) -> str:
        """Return a token as the tokenizer writes it, `▁` for the space before a word."""
        return read_tokenizer(self.tokenizer).id_to_token(token) or str(token)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return read_tokenizer(self.tokenizer).decode([*tokens])


@lru_cache(maxsize=4)
def read_tokenizer(content: str) -> Any:
    """Return the tokenizer of the content of a `tokenizer.json`, a `tokenizers.Tokenizer`.

    Raises:
        ValueError: If it is none.
        ImportError: If `tokenizers` is not installed.
    """
    tokenizers = require("tokenizers", "text")
    try:
        found = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the package raises no class of its own
        raise ValueError(
            f"The tokenizer cannot be read ({error}): expected the content of a tokenizer.json as it was published."
        ) from error
    found.no_padding()
    found.no_truncation()
    return found


@lru_cache(maxsize=4)
def _data_tokens(content: str) -> tuple[int, ...]:
    tokenizer = read_tokenizer(content)
    added = tokenizer.get_added_tokens_decoder().items()
    special = {token for token, one in added if one.special}
    return tuple(token for token in range(tokenizer.get_vocab_size()) if token not in special)


register_vocabulary(SubwordVocabulary)
