"""Masked bytes: words of a text are masked, and the model predicts each of their bytes."""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy

from perceivers.tasks.base import ExportOutput, PredictionRequest, TaskBatch, to_float
from perceivers.tasks.byte_tokens import FIRST_BYTE, IGNORED, ByteMeter, ByteTask, byte_name
from perceivers.tasks.config import BaseTaskConfig
from perceivers.tasks.prediction import Prediction
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Int, Tensor, Tensors

MASK = 3
"""Token of a masked byte."""

_BLANKS = tuple(FIRST_BYTE + byte for byte in b" \t\n\r\v\f")
_ASCII = 128


@dataclass(frozen=True, kw_only=True)
class MaskedBytesConfig(BaseTaskConfig):
    """Masking of a text.

    Attributes:
        share: Share of the words that are masked, independently. A masked byte is always replaced by the mask token;
            the papers do not state whether they sometimes keep or change it instead.
        unit: Whole words between blanks, as in Perceiver IO, or single bytes.
        modality: Input that is the text.
    """

    kind: Literal["masked_bytes"] = "masked_bytes"
    share: float = 0.15
    unit: Literal["word", "byte"] = "word"
    modality: str = "text"

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(
                f"share of the words that are masked must lie in (0, 1), got {self.share}."
            )

    @property
    def chunked_modality(self) -> str:
        """Texts are split into chunks of the model's length."""
        return self.modality

    def check_sample(self, values: Mapping[str, Any], name: str) -> None:
        """Check that a text has a blank to fill."""
        if MASK not in values[self.modality]:
            raise ValueError(
                f"'{name}' has no blank to fill: expected [MASK] once for each byte that is to be predicted, as in "
                "'the [MASK][MASK][MASK] sat'. A text that is longer than the model reads is cut behind its end."
            )


class MaskedBytesTask(ByteTask):
    """Masked language modeling on bytes: targets are made from the text.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.1: every byte is decoded, the masked ones are scored.
    """

    config: MaskedBytesConfig
    main_metric = "accuracy"
    score_name = "accuracy"
    explain_as = "classification"
    answer_fields = ("text", "probability", "blanks")
    optional_answer_fields = ()
    export_output = ExportOutput(
        "probabilities", "probability of each token at each position (softmax of the logits)"
    )

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the texts with words masked, and the masked bytes. Labels of the data are ignored.

        In training other words are masked each time; otherwise the masked words are fixed by the text.
        """
        name = self.config.modality
        ids = inputs[name]
        real = masks.get(name)
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.expand_as(ids)
        draws = torch.rand(ids.shape, device=ids.device) if training else _fixed_draws(ids)
        chosen = draws.to(ids.device) < self.config.share
        masked = mask_bytes(ids, real, chosen, unit=self.config.unit)
        return TaskBatch(
            inputs={**inputs, name: ids.masked_fill(masked, MASK)},
            masks=masks,
            targets=ids.masked_fill(~masked, IGNORED),
        )

    def loss(
        self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over masked bytes, in nats. Zero if none is masked."""
        logits = to_float(outputs)
        losses = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return losses / (targets != IGNORED).sum().clamp_min(1)

    def training_score(
        self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the share of masked bytes that are predicted correctly, times the samples."""
        masked = targets != IGNORED
        correct = (outputs.argmax(dim=-1) == targets) & masked
        return correct.sum() / masked.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "MaskedBytesMeter":
        """Return a new meter."""
        return MaskedBytesMeter()

    def predictions(
        self, outputs: Float[Tensor, "B L K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield each text with its blanks filled."""
        name, batch = self.config.modality, request.batch
        mask = batch.masks.get(name)
        ids, mask = batch.inputs[name].cpu(), None if mask is None else mask.cpu()
        return filled_texts(request.names, ids, mask, outputs.cpu(), request.top)

    def explained_query(self, inputs: Tensors) -> int:
        """Return the position of the first blank of a text."""
        return int((inputs[self.config.modality][0] == MASK).nonzero()[0])

    def explained_output(
        self, inputs: Tensors, masks: Tensors, outputs: Float[Tensor, "B L K"], query: int | None
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return the name and probability of each byte in a blank."""
        probabilities = self.probabilities(outputs)[0, query, FIRST_BYTE:]
        return tuple(byte_name(byte) for byte in range(256)), probabilities


class MaskedBytesMeter(ByteMeter):
    """Metrics of all masked bytes."""

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        `accuracy`: share of the masked bytes that are predicted correctly; `loss`: nats for each of them; `bits`: the
        same in bits; `hidden`: their number; `samples`: texts.
        """
        nats, correct, hidden, texts = self.sums.tolist()
        each = max(hidden, 1.0)
        return {
            "accuracy": correct / each,
            "loss": nats / each,
            "bits": nats / each / math.log(2),
            "hidden": hidden,
            "samples": texts,
        }

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the texts, whose bytes depend on each other."""
        nats, correct, hidden = rows.unbind(dim=1)
        return {
            "accuracy": correct / hidden,
            "loss": nats / hidden,
            "bits": nats / hidden / math.log(2),
        }


def mask_bytes(
    ids: Int[Tensor, "B L"],
    real: Bool[Tensor, "B L"],
    chosen: Bool[Tensor, "B L"],
    *,
    unit: Literal["word", "byte"] = "word",
) -> Bool[Tensor, "B L"]:
    """Return whether each byte is masked, if the n-th word or byte is `chosen`: no blank, special token or padding."""
    blank = torch.zeros_like(real)
    for token in _BLANKS:
        blank |= ids == token
    if unit == "word":
        begins = torch.zeros_like(ids)
        begins[:, 1:] = (~blank[:, 1:] & blank[:, :-1]).to(ids.dtype)
        chosen = chosen.gather(1, begins.cumsum(dim=1))
    return chosen & real & ~blank & (ids >= FIRST_BYTE)


def filled_texts(
    names: Sequence[str],
    ids: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B Lm"] | None,
    outputs: Float[Tensor, "B L K"],
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield each text with its blanks filled.

    Every blank (MASK in `ids`) gets its most probable byte. If the bytes together are no UTF-8 (a blank beside a part
    of a character, or several that do not fit), each gets its most probable ASCII character instead.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.expand_as(ids)
    for row, name in enumerate(names):
        text, kept = ids[row], real[row]
        blanks = (text == MASK) & kept
        shares = outputs[row][blanks][:, FIRST_BYTE:].float().softmax(dim=-1)
        filled = _fill(text[kept], _best(shares, 256))
        try:
            decoded = filled.decode()
        except UnicodeDecodeError:
            filled = _fill(text[kept], _best(shares, _ASCII))
            decoded = filled.decode(errors="replace")
        chosen = [filled[position] for position in blanks[kept].nonzero()[:, 0].tolist()]
        best = shares.topk(min(max(top, 1), shares.shape[1]), dim=-1)
        listed = tuple(
            tuple((byte_name(byte), p) for byte, p in zip(bytes_, ps, strict=True))
            for bytes_, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        picked = [shares[i, byte].item() for i, byte in enumerate(chosen)]
        bytes_ = [byte_name(byte) for byte in chosen]
        yield Prediction(
            name=name,
            text=decoded,
            probability=sum(picked) / max(len(picked), 1),
            blanks=listed,
            filled=tuple(zip(bytes_, picked, strict=True)),
        )


def _best(shares: Float[Tensor, "n 256"], count: int) -> Int[Tensor, " n"]:
    """Return the most probable of the first bytes; of ASCII, only printable characters, tab and newline."""
    allowed = shares[:, :count].clone()
    if count == _ASCII:
        allowed[:, [*range(9), 11, 12, *range(14, 32), 127]] = -1.0
    return allowed.argmax(dim=-1)


def _fill(text: Int[Tensor, " n"], chosen: Int[Tensor, " m"]) -> bytes:
    """Return the bytes of a text with the chosen ones in its blanks; other special tokens become a space."""
    bytes_ = text - FIRST_BYTE
    bytes_[text < FIRST_BYTE] = ord(" ")
    bytes_[text == MASK] = chosen
    return bytes(bytes_.tolist())


def _fixed_draws(ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Return numbers in [0, 1) that follow from each text alone, independent of its batch and padding."""
    rows: list[Tensor] = []
    for row in ids.cpu():
        text = row[row >= FIRST_BYTE].to(torch.int16)
        # Numbers are drawn in sequence, so that padding behind a text changes none of those in front.
        generator = torch.Generator().manual_seed(zlib.crc32(text.numpy().tobytes()))
        rows.append(torch.rand(ids.shape[1], generator=generator))
    return torch.stack(rows)


register_task(MaskedBytesConfig, MaskedBytesTask)
