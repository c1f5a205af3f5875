"""Lock of a run folder: one training process at a time writes into it."""

import errno
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from perceivers.runs.folder import LOCK_FILE

# Errors of file systems without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def lock_folder(folder: Path) -> Generator[str]:
    """Create a run folder and keep other processes from training in it. Yield a note if that is not possible.

    The lock is one of the operating system, which ends with its process however that ends, also on NFS. Forked worker
    processes do not hold it. Its file is removed at the end.

    Raises:
        ValueError: If another process trains in the folder.
        OSError: If the folder cannot be written.
    """
    path = folder / LOCK_FILE
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    note = ""
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"Another process is training in '{folder}' now. Wait for its end, or choose another --out; nothing was "
            "written."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        note = f"The file system of {folder} has no locks: no second process may train in this folder at the same time."
    try:
        yield note
    finally:
        if lock.is_locked:
            with suppress(OSError):
                path.unlink()  # before the release: a process that waits for the lock sees that its file is gone
            lock.release()
