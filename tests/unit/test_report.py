import importlib.util
import json
import re

import pytest
import torch

from perceivers.runs.report import curve_points, write_report
from perceivers.runs.sentences import overfitting_sentence
from perceivers.runs.summary import (
    MemberSummary,
    RunSummary,
    command_line,
    meter_results,
    read_summary,
)
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.training.views import views_sentence


def facts(**changes):
    known = {
        "name": "images",
        "command": "perceivers fit birds/",
        "metrics": {"accuracy": 0.5, "loss": 1.25, "samples": 1200.0},
        "intervals": {"accuracy": (0.4718, 0.5282)},
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
        "| validation accuracy | 50.0 % (47.2 to 52.8) |",
        "| validation loss | 1.2500 |",
        "| validation samples | 1,200 |",
        "| weights saved | those of step 900 |",
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
    assert "| class | rows | recall | precision | most often taken for |" in lines
    recall, precision = "50.0 % (23.7 to 76.3)", "83.3 % (43.6 to 97.0)"
    first = lines.index(f"| b | 10 | {recall} | {precision} | a (5) |")
    recall, precision = "90.0 % (59.6 to 98.2)", "64.3 % (38.8 to 83.7)"
    assert lines[first + 1] == f"| a | 10 | {recall} | {precision} | b (1) |"
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
    assert "- 0.jpg: truncated" in text
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
    intervals = ({"AP": (0.8, 0.99)}, {"AP": (0.1, 0.4)}, {})
    known = {"metrics": metrics, "intervals": {}, "label_names": names}
    write_report(
        tmp_path, facts(main_metric="mAP", details=details, detail_intervals=intervals, **known)
    )
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "| validation mAP | 57.5 % |" in lines
    first = lines.index("| rain | 25.0 % (10.0 to 40.0) | 2 |")
    assert lines[first + 1] == "| dog | 90.0 % (80.0 to 99.0) | 3 |"
    assert "## Labels" in lines
    assert not any("absent" in line for line in lines)


def test_numbers_are_listed_as_they_come(tmp_path):
    details = [{"rmse": 2.0, "r2": 0.5}] * 40
    names = tuple(f"x[{index}]" for index in range(40))
    write_report(tmp_path, facts(details=details, label_names=names))
    text = (tmp_path / "report.md").read_text()
    assert "## Numbers" in text
    assert "| x\\[0\\] | 2 | 0.5 |" in text
    assert "and 10 more." in text


def test_few_rows_are_a_warning_beside_the_number_of_rows(tmp_path):
    write_report(tmp_path, facts(metrics={"accuracy": 0.75, "samples": 4.0}))
    text = (tmp_path / "report.md").read_text()
    assert "Metrics of the validation split (4 rows), with 95 % confidence intervals." in text
    assert "The validation split has only 4 rows: its metrics are uncertain" in text
    members = [MemberSummary(rows=2, step=1, steps=1, seconds=1.0)] * 2
    write_report(tmp_path, facts(metrics={"accuracy": 0.75, "samples": 4.0}, members=members))
    text = (tmp_path / "report.md").read_text()
    assert "The data have only 4 rows: the metrics are uncertain" in text
    assert "validation split" not in text
    write_report(tmp_path, facts())
    text = (tmp_path / "report.md").read_text()
    assert "validation split (1,200 rows)" in text
    assert "uncertain" not in text
    write_report(tmp_path, facts(bad=[("a.png", "truncated")]))
    assert "\n1 row was left out.\n" in (tmp_path / "report.md").read_text()


def test_names_of_classes_and_notes_are_no_markup(tmp_path):
    names = ("a|b", "<script>")
    confusion = torch.tensor([[3, 1], [0, 4]])
    write_report(tmp_path, facts(confusion=confusion, label_names=names, notes=["[x](http://y)"]))
    text = (tmp_path / "report.md").read_text()
    assert "<script>" not in text
    assert "| a\\|b | 4 |" in text
    assert "[x](http" not in text


def test_calibration_and_curves_are_drawn_and_described(tmp_path):
    logits = 3 * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(300, generator=torch.Generator().manual_seed(1)) < logits.softmax(1)[:, 1]
    meter = ClassificationTask(ClassificationConfig(label_names=("no", "yes"))).meter()
    meter.update(logits * 4, truth.long())
    known = {"label_names": ("no", "yes"), **meter_results(meter)}
    write_report(tmp_path, facts(metrics=meter.compute(), **known))
    text = (tmp_path / "report.md").read_text()
    assert re.search(r"temperature [34]\.\d+, fitted to 300 rows of validation", text)
    assert "Of yes: area under the ROC curve 0.9" in text
    for name in ("reliability.png", "roc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in text
    found = read_summary(tmp_path)
    assert found is not None
    assert found.calibration == known["calibration"]
    assert found.curves == known["curves"]
    assert found.intervals == known["intervals"]


def test_a_point_of_training_that_averages_a_single_step_does_not_spike():
    steps = [50, 100, 101, 150, 200, 202]
    losses = [2.0, 1.5, 9.0, 1.2, 1.0, 5.0]
    rows = [{"step": s, "train/loss": v} for s, v in zip(steps, losses, strict=True)]
    points = curve_points(rows, "train/loss")
    assert [step for step, _ in points] == [50, 101, 150, 202]
    assert points[1][1] == pytest.approx((50 * 1.5 + 9.0) / 51)
    assert points[3][1] == pytest.approx((50 * 1.0 + 2 * 5.0) / 52)
    alone = [{"step": 3, "train/loss": 1.0}]
    assert curve_points(alone, "train/loss") == [(3, 1.0)]
    measured = [{"step": s, "validation/loss": 1.0} for s in (100, 101)]
    assert len(curve_points(measured, "validation/loss")) == 2


def test_averaged_views_are_stated_with_both_numbers():
    task = ClassificationTask(ClassificationConfig(label_names=("a", "b")))
    plain = {"accuracy": 0.9, "loss": 0.3}
    better, worse = ({"accuracy": a, "loss": b} for a, b in ((0.91, 0.25), (0.9, 0.35)))
    text = views_sentence(task, better, plain)
    assert "validation accuracy 91.0 % instead of 90.0 %, loss 0.2500 instead of 0.3000." in text
    text = views_sentence(task, worse, plain)
    assert text.startswith("Predictions are not averaged")
    assert text.endswith("accuracy 90.0 % with and without, loss 0.3500 instead of 0.3000.")


def test_memorized_training_data_are_a_sentence():
    def rows(train, validation, losses):
        return [
            {
                "step": 10 * (i + 1),
                "train/loss": 0.01,
                "train/accuracy": train,
                "validation/accuracy": a,
                "validation/loss": b,
            }
            for i, (a, b) in enumerate(zip(validation, losses, strict=True))
        ]

    text = overfitting_sentence(rows(1.0, [0.6, 0.7, 0.62], [0.9, 0.7, 1.4]), "accuracy")
    assert "memorized its training data (overfitting)" in text
    assert "accuracy 100.0 % in training, 62.0 % in validation" in text
    assert "from 0.7 at step 20 to 1.4" in text
    assert overfitting_sentence(rows(1.0, [0.9, 0.98, 0.98], [0.9, 0.1, 0.1]), "accuracy") == ""
    assert overfitting_sentence(rows(0.7, [0.6, 0.7, 0.6], [0.9, 0.7, 1.4]), "accuracy") == ""
    text = overfitting_sentence(rows(0.92, [0.6, 0.7, 0.3], [0.9, 0.7, 1.4]), "accuracy")
    assert "fits its training data much better than validation (overfitting)" in text
    many = [
        {**row, "step": 10 * row["step"]} for row in rows(1.0, [0.6, 0.7, 0.6], [0.9, 0.7, 1.4])
    ]
    many.append({**many[-1], "step": many[-1]["step"] + 1, "train/accuracy": 0.5})  # of one step
    assert "accuracy 99.5 % in training" in overfitting_sentence(many, "accuracy")
    assert overfitting_sentence([], "accuracy") == ""
    text = overfitting_sentence(rows(1.0, [0.9, 0.95, 0.92], [0.2, 0.19, 0.19]), "accuracy")
    assert "92.0 % in validation; the highest in validation was 95.0 %." in text
    assert "loss 0.01 in training" in overfitting_sentence(rows(0, [0, 0, 0], [2.0, 1, 3]), "mae")


def test_training_data_that_were_memorized_are_named_with_what_to_do():
    def log(train, validation, samples):
        numbers = {"validation/accuracy": validation, "validation/samples": samples}
        return [{"step": 50, "train/accuracy": train, "validation/loss": 0.5, **numbers}]

    text = overfitting_sentence(log(1.0, 0.8, 200), "accuracy")  # although its loss never rose
    assert (
        "memorized its training data (overfitting): at the end accuracy 100.0 % in training" in text
    )
    assert "--preset best" in text
    assert overfitting_sentence(log(1.0, 0.75, 4), "accuracy") == ""  # one row of four
    assert overfitting_sentence(log(0.95, 0.6, 200), "accuracy") == ""
    assert overfitting_sentence(log(1.0, 0.95, 2000), "accuracy") == ""


def test_class_names_are_neither_formulas_nor_markup(tmp_path):
    names = (r"$\bad{$", "<b>|\x1b[31m", "[a](http://b.c)")
    counts = torch.eye(3, dtype=torch.long)
    write_report(tmp_path, facts(label_names=names, confusion=counts))
    text = (tmp_path / "report.md").read_text()
    assert r"| \<b\>\|\\x1b\[31m |" in text
    assert r"| \[a\](http\://b.c) |" in text
    assert (tmp_path / "confusion.png").exists()


def test_names_of_bad_rows_that_are_not_utf8_are_kept(tmp_path):
    bad = [("caf\udce9.png", "damaged")]
    write_report(tmp_path, facts(bad=bad))
    assert "caf\\\\xe9.png: damaged" in (tmp_path / "report.md").read_text()
    found = read_summary(tmp_path)
    assert [tuple(row) for row in found.bad] == bad


def test_members_are_numbered_as_in_the_terminal(tmp_path):
    members = [MemberSummary(rows=4, step=9, steps=9, seconds=1.0, value=0.5, loss=1.0)]
    write_report(tmp_path, facts(members=members, epochs=1.0))
    text = (tmp_path / "report.md").read_text()
    assert "| 1 | 4 | 50.0 % | 1.0000 | 9 | 9 | 1 s |" in text
    assert "| trained | 1,000 steps, 1 epoch |" in text
