"""Commands in the process of a test and in processes of their own."""

import csv
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from perceivers.cli.main import main

__all__ = [
    "SMALL",
    "TINY",
    "launch",
    "logged_losses",
    "predict_rows",
    "run_command",
    "table_rows",
    "torchrun",
]

# Flags of the smallest run on images.
TINY = [
    *("--inputs.image.size", "8", "8"),
    *("--encoder.num-latents", "4", "--encoder.latent-channels", "16"),
    *("--encoder.num-blocks", "1", "--encoder.num-cross-attends", "1"),
    *("--encoder.num-self-attends-per-block", "1", "--encoder.num-self-attend-heads", "2"),
    *("--max-epochs", "1", "--workers", "0", "--no-progress", "--no-baseline", "--folds", "1"),
]

# Flags of the smallest run on other modalities.
SMALL = [
    *TINY[TINY.index("--encoder.num-latents") : TINY.index("--max-epochs")],
    *(
        "--workers",
        "0",
        "--no-progress",
        "--no-baseline",
        "--max-steps",
        "2",
        "--batch-size",
        "4",
        "--folds",
        "1",
    ),
]


def run_command(*args: object) -> tuple[int, str, str]:
    """Run `perceivers` with arguments; return its exit status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(arg) for arg in args])
    return status, out.getvalue(), err.getvalue()


def table_rows(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV table."""
    return list(csv.DictReader(io.StringIO(text)))


def predict_rows(*args: object) -> list[dict[str, str]]:
    """Run `perceivers predict` with arguments; return the rows of its table."""
    status, out, err = run_command("predict", *args, "--format", "csv")
    assert (status, err) == (0, "")
    return table_rows(out)


def logged_losses(run: Path) -> list[dict[str, float]]:
    """Return the steps and losses in the metrics of a run folder."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "loss" in k or k == "step"} for row in rows]


def launch(*command: object, cwd: Path | None = None) -> str:
    """Run a process with one thread and return its output.

    Args:
        command: Program and arguments.
        cwd: Its working directory.

    Raises:
        AssertionError: If its exit status is not 0.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def torchrun(script: Path, *args: object, cwd: Path | None = None) -> str:
    """Run a script in two processes and return its output."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    return launch(*command, f"--master-port={port}", script, *args, cwd=cwd)
