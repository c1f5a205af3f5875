import importlib.util
import json

import torch

from perceivers.runs.report import write_report
from perceivers.runs.summary import RunSummary, command_line


def facts(**changes):
    known = {
        "name": "images",
        "command": "perceivers fit birds/",
        "metrics": {"accuracy": 0.5, "loss": 1.25, "samples": 1200.0},
        "main_metric": "accuracy",
        "num_parameters": 1_234_567,
        "steps": 1000,
        "best_step": 900,
        "epochs": 12.5,
        "seconds": 61.0,
        "device": "1 x cpu, float32",
        "label_names": ("wren", "robin"),
    }
    return RunSummary(**{**known, **changes})


def test_the_table_says_what_the_run_was(tmp_path):
    (tmp_path / "evaluation-test.json").touch()  # of the weights before
    write_report(tmp_path, facts())
    assert not (tmp_path / "evaluation-test.json").exists()
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(f"# {tmp_path.name}\n")
    for line in (
        "| validation accuracy | 50.00% |",
        "| validation loss | 1.25 |",
        "| validation samples | 1,200 |",
        "| weights saved | those of step 900, best by accuracy |",
        "| parameters | 1,234,567 |",
        "| trained | 1,000 steps, 12.5 epochs |",
        "| time | 1 min 01 s |",
        "| command | `perceivers fit birds/` |",
    ):
        assert line in text
    assert "could not be read" not in text
    assert "curves.png" not in text  # there is no metrics.jsonl to draw


def test_classes_are_listed_hardest_first_with_what_they_were_taken_for(tmp_path):
    confusion = torch.tensor([[9, 1, 0], [5, 5, 0], [0, 0, 0]])
    write_report(tmp_path, facts(confusion=confusion, label_names=("a", "b", "absent")))
    lines = (tmp_path / "report.md").read_text().splitlines()
    first = lines.index("| b | 10 | 50.0% | a (5) |")
    assert lines[first + 1] == "| a | 10 | 90.0% | b (1) |"
    assert not any("absent" in line for line in lines)
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_many_classes_are_shortened(tmp_path):
    names = tuple(f"class {i}" for i in range(40))
    write_report(tmp_path, facts(confusion=torch.eye(40).long(), label_names=names))
    assert "and 10 more." in (tmp_path / "report.md").read_text()


def test_curves_are_drawn_from_the_metrics(tmp_path):
    rows = [
        {"step": s, "lr": 0.1, "train/loss": 1 / s, "validation/accuracy": 0.1 * s} for s in (1, 2)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_report(tmp_path, facts())
    assert "![Loss, metric and learning rate](curves.png)" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_report_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_report(tmp_path, facts(confusion=torch.eye(2).long()))
    assert 'pip install "perceivers[viz]"' in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "confusion.png").exists()


def test_notes_and_bad_rows_are_kept(tmp_path):
    bad = [(f"{i}.jpg", "truncated") for i in range(60)]
    write_report(tmp_path, facts(notes=["Recognized a folder."], bad=bad))
    text = (tmp_path / "report.md").read_text()
    assert "- Recognized a folder." in text
    assert "60 rows were left out." in text
    assert "- `0.jpg`: truncated" in text
    assert "- and 10 more" in text


def test_the_command_is_what_one_would_type(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/perceivers", "fit", "my birds", "--size", "tiny"])
    assert command_line() == "perceivers fit 'my birds' --size tiny"
    monkeypatch.setattr("sys.argv", [""])
    assert command_line() == "python"


def test_labels_are_listed_worst_first(tmp_path):
    details = [{"AP": 0.9, "n": 3.0}, {"AP": 0.25, "n": 2.0}, {"AP": None, "n": 0.0}]
    metrics = {"mAP": 0.575, "samples": 5.0}
    names = ("dog", "rain", "absent")
    write_report(
        tmp_path, facts(main_metric="mAP", metrics=metrics, details=details, label_names=names)
    )
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| validation mAP | 57.50% |" in lines
    first = lines.index("| rain | 25.00% | 2 |")
    assert lines[first + 1] == "| dog | 90.00% | 3 |"
    assert "## Labels" in lines
    assert not any("absent" in line for line in lines)


def test_numbers_are_listed_as_they_come(tmp_path):
    details = [{"rmse": 2.0, "r2": 0.5}] * 40
    names = tuple(f"x[{index}]" for index in range(40))
    write_report(tmp_path, facts(details=details, label_names=names))
    text = (tmp_path / "report.md").read_text()
    assert "## Numbers" in text
    assert "| x[0] | 2 | 0.5 |" in text
    assert "and 10 more." in text
