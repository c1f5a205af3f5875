"""Masked bytes: some words of a text are hidden, and the model tells each of their bytes."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch.nn.functional import cross_entropy

from perceivers.tasks.base import Question, SummedMeter
from perceivers.typing import Bool, Float, Int, Tensor

__all__ = [
    "MaskedBytesConfig",
    "MaskedBytesMeter",
    "MaskedBytesTask",
    "byte_name",
    "check_blanks",
    "hide",
]

MASK, FIRST_BYTE, VOCAB_SIZE = 3, 6, 262
"""The mark that hides a byte; the number of byte 0, below which all are marks; how many numbers there are."""

NOT_ASKED = -1  # stands in the targets where nothing was hidden

_BLANKS = tuple(FIRST_BYTE + byte for byte in b" \t\n\r\v\f")


@dataclass(frozen=True, kw_only=True)
class MaskedBytesConfig:
    """How a text is hidden.

    Attributes:
        share: Share of the words that are hidden, each by itself. What stands there is always the mark: whether the
            papers sometimes leave the byte or put another one, they do not say.
        unit: Whole words between blanks, as in Perceiver IO, or single bytes.
        modality: Which input is the text.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["masked_bytes"] = "masked_bytes"
    share: float = 0.15
    unit: Literal["word", "byte"] = "word"
    modality: str = "text"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not 0.0 < self.share < 1.0:
            msg = f"share of the words that are hidden must lie in (0, 1), got {self.share}."
            raise ValueError(msg)


class MaskedBytesTask:
    """Learns from texts alone: the question is made of the answer.

    Args:
        config: How texts are hidden.

    Source: Perceiver IO (arXiv:2107.14795), section 4.1: every byte is decoded, the hidden ones are scored.
    """

    main_metric = "accuracy"
    higher_is_better = True
    score_name = "accuracy"

    def __init__(self, config: MaskedBytesConfig) -> None:
        self.config = config

    @property
    def names(self) -> tuple[str, ...]:
        """Nothing has a name of its own: outputs are bytes."""
        return ()

    @property
    def num_outputs(self) -> int:
        """Numbers that a byte can be."""
        return VOCAB_SIZE

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Any,  # noqa: ARG002
        *,
        training: bool,
    ) -> Question:
        """Return the texts with words hidden, and what was there. Labels of the data are not looked at.

        In training other words are hidden each time; otherwise a text always loses the same ones.
        """
        name = self.config.modality
        ids = inputs[name]
        real = masks.get(name)
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.expand_as(ids)
        uniform = torch.rand(ids.shape, device=ids.device) if training else _settled(ids)
        hidden = hide(ids, real, uniform.to(ids.device) < self.config.share, unit=self.config.unit)
        return Question(
            inputs={**inputs, name: ids.masked_fill(hidden, MASK)},
            masks=masks,
            targets=ids.masked_fill(~hidden, NOT_ASKED),
        )

    def loss(
        self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over hidden bytes, in nats. Zero where none is hidden."""
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # float64 stays
        losses = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED, reduction="sum"
        )
        return losses / (targets != NOT_ASKED).sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "... K"]) -> Float[Tensor, "... K"]:
        """Return the probability of each byte at each place."""
        return outputs.float().softmax(dim=-1)

    def combine(self, outputs: Float[Tensor, "B S L K"]) -> Float[Tensor, "B L K"]:
        """Return the logarithm of the mean over clips of each byte's probability."""
        return outputs.float().log_softmax(dim=-1).logsumexp(dim=1) - math.log(outputs.shape[1])

    def training_score(
        self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the share of hidden bytes that were told, times the samples."""
        asked = targets != NOT_ASKED
        right = (outputs.argmax(dim=-1) == targets) & asked
        return right.sum() / asked.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "MaskedBytesMeter":
        """Return a fresh meter."""
        return MaskedBytesMeter()


class MaskedBytesMeter(SummedMeter):
    """Counts over all hidden bytes, so that long texts weigh as much as they hold."""

    def __init__(self) -> None:
        super().__init__(4)  # nats, right, hidden, texts

    def update(self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]) -> None:
        """Take in one batch: logits, and the hidden bytes."""
        asked = targets != NOT_ASKED
        logits, bytes_ = outputs[asked].float(), targets[asked]
        nats = cross_entropy(logits, bytes_, reduction="sum") if len(bytes_) else torch.zeros(())
        right = (logits.argmax(dim=-1) == bytes_).sum()
        counts = [float(nats), float(right), float(len(bytes_)), float(outputs.shape[0])]
        self.sums += torch.tensor(counts, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        `accuracy`: share of the hidden bytes that are told; `loss`: nats for each of them; `bits`: the same in bits;
        `hidden`: how many there were; `samples`: texts.
        """
        nats, right, hidden, texts = self.sums.tolist()
        each = max(hidden, 1.0)
        return {
            "accuracy": right / each,
            "loss": nats / each,
            "bits": nats / each / math.log(2),
            "hidden": hidden,
            "samples": texts,
        }


def hide(
    ids: Int[Tensor, "B L"],
    real: Bool[Tensor, "B L"],
    chosen: Bool[Tensor, "B L"],
    *,
    unit: Literal["word", "byte"] = "word",
) -> Bool[Tensor, "B L"]:
    """Return which bytes are hidden: never blanks, marks or padding.

    Args:
        ids: Texts.
        real: Where they are no padding.
        chosen: Whether the n-th unit of a text is hidden.
        unit: Whole words, or bytes.
    """
    blank = torch.zeros_like(real)
    for number in _BLANKS:
        blank |= ids == number
    if unit == "word":
        begins = torch.zeros_like(ids)
        begins[:, 1:] = (~blank[:, 1:] & blank[:, :-1]).to(ids.dtype)
        chosen = chosen.gather(1, begins.cumsum(dim=1))
    return chosen & real & ~blank & (ids >= FIRST_BYTE)


def check_blanks(ids: Sequence[int], name: str) -> None:
    """Refuse a text without blanks.

    Args:
        ids: Of the text, as the model reads it.
        name: Of the text, for the message.

    Raises:
        ValueError: If there is none.
    """
    if MASK not in ids:
        msg = (
            f"'{name}' has no blank to fill: expected [MASK] once for each byte that is to be told, as in 'the "
            "[MASK][MASK][MASK] sat'. A text that is longer than the model reads has lost those behind its end."
        )
        raise ValueError(msg)


def byte_name(byte: int) -> str:
    """Return a byte as people read it: a character, or its number."""
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"


def _settled(ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Return numbers in [0, 1) that follow from each text alone, whatever it is batched with and padded to."""
    rows: list[Tensor] = []
    for row in ids.cpu():
        text = row[row >= FIRST_BYTE].to(torch.int16)
        # The numbers come one after the other, so that padding behind a text changes none of those in front.
        generator = torch.Generator().manual_seed(zlib.crc32(text.numpy().tobytes()))
        rows.append(torch.rand(ids.shape[1], generator=generator))
    return torch.stack(rows)
