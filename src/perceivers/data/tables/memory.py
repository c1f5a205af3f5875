"""Check that data fit in memory before they are read."""

import os
from collections.abc import Iterable
from pathlib import Path

from perceivers.data.tables.table import Table

_SHARE = 0.8  # of the free memory; the model and the workers need some too


def check_memory(tables: Iterable[Table]) -> None:
    """Check that the rows of all tables fit in memory.

    Raises:
        ValueError: If they do not. The message suggests streaming.
    """
    parts = list(tables)
    need, free = sum(table.num_bytes for table in parts), available_memory()
    if free is not None and need > _SHARE * free:
        raise ValueError(
            f"{parts[0].name} needs {need / 2**30:.1f} GiB of memory and only {free / 2**30:.1f} GiB are free. Use "
            "--stream, which reads rows in the order of the files and holds few of them at a time."
        )


def available_memory() -> int | None:
    """Return the available memory in bytes, None if unknown."""
    free: list[int] = []
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        free.append(int(words[words.index("MemAvailable:") + 1]) * 1024)
    except OSError:  # not Linux
        try:
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, ValueError, OSError):
            return None
    free += _left_in_container(Path("/sys/fs/cgroup"))
    return min(free, default=None)


def _left_in_container(group: Path) -> list[int]:
    """Return the available memory of a container with a limit."""
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return []
    cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
    return [int(limit) - used + cached] if limit.isdecimal() else []


def check_fits(name: str, num_bytes: int) -> None:
    """Check that arrays of a file fit in the free memory, before they are read.

    Raises:
        ValueError: If not. The message has the name of the file.
    """
    free = available_memory()
    if free is not None and num_bytes > free:
        raise ValueError(
            f"{name} states {num_bytes:,} bytes of arrays, and {free:,} bytes of memory are free. Split it into "
            "several files, or write its rows as Parquet, which is read row by row."
        )
