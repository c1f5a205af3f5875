"""The checker of prose and names, .ci/prose.py."""

import importlib.util

import pytest

from support.docs import ROOT


@pytest.fixture(scope="module")
def prose():
    spec = importlib.util.spec_from_file_location("prose", ROOT / ".ci" / "prose.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = [
    '"""Optimizer and learning-rate schedule."""',
    '"""Return whether the run is complete."""',
    '"""Whether the run is complete."""',
    '"""Return the number of rows, and how they are sorted."""',
    '"""Point clouds from OFF files, also in cloud storage."""',
    '"""Accuracy at chance level."""',
    '"""The class `Picture` of "Say it with films"."""',
    'def f(folder):\n    """Load a run.\n\n    Args:\n        folder: Folder of the run.\n    """',
    '"""Fourier features.\n\nReference:\n    Section 3.2.\n"""',
    "image = untold = 1",
    'x = "What a picture"',
    'raise ValueError(f"Expected an image, got {name!r}.")',
]
BAD = [
    ('"""What a run has learned."""', "opening", 1),
    ('"""Return what the run has learned."""', "opening", 1),
    ('def f():\n    """How weights follow the gradient."""', "opening", 2),
    ('class A:\n    """Which columns are read."""', "opening", 2),
    ('x = 1\n"""Of the run."""', "opening", 2),
    ('def f(a):\n    """Load.\n\n    Args:\n        a: Of the run.\n    """', "description", 5),
    (
        'def f(a):\n    """Load.\n\n    Args:\n        a (int): What is read.\n    """',
        "description",
        5,
    ),
    ('def f(a):\n    """Load.\n\n    Args:\n        a: As above.\n    """', "description", 5),
    ('"""Fourier features.\n\nSource:\n    Section 3.2.\n"""', "description", 3),
    ('"""Decode a picture."""', "word", 1),
    ('"""A\n\nThe file tells\nits length."""', "word", 3),
    ('"""Sources of chance."""', "word", 1),
    ('"""Clouds of points."""', "word", 1),
    ('raise ValueError(f"No picture in {name}.")', "message", 1),
    ("def picture_size(): ...", "identifier", 1),
    ("class FilmDecoder: ...", "identifier", 1),
    ("def f(sound): ...", "identifier", 1),
    ("self.asked = told[0] = 1", "identifier", 1),
]


@pytest.mark.parametrize("text", GOOD)
def test_good_prose_passes(prose, text):
    assert prose.check(text) == []


@pytest.mark.parametrize(("text", "rule", "line"), BAD)
def test_bad_prose_is_found_with_its_line(prose, text, rule, line):
    (violation,) = prose.check(text)
    assert (violation.rule, violation.line) == (rule, line)


def test_more_violations_than_the_budget_fail(prose, tmp_path, monkeypatch, capsys):
    file = tmp_path / "bad.py"
    file.write_text('"""What is there."""\n')
    monkeypatch.setattr(prose, "BUDGET", 1)
    assert prose.main([file]) == 0
    monkeypatch.setattr(prose, "BUDGET", 0)
    assert prose.main([file]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith(f"{file}:1: opening: ")
    assert lines[-1] == "Prose: 1 violations (1 opening); the budget is 0."
