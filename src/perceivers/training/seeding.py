"""Seed and restore the Python, NumPy and PyTorch random number generators."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_everything(number: int) -> None:
    """Seed every global random number generator."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  (libraries use it)
    torch.manual_seed(number)


def get_rng_state() -> dict[str, Any]:
    """Return the state of every global random number generator, as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "python": [version, list(numbers), gauss],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore a state returned by `get_rng_state`."""
    torch.set_rng_state(state["torch"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    keys = np.asarray(keys, dtype=np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
