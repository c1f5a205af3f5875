import json

import pytest
import yaml

from perceivers.report.publish import file_name_only, file_names_only, model_card
from perceivers.runs.record import read_run
from support.runs import make_finished_run


def split(card):
    _, metadata, body = card.split("---\n", 2)
    return yaml.safe_load(metadata), body


@pytest.fixture
def folder(tmp_path):
    return make_finished_run(tmp_path / "secret" / "run")


def test_metadata_are_what_the_hub_searches(folder):
    told = {"split": "test", "metrics": {"accuracy": 0.5, "samples": 4.0}}
    (folder / "evaluation-test.json").write_text(json.dumps(told))
    data, _ = split(model_card(read_run(folder), "somebody/birds"))
    assert data["library_name"] == "perceivers"
    assert data["pipeline_tag"] == "image-classification"
    assert data["tags"] == ["perceivers", "perceiver", "image", "classification"]
    (model,) = data["model-index"]
    assert model["name"] == "birds"
    found = {
        (one["dataset"]["split"], metric["type"]): metric["value"]
        for one in model["results"]
        for metric in one["metrics"]
    }
    assert found[("validation", "accuracy")] == 0.75
    assert found[("test", "accuracy")] == 0.5
    assert {one["dataset"]["name"] for one in model["results"]} == {"birds"}


def test_the_body_says_what_one_needs_and_nothing_of_the_machine(folder, tmp_path):
    card = model_card(read_run(folder), "somebody/birds")
    _, body = split(card)
    for words in (
        "# birds",
        'pv.load("somebody/birds")',
        "| accuracy | 75.0 % |",
        "It was trained on `birds`.",
        "perceivers fit birds --out run",
        "- Read from birds.",
        "- 1 row could not be read; left out of training and metrics.",
        "GFLOPs per sample",
        "No test split was measured.",
        "torch 2.11",
    ):
        assert words in body, words
    assert "9.png" not in card
    assert "secret" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("/home/ada/birds", "birds"),
        ("../birds", "birds"),
        ("~/data/birds.csv", "birds.csv"),
        (r"C:\data\birds", "birds"),
        ("somebody/birds", "somebody/birds"),
        ("https://key:word@host/a.parquet?sig=1", "https://host/a.parquet"),
        ("--size", "--size"),
    ],
)
def test_places_become_names(word, left):
    assert file_name_only(word) == left


def test_places_in_sentences_become_names():
    told = "Read from /home/ada/birds, 3/4 of it; see ../x/y.csv. And/or https://host/a/b."
    assert (
        file_names_only(told) == "Read from birds, 3/4 of it; see y.csv. And/or https://host/a/b."
    )
