"""The examples do what they say, in small. Those of shards are tested with what they use."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from support.cli import torchrun
from support.models import save_generating
from support.runs import make_finished_run, make_image_folder

pytestmark = pytest.mark.quick

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_is_short_and_says_how_it_is_run(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert f"examples/{path.name}" in ast.get_docstring(ast.parse(text))


def test_a_custom_input_is_learned():
    assert load("custom_input").main(steps=40, num_events=64) > 0.5


def test_a_custom_head_estimates_its_error():
    error, deviation = load("custom_head").main(steps=12)
    assert 0 < error < 0.5
    assert 0 < deviation < 1


def test_a_text_is_printed_as_it_is_generated(tmp_path, capsys):
    run = save_generating(tmp_path / "run")
    found = load("generate_text").main(str(run), "the cat", length=9)
    assert capsys.readouterr().out == f"the cat{found}\n"


def test_a_custom_task_works_everywhere(tmp_path):
    data = make_image_folder(tmp_path / "birds", count=6)
    found = load("custom_task").main(str(tmp_path / "run"), str(data), max_steps=2)
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert (tmp_path / "run" / "export" / "model.pt2").exists()
    assert "kind: focal" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.slow
def test_ways_of_fine_tuning_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_finished_run(tmp_path / "run")
    data = make_image_folder(tmp_path / "rare", labels=("a", "b", "c"), count=4)
    found = load("fine_tuning").main(str(run), str(data), str(tmp_path / "out"), max_epochs=1)
    assert found.keys() == {"all weights", "frozen encoder", "low-rank updates", "from scratch"}
    assert (tmp_path / "out" / "all-weights" / "init.json").exists()
    assert (tmp_path / "out" / "frozen-encoder" / "latents").is_dir()
    assert not (tmp_path / "out" / "from-scratch" / "init.json").exists()


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    data = make_image_folder(tmp_path / "birds", count=10)
    options = ["--max-steps", "2", "--batch-size", "4"]
    out = torchrun(EXAMPLES / "distributed.py", data, "run", *options, cwd=tmp_path)
    assert out.count("2 processes: ") == 1
    assert "| device | 2 x cpu, float32 |" in (tmp_path / "run" / "report.md").read_text()


def run_notebook(name, **numbers):
    """Run the cells of a notebook with other values of some numbers, and return its variables."""
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    names = {"__name__": "notebook"}
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            exec(compile(text, "cell", "exec"), names)
            names |= {name: number for name, number in numbers.items() if name in names}
    return names


@pytest.mark.slow
def test_the_notebook_of_first_steps_runs_cell_by_cell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_notebook("first_steps", max_steps=4)
    assert names["measured"].num_samples == 359
    assert names["prediction"].label in "0123456789"
    assert "test accuracy: " in capsys.readouterr().out
    assert Path("digits.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_notebook_of_fine_tuning_runs_cell_by_cell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_notebook("fine_tuning", pretraining_steps=4, steps=2)
    ways = {"all weights", "frozen encoder", "low-rank updates", "from scratch"}
    assert names["accuracies"].keys() == ways
    assert all(0 < accuracy < 1 for accuracy in names["accuracies"].values())
    assert any((tmp_path / "frozen" / "latents").iterdir())
    started = json.loads((tmp_path / "tuned" / "init.json").read_text())
    assert all(name.startswith("output.") for name in started["fresh"])
    assert len(names["nearest"]) == 5
    assert "the nearest neighbors of a " in capsys.readouterr().out
