"""What is written down while a run goes on: `metrics.jsonl`, and the loggers that were asked for."""

import importlib.util
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write

__all__ = ["METRICS_FILE", "MetricsLogger", "build_loggers", "read_metrics"]

METRICS_FILE = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`. A last line that was cut off is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class MetricsLogger:
    """Appends one JSON object a line to `metrics.jsonl`, and sends the numbers to the loggers.

    Args:
        folder: The run's.
        loggers: Lightning's, each with `log_metrics`.
    """

    def __init__(self, folder: Path, loggers: Sequence[Any] = ()) -> None:
        self.path = folder / METRICS_FILE
        self._loggers = loggers

    def write(self, row: Mapping[str, float]) -> None:
        """Write one line: step, epoch, elapsed seconds, and whatever was measured."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {name: value for name, value in row.items() if name not in ("step", "elapsed")}
        for logger in self._loggers:
            logger.log_metrics(numbers, step=int(row["step"]))

    def cut_after(self, step: int) -> None:
        """Drop the lines after `step`: what a run did after the checkpoint from which it goes on."""
        if self.path.exists():
            rows = [row for row in read_metrics(self.path) if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with atomic_write(self.path) as new:
                new.write_bytes(text.encode())


def build_loggers(names: Sequence[str], folder: Path, *, step: int | None = None) -> list[Any]:
    """Return TensorBoard's logger and those that were named.

    Args:
        names: `wandb`, `mlflow`.
        folder: The run's.
        step: Where a resumed run goes on; what TensorBoard shows after it is dropped.

    Raises:
        ImportError: If what a logger needs is not installed. The message says how to.
    """
    loggers: list[Any] = []
    if importlib.util.find_spec("tensorboard"):
        from lightning.pytorch.loggers import TensorBoardLogger

        purge = None if step is None else step + 1
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=purge))
    for name in names:
        package, found = {"wandb": ("wandb", ("wandb",)), "mlflow": ("mlflow", _MLFLOW)}[name]
        if not any(importlib.util.find_spec(candidate) for candidate in found):
            msg = f"--logger {name} needs a package that is not installed: pip install {package}"
            raise ImportError(msg)
        loggers.append(_build_logger(name, folder))
    return loggers


_MLFLOW = ("mlflow", "mlflow_skinny")


def _build_logger(name: str, folder: Path) -> Any:
    from lightning.pytorch import loggers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "wandb":
            return loggers.WandbLogger(name=folder.name, project="perceivers", save_dir=folder)
        return loggers.MLFlowLogger(experiment_name="perceivers", run_name=folder.name)
