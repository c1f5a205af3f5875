"""Forecasts of real series by `series_ar` beside three simple ones, from several origins.

The first 80 % of each series are learned (of which `fit` holds out the end for validation), the rest is forecast 12
steps ahead from every sixth step. Errors are mean absolute ones of the median, divided by those of the seasonal naive
forecast on the learned part (MASE); coverage is the share of values inside the interval from 10 to 90 %.

Baselines: the last value and that of one season before, with quantiles of their errors on the learned part; and an
autoregressive linear model of the last two seasons by ridge regression, its paths sampled with its residuals.

The series are those of the package statsmodels, as CSV files in one folder: yearly sunspots, monthly means of the
weekly CO2 of Mauna Loa, and monthly sea temperatures of El Nino.

    python -m benchmarks.forecasting --data series/ --out /tmp/forecasting
    python -m benchmarks.forecasting --data series/ --out /tmp/forecasting --split validation
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.decode import read_series
from perceivers.evaluation.forecast import forecast
from perceivers.evaluation.predict import load_predictor
from perceivers.training.fit import fit

SEASONS = {"sunspots": 11, "co2": 12, "elnino": 12}
HORIZON, STRIDE, SAMPLES = 12, 6, 200
_LEARNED, _HELD = 0.8, 0.1
_PENALTIES = (0.01, 0.1, 1.0, 10.0)

Values = npt.NDArray[np.float64]
Forecaster = Callable[[Values], Values]
"""History -> quantiles (10, 50, 90 %) of the next 12 values, 3 x 12."""

_SHARES = (0.1, 0.5, 0.9)


def seasonal(history: Values, season: int) -> Values:
    """Return the values of one season before each of the next steps."""
    return np.resize(history[-season:], HORIZON)


def naive(train: Values, season: int) -> Forecaster:
    """Return forecasts by the values one season before (1: by the last value), with errors from the learned part."""
    origins = range(max(season, 2), len(train) - HORIZON)
    errors = np.stack([train[o : o + HORIZON] - seasonal(train[:o], season) for o in origins])
    low, _, high = np.quantile(errors, _SHARES, axis=0)
    return lambda history: seasonal(history, season) + np.stack([low, 0 * low, high])


def ridge(train: Values, season: int) -> Forecaster:
    """Return forecasts by a linear model of the last two seasons, whose penalty is chosen on the end of the part."""
    lags, center, unit = 2 * season, train.mean(), train.std()
    scaled = (train - center) / unit
    x = np.lib.stride_tricks.sliding_window_view(scaled[:-1], lags)
    x, y = np.c_[x, np.ones(len(x))], scaled[lags:]
    cut = len(y) - round(_HELD * len(train))

    def solve(rows: slice, penalty: float) -> Values:
        square = penalty * np.eye(lags + 1)
        square[-1, -1] = 1e-9
        return np.linalg.solve(x[rows].T @ x[rows] + square, x[rows].T @ y[rows])

    def held_error(penalty: float) -> float:
        return float(np.square(y[cut:] - x[cut:] @ solve(slice(cut), penalty)).mean())

    weights = solve(slice(None), min(_PENALTIES, key=held_error))
    residuals, random = y - x @ weights, np.random.default_rng(0)

    def quantiles(history: Values) -> Values:
        rows = np.tile((history[-lags:] - center) / unit, (SAMPLES, 1))
        for _ in range(HORIZON):
            new = np.c_[rows[:, -lags:], np.ones(SAMPLES)] @ weights + random.choice(
                residuals, SAMPLES
            )
            rows = np.c_[rows, new]
        return np.quantile(rows[:, -HORIZON:] * unit + center, _SHARES, axis=0)

    return quantiles


def learned(train: Values, folder: Path, settings: dict[str, Any]) -> Forecaster:
    """Return forecasts of a run of `series_ar`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.csv"
    path.write_text("\n".join(["value", *map(str, train.tolist())]) + "\n")
    fit(path, "series_ar", out=folder / "run", **settings)
    predictor = load_predictor(folder / "run")

    def quantiles(history: Values) -> Values:
        found = forecast(predictor, history, HORIZON, samples=SAMPLES)
        return np.stack([found.quantile(share)[:, 0] for share in _SHARES]).astype(np.float64)

    return quantiles


def score(quantiles: Forecaster, values: Values, first: int, season: int) -> dict[str, float]:
    """Return MASE and the coverage of the interval from 10 to 90 %, over the steps from `first` on."""
    train = values[:first]
    unit = np.abs(train[season:] - train[:-season]).mean()
    errors: list[Values] = []
    inside: list[Values] = []
    for origin in range(first, len(values) - HORIZON + 1, STRIDE):
        truth = values[origin : origin + HORIZON]
        low, middle, high = quantiles(values[:origin])
        errors.append(np.abs(truth - middle) / unit)
        inside.append((low <= truth) & (truth <= high))
    return {
        "mase": float(np.mean(errors)),
        "coverage": float(np.mean(inside)),
        "origins": len(errors),
    }


def main() -> None:
    """Fit, forecast and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(SEASONS))
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "preprocess.series.length": 96,
        "task.vocabulary.horizon": HORIZON,
        "max_steps": args.steps,
        "baseline": False,
        "data.workers": 0,
    }
    for name, value in (one.split("=", 1) for one in args.set):
        settings[name] = json.loads(value)
    results: dict[str, Any] = {}
    for name in args.only:
        path, season = args.data / f"{name}.csv", SEASONS[name]
        values = read_series(EncodedItem(str(path), path=path))[0].values[:, 0].astype(np.float64)
        known = np.flatnonzero(~np.isnan(values))
        values = np.interp(np.arange(len(values)), known, values[known])
        first = round(_LEARNED * len(values))
        if args.split == "validation":
            values = values[:first]
            first = len(values) - round(_HELD * len(values)) - HORIZON
        train = values[:first]
        models = {
            "last value": naive(train, 1),
            "seasonal naive": naive(train, season),
            "ridge on lags": ridge(train, season),
            "series_ar": learned(train, args.out / f"{name}-{args.split}", settings),
        }
        results[name] = {key: score(one, values, first, season) for key, one in models.items()}
        print(name, json.dumps(results[name]), flush=True)
    (args.out / f"{args.split}.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
