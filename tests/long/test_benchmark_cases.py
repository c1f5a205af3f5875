"""The benchmarks compare equal models, and say what they found: in tiny shapes, whose times mean nothing."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import facts, harness, measure, table
from benchmarks.cases import CASES, find
from benchmarks.models import config_2021, ours_io, plain_2021
from benchmarks.setting import FULL, Case, Contestant, Setting, Skip, Target

from perceivers.recipes import get_recipe

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parent.parent.parent
SMOKE = Setting(smoke=True)
ONCE = measure.Budget(seconds=0.0, at_least=1, at_most=1)


def returning(**numbers):
    return lambda _: lambda: {key: torch.tensor(value) for key, value in numbers.items()}


def case(*contestants, targets=()):
    return Case(name="made-up", what="", contestants=contestants, targets=targets)


@pytest.mark.parametrize("name", [c.name for c in CASES])
def test_every_case_runs_and_its_contestants_agree(name):
    found = measure.timings(next(c for c in CASES if c.name == name), SMOKE, ONCE)
    assert found["rounds"]
    assert all(len(rounds) == 1 and rounds[0] > 0 for rounds in found["rounds"].values())
    assert all(difference < 1e-5 for difference in found["differences"].values())


def test_bfloat16_is_checked_in_float32_and_timed():
    found = measure.timings(find(["read-forward"])[0], replace(SMOKE, dtype="bfloat16"), ONCE)
    assert found["differences"]["plain"] < 1e-5
    assert set(found["rounds"]) == {"ours", "plain", "absorbed"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ({"read": [1.0, 2.1]}, "The read differs by 0.045 of its norm"),
        ({"read": [1.0, float("nan")]}, "The read differs by nan"),
        ({"written": [1.0, 2.0]}, r"do not compute the same things: \['read', 'written'\]"),
    ],
)
def test_models_that_differ_are_not_compared(number, message):
    right = Contestant(name="ours", build=returning(read=[1.0, 2.0]))
    wrong = Contestant(name="plain", build=returning(**number))
    with pytest.raises(measure.Disagreement, match=message):
        measure.timings(case(right, wrong), SMOKE, ONCE)


def test_a_small_gradient_may_show_rounding_but_not_be_another():
    def gradients(small):
        return returning(**{"gradient of a": [100.0], "gradient of b": [small]})

    ours = Contestant(name="ours", build=gradients(0.001))
    close = Contestant(name="plain", build=gradients(0.001002))
    found = measure.timings(case(ours, close), SMOKE, ONCE)
    assert found["differences"]["plain"] < 1e-6
    other = Contestant(name="plain", build=gradients(-0.001))
    with pytest.raises(measure.Disagreement, match="gradient of b differs by 2 of its norm"):
        measure.timings(case(ours, other), SMOKE, ONCE)


def test_who_cannot_run_is_skipped_with_the_reason():
    def nowhere(_):
        raise Skip("not installed")

    found = measure.timings(
        case(
            Contestant(name="ours", build=returning(read=[1.0])),
            Contestant(name="theirs", build=nowhere),
        ),
        SMOKE,
        ONCE,
    )
    assert found["skipped"] == {"theirs": "not installed"}
    with pytest.raises(Skip, match="needs 1000000 GiB of memory"):
        measure.build(Contestant(name="x", build=returning(), gib=1e6), Setting())


def test_sizes_are_the_papers():
    recipe = get_recipe("imagenet")
    config = config_2021(Setting())
    assert (config.inputs, config.encoder, config.output) == (
        recipe.inputs,
        recipe.encoder,
        recipe.output,
    )
    video = FULL.patches[3] + 3 * (2 * FULL.patch_bands + 1) + FULL.tag
    assert video == 487
    assert FULL.patches[0] * FULL.patches[1] * FULL.patches[2] == 12_544
    assert FULL.mel[0] * FULL.mel[1] == 4_800


@pytest.mark.slow
def test_the_plain_model_has_the_published_number_of_weights():
    model = plain_2021(Setting()).model
    assert sum(p.numel() for p in model.parameters()) == 44_912_254


@pytest.mark.slow
def test_io_has_the_published_number_of_weights():
    assert sum(p.numel() for p in ours_io(Setting()).model.parameters()) == 48_440_627


def test_the_highest_memory_is_seen_although_it_was_freed():
    measure.free(SMOKE)  # what earlier tests left behind would be used again
    before, peak = measure.watch_resident()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    del block
    assert peak() - before > 60 * measure.MIB


def row(**changes):
    parts = {
        "ours": {"rounds": [1.0, 1.0, 2.0], "peak_mib": 300.0, "over_mib": 20.0},
        "plain": {"rounds": [8.0, 9.0, 20.0], "peak_mib": 600.0, "over_mib": 500.0},
    }
    return {"contestants": parts, "skipped": {"theirs": "not installed"}} | changes


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(description="", of="plain", to="ours", at_least=8.0), 9.0, True),
        (Target(description="", of="plain", to="ours", at_least=9.5), 9.0, False),
        (
            Target(description="", of="ours", to="plain", quantity="peak_mib", at_most=0.4),
            0.5,
            False,
        ),
        (Target(description="", of="ours", quantity="over_mib", at_most=20.0), 20.0, True),
        (Target(description="", of="plain", to="ours"), 9.0, None),
    ],
)
def test_targets_are_judged(target, value, met):
    verdict = harness.judged(target, row(), Setting())
    assert verdict["value"]["median"] == value
    assert verdict["met"] is met
    assert harness.judged(target, row(), SMOKE)["met"] is None


def test_a_target_without_its_contestant_says_why():
    target = Target(description="times the speed", of="theirs", to="ours", at_least=1.0)
    verdict = harness.judged(target, row(), Setting())
    assert (verdict["met"], verdict["why"]) == (None, "not installed")
    assert table.target(verdict) == "- times the speed: not installed"
    broken = row()
    broken["contestants"]["ours"]["error"] = "killed"
    target = Target(description="", of="plain", to="ours", quantity="peak_mib")
    assert harness.judged(target, broken, Setting())["why"] == "killed"


def test_a_row_is_replaced_and_another_machine_begins_anew(tmp_path):
    path = tmp_path / "cpu.json"
    for name, number in (("a", 1), ("b", 2), ("a", 3)):
        found = {"case": name, "dtype": "float32", "number": number}
        results = harness.merged(path, {"cores": 2}, {"day": "today"}, found)
        path.write_text(json.dumps(results))
    assert [r["number"] for r in results["cases"]] == [3, 2]
    results = harness.merged(path, {"cores": 4}, {"day": "today"}, found)
    assert [r["number"] for r in results["cases"]] == [3]


@pytest.mark.slow
def test_the_command_measures_time_and_memory_and_the_page_takes_them(tmp_path):
    path = tmp_path / "cpu.json"
    options = ["--smoke", "--only", "clip-forward", "--rounds", "1"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--out", str(path)], cwd=ROOT, check=True
    )
    results = json.loads(path.read_text())
    assert [r["case"] for r in results["cases"]] == ["clip-forward"]
    for found in results["cases"]:
        for contestant in found["contestants"].values():
            assert contestant["seconds"]["median"] > 0
            assert contestant["peak_mib"] > 100 > contestant["over_mib"]

    page = tmp_path / "performance.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    for _ in range(2):  # what was written is replaced again
        table.rewrite(tmp_path, page)
    text = page.read_text()
    assert text.count("| `clip-forward` | plain |") == 1
    assert "times the speed of plain" in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="Expected the lines"):
        table.rewrite(tmp_path, page)


@pytest.mark.slow
def test_an_error_of_a_child_is_told():
    options = {"case": "model-forward", "setting": {}, "threads": 1, "contestant": "nobody"}
    assert "StopIteration" in harness.apart(options)["error"]


def test_wrong_arguments_are_refused(capsys, monkeypatch):
    assert command.main(["--only", "nothing"]) == 2
    assert "Expected the beginning of a case's name, got 'nothing'" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--device", "cuda"]) == 2
    assert "Expected a GPU that PyTorch can use" in capsys.readouterr().err
    assert command.main(["--list", "--only", "io"]) == 0
    assert capsys.readouterr().out.startswith("io-forward")


def test_facts_name_the_machine():
    assert {"processor", "cores", "torch", "transformers"} <= set(facts.machine("cpu"))
    assert facts.load_now("cpu", "float32")["matmul_gflops"] > 0
