"""Rows, results and page of the benchmark `make small-cpu`."""

import json
import sys

import numpy as np
import pytest
from benchmarks import small_cpu, small_cpu_baselines, small_cpu_page
from benchmarks.small_cpu_baselines import Problem, Split

FACTS = {"processor": "a CPU", "threads": 2, "torch": "2", "perceivers": "0", "day": "2026-01-01"}


def test_every_row_has_a_loader_and_known_baselines():
    assert len({row.name for row in small_cpu.ROWS}) == len(small_cpu.ROWS)
    for row in small_cpu.ROWS:
        assert row.kind in small_cpu_baselines._LOADERS
        assert set(row.baselines) <= set(small_cpu_baselines.BASELINES)


def test_rows_are_chosen_by_the_beginning_of_their_names():
    assert [row.name for row in small_cpu.chosen(["wine", "esc10-2"])] == ["esc10-2", "wine"]
    with pytest.raises(ValueError, match="beginning of a row's name, got 'mnist'"):
        small_cpu.chosen(["mnist"])


def test_missing_data_are_skipped_with_a_message(tmp_path, capsys):
    arguments = [
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--only",
        "cifar10",
        "fsdd",
    ]
    assert small_cpu.main(arguments) == 0
    out = capsys.readouterr().out
    assert "cifar10: skipped, there is no" in out
    assert "cifar10_5000: skipped" in out
    assert "fsdd: skipped" in out


def test_wrong_arguments_have_status_2(tmp_path, capsys):
    assert small_cpu.main(["--only", "mnist"]) == 2
    assert small_cpu.main(["--data", str(tmp_path / "none")]) == 2
    assert "Expected a folder of data sets" in capsys.readouterr().err


def test_tables_are_written_with_a_fixed_split(tmp_path):
    row = next(row for row in small_cpu.ROWS if row.name == "wine")
    folder = small_cpu.data_folder(row, None, tmp_path)
    lines = [
        len((tmp_path / "made/wine" / f"{p}.csv").read_text().splitlines()) - 1
        for p in ("train", "test")
    ]
    assert lines == [124, 54]
    problem = small_cpu_baselines.load(row, folder, 1)
    found = small_cpu_baselines.linear(problem)
    assert small_cpu_baselines.score(found, problem.test, is_class=True) > 0.9


def test_finished_runs_are_kept_and_failed_ones_are_not(tmp_path, monkeypatch, capsys):
    calls = []

    def logged(command, log, limit, threads):
        calls.append(command)
        if "evaluate" in command:
            answer = {"metrics": {"accuracy": 0.95}}
            (tmp_path / "out/wine-seed0/evaluation.json").write_text(json.dumps(answer))
        elif "--out" in command:
            (tmp_path / "out/wine-seed0").mkdir()
        return len(calls) > 1

    monkeypatch.setattr(small_cpu, "logged", logged)
    results = tmp_path / "results.json"
    arguments = [
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(results),
        "--only",
        "wine",
        "--parts",
        "fit",
    ]
    assert small_cpu.main(arguments) == 1
    assert "Failed: wine, seed 0" in capsys.readouterr().err
    (tmp_path / "out/wine-seed0").rmdir()
    assert small_cpu.main(arguments) == 0
    assert small_cpu.main(arguments) == 0
    assert len(calls) == 3
    (run,) = json.loads(results.read_text())["runs"]
    assert run["value"] == 0.95
    assert (
        run["command"]
        == 'perceivers fit DATA/wine --label class --columns "*" --max-time 60s --seed 0'
    )
    assert str(tmp_path) not in results.read_text()


def test_a_process_is_logged_and_ended_at_its_limit(tmp_path, capsys):
    log = tmp_path / "a.log"
    assert small_cpu.logged([sys.executable, "-c", "print('done')"], log, 20, 1)
    assert "done" in log.read_text()
    assert not small_cpu.logged([sys.executable, "-c", "import time; time.sleep(60)"], log, 0.3, 1)
    assert "more than 0 seconds" in capsys.readouterr().err


def test_the_page_has_means_over_seeds_and_groups():
    runs = [
        {"row": "wine", "seed": seed, "scale": 1.0, "flags": "", "metric": "accuracy", "value": value,
         "command": f"perceivers fit DATA/wine --max-time 60s --seed {seed}", **FACTS}
        for seed, value in ((0, 0.9), (1, 1.0))
    ]  # fmt: skip
    runs += [
        {"row": row.name, "seed": 0, "scale": 1.0, "flags": "", "metric": "accuracy", "value": 0.5,
         "command": "perceivers fit DATA", **FACTS}
        for row in small_cpu.ROWS if row.group == "series_small" and not row.name.endswith("UnitTest")
    ]  # fmt: skip
    baselines = [
        {"row": "wine", "baseline": "linear", "scale": 1.0, "value": 0.98, "seconds": 1.2, **FACTS}
    ]
    text = small_cpu_page.render({"runs": runs, "baselines": baselines}, small_cpu.ROWS)
    assert (
        "| wine | 1 | 2 | 2 | **95.0** ± 5.0 % | 98.0 % logistic or ridge regression (1) |" in text
    )
    assert "series_small |" not in text  # one of its five is not on file
    assert "perceivers fit DATA/wine --max-time 60s\n" in text


def test_random_kernels_see_a_difference_in_frequency():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    steps = np.arange(60) * (0.3 + 0.4 * y[:, None]) + rng.uniform(0, 6, (40, 1))
    x = (np.sin(steps) + 0.3 * rng.standard_normal(steps.shape)).astype(np.float32)[:, None]
    problem = Problem(Split(x[:20], y[:20]), Split(x[20:], y[20:]))
    assert (small_cpu_baselines.kernels_and_ridge(problem) == y[20:]).mean() > 0.9
    assert np.isfinite(small_cpu_baselines.series_statistics(x)).all()


def test_features_of_audio_and_points_are_finite():
    wave = np.sin(np.arange(8000) / 10)
    assert small_cpu_baselines.log_mel(wave, 8000, 40).shape == (98, 40)
    assert np.isfinite(small_cpu_baselines._mel_statistics([(wave, 8000), (wave[:50], 8000)])).all()
    points = np.random.default_rng(0).normal(size=(2, 50, 3))
    assert small_cpu_baselines.point_histograms(points).shape == (2, 216 + 4 * 24 + 32)
