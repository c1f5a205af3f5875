"""Files that appear whole or not at all, so that an interruption or a full disk costs no good file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["read_payload", "save_payload", "write_whole"]


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a new file beside `path`, and move it there once it is safe on the disk.

    Raises:
        OSError: If it cannot be written. What was at `path` before is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        new = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(0o644)  # mkstemp's files are for their owner only
        new.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        before = "The one from before is unchanged. " if path.exists() else ""
        msg = f"Could not write {path}: {reason}. {before}Make room on the disk, then go on with --resume."
        raise OSError(msg) from error
    finally:
        if new is not None:
            new.unlink(missing_ok=True)


def save_payload(path: Path, payload: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all.

    Raises:
        OSError: If they cannot be written.
    """
    write_whole(path, lambda file: torch.save(payload, file))


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
