"""Common parts of the tasks that predict the bytes of texts."""

import math

import torch
from torch.nn.functional import cross_entropy

from perceivers.tasks.base import Task
from perceivers.tasks.meters import SummedMeter
from perceivers.typing import Float, Int, Tensor

FIRST_BYTE, VOCAB_SIZE = 6, 262
"""Token of byte 0, below which all are special; number of tokens."""

IGNORED = -1
"""Target of the bytes that are not predicted."""


class ByteTask(Task):
    """A task whose outputs are logits of all tokens at each position."""

    @property
    def num_outputs(self) -> int:
        """Number of tokens."""
        return VOCAB_SIZE

    def probabilities(self, outputs: Float[Tensor, "... K"]) -> Float[Tensor, "... K"]:
        """Return the probability of each token at each position."""
        return outputs.float().softmax(dim=-1)

    def combine(self, outputs: Float[Tensor, "B S L K"]) -> Float[Tensor, "B L K"]:
        """Return the logarithm of each token's mean probability over clips or members."""
        return outputs.float().log_softmax(dim=-1).logsumexp(dim=1) - math.log(outputs.shape[1])


class ByteMeter(SummedMeter):
    """Sums over all predicted bytes, so that long texts weigh more."""

    def __init__(self) -> None:
        super().__init__(4, per_sample=3)  # nats, correct, bytes, texts; the first three of each

    def update(self, outputs: Float[Tensor, "B L K"], targets: Int[Tensor, "B L"]) -> None:
        """Add one batch: logits, and the bytes."""
        kept = targets != IGNORED
        logits, bytes_ = outputs[kept].float(), targets[kept]
        each = (
            cross_entropy(logits, bytes_, reduction="none") if len(bytes_) else logits.new_zeros(0)
        )
        correct = logits.argmax(dim=-1) == bytes_
        counts = [float(each.sum()), float(correct.sum()), float(len(bytes_)), float(len(outputs))]
        self.sums += torch.tensor(counts, dtype=torch.float64)
        of_text = torch.zeros(len(outputs), 3, dtype=torch.float64)
        values = torch.stack([each, correct.to(each), torch.ones_like(each)], dim=1)
        self.samples.add(of_text.index_add_(0, kept.nonzero()[:, 0].cpu(), values.cpu().double()))


def byte_name(byte: int) -> str:
    """Return a byte as a printable character, or as its hexadecimal number."""
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
