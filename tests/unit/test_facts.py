import json

import pytest
import torch

from perceivers.runs.summary import RunSummary, TaskSummary, read_summary, versions, write_summary


def facts(**changes):
    known = {
        "name": "images",
        "command": "perceivers fit birds/",
        "metrics": {"accuracy": 0.5},
        "main_metric": "accuracy",
        "num_parameters": 12,
        "steps": 10,
        "best_step": 9,
        "epochs": 1.5,
        "seconds": 61.0,
        "device": "1 x cpu, float32",
    }
    return RunSummary(**{**known, **changes})


def test_facts_are_read_as_they_were_written(tmp_path):
    counts = torch.tensor([[3, 1], [0, 4]])
    part = TaskSummary(label_names=["a", "b"], confusion=counts, details=[])
    written = facts(
        label_names=["x"],
        details=[{"r2": 0.5, "AP": None}],
        notes=["Größe"],
        bad=[("a.png", "truncated")],
        tasks={"kind": part},
    )
    write_summary(tmp_path, written)
    found = read_summary(tmp_path)
    assert found == written
    assert found.tasks["kind"].confusion.equal(counts)
    assert found.confusion is None


def test_a_run_without_facts_has_none(tmp_path):
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tasks": {}, "bad": [], "confusion": null}'])
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="is not what `perceivers fit` wrote"):
        read_summary(tmp_path)


def test_versions_are_those_that_compute():
    assert {"python", "torch", "perceivers"} <= versions().keys()
    assert versions()["torch"] == torch.__version__
    json.dumps(versions())
