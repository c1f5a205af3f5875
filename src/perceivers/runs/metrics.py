"""`metrics.jsonl` of a run: one JSON object for each logged step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.escaping import encode_text

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`. An incomplete last line, of a process that was killed, is left out.

    Raises:
        ValueError: If another line is damaged. The message names it.
    """
    rows: list[dict[str, Any]] = []
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate([*lines, rest], start=1):
        try:
            row = json.loads(line)
            if isinstance(row["step"], int | float):
                rows.append(row)
                continue
            reason = f"its step is {row['step']!r}"
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error)
        if number > len(lines):
            break
        raise ValueError(
            f"{path}, line {number}, is not what `perceivers fit` wrote ({reason}): the file was edited or is damaged. "
            "Remove this line."
        )
    return rows


class MetricsLogger:
    """Append metrics to `metrics.jsonl`, one JSON object per line, and send them to the loggers."""

    def __init__(self, folder: Path, loggers: Sequence[Any] = ()) -> None:
        self.path = folder / METRICS_FILE
        self._loggers = loggers

    def write(self, row: Mapping[str, float]) -> None:
        """Write one line: step, epoch, elapsed seconds, and all metrics."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {name: value for name, value in row.items() if name not in ("step", "elapsed")}
        for logger in self._loggers:
            logger.log_metrics(numbers, step=int(row["step"]))

    def cut_after(self, step: int) -> None:
        """Drop the lines after `step`: those after the checkpoint from which a run is resumed."""
        if self.path.exists():
            rows = [row for row in read_metrics(self.path) if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with atomic_write(self.path) as new:
                new.write_bytes(encode_text(text))


def mean_metrics(logs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the mean of the lines of several runs: of the first validation of each, of the second, ...

    Lines without a validation likewise. Those that some run does not have are left out.
    """
    found: list[dict[str, Any]] = []
    for is_validation in (True, False):
        kinds = [[row for row in log if _has_validation(row) == is_validation] for log in logs]
        found += [_mean_line(lines) for lines in zip(*kinds, strict=False)]
    return sorted(found, key=lambda row: row["step"])


def _has_validation(row: Mapping[str, Any]) -> bool:
    return any(name.startswith("validation/") for name in row)


def _mean_line(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each value that all lines have."""
    names = [name for name in lines[0] if all(name in line for line in lines)]
    means = {name: sum(line[name] for line in lines) / len(lines) for name in names}
    return means | {"step": round(means["step"])}
