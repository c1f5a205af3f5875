"""Texts of the copy task: random characters, then the same in reverse order."""

import json
from pathlib import Path

import numpy as np

from perceivers.data.base import atomic_write_text

_FIRST, _LAST = 33, 126  # printable ASCII without the space


def mirrored_text(rng: np.random.Generator, length: int) -> str:
    """Return `length` characters, the second half of which is the first in reverse order."""
    half = rng.integers(_FIRST, _LAST + 1, size=length // 2, dtype=np.uint8).tobytes().decode()
    return half + half[::-1]


def write_copy_texts(
    out: Path, *, length: int, count: int, test: float = 0.02, seed: int = 0
) -> int:
    """Write texts of the copy task as `train.jsonl` and `test.jsonl`, and return the number of test texts.

    Args:
        out: A new or empty folder.
        length: Tokens of a sequence: two less than these are characters, as in DeepMind's release.
        count: Number of texts.
        test: Share of the test split.
        seed: Random seed.

    Raises:
        ValueError: If an argument is out of range, or `out` is not empty.
        OSError: If a file cannot be written.

    Reference: Perceiver AR (arXiv:2202.07765), section 5.1; there of random bytes between a start and an end.
    """
    if length < 10 or length % 2 or count < 2 or not 0 < test < 1:
        raise ValueError(
            "Expected an even length of at least 10, at least two texts and a share of the test split in (0, 1); got "
            f"length={length}, count={count}, test={test:g}."
        )
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Give a new folder for the texts (--out).")
    held_out = min(max(round(count * test), 1), count - 1)
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in (("test", held_out), ("train", count - held_out)):
        lines = (json.dumps({"text": mirrored_text(rng, length - 2)}) for _ in range(rows))
        atomic_write_text(out / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
    return held_out
