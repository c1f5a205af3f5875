"""The running server does as its OpenAPI description states: every check of Schemathesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.serving import serving

from perceivers.hub.checkpoint import load, save
from support.docs import ROOT
from support.models import save_generating, save_untrained

HOOKS = Path(__file__).parents[1] / "support" / "schemathesis_hooks.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "token"),
    [
        (("image",), ""),
        (("image", "text", "table"), "secret"),
        (("generated text",), "secret"),
        (("generated music",), "secret"),
    ],
)
def test_no_check_of_the_description_fails(kinds, token, tmp_path, monkeypatch):
    recipe = {"generated text": "text_ar", "generated music": "music"}.get(kinds[0])
    monkeypatch.setenv("PERCEIVERS_SERVE_MAX_TOKENS", "32")
    run = tmp_path / "run"
    save_generating(run, recipe) if recipe else save_untrained(run, *kinds)
    if "table" in kinds:
        found = load(run)
        fields = {"columns": ["age", "color"], "kinds": ["number", "category"]}
        found.config.columns["inputs"]["table"] |= {"column": "age", **fields}
        kept = {name: getattr(found.config, name) for name in ("preprocess", "task", "columns")}
        save(run, found.model, **kept)
    monkeypatch.delenv("PERCEIVERS_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("PERCEIVERS_TOKEN", token)
    with serving(run) as (address, _):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
        command += ["--checks", "all", "--seed", "0", "--max-examples", "20", "--no-color"]
        if recipe == "music":
            monkeypatch.setenv("SCHEMATHESIS_MUSIC", "1")
        if recipe:
            command += ["--include-path", "/generate"]
        if "text" in kinds:
            # A form has no types: a number in the field of a text is a text, which Schemathesis takes for an error.
            command += ["--exclude-checks", "negative_data_rejection"]
        command += ["--continue-on-failure", "-H", f"Authorization: Bearer {token or 'none'}"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "PYTHONPATH": str(ROOT / "src")},
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No issues found" in done.stdout
