"""A command that finds the disk full at any of its file operations fails clearly and leaves earlier outputs."""

import json
import os
import subprocess
import sys

import pytest

from support.docs import ROOT
from support.inject_faults import environment, library

SCRIPT = ROOT / "tests" / "support" / "full_disk.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(library() is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize(
    "names",
    [
        ("predict", "predict-shards", "evaluate", "shard"),
        ("explain-png", "explain-html", "explain-npz", "report"),
        ("export", "push"),
    ],
)
def test_a_full_disk_leaves_earlier_outputs(tmp_path, names):
    path = os.pathsep.join([*sys.path, str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, *names],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    assert all(count >= 5 for count in found["operations"].values()), found["operations"]
