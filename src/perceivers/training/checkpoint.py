"""Checkpoint files: tensors and plain values, written atomically and read without running code."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import atomic_write


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

    The checksums of its parts are compared, unless it is read lazily.

    Raises:
        OSError: If the file is missing, truncated, damaged or something else.
    """
    try:
        if not lazily:
            _check_sums(path)
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except FileNotFoundError:
        raise
    except Exception as error:  # a broken file shows itself in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise OSError(
            f"{path} cannot be read as a checkpoint: it is truncated, damaged or another kind of file "
            f"({reason}). Take a copy of it from elsewhere, or start anew."
        ) from error
    if not isinstance(payload, dict):
        raise OSError(f"{path} holds a {type(payload).__name__}, not a checkpoint of perceivers.")
    return payload


def _check_sums(path: Path) -> None:
    """Compare the CRC-32 that `torch.save` writes for each part of its ZIP file; `torch.load` reads without."""
    with zipfile.ZipFile(path) as archive:
        is_damaged = archive.testzip() is not None
    if is_damaged:
        raise ValueError("a checksum is wrong")


@dataclass(frozen=True, kw_only=True)
class CheckpointPosition:
    """Progress of an interrupted run: optimizer steps done, and the number of processes."""

    step: int
    world_size: int


def read_position(path: Path) -> CheckpointPosition:
    """Return the progress that a checkpoint holds.

    Raises:
        OSError: If it cannot be read, or is another program's.
    """
    payload = read_payload(path, lazily=True)
    state = payload.get("perceivers")
    if not isinstance(state, dict):
        raise OSError(
            f"{path} is not a checkpoint of perceivers. A run is resumed from its own folder only."
        )
    return CheckpointPosition(step=payload["global_step"], world_size=state["world_size"])
