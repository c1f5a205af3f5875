"""The runs behind docs/results are not part of the gate, but they must not rot."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from perceivers.recipes import get_recipe
from support.runs import make_image_folder

pytestmark = pytest.mark.quick

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def module(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_what_is_measured_is_held_against_what_must_be_reached():
    accuracy = module("accuracy")
    said = json.dumps({"metrics": {"accuracy": 0.98612, "epe": 0.153, "video_psnr": 38.84}})
    assert accuracy.measured(said, "accuracy") == 98.6
    assert accuracy.measured(said, "epe") == 0.153
    with pytest.raises(SystemExit, match="Expected a measure 'loss', got accuracy, epe"):
        accuracy.measured(said, "loss")
    known = {one.name: one for one in accuracy.EXPERIMENTS}
    assert known["digits"].holds(98.6)
    assert not known["digits"].holds(96.0)
    assert known["flow"].holds(0.153)
    assert not known["flow"].holds(0.5)


def test_missing_data_are_skipped_and_said_so(tmp_path, capsys):
    accuracy = module("accuracy")
    experiment = next(e for e in accuracy.EXPERIMENTS if e.name == "cifar10")
    assert accuracy.run(experiment, tmp_path, tmp_path) is None
    assert "cifar10: skipped, there is no" in capsys.readouterr().out


def test_reading_and_stepping_are_measured(monkeypatch, tmp_path):
    throughput = module("throughput")
    threads = "set_num_threads"  # those of the tests
    monkeypatch.setattr(throughput.torch, threads, lambda count: None)
    recipe = get_recipe("images")
    few = replace(recipe, training=replace(recipe.training, batch_size=4))
    monkeypatch.setattr(throughput, "get_recipe", lambda name, size: few)
    pictures = make_image_folder(tmp_path, count=25)
    bench = throughput.Bench(
        "images", None, str(pictures), device=throughput.torch.device("cpu"), workers=0
    )
    found = throughput.row(bench, bench.measure(steps=4, repeats=1))
    assert all(rate > 0 for rate in found["samples_per_second"].values())
    assert 0 <= found["waiting"] <= 1
    assert 0 <= found["waiting in turn"] <= 1
