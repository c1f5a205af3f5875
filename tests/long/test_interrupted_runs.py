"""A run that is killed, or finds the disk full, at any of its file operations ends like one that is not interrupted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.docs import ROOT
from support.inject_faults import environment, library

SCRIPT = ROOT / "tests" / "support" / "interrupted_runs.py"


@pytest.mark.timeout(900)  # 20 to 90 runs; each takes a second on a busy machine
@pytest.mark.skipif(library() is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize(
    ("configuration", "fault", "at_least"),
    [
        ("plain", "kill", 60),
        ("stream", "kill", 60),
        ("workers", "kill", 60),
        ("cache", "kill", 60),
        ("accumulate", "kill", 60),
        ("plain", "full", 40),
    ],
)
def test_resumed_runs_equal_uninterrupted_ones(
    tmp_path: Path, configuration: str, fault: str, at_least: int
):
    command = [sys.executable, SCRIPT, tmp_path, configuration, fault]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["operations"] >= at_least
