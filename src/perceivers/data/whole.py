"""Files that appear whole or not at all, so that what can be seen under a name is always complete."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """Give a path to write to; what was written there is moved to `path` once it is safe on the disk.

    Leaving with an error removes it.

    Raises:
        OSError: If it cannot be written. What was at `path` before is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield new
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"Could not write {path}: {reason}. Make room on the disk or choose another folder, then start again."
        raise OSError(msg) from error
    finally:
        new.unlink(missing_ok=True)
