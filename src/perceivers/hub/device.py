"""Devices by name."""

from typing import Literal, get_args

import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` takes an accelerator if there is one.

    Raises:
        ValueError: If there is no such device here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there.get(name):
        known = ", ".join(get_args(DeviceName))
        here = ", ".join(kind for kind, available in there.items() if available)
        raise ValueError(
            f"Expected a device of {known} that this machine has ({here}); got '{name}'."
        )
    return torch.device(name)
