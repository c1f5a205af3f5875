"""The measurement of start-up is not part of the gate, but it must not rot."""

import json

import pytest
from benchmarks import startup

pytestmark = pytest.mark.quick


def test_a_process_is_timed_and_one_that_fails_is_an_error():
    found = startup.took(["-c", "sum(range(10**6))"])
    assert 0 < found["processor"] < 60
    assert 0 < found["elapsed"] < 60
    with pytest.raises(RuntimeError, match=r"to end with 0, got 3"):
        startup.took(["-c", "raise SystemExit(3)"])


@pytest.mark.slow
def test_a_command_is_followed_until_its_first_forward(tmp_path):
    work = startup.cases(tmp_path, recipes=("digits",))
    assert list(work) == [
        *("python", "import torch", "--help", "predict --help", "recipes", "predict digits")
    ]
    startup.took(work["predict digits"])
    with pytest.raises(RuntimeError, match="got 1"):  # it does what the command does
        startup.took([*work["predict digits"][:-1], "none.png"])


def test_medians_leave_out_the_first_round_and_targets_are_judged(tmp_path, monkeypatch, capsys):
    numbers = iter([9.0, 9.0, 9.0, 1.0, 0.1, 6.0, 1.0, 0.2, 4.0, 2.0, 0.3, 5.5])
    monkeypatch.setattr(
        startup, "took", lambda arguments: dict.fromkeys(("elapsed", "processor"), next(numbers))
    )
    work = {"import torch": [], "--help": [], "predict digits": []}
    monkeypatch.setattr(startup, "cases", lambda folder: work)
    monkeypatch.setattr(
        startup, "TARGETS", {"--help": ("processor", 0.5), "predict digits": ("elapsed", 5.0)}
    )
    out = tmp_path / "startup.json"
    assert startup.main(["--rounds", "3", "--out", str(out)]) == 1
    result = json.loads(out.read_text())
    assert result["cases"]["predict digits"] == {
        "elapsed": 5.5,
        "processor": 5.5,
        "of_import_torch": 4.0,
    }
    assert result["targets"]["--help"]["met"] is True
    assert result["targets"]["predict digits"]["met"] is False
    assert "TARGET MISSED" in capsys.readouterr().out
