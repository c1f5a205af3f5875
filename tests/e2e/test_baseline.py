"""A simple baseline beside a run: in the terminal, the reports and comparisons; errors never end a run."""

import json

import pytest

import perceivers as pv
from perceivers.runs.summary import read_summary
from support.cli import SMALL, run_command

pytestmark = pytest.mark.usefixtures("simple_baselines", "undrawn_figures")

FLAGS = [flag for flag in SMALL if flag != "--no-baseline"]


@pytest.fixture
def texts(tmp_path):
    """Write a table of short texts whose class is in their words."""
    rows = ["text,label"]
    rows += [
        f"it was {'good' if n % 2 else 'bad'} number {n},{'yes' if n % 2 else 'no'}"
        for n in range(60)
    ]
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_run_states_a_better_baseline_and_resuming_keeps_it(texts, tmp_path, monkeypatch):
    run, other = tmp_path / "run", tmp_path / "other"
    status, out, err = run_command("fit", texts, "--columns", "text:text", *FLAGS, "--out", run)
    assert status == 0, err
    assert "(simple baseline: 100.0 %, logistic regression on word and character n-grams; " in err
    found = read_summary(run).baseline
    assert found is not None
    assert (found.metric, found.value, found.train_rows, found.rows) == ("accuracy", 1.0, 54, 6)
    assert json.loads((run / "report.json").read_text())["baseline"]["value"] == 1.0
    assert "| simple baseline accuracy | 100.0 %, logistic" in (run / "report.md").read_text()

    def refused(*_, **__):
        raise AssertionError("it was fitted again")

    monkeypatch.setattr("perceivers.training.baseline.fit_baseline", refused)
    again = [*FLAGS, "--max-steps", "3", "--resume", "--out", run]
    assert run_command("fit", texts, "--columns", "text:text", *again)[0] == 0
    assert read_summary(run).baseline == found
    without = [*FLAGS, "--no-baseline", "--out", other]
    status, out, err = run_command("fit", texts, "--columns", "text:text", *without)
    assert status == 0
    assert "baseline" not in out + err
    assert read_summary(other).baseline is None
    status, out, _ = run_command("compare", run, other)
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("simple baseline"))
    assert line.split() == ["simple", "baseline", "100.0", "%", "-"]


def test_the_baseline_of_folds_is_scored_out_of_fold(texts, tmp_path):
    run = tmp_path / "run"
    flags = [*FLAGS, "--folds", "2", "--max-steps", "1", "--out", run]
    status, _, err = run_command("fit", texts, "--columns", "text:text", *flags)
    assert status == 0, err
    found = read_summary(run).baseline
    assert (found.value, found.train_rows, found.rows) == (1.0, 30, 60)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ValueError("two\nlines.")])
def test_an_error_of_the_baseline_is_a_note(tmp_path, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("perceivers.training.baseline.fit_baseline", failing)
    data = {"x": [0.0, 1.0] * 20, "label": ["a", "b"] * 20}
    options = {"columns": {"x": "number"}, "max_steps": 1, "workers": 0, "progress": False}
    run = pv.fit(data, out=tmp_path / "run", size="tiny", **options)
    summary = read_summary(run.folder)
    assert summary.baseline is None
    expected = {
        KeyboardInterrupt: "was interrupted",
        MemoryError: "no simple baseline to compare with: MemoryError.",
        ValueError: "no simple baseline to compare with: two lines.",
    }
    assert any(expected[type(error)] in note for note in summary.notes)


def test_a_table_from_python_has_a_baseline_unless_switched_off(tmp_path):
    data = {"x": [0.1 * n for n in range(60)], "label": [0.5 * n for n in range(60)]}
    options = {"columns": {"x": "number"}, "max_steps": 1, "workers": 0, "progress": False}
    run = pv.fit(data, out=tmp_path / "run", size="tiny", **options)
    found = read_summary(run.folder).baseline
    assert found is not None
    assert found.metric == "rmse"
    run = pv.fit(data, out=tmp_path / "plain", size="tiny", baseline=False, **options)
    assert read_summary(run.folder).baseline is None
