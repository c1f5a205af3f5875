"""SIGKILL or a full disk at any file operation of a process. Linux with a C compiler only.

`inject_faults.c` is loaded with LD_PRELOAD and sees every `open` for writing, `write`, `fsync`, `rename`, `mkdir` and
`unlink` below one folder, also those of C++ and Rust libraries. Two ways to use it:

- A command of its own process: `subprocess.run(command, env=environment(folder, at=7, mode=FULL))`.
- Many runs at the price of one import: a script that was started with `environment()` imports what it needs, and calls
  `fork(function, folder, at=7, mode=KILL)` for each of them.
"""

import ctypes
import functools
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COUNT, KILL, FULL = 0, 1, 2
"""Modes: count operations; end the process at operation `at`; the disk is full from operation `at` on."""

SOURCE = Path(__file__).with_suffix(".c")


@functools.cache
def library() -> Path | None:
    """Return the compiled library; None where it cannot be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.system() != "Linux":
        return None
    built = Path(tempfile.mkdtemp(prefix="inject-faults-")) / "inject_faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", built, SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return built


def environment(
    folder: Path | None = None, *, at: int = 0, mode: int = COUNT, log: Path | None = None
) -> dict[str, str]:
    """Return the environment of a process in which faults are injected below a folder.

    Args:
        folder: Operations below it count. None: none, until `fork` names one.
        at: Number of the operation, from 1. 0: never.
        mode: `COUNT`, `KILL` or `FULL`.
        log: File that gets one line for each operation: number, name and path.
    """
    built = library()
    assert built is not None, "the callers skip where the library cannot be built"
    added = {"LD_PRELOAD": str(built), "OMP_NUM_THREADS": "1"}
    if folder is not None:
        added |= {
            "INJECT_FOLDER": str(folder.resolve()),
            "INJECT_AT": str(at),
            "INJECT_MODE": str(mode),
            "INJECT_LOG": str(log or ""),
        }
    return {**os.environ, **added}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """End of a forked process: its exit status (None: killed), its output, and its number of file operations."""

    status: int | None
    output: str
    operations: int


def fork(
    function: Callable[[], object],
    folder: Path,
    *,
    at: int = 0,
    mode: int = COUNT,
    log: Path | None = None,
) -> Ended:
    """Call a function in a forked process with faults injected below a folder, and wait for its end.

    A raised error ends the process with status 1, and its traceback is in the output.
    """
    injected = ctypes.CDLL(None)
    injected.inject_count.restype = ctypes.c_long
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setsid()
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                place, log_path = str(folder.resolve()).encode(), str(log or "").encode()
                injected.inject_arm(place, ctypes.c_long(at), mode, log_path)
                status = _status_of(function)
            finally:
                os.write(writer, str(injected.inject_count()).encode())
                os._exit(status)
        os.close(writer)
        _, code = os.waitpid(pid, 0)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # its workers
        with os.fdopen(reader, "rb") as counted:
            operations = int(counted.read() or b"0")
        output.seek(0)
        text = output.read().decode(errors="replace")
    status = None if os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    return Ended(status=status, output=text, operations=operations)


def _status_of(function: Callable[[], object]) -> int:
    """Return the exit status of a call: what it returns if that is a status, 1 after an error."""
    try:
        result = function()
        return result if isinstance(result, int) else 0
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def warm_up(function: Callable[[], object], folder: Path) -> None:
    """Import all modules that a call needs, found by one call in a forked process, so that later forks have them."""
    names = folder / "modules.txt"

    def note_modules() -> None:
        _status_of(function)
        names.write_text("\n".join(sys.modules))

    fork(note_modules, folder)
    for name in names.read_text().splitlines():
        if not name.startswith("__"):
            with suppress(ImportError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
    names.unlink()
