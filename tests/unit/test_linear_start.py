"""Start from a linear model: units' weights, coefficients, and the first outputs of a model."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from perceivers.baselines.problems import ClassProblem, LabelsProblem, NumberProblem
from perceivers.baselines.reading import RowReader
from perceivers.inputs.hashed_units import HashedUnitsConfig
from perceivers.inputs.table import TableInput, TableInputConfig
from perceivers.inputs.text import HashedTextInput, HashedTextInputConfig
from perceivers.models.perceiver import build
from perceivers.recipes.resolve import resolve
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig
from perceivers.training import linear_start, prepare_model
from perceivers.training.fit import fit
from perceivers.training.linear_start import start_linear
from support.tolerance import relative_error

UNITS = HashedUnitsConfig(
    word_rows=64, word_channels=4, phrase_rows=64, phrase_channels=5, run_rows=32, run_channels=6
)
TEXTS = ("good film, good cast", "a slow plot", "it is")


def batch_of(texts):
    """Return ids of texts, B x L, and which bytes are real."""
    length = max(map(len, texts))
    ids = torch.tensor([[byte + 6 for byte in text.encode().ljust(length)] for text in texts])
    real = torch.arange(length) < torch.tensor([[len(text)] for text in texts])
    return ids, real


def mean_content(adapter, ids, real):
    elements = adapter(ids, real)
    mask = elements.mask[..., None]
    return (elements.content * mask).sum(dim=1) / mask.sum(dim=1)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_vectors_hold_the_weights_of_a_linear_model_of_units(outputs):
    torch.manual_seed(0)
    config = HashedTextInputConfig(max_length=32, stride=4, units=UNITS, num_bands=2)
    adapter = HashedTextInput(config).eval()
    ids, real = batch_of(TEXTS)
    weights = torch.randn(64 + 64 + 32, outputs)
    projection, constant = adapter.write_vectors(weights)
    expected = adapter.linear_features(ids, real) @ weights
    with torch.no_grad():
        found = mean_content(adapter, ids, real) @ projection.T - constant
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_vectors_hold_the_weights_of_a_linear_model_of_fields(outputs, pieces):
    torch.manual_seed(0)
    sizes = {"num_numbers": 3, "category_sizes": (2, 4)}
    adapter = TableInput(TableInputConfig(**sizes, channels=8, pieces=pieces)).eval()
    numbers = torch.randn(6, 3) * 2
    rows = torch.cat([numbers, torch.tensor([[0, 3], [1, 0]]).repeat(3, 1)], dim=1)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[1, 0] = mask[2, 4] = mask[3, 1:] = False
    rows[2, 4] = float("nan")
    weights = torch.randn(3 + 18 * pieces + 6 + 5, outputs)
    projection, constant = adapter.write_vectors(weights)
    for real in (None, mask):
        given = rows.where(mask, 0.0) if real is None else rows
        expected = adapter.linear_features(given, real) @ weights
        with torch.no_grad():
            content = adapter(given, real).content
            shown = torch.ones_like(content[..., 0]) if real is None else real
            mean = (content * shown[..., None]).sum(dim=1) / shown.sum(dim=1, keepdim=True)
            assert relative_error(mean @ projection.T - constant, expected) < 1e-5


def test_fields_of_categories_alone_have_a_linear_model():
    adapter = TableInput(TableInputConfig(num_numbers=0, category_sizes=(3,), channels=8))
    weights = torch.randn(3 + 1, 2)
    projection, _ = adapter.write_vectors(weights)
    rows = torch.tensor([[0.0], [2.0]])
    with torch.no_grad():
        found = adapter(rows).content[:, 0] @ projection.T
    assert relative_error(found, weights[[0, 2]] + weights[3]) < 1e-5


def test_more_outputs_than_channels_keep_the_principal_components():
    torch.manual_seed(0)
    units = replace(UNITS, phrase_rows=0, run_rows=0)
    adapter = HashedTextInput(HashedTextInputConfig(max_length=32, units=units)).eval()
    weights = torch.randn(64, 4) @ torch.randn(4, 9)  # of rank 4, as many as the words' channels
    projection, _ = adapter.write_vectors(weights + 1e-3 * torch.randn(64, 9))
    assert projection.shape == (9, 4)
    assert relative_error(adapter.units.tables["words"] @ projection.T, weights) < 1e-2


def classes(names):
    return ClassProblem(build_task(ClassificationConfig(label_names=names)))


def labels(names):
    return LabelsProblem(build_task(MultiLabelConfig(label_names=names)))


def numbers(names):
    ones = (1.0,) * len(names)
    return NumberProblem(build_task(RegressionConfig(target_names=names, mean=ones, std=ones)))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("make", [classes, labels, numbers])
def test_coefficients_give_the_outputs_of_the_estimator(make, count):
    if make is classes:
        count += 1
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    problem = make(tuple("abcd"[:count]))
    if make is classes:
        targets = (features[:, 0] > 0).astype(int) + (features[:, 1] > 0.5) * (count > 2)
    else:
        targets = features[:, :count] > 0 if make is labels else features[:, :count]
        targets = problem.targets(torch.from_numpy(targets.astype(np.float32)))
    weights, biases = problem.linear(csr_matrix(features), targets, 10.0)
    assert weights.shape == (6, count)
    found = features @ weights + biases
    expected = problem.fit_predict("linear:10", features, targets, features)
    if make is classes:
        known = np.unique(targets)
        found, expected = found[:, known], expected[:, known]
        found = found - np.logaddexp.reduce(found, axis=1)[:, None]
        found = found.clip(np.log(1e-7))  # as probabilities are
    assert found == pytest.approx(expected, abs=2e-2)


def test_a_class_or_label_that_train_lacks_is_not_predicted():
    features = np.random.default_rng(0).normal(size=(40, 6))
    weights, biases = classes(("a", "b", "c")).linear(features, np.arange(40) % 2 * 2, 10.0)
    assert ((features @ weights + biases).argmax(axis=1) != 1).all()
    targets = np.stack([np.arange(40) % 2, np.zeros(40, int), np.ones(40, int)], axis=1)
    weights, biases = labels(("a", "b", "c")).linear(features, targets, 10.0)
    found = features @ weights + biases
    assert (found[:, 1] < 0).all()
    assert (found[:, 2] > 0).all()


SMALL = {
    "inputs.text.units.word_rows": 1024,
    "inputs.text.units.phrase_rows": 1024,
    "inputs.text.units.run_rows": 1024,
}


def texts(tmp_path, target):
    words = ["good", "bad", "fine", "poor", "nice", "dull"]
    path = tmp_path / "data.jsonl"
    lines = [
        {"text": f"a {words[i % 6]} film number {i}", "label": target(i % 2)} for i in range(120)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def started(run):
    torch.manual_seed(0)
    model, task = build(run.recipe.model_config()), build_task(run.recipe.task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sentence = start_linear(run, model, task)
    changed = [name for name, value in model.state_dict().items() if (before[name] != value).any()]
    return model.eval(), sentence, changed


@pytest.mark.parametrize(
    ("target", "kind", "changes"),
    [
        ("ab".__getitem__, "logistic", {}),
        (lambda one: ["x", "y"][: one + 1], "logistic", {}),
        (lambda one: one + 0.5, "ridge", {"target": "number"}),
    ],
)
def test_the_first_outputs_are_those_of_the_linear_model(tmp_path, target, kind, changes):
    run = resolve(texts(tmp_path, target), overrides={**SMALL, **changes, "label": "label"})
    assert run.recipe.training.linear_start
    model, sentence, changed = started(run)
    assert sentence.startswith(f"The path from the elements to the outputs starts from a {kind}")
    assert {name.split(".")[0] for name in changed} == {"inputs", "output"}
    ids, real = batch_of(
        ["a good film number 1", "a bad film number 2", "a nice film", "a dull film"]
    )
    with torch.no_grad():
        outputs = model({"text": ids}, {"text": real})
    if kind == "ridge":
        assert outputs.flatten().tolist() == pytest.approx([-1, 1, -1, 1], abs=0.8)
    elif outputs.shape[1] == 2 and isinstance(target(0), str):
        assert outputs.argmax(dim=1).tolist() == [0, 1, 0, 1]
    else:
        assert (outputs[:, 1] > 0).tolist() == [False, True, False, True]
        assert (outputs[:, 0] > 0).all()


@pytest.mark.parametrize("kind", ["class", "number"])
def test_a_table_starts_from_a_linear_model_of_its_fields(kind):
    rng = np.random.default_rng(0)
    x, color = rng.normal(size=(2, 150)), rng.choice(["red", "blue"], size=150)
    value = x[0] - np.abs(x[1]) + 2.0 * (color == "red")
    y = value.tolist() if kind == "number" else ["low" if one < 0 else "high" for one in value]
    table = {"a": x[0].tolist(), "b": x[1].tolist(), "color": color.tolist(), "y": y}
    changes = {"target": "number"} if kind == "number" else {}
    run = resolve(table, overrides={"label": "y", **changes})
    model, sentence, changed = started(run)
    regression = "ridge" if kind == "number" else "logistic"
    assert f"starts from a {regression} regression on the fields of" in sentence
    assert {name.split(".")[0] for name in changed} == {"inputs", "output"}
    batch, _ = next(RowReader(run, {}).batches(["train"]))
    with torch.no_grad():
        outputs = model(batch.inputs, batch.masks)
    if kind == "number":
        expected = build_task(run.recipe.task).standardized(batch.targets)
        # The absolute value bends at 0, which is the end of a range.
        assert torch.corrcoef(torch.cat([outputs, expected], dim=1).T)[0, 1] > 0.97
    else:
        assert (outputs.argmax(dim=1) == batch.targets).float().mean() > 0.9


def test_the_regularization_is_chosen_on_folds():
    rng = np.random.default_rng(0)
    features, draws = rng.normal(size=(200, 30)), rng.random(200)
    found = []
    for signal in (0.0, 5.0):
        chances = 1 / (1 + np.exp(-signal * features[:, 0]))
        targets = torch.from_numpy((draws < chances).astype(int))
        found.append(linear_start._best_strength(classes(("a", "b")), features, targets))
    assert found == [0.01, 1.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"output.element_pools": ("mean", "max")},
        {"output.standardize_pools": True},
    ],
)
def test_other_models_stay_as_they_are(tmp_path, changes):
    run = resolve(texts(tmp_path, "ab".__getitem__), overrides={**SMALL, **changes})
    assert started(run)[1:] == ("", [])


def test_a_linear_model_that_costs_too_much_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(linear_start, "_COST", 10)
    run = resolve(texts(tmp_path, "ab".__getitem__), overrides=SMALL)
    monkeypatch.setattr(linear_start, "_SMALLEST_SHARE", 0.9)
    assert started(run)[1:] == ("", [])
    monkeypatch.setattr(linear_start, "_SMALLEST_SHARE", 0.1)
    assert "on the units of 32 rows" in started(run)[1]


def test_a_run_starts_once_and_says_so(tmp_path, monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return start_linear(*arguments)

    monkeypatch.setattr(prepare_model, "start_linear", counted)
    path, out = texts(tmp_path, "ab".__getitem__), tmp_path / "run"
    options = {**SMALL, "data.workers": 0, "baseline": False, "out": out}
    fit(path, max_steps=2, **options)
    assert "starts from a logistic regression on the units of" in (out / "report.md").read_text()
    fit(path, resume=True, max_steps=3, **options)
    assert len(calls) == 1
    fit(path, max_steps=2, **options | {"out": tmp_path / "other"}, linear_start=False)
    assert len(calls) == 1


def test_without_a_readable_row_the_model_stays_as_it_is(tmp_path, monkeypatch):
    run = resolve(texts(tmp_path, "ab".__getitem__), overrides=SMALL)
    monkeypatch.setattr(linear_start.RowReader, "batches", lambda *_: iter(()))
    assert started(run)[1:] == ("", [])


def test_a_start_that_takes_longer_than_the_run_leaves_time_to_train(tmp_path, monkeypatch):
    def slow(*arguments):
        time.sleep(0.6)
        return start_linear(*arguments)

    monkeypatch.setattr(prepare_model, "start_linear", slow)
    options = {**SMALL, "data.workers": 0, "baseline": False, "out": tmp_path / "run"}
    run = fit(texts(tmp_path, "ab".__getitem__), max_time="0.5s", **options)
    assert run.metrics["accuracy"] > 0.5
