"""Vocabularies: what the tokens of an autoregressive model stand for."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch

from perceivers.registry import ConfigRegistry, configclass
from perceivers.tasks.byte_tokens import FIRST_BYTE, VOCAB_SIZE, byte_name
from perceivers.typing import Bool, Int, Tensor


@configclass
class BaseVocabulary:
    """Base class of vocabularies. A subclass sets `kind` and is registered with `register_vocabulary`.

    Attributes:
        kind: Name in files.
    """

    kind: str

    unit: ClassVar[str]
    """Singular name of a token, as in the metric `bits_per_byte`."""

    units: ClassVar[str]
    """Plural of `unit`."""

    start: ClassVar[int]
    """Token before the first one of a sequence."""

    first: ClassVar[int]
    """First token that stands for data."""

    generate_flags: ClassVar[str] = '--prompt "Once upon a time"'
    """Flags of an example of `perceivers generate`."""

    is_text: ClassVar[bool] = False
    """Whether sequences are texts."""

    is_of_elements: ClassVar[bool] = True
    """Whether each token stands for one element of a sample as it is prepared."""

    is_chunked: ClassVar[bool] = False
    """Whether sequences are split into chunks of the model's length, so that all of their tokens are used."""

    is_cropped: ClassVar[bool] = True
    """Whether sequences end at a random token in training."""

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        raise NotImplementedError

    @property
    def data_tokens(self) -> Sequence[int]:
        """Tokens that stand for data: from `first` on. All others are special and never predicted."""
        return range(self.first, self.size)

    def tokens(
        self, content: Tensor, mask: Bool[Tensor, "B Lm"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the tokens of a batch of preprocessed samples, and which of them are real: the others are padding.

        Args:
            content: Samples as their modality prepares them.
            mask: Which elements are real. None: all.
        """
        raise NotImplementedError

    @property
    def chunk_step(self) -> int | None:
        """Elements at the end of a chunk that are predicted. None: all."""
        return None

    def measured(self, ids: Int[Tensor, "B L"], real: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Return True for the tokens that are predicted, of those that are real: by default all."""
        return real

    def fit_to(self, preprocess: Any) -> Self:
        """Return the vocabulary with its open fields taken from the complete preprocessing of the sequences.

        Raises:
            ValueError: If the sequences do not fit.
        """
        return self

    def fit_encoder(self, encoder: Any) -> Any:
        """Return the configuration of an autoregressive encoder with the sizes that the vocabulary determines."""
        return encoder

    def check_sample(self, name: str) -> None:
        """Check that the next token of a sample can be predicted.

        Raises:
            ValueError: If not. The message has the name of the sample.
        """

    def training_tokens(
        self, content: Tensor, mask: Bool[Tensor, "B Lm"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the tokens as `tokens` does, for training, where they may be random."""
        return self.tokens(content, mask)

    def token_name(self, token: int) -> str:
        """Return the short name of a token for tables."""
        raise NotImplementedError

    def text(self, tokens: Sequence[int]) -> str:
        """Return a sequence of tokens as text for people, special tokens left out."""
        return " ".join(self.token_name(token) for token in tokens if token in self.data_tokens)


VOCABULARIES = ConfigRegistry("vocabulary")
VocabularyConfig = Annotated[Any, VOCABULARIES]


def register_vocabulary(config_class: type[BaseVocabulary]) -> None:
    """Register a vocabulary.

    Raises:
        ValueError: If another class is registered under its kind.
    """
    VOCABULARIES.register(config_class, _same)


def _same(config: BaseVocabulary) -> BaseVocabulary:
    return config


@configclass
class _Bytes(BaseVocabulary):
    """Bytes of texts, after six special tokens."""

    unit: ClassVar[str] = "byte"
    units: ClassVar[str] = "bytes"
    first: ClassVar[int] = FIRST_BYTE
    is_text: ClassVar[bool] = True
    is_chunked: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """256 bytes and six special tokens."""
        return VOCAB_SIZE

    def tokens(
        self, content: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the tokens, which texts are prepared as, and which are real."""
        if mask is None:
            return content, torch.ones_like(content, dtype=torch.bool)
        return content, mask.expand_as(content)

    def token_name(self, token: int) -> str:
        """Return a printable character, or the hexadecimal number of a byte."""
        return byte_name(token - self.first)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of the bytes. Bytes that are no UTF-8 are replaced."""
        found = bytes(token - self.first for token in tokens if token >= self.first)
        return found.decode(errors="replace")


@configclass
class ByteVocabulary(_Bytes):
    """Bytes of texts, after six special tokens, one of which begins a text."""

    kind: Literal["bytes"] = "bytes"

    start: ClassVar[int] = 1


@configclass
class LineVocabulary(_Bytes):
    """Bytes of texts, after six special tokens that a model has not learned: a text begins after a line feed.

    krasserm's models of bytes were trained on joined texts.
    """

    kind: Literal["lines"] = "lines"

    start: ClassVar[int] = FIRST_BYTE + ord("\n")


register_vocabulary(ByteVocabulary)
register_vocabulary(LineVocabulary)
