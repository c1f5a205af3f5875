import csv
import io
import json
import re

import pytest

from perceivers.evaluation.predict import Prediction
from perceivers.evaluation.protocols import Evaluation
from perceivers.evaluation.table import evaluation_text, in_columns, predictions_text

EVALUATION = Evaluation(
    split="test",
    num_samples=5,
    metrics={"accuracy": 0.8, "top5": 1.0, "loss": 0.5, "mean_recall": 0.75, "samples": 5.0},
    main_metric="accuracy",
    label_names=("cat", "dog", "owl"),
    confusion=((3, 0, 0), (1, 1, 0), (0, 0, 0)),
)


def prediction(name: str, cat: float) -> Prediction:
    shares = {"cat": cat, "dog, wild": 1 - cat}
    top = tuple(sorted(shares.items(), key=lambda pair: -pair[1]))
    return Prediction(
        name=name, label=top[0][0], probability=top[0][1], top=top, probabilities=shares
    )


def test_columns_are_aligned():
    text = in_columns([["name", "n"], ["a", "10"], ["long", "5"]], right=(1,))
    assert text == "name   n\n----  --\na     10\nlong   5"


def test_recall_is_by_class():
    assert EVALUATION.recall() == {"cat": 1.0, "dog": 0.5, "owl": None}


def test_the_last_line_is_the_main_metric():
    lines = evaluation_text(EVALUATION).splitlines()
    assert lines[-1] == "test accuracy: 80.0 %"
    assert any(re.fullmatch(r"accuracy +80\.0 %", line) for line in lines)
    assert any(re.fullmatch(r"mean_recall +75\.0 %", line) for line in lines)
    assert any(re.fullmatch(r"loss +0\.5000", line) for line in lines)
    assert any(re.fullmatch(r"samples +5", line) for line in lines)
    assert any(re.fullmatch(r"dog +50\.0 % +2", line) for line in lines)
    assert any(re.fullmatch(r"owl +- +0", line) for line in lines)


def test_what_could_not_be_read_is_told():
    bad = tuple((f"{index}.png", "truncated") for index in range(12))
    from dataclasses import replace

    text = evaluation_text(replace(EVALUATION, bad=bad))
    assert "12 samples could not be read" in text
    assert "  9.png: truncated\n  and 2 more" in text


def test_json_holds_everything():
    result = json.loads(evaluation_text(EVALUATION, form="json"))
    assert result["metrics"]["accuracy"] == 0.8
    assert result["recall"] == {"cat": 1.0, "dog": 0.5, "owl": None}
    assert result["confusion"] == [[3, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert result["split"] == "test"


def test_predictions_as_table():
    text = predictions_text([prediction("a.png", 0.25), prediction("b.png", 0.875)])
    assert "a.png  dog, wild       75.0 %  cat             25.0 %" in text
    assert predictions_text([]) == "No predictions."


def test_predictions_as_csv_can_be_read_back():
    text = predictions_text([prediction("a.png", 0.25)], form="csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["label"] == "dog, wild"
    assert float(row["p(cat)"]) == 0.25
    assert predictions_text([], form="csv") == "name,label,probability"


def test_predictions_as_json():
    (row,) = json.loads(predictions_text([prediction("a.png", 0.25)], form="json"))
    assert row["top"][1] == {"label": "cat", "probability": pytest.approx(0.25)}
