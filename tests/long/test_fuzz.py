"""Three hundred malformed files of each modality, predicted by the command in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.fuzz import MODALITIES, malformed
from support.models import save_untrained

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODALITIES)
def test_malformed_files_are_named_and_the_others_predicted(kind, tmp_path):
    folder, out = tmp_path / "files", tmp_path / "out.jsonl"
    folder.mkdir()
    for name, data in malformed(kind):
        (folder / name).write_bytes(data)
    run = save_untrained(tmp_path / "run", kind)
    command = [sys.executable, TESTS / "support" / "fuzz.py", run, folder, out]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["status"] == 1
    assert "Traceback" not in done.stderr
    assert figures["peak"] < 2 * 2**30, figures
    assert figures["seconds"] < 10, figures
    predicted = {json.loads(line)["name"] for line in out.read_text().splitlines()}
    unnamed = [
        path.name
        for path in sorted(folder.iterdir())
        if str(path) not in predicted and path.name not in done.stderr
    ]
    assert unnamed == []
    assert "NaN" not in out.read_text()
    assert len(predicted) < 300
