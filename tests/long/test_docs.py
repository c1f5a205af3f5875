"""Run all commands and Python blocks of the documentation pages, in order, on small synthetic data."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

from perceivers.cli.main import main
from support.docs import ROOT, blocks, commands, promised, shortened, steps, words_of
from support.docs_data import DATA, make_data

QUICK = ("audio", "text", "arrays", "flow")
PAGES = {name: ROOT / "docs" / f"{name}.md" for name in DATA if name != "README"}


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.quick] * (page in QUICK)) for page in PAGES]
)
def test_every_command_of_a_page_does_what_it_says(page, tmp_path, monkeypatch, capsys):
    make_data(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for step in steps(PAGES[page]):
        if step.skipped:
            continue
        if step.language == "python":
            exec(compile(step.text, page, "exec"), {"__name__": page})
            continue
        assert step.text.startswith("perceivers "), f"state in {page}.md why this is not run"
        words, target = words_of(step.text, tmp_path)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = main(shortened(words))
        assert status == 0, f"{step.text}\n{out.getvalue()}\n{capsys.readouterr().err}"
        for path in promised(words):
            assert path.exists(), step.text
        if target:
            Path(target).write_text(out.getvalue())


@pytest.mark.quick
def test_every_command_of_the_readme_does_what_it_says(tmp_path, monkeypatch, capsys):
    make_data("README", tmp_path)
    monkeypatch.chdir(tmp_path)
    session = commands(blocks(ROOT / "README.md", "console"))
    lines = [line for line in session if line.startswith("perceivers ")]
    assert [line.split()[1] for line in lines] == ["fit", "evaluate", "predict", "explain"]
    for line in lines:
        words, _ = words_of(line, tmp_path)
        assert main(shortened(words)) == 0, capsys.readouterr().err
        assert all(path.exists() for path in promised(words)), line


@pytest.mark.quick
@pytest.mark.parametrize(
    ("page", "text", "why"),
    [
        (name, step.text, step.skipped)
        for name, path in PAGES.items()
        for step in steps(path)
        if step.skipped
    ],
    ids=lambda value: value.splitlines()[0][:40].replace("/", "|"),
)
def test_blocks_that_are_not_run_state_why(page, text, why):
    assert len(why) > 8
    pytest.skip(f"{page}.md: {why}")


def section(title):
    text = PAGES["migration"].read_text()
    return text.partition(f"## From {title}\n")[2].partition("\n## ")[0]


def arguments(function):
    names = inspect.signature(function).parameters
    return {name for name in names if name != "self" and not name.startswith("_")}


def test_migration_names_every_argument_of_lucidrains():
    theirs = pytest.importorskip("perceiver_pytorch")
    for model in (theirs.Perceiver, theirs.PerceiverIO):
        table = section("lucidrains' perceiver-pytorch").partition(f"`{model.__name__}(...)`")[2]
        rows = " ".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE))
        assert arguments(model) <= set(re.findall(r"`(\w+)`", rows))


def test_migration_names_every_field_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    rows = " ".join(re.findall(r"^\| (`[^|]*) \|", section("Hugging Face"), re.MULTILINE))
    general = arguments(transformers.PreTrainedConfig)
    assert arguments(transformers.PerceiverConfig) - general <= set(re.findall(r"`(\w+)`", rows))
