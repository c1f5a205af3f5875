"""The examples of docs/extending work with fit, evaluate, predict, explain, export and serve."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.docs import ROOT, promised, shortened, steps, words_of
from support.docs_data import make_data

EXAMPLES = ROOT / "examples"
PLUGINS = ("plugin", "quantile")

# In a process of its own, as a plugin stays registered: the commands of a page, then a request to a server.
DRIVER = """
import json
import sys

from starlette.testclient import TestClient

from perceivers.cli.main import main
from perceivers.server.app import create_app
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings


def serve(run, file):
    app = create_app(
        Service(ServerSettings(run, device="cpu"))
    )
    with TestClient(app, base_url="http://localhost") as client, open(file, "rb") as stream:
        for route in ("predict", "explain"):
            stream.seek(0)
            answer = client.post(f"/{route}", files={"file": (file, stream)})
            print(route, answer.status_code, answer.json()["answers"])


if __name__ == "__main__":
    lines, served = json.loads(sys.argv[1])
    for line in lines:
        assert main(line) == 0, line
    serve(*served)
"""

PAGES = {
    "modality": ("runs/dots", "dots/test/left/0.events"),
    "task": ("runs/quantiles", "street/0.wav"),
    "recipe": ("runs/deep", "birds/robin/0.png"),
}


def install(folder: Path) -> None:
    """Write the metadata that an installation of the example plugins would write."""
    for name in PLUGINS:
        project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text())["project"]
        ((key, module),) = project["entry-points"]["perceivers.plugins"].items()
        target = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        target.mkdir(parents=True)
        metadata = (
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        (target / "METADATA").write_text(metadata)
        (target / "entry_points.txt").write_text(f"[perceivers.plugins]\n{key} = {module}\n")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_on_extending_does_what_it_says(page, tmp_path):
    install(tmp_path / "site")
    make_data("tasks", tmp_path)
    paths = [ROOT / "src", EXAMPLES, *(EXAMPLES / name for name in PLUGINS), tmp_path / "site"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    make = [sys.executable, EXAMPLES / "plugin" / "make_data.py", "dots"]
    subprocess.run(make, check=True, **how)
    found = steps(ROOT / "docs" / "extending" / f"{page}.md")
    lines = [step.text for step in found if step.language == "bash" and not step.skipped]
    words = [words_of(line, tmp_path)[0] for line in lines]
    assert [line[0] for line in words] == ["fit", "evaluate", "predict", "explain", "export"]
    words[0] = [word if word != "200" else "2" for word in words[0]]
    (tmp_path / "driver.py").write_text(DRIVER)
    sent = json.dumps([[shortened(line) for line in words], PAGES[page]])
    done = subprocess.run([sys.executable, "driver.py", sent], check=False, timeout=240, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(path.exists() for line in words for path in map(tmp_path.joinpath, promised(line)))
    assert "predict 200 [{" in done.stdout
    assert "explain 200 [{" in done.stdout


def test_a_modality_takes_at_most_eight_files():
    files = [path for path in (EXAMPLES / "plugin").rglob("*") if path.suffix in (".py", ".toml")]
    assert len(files) <= 8
