"""Simple baselines: features of each modality, choice of the model, scores, and budgets of time."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.baselines import candidates as choice
from perceivers.baselines.candidates import Candidate, choose, list_candidates
from perceivers.baselines.fit import fit_baseline
from perceivers.baselines.kernels import kernel_features
from perceivers.baselines.problems import ClassProblem, LabelsProblem, NumberProblem
from perceivers.baselines.result import BaselineResult, paired_p_value
from perceivers.baselines.views import View, features_of, statistics_view
from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.recipes.resolve import resolve
from perceivers.runs.sentences import baseline_sentence
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.config import BaseTaskConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig
from perceivers.training.baseline import _p_value as paired_with

SHAPES = {
    "image": (3, 20, 12),
    "video": (5, 3, 16, 16),
    "audio": (30, 16),
    "points": (40, 6),
    "series": (50, 2),
    "array": (7, 3),
    "of a plugin": (9, 2, 2),
}
ALIKE = ("image", "of a plugin")  # without a mask of elements


def made(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def views_of(modality: str, train: np.ndarray, test: np.ndarray, mask=None) -> list[View]:
    features = features_of(modality)
    kept = features.collect(train, mask, None), features.collect(test, None, None)
    if features.views is None:
        return statistics_view(features, *kept)
    return features.views(*kept, 5.0)


@pytest.mark.parametrize("modality", SHAPES)
def test_features_are_finite_of_one_width_and_the_same_again(modality):
    train, test = made((6, *SHAPES[modality])), made((3, *SHAPES[modality]), 1)
    found, again = views_of(modality, train, test), views_of(modality, train, test)
    assert found
    for one, other in zip(found, again, strict=True):
        assert one.train.shape == (6, one.test.shape[1])
        assert one.test.shape[0] == 3
        assert np.isfinite(one.train).all()
        assert np.array_equal(one.train, other.train)
        assert np.array_equal(one.test, other.test)


@pytest.mark.parametrize("modality", SHAPES)
def test_missing_samples_have_no_numbers_and_padding_does_not_count(modality):
    values = made((4, *SHAPES[modality]))
    mask = np.ones((4, 1 if modality in ALIKE else values.shape[1]), bool)
    mask[1] = False
    if modality not in ALIKE:
        mask[2, -2:] = False
    kept = features_of(modality).collect(values, mask, None)
    assert [one is None for one in kept] == [False, True, False, False]
    values[1] = 7.0
    if modality not in ALIKE:
        values[2, -2:] = 7.0
    same = features_of(modality).collect(values, mask, None)
    assert all(np.array_equal(a, b) for a, b in zip(kept, same, strict=True) if a is not None)
    assert all(np.isfinite(one.test).all() for one in views_of(modality, values, values, mask))


@pytest.mark.parametrize("length", [1, 2, 9, 300])
@pytest.mark.parametrize("modality", ["audio", "series", "points", "array", "video"])
def test_features_of_short_and_long_samples_are_finite(modality, length):
    train = np.zeros((3, length, *SHAPES[modality][1:]), np.float32)
    train[1:] = made((2, *train.shape[1:]))
    for one in views_of(modality, train, train):
        assert np.isfinite(one.train).all()


def test_words_of_text_have_weights_of_unit_norm_and_unknown_ones_none():
    texts = ["good film", "bad film", "", "très bon"]
    ids = np.zeros((4, 16), np.int64)
    for row, text in zip(ids, texts, strict=True):
        data = np.frombuffer(text.encode(), np.uint8)
        row[: len(data)] = data.astype(np.int64) + 6
    features = features_of("text")
    kept = features.collect(ids, ids > 0, None)
    assert kept == texts
    (view,) = features.views(kept, ["good", "xyzzy"], 5.0)
    assert view.kind == "words"
    assert view.name == "word and character n-grams"
    norms = (
        np.sqrt(view.train.multiply(view.train).sum(axis=1)).A1
        if hasattr(view.train, "A1")
        else (np.sqrt(np.asarray(view.train.multiply(view.train).sum(axis=1)).ravel()))
    )
    assert np.allclose(norms[[0, 1, 3]], 2**0.5)
    assert view.test[0].sum() > 0


def test_long_text_has_no_runs_of_characters_and_text_without_blanks_nothing_else():
    features = features_of("text")
    (long,) = features.views(["a few words of a text"] * 50, ["a"], 0.001)
    assert long.name == "words and pairs of words"
    (letters,) = features.views(["ACGTTGCA" * 20] * 5, ["ACGT"], 5.0)
    assert letters.name == "character n-grams"


def test_fields_of_a_table_are_numbers_and_one_place_for_each_name():
    config = TablePreprocessConfig(numbers=("x",), categories={"c": ("a", "b")})
    values = np.array([[1.5, 1.0], [0.0, 0.0]], np.float32)
    mask = np.array([[True, True], [False, False]])
    first, second = features_of("table").collect(values, mask, config)
    assert first.tolist() == [1.5, 0.0, 1.0]
    assert np.isnan(second[0])
    assert second[1:].tolist() == [0.0, 0.0]


def test_random_kernels_tell_frequencies_apart():
    steps = torch.arange(64.0)
    shift = torch.linspace(0, 6, 20)[:, None]
    slow, fast = torch.sin(0.2 * steps + shift), torch.sin(0.6 * steps + shift)
    series = torch.cat([slow, fast])[:, None]
    train, test = kernel_features(series, series[:4], seconds=1.0)
    assert np.allclose(train[:4], test)
    assert 0 <= train.min() <= train.max() <= 1
    between = np.linalg.norm(train[:20].mean(axis=0) - train[20:].mean(axis=0))
    assert between > 3 * np.linalg.norm(train[:20].std(axis=0)) / 20**0.5


def test_less_time_makes_fewer_kernel_features():
    series = torch.randn(50, 1, 100)
    sizes = [kernel_features(series, series, seconds=s)[0].shape[1] for s in (10.0, 0.002)]
    assert sizes[1] < sizes[0]


def statistics(rows: int, labels: np.ndarray, width: int = 4) -> View:
    values = made((rows, width))
    values[:, 0] += 12 * labels
    return View(kind="statistics", name="numbers", train=values, test=values[:10])


@pytest.fixture
def few_trees(monkeypatch):
    """Grow 10 trees instead of 300."""
    from sklearn import ensemble

    for name in ("ExtraTreesClassifier", "ExtraTreesRegressor"):
        plain = getattr(ensemble, name)
        monkeypatch.setattr(ensemble, name, lambda _, plain=plain, **options: plain(10, **options))


@pytest.mark.usefixtures("few_trees")
def test_classes_that_train_lacks_are_never_predicted():
    labels = np.arange(60) % 2 * 2
    problem = ClassProblem(build_task(ClassificationConfig(label_names=("a", "b", "c"))))
    view = statistics(60, labels)
    for one in list_candidates([view], 3):
        outputs = problem.fit_predict(one.estimator, one.train, labels, one.test)
        assert outputs.shape == (10, 3)
        assert not (outputs.argmax(axis=1) == 1).any()
    only = problem.fit_predict("linear:1", view.train, np.full(60, 2), view.test)
    assert (only.argmax(axis=1) == 2).all()


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["labels", "number"])
def test_labels_and_numbers_become_outputs_of_their_task(kind, count):
    names = tuple("abc"[:count])
    truth = np.arange(60) % 2
    targets = torch.from_numpy(np.stack([truth] + [truth * 0] * (count - 1), axis=1)).float()
    if kind == "labels":
        problem = LabelsProblem(build_task(MultiLabelConfig(label_names=names)))
    else:
        task = RegressionConfig(target_names=names, mean=(0.5,) * count, std=(0.5,) * count)
        problem = NumberProblem(build_task(task))
    learned = problem.targets(targets)
    view = statistics(60, truth)
    wide = View(kind="kernels", name="wide", train=view.train, test=view.test)
    for one in [*list_candidates([view], count), *list_candidates([wide], count)]:
        outputs = problem.fit_predict(one.estimator, one.train, learned, one.test)
        assert outputs.shape == (10, count)
        assert np.isfinite(outputs).all()
        assert ((outputs[:, 0] > 0) == (truth[:10] > 0.5)).all()
        assert np.isfinite(problem.score(outputs, targets[:10]))


def test_missing_numbers_are_stated_and_constant_ones_left_out():
    train = np.array([[1, np.nan, 3], [1, 2, 5], [1, 4, 7]], np.float32)
    first, second = choice._standardized(train, train[:1])
    assert first.shape == (3, 3)  # two that vary, and which of the second are missing
    assert first[:, 2].tolist() == [1, 0, 0]
    assert first[0, 0] == 0
    assert np.array_equal(second, first[:1])


class Slow(ClassProblem):
    """A problem whose fits take a known time, which `time.monotonic` of the module shows."""

    def __init__(self, seconds_a_row: float, clock: list[float]) -> None:
        super().__init__(build_task(ClassificationConfig(label_names=("a", "b"))))
        self.seconds, self.clock, self.rows = seconds_a_row, clock, []

    def targets(self, targets):
        return targets.numpy()

    def describe(self, name):
        return name

    def fit_predict(self, name, train, targets, test):
        self.rows.append(len(train))
        self.clock[0] += self.seconds * len(train)
        return np.zeros((len(test), 2))

    def score(self, outputs, targets):
        return 0.5


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(choice.time, "monotonic", lambda: now[0])
    return now


def test_the_model_learns_from_as_many_rows_as_the_time_allows(clock):
    views = statistics(10_000, np.zeros(10_000))
    one = Candidate(estimator="linear", features="numbers", train=views.train, test=views.test)
    slow = Slow(0.001, clock)
    chosen = choose([one, one], slow, torch.zeros(10_000, dtype=torch.long), deadline=8.0)
    assert chosen.rows < 10_000
    assert clock[0] < 8.0
    assert slow.rows[-1] == chosen.rows > 1500
    quick = choose([one], Slow(1e-5, [0.0]), torch.zeros(10_000, dtype=torch.long), deadline=99.0)
    assert quick.rows == 10_000
    assert quick.model == "linear on numbers"


def test_no_candidate_is_tried_after_its_share_of_the_time(clock):
    views = statistics(400, np.zeros(400))
    one = Candidate(estimator="linear", features="numbers", train=views.train, test=views.test)
    slow = Slow(0.01, clock)
    choose([one] * 5, slow, torch.zeros(400, dtype=torch.long), deadline=20.0)
    assert len(slow.rows) == choice._FOLDS + 1


def test_a_group_is_never_on_both_sides_of_the_choice():
    groups = np.array(list("aabbccddee") * 3)
    for kept, held in choice._folds(30, groups):
        assert not set(groups[kept]) & set(groups[held])
    (one,) = choice._folds(30, np.array(["a"] * 30))
    assert len(one[0]) == len(one[1]) == 30


def table(rows: int = 80) -> dict[str, list[object]]:
    numbers = made((rows,))
    names = ["high" if number > 0 else "low" for number in numbers]
    return {
        "x": numbers.tolist(),
        "y": (3 * numbers).tolist(),
        "color": ["red", "blue"] * (rows // 2),
        "label": names,
    }


COLUMNS = {"columns": {"x": "number", "color": "category"}}


@pytest.mark.usefixtures("few_trees")
def test_a_table_of_two_classes_is_learned_and_repeats():
    run = resolve(table(), overrides=COLUMNS)
    errors: dict[int, float] = {}
    found, again = fit_baseline(run, errors=errors), fit_baseline(run)
    assert found is not None
    assert found.metric == "accuracy"
    assert found.value >= 0.8
    assert found.model.endswith("on the columns")
    assert (found.train_rows, found.rows) == (72, 8)
    assert found.candidates == 6
    assert found.interval is not None
    assert sorted(errors) == list(range(8))
    assert np.mean(list(errors.values())) == pytest.approx(1 - found.value)
    assert again is not None
    assert again.value == found.value


@pytest.mark.parametrize("folds", [1, 4])
def test_a_run_is_compared_with_a_baseline_on_the_same_rows(folds):
    run = resolve(table(), overrides={**COLUMNS, "folds": folds})
    order = [row for fold in run.data.folds for row in fold] or list(range(8))
    wrong = np.isin(order, [1, 3, 5, 6, 7])
    meter = build_task(ClassificationConfig(label_names=("a", "b"))).meter()
    truth = torch.zeros(len(order), dtype=torch.long)
    meter.update(torch.from_numpy(np.stack([~wrong, wrong], axis=1)).float(), truth)
    assert paired_with(run, meter, dict.fromkeys([1, 3, 5, 6, 7], 0.0)) == 2 / 2**5
    assert paired_with(run, meter, dict.fromkeys([0, 2, 4], 0.0)) == 1.0
    assert paired_with(run, meter, {}) is None
    meter.update(torch.eye(2), torch.tensor([0, 1]))
    assert paired_with(run, meter, {1: 0.0}) is None


@pytest.mark.usefixtures("few_trees")
def test_numbers_and_several_tasks_are_learned():
    run = resolve(table(), overrides={**COLUMNS, "label": "y"})
    found = fit_baseline(run, train=("train", "validation"), test="train")
    assert found is not None
    assert (found.metric, found.higher_is_better) == ("rmse", False)
    assert found.value < 0.5
    assert (found.train_rows, found.rows) == (80, 72)
    run = resolve(table(), overrides={**COLUMNS, "label": "label,y:number"})
    found = fit_baseline(run)
    assert found is not None
    assert found.metric == "score"
    assert found.value > 0.8


def test_a_task_without_labels_has_no_baseline():
    run = resolve(table(), overrides=COLUMNS)
    assert fit_baseline(replace(run, data=replace(run.data, target=None))) is None
    other = replace(run.recipe, task=BaseTaskConfig(kind="dense"))
    assert fit_baseline(replace(run, recipe=other)) is None


def result(**changes: object) -> BaselineResult:
    values = {
        "metric": "accuracy",
        "value": 0.88,
        "higher_is_better": True,
        "model": "logistic regression on words",
        "seconds": 6.2,
        "train_rows": 90,
        "of_train_rows": 90,
        "rows": 10,
        "of_rows": 10,
    }
    return BaselineResult(**{**values, **changes})


def test_the_sentence_states_both_values_and_who_is_better():
    assert baseline_sentence(result(candidates=3, interval=(0.86, 0.9)), 0.912, (0.9, 0.92)) == (
        "Validation accuracy 91.2 % (simple baseline: 88.0 %, logistic regression on words; 6 s for 3 candidates)."
    )
    better = baseline_sentence(result(interval=(0.86, 0.9)), 0.8, (0.77, 0.83))
    assert "The simple baseline is better here" in better
    assert "--preset best" in better


@pytest.mark.parametrize(
    ("value", "p_value", "words"),
    [
        (2.5, None, "better here"),
        (2.1, None, "about as good: on 10 rows"),
        (1.9, None, "about as good: on 10 rows"),
        (1.5, None, "s)."),
        (2.0, None, "s)."),
        (2.1, 0.01, "better here"),
        (2.5, 0.2, "about as good: on 10 rows"),
    ],
)
def test_an_insignificant_difference_is_no_advice(value, p_value, words):
    error = result(metric="rmse", higher_is_better=False, value=2.0, interval=(1.8, 2.2))
    text = baseline_sentence(error, value, (value - 0.2, value + 0.2), p_value)
    assert words in text
    assert ("better here" in text) == (words == "better here")


def test_a_difference_without_any_interval_is_no_advice():
    assert "about as good" in baseline_sentence(result(), 0.5)


def test_errors_of_the_same_rows_are_compared_in_pairs():
    none, wrong = [0.0] * 50, [0.0] * 49 + [1.0]
    assert paired_p_value(wrong, none) == 1.0
    assert paired_p_value([1.0] * 9 + [0.0] * 41, none) == pytest.approx(2 / 2**9)
    assert paired_p_value(none, none) == 1.0
    assert paired_p_value([0.5, 0.25], [0.0, 0.0]) is None
    errors, others = (np.square(made((100,), seed)) for seed in (0, 1))
    assert paired_p_value((errors + 0.1).tolist(), errors.tolist()) < 1e-6
    assert paired_p_value(errors.tolist(), others.tolist()) > 0.01


def test_the_description_states_rows_that_were_left_out():
    assert result(seconds=8.0).describe() == "logistic regression on words; 8 s"
    assert "learned from 50 of 90 rows" in result(train_rows=50).describe()
    assert "learned from" not in result(train_rows=899, of_train_rows=900).describe()
    streamed = result(of_train_rows=None, of_rows=None).describe()
    assert streamed.endswith("learned from 90 rows, scored on 10 rows")


@pytest.mark.usefixtures("few_trees")
def test_reading_ends_when_its_time_is_over(monkeypatch):
    run = resolve(table(1000), overrides=COLUMNS)
    now = [time.monotonic()]

    def later() -> float:
        now[0] += 0.05
        return now[0]

    monkeypatch.setattr("perceivers.baselines.reading.time.monotonic", later)
    found = fit_baseline(run, seconds=2.0)
    assert found is not None
    assert found.train_rows < 800
    assert found.of_train_rows == 900


def test_equal_features_of_all_rows_are_named():
    view = View(
        kind="statistics",
        name="s",
        train=np.ones((6, 3), np.float32),
        test=np.ones((2, 3), np.float32),
    )
    with pytest.raises(ValueError, match="features are the same in all training rows"):
        list_candidates([view], 2)
