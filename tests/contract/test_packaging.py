"""The source distribution holds what its tests use, and its description works outside of the repository."""

import email
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("hatchling")
pytest.importorskip("hatch_fancy_pypi_readme")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Return the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory"]
    subprocess.run([*command, str(folder)], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def metadata(sdist):
    return email.message_from_string((sdist / "PKG-INFO").read_text(encoding="utf-8"))


def test_it_holds_every_folder_and_file_that_tests_use(sdist):
    for name in (".ci", "benchmarks", "docs", "examples", "src", "tests"):
        assert (sdist / name).is_dir()
    for name in ("Makefile", "constraints.txt", "mkdocs.yml", "pyproject.toml", "CONTRIBUTING.md"):
        assert (sdist / name).is_file()
    used = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"\bROOT / \"([^\"]+)\"", path.read_text(encoding="utf-8"))
        if name != "data"  # downloaded data sets, without which their tests are skipped
    }
    assert [name for name in sorted(used) if not (sdist / name).exists()] == []


def test_links_of_the_description_are_absolute(metadata):
    text = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 30
    assert [one for one in targets if not one.startswith(("https://", "#"))] == []
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert all(one.startswith("https://raw.githubusercontent.com/") for one in images)


def test_every_link_of_the_description_is_a_file_of_the_repository(metadata):
    found = re.findall(r"perceivers/(?:blob/)?main/([^)#]+)", metadata.get_payload())
    assert len(found) > 20
    assert [name for name in found if not (ROOT / name).exists()] == []


def test_the_project_has_addresses(metadata):
    names = {line.partition(",")[0] for line in metadata.get_all("Project-URL")}
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= names


@pytest.mark.slow
def test_the_tests_of_the_distribution_are_collected(sdist):
    environment = {**os.environ, "PYTHONPATH": str(sdist / "src"), "JAXTYPING_DISABLE": "1"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-o", "addopts=--import-mode=importlib"],
        cwd=sdist,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
