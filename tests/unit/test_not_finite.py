import json

import numpy as np
import pytest

from perceivers.evaluation.evaluate import evaluate_run
from perceivers.explain.attribution.explain import explain_sample
from perceivers.tasks.prediction import NonFiniteOutputError
from support.cli import run_command
from support.models import save_untrained


@pytest.fixture
def run(tmp_path):
    return save_untrained(tmp_path / "run", "array")


@pytest.fixture
def data(tmp_path):
    """Arrays of two classes, one of which holds values that overflow."""
    for place, label in enumerate(("low", "high")):
        for number in range(4):
            path = tmp_path / "data" / label / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((5, 3), place + 0.1 * number, np.float32))
    np.save(tmp_path / "data" / "low" / "far.npy", np.full((5, 3), 3e38, np.float32))
    return tmp_path / "data"


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_predict_names_the_sample_and_predicts_the_others(run, data, form):
    status, out, err = run_command("predict", run, data / "low", "--format", form)
    assert status == 1
    assert f"{data / 'low' / 'far.npy'}: the model has no finite output for this sample" in err
    assert "far.npy" not in out
    assert "nan" not in out.lower()
    assert "3.npy" in out
    if form == "json":
        assert len(json.loads(out)) == 4


def test_evaluate_counts_the_sample_among_the_bad_rows(run, data):
    with pytest.raises(ValueError, match=r"1 of 9 rows .* no finite output"):
        evaluate_run(run, data, split="train", device="cpu")
    found = evaluate_run(run, data, split="train", device="cpu", max_bad=0.2)
    assert found.num_samples == 8
    ((name, reason),) = found.bad
    assert name.endswith("far.npy")
    assert "no finite output" in reason
    assert all(np.isfinite(value) for value in found.metrics.values())


def test_explain_refuses_the_sample(run, data, tmp_path):
    with pytest.raises(NonFiniteOutputError, match=r"far\.npy: the model has no finite output"):
        explain_sample(run, data / "low" / "far.npy")
    out = tmp_path / "map.html"
    status, _, err = run_command("explain", run, data / "low" / "far.npy", "--out", out)
    assert status == 1
    assert "no finite output" in err
    assert not out.exists()
