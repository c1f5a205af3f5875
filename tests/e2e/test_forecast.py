"""`series_ar`: a run on a series, forecasts by the command and from Python as table and picture, and bad input."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import perceivers as pv
from perceivers.cli.main import main
from perceivers.evaluation.forecast import forecast
from perceivers.evaluation.generate_images import generate_images
from perceivers.models.generate import GenerationConfig
from perceivers.training.fit import fit

SMALL = {
    "encoder.channels": 32,
    "encoder.num_heads": 2,
    "encoder.num_layers": 1,
    "preprocess.series.length": 24,
    "task.vocabulary.horizon": 6,
    "task.vocabulary.num_bins": 31,
    "data.workers": 0,
    "optim.lr": 1e-2,
    "baseline": False,
}


def waves(length: int) -> np.ndarray:
    """Return a period of four steps, and its double with the opposite sign: length x 2."""
    one = np.array([0.0, 1.0, 0.0, -1.0])[np.arange(length) % 4]
    return np.stack([10 + one, -20 - 2 * one], axis=1)


def write(path, values, names=("a", "b")):
    rows = [",".join(["time", *names])]
    rows += [",".join([str(n), *map(str, row)]) for n, row in enumerate(values)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    fit(
        write(folder / "a.csv", waves(200)), "series_ar", out=folder / "run", max_steps=150, **SMALL
    )
    return folder / "run"


@pytest.fixture(scope="module")
def predictor(run):
    return pv.load(run)


def test_the_held_out_end_is_measured(run, capsys):
    assert main(["evaluate", str(run), "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["values"] == 2 * 18  # three windows of six steps in the last 20
    assert metrics["bits_per_value"] < 2


def test_a_period_is_continued(predictor):
    found = predictor.forecast(waves(101), 8, samples=30, temperature=0.5)
    assert found.names == ("a", "b")
    assert found.samples.shape == (30, 8, 2)
    np.testing.assert_allclose(found.median, waves(109)[-8:], atol=0.6)
    assert (found.quantile(0.1) <= found.quantile(0.9)).all()
    default = predictor.forecast(waves(101), samples=2)
    assert default.samples.shape == (2, 6, 2)
    long = forecast(predictor, waves(101), 40, samples=2)  # beyond the context
    assert np.isfinite(long.samples).all()


def test_many_paths_are_sampled_in_parts(predictor, monkeypatch):
    from perceivers.evaluation import forecast as module

    monkeypatch.setattr(module, "_TOGETHER", 4)
    found = predictor.forecast(waves(50), 2, samples=6)
    assert found.samples.shape == (6, 2, 2)
    np.testing.assert_array_equal(
        predictor.forecast(waves(50), 2, samples=4).samples, found.samples[:4]
    )


def test_the_command_writes_what_python_returns(run, predictor, capsys, tmp_path):
    path, out = write(tmp_path / "a.csv", waves(80)), tmp_path / "forecast.csv"
    command = ["generate", str(run), "--prompt", str(path), "--length", "5", "--samples", "20"]
    assert main([*command, "--out", str(out)]) == 0
    assert "5 steps from 20 paths in" in " ".join(capsys.readouterr().err.split())
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["time"] for row in rows] == ["80", "81", "82", "83", "84"]
    assert list(rows[0]) == ["step", "time", "a_q10", "b_q10", "a_q50", "b_q50", "a_q90", "b_q90"]
    found = predictor.forecast(path, 5, samples=20)
    np.testing.assert_allclose([float(row["a_q50"]) for row in rows], found.median[:, 0], rtol=1e-6)
    assert main([*command, "--quantiles", "0.25", "0.75", "--format", "json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [
        *["step", "time", "a_q25", "b_q25", "a_q75", "b_q75"],
    ]
    picture = tmp_path / "forecast.png"
    assert main([*command, "--out", str(picture)]) == 0
    with Image.open(picture) as drawn:
        assert drawn.width > 500


def test_dates_are_continued_after_the_last_known_step(run, predictor, tmp_path, capsys):
    months = [f"{2000 + n // 12}-{n % 12 + 1:02d}-01" for n in range(40)]
    values = waves(40)
    values[-2:] = np.nan
    columns = {"month": values[:, 0], "date": months, "a": values[:, 0], "b": values[:, 1]}
    found = predictor.forecast(columns, 3, samples=2)
    assert (found.time_name, found.times) == ("date", ("2003-03-01", "2003-04-01", "2003-05-01"))
    assert found.table()["date"] == list(found.times)
    rows = ["date,a,b", *(f"2024-01-{n + 1:02d},{n % 3},{n % 2}" for n in range(20))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    command = ["generate", str(run), "--prompt", str(tmp_path / "a.csv"), "--length", "2"]
    assert main([*command, "--out", str(tmp_path / "next.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert [(row["step"], row["date"]) for row in rows] == [
        ("1", "2024-01-21"),
        ("2", "2024-01-22"),
    ]
    uneven = {"date": [f"2024-01-{n * n + 1:02d}" for n in range(5)], **{n: range(5) for n in "ab"}}
    assert list(predictor.forecast(uneven, 2, samples=2).table())[:2] == ["step", "a_q10"]


def test_forms_of_series(predictor):
    values = waves(40)
    found = predictor.forecast({"a": values[:, 0], "b": values[:, 1]}, 3, samples=2)
    np.testing.assert_array_equal(found.samples, predictor.forecast(values, 3, samples=2).samples)
    with_others = {"time": np.arange(40), "x": values[:, 1], "b": values[:, 1], "a": values[:, 0]}
    np.testing.assert_array_equal(
        found.samples, predictor.forecast(with_others, 3, samples=2).samples
    )


def test_short_constant_and_incomplete_series(predictor):
    short = predictor.forecast(waves(3), 2, samples=3)
    assert short.history.shape == (3, 2)
    constant = np.tile([7.0, -3.0], (30, 1))
    assert (predictor.forecast(constant, 2, samples=3).samples == constant[:2]).all()
    gaps = waves(40)
    gaps[5:9] = np.nan
    gaps[-3:] = np.nan  # left out
    found = predictor.forecast(gaps, 2, samples=3)
    assert found.history.shape == (37, 2)
    assert np.isfinite(found.samples).all()


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (np.full((5, 2), np.nan), "holds no value"),
        (np.zeros((0, 2)), "holds no rows"),
        (np.zeros(5), "expected 2 channels"),
        ({"a": np.zeros(5)}, "has no channel 'b'"),
        (
            np.c_[np.arange(40.0), np.r_[np.arange(5.0), np.full(35, np.nan)]],
            "Channel 'b' of the series has no value",
        ),
    ],
)
def test_series_that_cannot_be_forecast(predictor, series, message):
    with pytest.raises(ValueError, match=message):
        predictor.forecast(series, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length of at least 1"),
        ({"samples": 0}, "count of at least 1"),
        ({"quantiles": (1.5,)}, "quantiles from 0 to 1"),
        ({"temperature": -1}, "temperature of 0"),
        ({"top_p": 2}, "top_p from 0 to 1"),
    ],
)
def test_numbers_out_of_range(predictor, settings, message):
    with pytest.raises(ValueError, match=message):
        predictor.forecast(waves(30), **settings)


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_p": 0}])
def test_the_most_probable_path(predictor, settings):
    found = predictor.forecast(waves(30), 4, samples=3, **settings).samples
    assert (found == found[:1]).all()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--out", "a.csv"], 1, "expected a file of it, --prompt series.csv"),
        (["--prompt", "FILE"], 2, "ends in .csv or .png"),
        (["--prompt", "FILE", "--out", "a.csv", "--quantiles", "2"], 2, "quantiles from 0 to 1"),
        (["--prompt", "FILE", "--out", "a.csv", "--samples", "0"], 2, "--count of at least 1"),
        (["--prompt", "FILE", "--out", "a.csv", "--length", "0"], 2, "--length of at least 1"),
        (["--prompt", "FILE", "--out", "a.csv", "--length", "all"], 1, "a number of steps"),
        (["--prompt", "none.csv", "--out", "a.csv"], 1, "none.csv"),
        (["--prompt", "EMPTY", "--out", "a.csv"], 1, "is empty"),
    ],
)
def test_wrong_arguments(run, capsys, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "FILE.csv", waves(30))
    (tmp_path / "EMPTY.csv").write_text("")
    named = [f"{one}.csv" if one in ("FILE", "EMPTY") else one for one in arguments]
    assert main(["generate", str(run), *named]) == status
    found = capsys.readouterr().err
    assert message in " ".join(found.split())
    assert "Traceback" not in found


def test_other_runs_do_not_do_it(predictor, run, capsys, tmp_path):
    with pytest.raises(ValueError, match="was trained on values and draws no images"):
        generate_images(predictor, config=GenerationConfig())
    path = write(tmp_path / "a.csv", waves(30))
    assert main(["predict", str(run), str(path)]) == 1
    found = " ".join(capsys.readouterr().err.split())
    assert "forecast" in found
    assert "Traceback" not in found
