import json

import pytest

from perceivers.models.perceiver import build
from perceivers.runs.record import read_run
from support.runs import make_finished_run, save_run


def test_a_run_that_has_ended(tmp_path):
    run = read_run(make_finished_run(tmp_path / "a"))
    assert (run.name, run.state, run.main_metric) == ("a", "ended", "accuracy")
    assert run.metrics == {"validation": {"accuracy": 0.75, "loss": 0.1, "samples": 8.0}}
    assert run.samples_per_second == 20 * 16 / 4
    assert run.data == str(tmp_path / "birds")
    assert run.cost.num_parameters == sum(p.numel() for p in build(run.model).parameters())


def test_a_run_that_has_not_ended_tells_its_best_so_far(tmp_path):
    run = read_run(make_finished_run(tmp_path / "a", ended=False))
    assert run.state == "unfinished, 20 steps done"
    assert run.metrics["validation"] == {"loss": 0.1, "accuracy": 0.75, "samples": 8.0}
    assert (run.steps, run.seconds, run.data, run.summary) == (20, 4.0, None, None)


def test_a_run_before_its_first_report(tmp_path):
    folder = make_finished_run(tmp_path / "a", ended=False)
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    assert run.state == "unfinished, before a report"
    assert (run.metrics, run.steps, run.seconds, run.samples_per_second) == ({}, None, None, None)


def test_a_model_that_was_saved_by_hand_has_a_cost_and_no_curves(tmp_path):
    run = read_run(save_run(tmp_path / "hand"))
    assert (run.recipe, run.summary, run.metrics, run.rows) == (None, None, {}, [])
    assert run.task_config.kind == "classification"
    assert run.model.encoder.num_latents == 4


def test_what_was_evaluated_is_told_by_split(tmp_path):
    folder = make_finished_run(tmp_path / "a")
    told = {"split": "test", "metrics": {"accuracy": 0.5}}
    (folder / "evaluation-test.json").write_text(json.dumps(told))
    assert read_run(folder).metrics["test"] == {"accuracy": 0.5}
    (folder / "evaluation-test.json").write_text("{}")
    with pytest.raises(ValueError, match="Remove it, and measure again"):
        read_run(folder)


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(OSError, match="does not exist"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"neither recipe.yaml nor config.json"):
        read_run(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="is a file"):
        read_run(file)


def test_truncated_weights_are_told(tmp_path):
    path = make_finished_run(tmp_path / "a") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OSError, match="truncated"):
        read_run(path.parent)
