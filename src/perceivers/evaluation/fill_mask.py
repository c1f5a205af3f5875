"""Blanks in texts: what a model of masked bytes puts where a text says `[MASK]`."""

from collections.abc import Iterator, Sequence

import torch

from perceivers.evaluation.prediction import Prediction
from perceivers.tasks.masked import FIRST_BYTE, MASK, byte_name
from perceivers.typing import Bool, Float, Int, Tensor

__all__ = ["filled_texts"]

_ASCII = 128


def filled_texts(
    names: Sequence[str],
    ids: Int[Tensor, "B L"],
    mask: Bool[Tensor, "B Lm"] | None,
    outputs: Float[Tensor, "B L K"],
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield each text with its blanks filled in.

    Every blank gets its most probable byte. Where the bytes together are no UTF-8 (a blank beside a part of a
    character, or several that do not fit), each gets its most probable ASCII character instead.

    Args:
        names: Of the texts.
        ids: As the model has read them: bytes, and the mark MASK in the blanks.
        mask: True where they are no padding. None: everywhere.
        outputs: A logit for each byte at each place.
        top: How many bytes each blank lists.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.expand_as(ids)
    for row, name in enumerate(names):
        text, kept = ids[row], real[row]
        blanks = (text == MASK) & kept
        shares = outputs[row][blanks][:, FIRST_BYTE:].float().softmax(dim=-1)
        told = _joined(text[kept], _best(shares, 256))
        try:
            filled = told.decode()
        except UnicodeDecodeError:
            told = _joined(text[kept], _best(shares, _ASCII))
            filled = told.decode(errors="replace")
        chosen = [told[place] for place in blanks[kept].nonzero()[:, 0].tolist()]
        best = shares.topk(min(max(top, 1), shares.shape[1]), dim=-1)
        listed = tuple(
            tuple((byte_name(byte), p) for byte, p in zip(bytes_, ps, strict=True))
            for bytes_, ps in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        picked = [shares[i, byte].item() for i, byte in enumerate(chosen)]
        yield Prediction(
            name=name,
            text=filled,
            probability=sum(picked) / max(len(picked), 1),
            blanks=listed,
        )


def _best(shares: Float[Tensor, "n 256"], count: int) -> Int[Tensor, " n"]:
    """Return the most probable of the first bytes; of ASCII, those that are seen."""
    allowed = shares[:, :count].clone()
    if count == _ASCII:
        allowed[:, [*range(9), 11, 12, *range(14, 32), 127]] = -1.0
    return allowed.argmax(dim=-1)


def _joined(text: Int[Tensor, " n"], chosen: Int[Tensor, " m"]) -> bytes:
    """Return the bytes of a text with the chosen ones in its blanks; a blank stands for any other mark."""
    bytes_ = text - FIRST_BYTE
    bytes_[text < FIRST_BYTE] = ord(" ")
    bytes_[text == MASK] = chosen
    return bytes(bytes_.tolist())
