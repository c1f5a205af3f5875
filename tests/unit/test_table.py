import csv
import io
import json
import re

import pytest

from perceivers.evaluation.evaluate import Evaluation
from perceivers.evaluation.metrics_table import (
    evaluation_text,
    in_blocks,
    in_columns,
    predictions_text,
)
from perceivers.tasks.prediction import Prediction

EVALUATION = Evaluation(
    split="test",
    num_samples=5,
    metrics={"accuracy": 0.8, "top5": 1.0, "loss": 0.5, "mean_recall": 0.75, "samples": 5.0},
    intervals={"accuracy": (0.3755, 0.9638)},
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


def test_columns_that_do_not_fit_are_in_blocks_below():
    rows = [["", "first", "second", "third"], ["accuracy", "1", "22", "3"]]
    assert in_blocks(rows, width=None) == in_columns(rows, right=(1, 2, 3))
    assert in_blocks(rows, width=23) == (
        "          first  second\n--------  -----  ------\naccuracy      1      22\n\n"
        "          third\n--------  -----\naccuracy      3"
    )
    assert in_blocks(rows, width=5).count("accuracy") == 3


def test_recall_is_by_class():
    assert EVALUATION.recall() == {"cat": 1.0, "dog": 0.5, "owl": None}


def test_the_last_line_is_the_main_metric():
    lines = evaluation_text(EVALUATION).splitlines()
    assert lines[-1] == "test accuracy: 80.0 % (37.5 to 96.4)"
    assert any(re.fullmatch(r"measure +value +95 % interval", line) for line in lines)
    assert any(re.fullmatch(r"accuracy +80\.0 % +37\.5 to 96\.4", line) for line in lines)
    assert any(re.fullmatch(r"mean_recall +75\.0 %", line) for line in lines)
    assert any(re.fullmatch(r"loss +0\.5000", line) for line in lines)
    assert any(re.fullmatch(r"samples +5", line) for line in lines)
    dog = r"dog +50\.0 % \(9\.5 to 90\.5\) +100\.0 % \(20\.7 to 100\.0\) +2"
    assert any(re.fullmatch(dog, line) for line in lines)
    assert any(re.fullmatch(r"owl +- +- +0", line) for line in lines)
    assert any("The test split has only 5 rows" in line for line in lines)


def test_what_could_not_be_read_is_told():
    bad = tuple((f"{index}.png", "truncated") for index in range(12))
    from dataclasses import replace

    text = evaluation_text(replace(EVALUATION, bad=bad))
    assert "12 samples could not be read" in text
    assert "  9.png: truncated\n  and 2 more" in text


def test_json_holds_everything():
    result = json.loads(evaluation_text(EVALUATION, form="json"))
    assert result["metrics"]["accuracy"] == 0.8
    assert result["intervals"]["accuracy"] == [0.3755, 0.9638]
    assert result["classes"]["dog"]["recall_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-3)
    assert result["classes"]["owl"]["precision"] is None
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
    two = predictions_text([prediction("a.png", 0.25), prediction("b.png", 0.5)], form="jsonl")
    assert [json.loads(line)["name"] for line in two.splitlines()] == ["a.png", "b.png"]


LABELS = Evaluation(
    split="test",
    num_samples=4,
    metrics={"mAP": 0.4349, "auc": 0.97, "loss": 0.5, "samples": 4.0},
    main_metric="mAP",
    label_names=("dog", "rain"),
    details=[{"AP": 0.25, "auc": 0.97, "n": 3.0}, {"AP": None, "auc": None, "n": 0.0}],
)
NUMBERS = Evaluation(
    split="validation",
    num_samples=4,
    metrics={"rmse": 1.2345, "mae": 1.0, "r2": 0.5, "loss": 0.5, "samples": 4.0},
    main_metric="rmse",
    label_names=("age",),
    details=[{"rmse": 1.2345, "mae": 1.0, "r2": 0.5}],
)


def test_several_labels_are_measured_each():
    lines = evaluation_text(LABELS).splitlines()
    assert lines[-1] == "test mAP: 43.5 %"
    assert any(re.fullmatch(r"label +AP +auc +n", line) for line in lines)
    assert any(re.fullmatch(r"dog +25\.0 % +0\.97 +3", line) for line in lines)
    assert any(re.fullmatch(r"rain +- +- +0", line) for line in lines)
    result = json.loads(evaluation_text(LABELS, form="json"))
    assert result["details"]["rain"] == {"AP": None, "auc": None, "n": 0.0}
    assert "confusion" not in result
    assert LABELS.recall() == {}


def test_numbers_are_measured_each():
    lines = evaluation_text(NUMBERS).splitlines()
    assert lines[-1] == "validation rmse: 1.234"
    assert any(re.fullmatch(r"age +1\.234 +1 +0\.5", line) for line in lines)
    assert "recall" not in json.loads(evaluation_text(NUMBERS, form="json"))


def test_without_anything_to_say_of_each_there_is_no_table():
    from dataclasses import replace

    assert "age" not in evaluation_text(replace(NUMBERS, details=[]))


def several(name: str, *labels: str) -> Prediction:
    shares = {"dog": 0.75, "rain": 0.5}
    top = tuple(shares.items())
    return Prediction(
        name=name, label="dog", probability=0.75, top=top, probabilities=shares, labels=labels
    )


def test_predictions_of_several_labels():
    made = [several("a.wav", "dog", "rain"), several("b.wav")]
    lines = predictions_text(made).splitlines()
    assert re.fullmatch(r"file +labels +label +probability +label +probability", lines[0])
    assert re.fullmatch(r"a\.wav +dog, rain +dog +75\.0 % +rain +50\.0 %", lines[2])
    assert re.fullmatch(r"b\.wav +- +dog +75\.0 % +rain +50\.0 %", lines[3])
    first, second = csv.DictReader(io.StringIO(predictions_text(made, form="csv")))
    assert (first["labels"], second["labels"], first["p(rain)"]) == ("dog;rain", "", "0.500000")
    rows = json.loads(predictions_text(made, form="json"))
    assert (rows[0]["labels"], rows[1]["labels"]) == (["dog", "rain"], [])


def test_predictions_of_numbers():
    made = [Prediction(name="a.png", values={"age": 41.25, "height": 1.5})]
    lines = predictions_text(made).splitlines()
    assert re.fullmatch(r"file +age +height", lines[0])
    assert re.fullmatch(r"a\.png +41\.25 +1\.5", lines[2])
    assert predictions_text(made, form="csv") == "name,age,height\na.png,41.25,1.5"
    assert json.loads(predictions_text(made, form="json")) == [
        {"version": 1, "name": "a.png", "task": "", "values": {"age": 41.25, "height": 1.5}}
    ]
