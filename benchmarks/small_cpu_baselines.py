"""Simple baselines of `make small-cpu`: plain features with scikit-learn, on the same split; a plain ResNet for images.

    python -m benchmarks.small_cpu_baselines --row wine --folder FOLDER --baseline linear --out FILE

Every baseline reads the files itself: its seconds are those of decoding, features, learning and prediction.
"""

import argparse
import io
import json
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.small_cpu import ROWS, Row

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Split:
    """Inputs and targets of one split."""

    x: Any
    y: Array


@dataclass(frozen=True)
class Problem:
    """One data set to learn and predict.

    Attributes:
        train: Training split.
        test: Test split.
        is_class: Whether the target is a class, not a number.
        minutes: Time that a neural network may learn.
    """

    train: Split
    test: Split
    is_class: bool = True
    minutes: float = 1.0


# Loaders: a row and its folder -> inputs and targets of a split.


def load(row: Row, folder: str, minutes: float) -> Problem:
    """Return the data of a row."""
    parts = [Split(*_LOADERS[row.kind](row, folder, name)) for name in ("train", "test")]
    return Problem(parts[0], parts[1], row.metric == "accuracy", minutes)


def _parquet(row: Row, folder: str, part: str) -> Any:
    import pyarrow.parquet as pq

    if row.fold is None:
        return pq.read_table(Path(folder) / f"{part}.parquet").to_pandas()
    table = pq.read_table(next(Path(folder).glob("*.parquet"))).to_pandas()
    return table[(table.fold == row.fold) == (part == "test")]


def _texts(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    table = _parquet(row, folder, part)
    return list(table.text), table[row.label].to_numpy()


def _images(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    from PIL import Image

    table = _parquet(row, folder, part)
    opened = (Image.open(io.BytesIO(one["bytes"])).convert("RGB") for one in table.image)
    return np.stack([np.asarray(image) for image in opened]), table[row.label].to_numpy()


def _audio(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    import soundfile

    table = _parquet(row, folder, part)
    waves = [soundfile.read(io.BytesIO(one["bytes"]), always_2d=True) for one in table.audio]
    return [(wave.mean(axis=1), rate) for wave, rate in waves], table[row.label].to_numpy()


def _points(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    arrays = np.load(Path(folder) / f"{part}.npz")
    return arrays["points"].astype(np.float32), arrays[row.label]


def _series(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    table = _parquet(row, folder, part)
    names = [name for name in table.columns if isinstance(table[name].iloc[0], (list, np.ndarray))]
    channels = [np.stack(list(table[name])).astype(np.float32) for name in names]
    return np.stack(channels, axis=1), table[row.label].to_numpy()  # n x channels x steps


def _table(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    import pandas as pd

    table = pd.read_csv(Path(folder) / f"{part}.csv")
    return table.drop(columns=row.label).to_numpy(np.float64), table[row.label].to_numpy()


def _digits(row: Row, folder: str, part: str) -> tuple[Any, Array]:  # noqa: ARG001
    from perceivers.data.sources.builtin import digits

    split: Any = digits().splits[part]
    images = np.stack(split.column("image"))
    return images.reshape(len(images), -1), np.asarray(split.column(row.label))


def _clips(folder: str, part: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Iterate over the samples of a tar file: description and video."""
    with tarfile.open(Path(folder) / f"{part}.tar") as archive:
        files = {member.name: member for member in archive.getmembers()}
        for name in sorted(name for name in files if name.endswith(".json")):
            read = [archive.extractfile(files[one]) for one in (name, f"{name[:-5]}.mp4")]
            assert all(one is not None for one in read)
            yield json.load(read[0]), read[1].read()  # pyright: ignore


def _videos(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    import av

    found: list[Array] = []
    labels: list[Any] = []
    for description, data in _clips(folder, part):
        with av.open(io.BytesIO(data)) as video:
            frames = [
                frame.reformat(width=16, height=12, format="gray").to_ndarray()
                for frame in video.decode(video=0)
            ]
        found.append(np.stack(frames).astype(np.float32))
        labels.append(description[row.label])
    return found, np.asarray(labels)


def _speech(row: Row, folder: str, part: str) -> tuple[Any, Array]:
    import av

    waves: list[tuple[Array, int]] = []
    labels: list[Any] = []
    for description, data in _clips(folder, part):
        with av.open(io.BytesIO(data)) as video:
            rate = video.streams.audio[0].rate
            parts = [frame.to_ndarray().reshape(-1) for frame in video.decode(audio=0)]
        waves.append((np.concatenate(parts).astype(np.float64), rate))
        labels.append(description[row.label])
    return waves, np.asarray(labels)


_LOADERS: dict[str, Callable[[Row, str, str], tuple[Any, Array]]] = {
    "text": _texts,
    "image": _images,
    "audio": _audio,
    "points": _points,
    "series": _series,
    "table": _table,
    "digits": _digits,
    "video": _videos,
    "speech": _speech,
}


# Features


def log_mel(wave: Array, rate: int, num_mels: int) -> Array:
    """Return a log mel spectrogram of windows of 25 ms every 10 ms: frames x bands."""
    width, hop = round(0.025 * rate), round(0.010 * rate)
    wave = np.pad(wave, (0, max(0, width - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, width)[::hop] * np.hanning(width)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = 700 * (10 ** (np.linspace(0, np.log10(1 + rate / 1400), num_mels + 2)) - 1)
    hertz = np.fft.rfftfreq(width, 1 / rate)[:, None]
    rise = (hertz - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - hertz) / np.diff(edges)[1:]
    return np.log(power @ np.minimum(rise, fall).clip(0) + 1e-8)


def summary(x: Array) -> Array:
    """Return statistics of each channel over time, of x: steps x channels."""
    steps = np.diff(x, axis=0) if len(x) > 1 else np.zeros_like(x)
    quantiles = np.quantile(x, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    return np.concatenate(
        [x.mean(0), x.std(0), x.min(0), x.max(0), steps.std(0), np.abs(steps).mean(0), *quantiles]
    )


def series_statistics(x: Array) -> Array:
    """Return statistics of every channel, of spectra and between channels: n x features."""
    rows: list[Array] = []
    for one in x.astype(np.float64):
        centered = one - one.mean(axis=1, keepdims=True)
        spectrum = np.abs(np.fft.rfft(centered, axis=1)) ** 2
        bands = [band.sum(axis=1) for band in np.array_split(spectrum[:, 1:], 12, axis=1)]
        correlation = np.nan_to_num(np.corrcoef(one)) if len(one) > 1 else np.zeros((1, 1))
        length = np.linalg.norm(one, axis=0, keepdims=True)
        rows.append(
            np.concatenate(
                [
                    summary(one.T),
                    summary(length.T),
                    np.log(np.concatenate(bands) + 1e-8),
                    correlation[np.triu_indices(len(one), 1)],
                ]
            )
        )
    return np.stack(rows)


def point_histograms(x: Array) -> Array:
    """Return histograms of points in space, along each axis, of distances and of pairs: n x features."""
    rows: list[Array] = []
    pairs = np.random.default_rng(0).integers(0, x.shape[1], (2, 4096))
    for points in x:
        centered = points - points.mean(axis=0)
        one = centered / max(float(np.abs(centered).max()), 1e-9)
        cells, _ = np.histogramdd(one, bins=(6, 6, 6), range=[(-1, 1)] * 3)
        axes = [np.histogram(one[:, axis], bins=24, range=(-1, 1))[0] for axis in range(3)]
        radius = np.histogram(np.linalg.norm(one, axis=1), bins=24, range=(0, 1.75))[0]
        apart = np.linalg.norm(one[pairs[0]] - one[pairs[1]], axis=1)
        rows.append(
            np.concatenate(
                [cells.ravel(), *axes, radius, np.histogram(apart, bins=32, range=(0, 3))[0]]
            )
        )
    return np.stack(rows)


def video_statistics(videos: list[Array]) -> Array:
    """Return mean, deviation and mean change of each cell of small gray frames: n x features."""
    rows = [
        np.concatenate(
            [v.mean(0).ravel(), v.std(0).ravel(), np.abs(np.diff(v, axis=0)).mean(0).ravel()]
        )
        for v in videos
    ]
    return np.stack(rows)


def pooled_spectrogram(waves: list[tuple[Array, int]]) -> Array:
    """Return mel spectrograms averaged in 40 parts of the time: n x features."""
    rows: list[Array] = []
    for wave, rate in waves:
        parts = np.array_split(log_mel(wave, rate, 40), 40)
        rows.append(np.concatenate([part.mean(axis=0) for part in parts]))
    return np.stack(rows)


def random_kernels(train: Array, test: Array, num_features: int = 10_000) -> tuple[Array, Array]:
    """Return shares of positive values of convolutions with fixed kernels and dilations: n x features each.

    The 84 kernels of nine weights, three of them 2 and the others -1, at dilations that double up to the length;
    biases are quantiles of what they give on training series.

    Reference: MiniRocket (arXiv:2012.08791).
    """
    import itertools

    import torch
    from torch.nn.functional import conv1d, pad

    rng = np.random.default_rng(0)
    weights = torch.full((84, 1, 9), -1.0)
    for number, three in enumerate(itertools.combinations(range(9), 3)):
        weights[number, 0, list(three)] = 2.0
    channels, length = train.shape[1:]
    deepest = max(0.0, np.log2(max(length - 1, 1) / 8))
    dilations = sorted({int(2**e) for e in np.linspace(0, deepest, 32)})
    each = max(1, num_features // (84 * len(dilations)))
    found: tuple[list[Array], list[Array]] = ([], [])
    for dilation in dilations:
        used = torch.zeros(84, channels)
        for kernel in used:
            count = int(2 ** rng.uniform(0, np.log2(min(channels, 9) + 1)))
            kernel[rng.choice(channels, min(count, channels), replace=False)] = 1.0

        def convolved(x: Array, used: Any = used, dilation: int = dilation) -> Any:
            mixed = torch.einsum("kc,nct->nkt", used, torch.from_numpy(x))
            return conv1d(pad(mixed, (4 * dilation,) * 2), weights, dilation=dilation, groups=84)

        sample = convolved(train[rng.choice(len(train), min(len(train), 32), replace=False)])
        golden = (np.arange(1, each + 1) * (5**0.5 + 1) / 2) % 1
        flat = sample.movedim(1, 0).flatten(1)
        biases = torch.quantile(
            flat[:, :: max(1, flat.shape[1] // 20_000)],
            torch.tensor(golden, dtype=flat.dtype),
            dim=1,
        ).T
        for part, into in ((train, found[0]), (test, found[1])):
            shares = []
            for start in range(0, len(part), 64):
                values = convolved(part[start : start + 64])
                shares.append(
                    torch.stack(
                        [(values > b[:, None]).float().mean(2) for b in biases.T], dim=2
                    ).flatten(1)
                )
            into.append(torch.cat(shares).numpy())
    return np.concatenate(found[0], axis=1), np.concatenate(found[1], axis=1)


# Baselines: a problem -> predictions of the test split.


def _trees(features: Callable[[Any], Array]) -> Callable[[Problem], Array]:
    def predict(problem: Problem) -> Array:
        from sklearn.ensemble import ExtraTreesClassifier

        model = ExtraTreesClassifier(1000, n_jobs=-1, random_state=0)
        model.fit(features(problem.train.x), problem.train.y)
        return model.predict(features(problem.test.x))

    return predict


def forest(problem: Problem) -> Array:
    """Return the predictions of a random forest on the values themselves."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if problem.is_class else RandomForestRegressor
    model = kind(500, n_jobs=-1, random_state=0).fit(_flat(problem.train.x), problem.train.y)
    return model.predict(_flat(problem.test.x))


def boosting(problem: Problem) -> Array:
    """Return the predictions of boosted trees on the values themselves."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if problem.is_class else HistGradientBoostingRegressor
    model = kind(random_state=0).fit(_flat(problem.train.x), problem.train.y)
    return model.predict(_flat(problem.test.x))


def linear(problem: Problem) -> Array:
    """Return the predictions of logistic regression, or of ridge regression for numbers."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if problem.is_class:
        choices = {"C": np.logspace(-3, 3, 7)}
        model: Any = GridSearchCV(LogisticRegression(max_iter=2000), choices, cv=3)
    else:
        model = RidgeCV(np.logspace(-2, 4, 13))
    model = make_pipeline(StandardScaler(), model)
    return model.fit(_flat(problem.train.x), problem.train.y).predict(_flat(problem.test.x))


def channel_statistics(problem: Problem) -> Array:
    """Return the predictions of boosted trees on statistics of the channels."""
    made = Split(series_statistics(problem.train.x), problem.train.y)
    return boosting(Problem(made, Split(series_statistics(problem.test.x), problem.test.y)))


def kernels_and_ridge(problem: Problem) -> Array:
    """Return the predictions of a ridge classifier on random convolution kernels."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = random_kernels(problem.train.x, problem.test.x)
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10)))
    return model.fit(train, problem.train.y).predict(test)


def _words(*, with_characters: bool) -> Callable[[Problem], Array]:
    def predict(problem: Problem) -> Array:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        parts = [TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)]
        if with_characters:
            parts.append(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)
            )
        model = make_pipeline(make_union(*parts), LogisticRegression(C=10, max_iter=1000))
        return model.fit(problem.train.x, problem.train.y).predict(problem.test.x)

    return predict


def spectrogram_and_linear(problem: Problem) -> Array:
    """Return the predictions of logistic regression on a spectrogram averaged over parts of the time."""
    made = [Split(pooled_spectrogram(one.x), one.y) for one in (problem.train, problem.test)]
    return linear(Problem(made[0], made[1]))


def plain_resnet(problem: Problem) -> Array:
    """Return the predictions of a small plain ResNet that learned for the row's minutes less 3."""
    from benchmarks.plain_nets import fit_resnet

    classes, labels = np.unique(problem.train.y, return_inverse=True)
    minutes = max(0.7 * problem.minutes, problem.minutes - 3)
    indices = fit_resnet(problem.train.x, labels, problem.test.x, seconds=60 * minutes)
    return classes[indices]


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _mel_statistics(waves: list[tuple[Array, int]]) -> Array:
    return np.stack([summary(log_mel(wave, rate, 64)) for wave, rate in waves])


@dataclass(frozen=True)
class Baseline:
    """A baseline with its description for the table."""

    predict: Callable[[Problem], Array]
    text: str


BASELINES = {
    "linear": Baseline(linear, "logistic or ridge regression"),
    "random forest": Baseline(forest, "random forest"),
    "boosted trees": Baseline(boosting, "boosted trees"),
    "words": Baseline(
        _words(with_characters=False), "TF-IDF of 1 to 2 words + logistic regression"
    ),
    "words and characters": Baseline(
        _words(with_characters=True),
        "TF-IDF of 1 to 2 words and 2 to 5 characters + logistic regression",
    ),
    "mel statistics": Baseline(_trees(_mel_statistics), "random trees on statistics of mel bands"),
    "histograms": Baseline(_trees(point_histograms), "random trees on histograms of points"),
    "frame statistics": Baseline(_trees(video_statistics), "random trees on small gray frames"),
    "channel statistics": Baseline(channel_statistics, "boosted trees on statistics of channels"),
    "random kernels": Baseline(kernels_and_ridge, "random convolution kernels + ridge"),
    "pooled spectrogram": Baseline(
        spectrogram_and_linear, "logistic regression on a pooled mel spectrogram"
    ),
    "plain ResNet": Baseline(plain_resnet, "small plain ResNet, the row's minutes less 3"),
}


def score(predicted: Array, test: Split, *, is_class: bool) -> float:
    """Return the accuracy, or R2 of numbers."""
    if is_class:
        return float((predicted == test.y).mean())
    return float(1 - ((predicted - test.y) ** 2).sum() / ((test.y - test.y.mean()) ** 2).sum())


def main(argv: list[str] | None = None) -> None:
    """Run one baseline and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", required=True, choices=[row.name for row in ROWS], metavar="ROW")
    parser.add_argument("--folder", required=True, help="data of the row")
    parser.add_argument("--baseline", required=True, choices=list(BASELINES))
    parser.add_argument("--minutes", type=float, default=1.0, help="of a neural network")
    parser.add_argument("--out", type=Path, help="file of the result")
    args = parser.parse_args(argv)
    row = next(row for row in ROWS if row.name == args.row)
    warnings.filterwarnings("ignore", category=FutureWarning)
    start = time.perf_counter()
    problem = load(row, args.folder, args.minutes)
    predicted = BASELINES[args.baseline].predict(problem)
    value = score(predicted, problem.test, is_class=problem.is_class)
    seconds = round(time.perf_counter() - start, 1)
    found = {"metric": row.metric, "value": value, "seconds": seconds}
    print(json.dumps(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
