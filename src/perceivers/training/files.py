"""Checkpoint files: tensors and plain values, written atomically and read without running code."""

from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import atomic_write

__all__ = ["read_payload", "save_payload"]


def save_payload(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors and plain values atomically.

    Raises:
        OSError: If they cannot be written. The previous file is then unchanged.
    """
    with atomic_write(path) as new:
        try:
            torch.save(payload, new)
        except RuntimeError as error:  # how torch.save reports a full disk
            raise OSError(str(error)) from error


def read_payload(path: Path, *, lazily: bool = False) -> dict[str, Any]:
    """Read what `save_payload` wrote, without running code from the file.

    Args:
        path: Of the file.
        lazily: Leave the tensors on the disk until they are looked at.

    Raises:
        OSError: If the file is missing, truncated or something else.
    """
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file shows itself in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        msg = (
            f"{path} cannot be read as a checkpoint: it is truncated or another kind of file "
            f"({reason}). Take a copy of it from elsewhere, or start anew."
        )
        raise OSError(msg) from error
    if not isinstance(payload, dict):
        msg = f"{path} holds a {type(payload).__name__}, not a checkpoint of perceivers."
        raise OSError(msg)
    return payload
