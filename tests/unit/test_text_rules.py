"""Rules for texts: length, cells, tables and batch by the data."""

import json

import pytest

from perceivers.recipes.resolve import resolve

WORDS = ["good", "bad", "film", "plot", "cast", "slow"]


def rows(tmp_path, count, length):
    path = tmp_path / "data.jsonl"
    lines = [
        {"text": " ".join(WORDS[(i + j) % 6] + str(i % 50) for j in range(length)), "label": i % 2}
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.mark.parametrize(
    ("count", "length", "max_length", "stride", "batch"),
    [
        (100, 20, 192, 8, 16),
        (1200, 5, 64, 8, 32),
        (60, 900, 6208, 16, 16),
        (60, 2000, 8192, 16, 16),
    ],
)
def test_length_cell_and_batch_follow_the_data(tmp_path, count, length, max_length, stride, batch):
    recipe = resolve(rows(tmp_path, count, length)).recipe
    part = recipe.inputs["text"]
    assert part.kind == "text_hashed"
    assert (part.max_length, part.stride) == (max_length, stride)
    assert recipe.training.batch_size == batch
    assert part.units.word_rows == 65_536
    assert bool(part.units.run_rows) == (max_length <= 1024)
    assert recipe.output.element_pools == ("mean",)
    assert recipe.training.linear_start
    assert recipe.encoder.num_latents == 4


def test_the_rate_is_low_where_a_linear_model_starts_the_training(tmp_path):
    path = rows(tmp_path, 100, 20)
    assert resolve(path).recipe.optim.lr == 5e-4
    assert resolve(path, overrides={"data.stream": True, "max_steps": 9}).recipe.optim.lr == 2e-3
    assert resolve(path, overrides={"optim.lr": 1e-3}).recipe.optim.lr == 1e-3


def test_a_flag_wins_over_the_length_and_the_cell_follows(tmp_path):
    changes = {"preprocess.text.max_length": 4096, "inputs.text.units.word_rows": 99}
    run = resolve(rows(tmp_path, 60, 20), overrides=changes)
    part = run.recipe.inputs["text"]
    assert (part.max_length, part.stride, part.units.word_rows) == (4096, 8, 99)
    assert run.choices[0].startswith("Input: hashed words and phrases in cells of 8 bytes, texts")


def test_few_texts_end_before_the_time_that_is_allowed(tmp_path):
    texts = [f"a text about topic {number % 7}" for number in range(100)]
    table = {"text": texts, "label": [str(number % 2) for number in range(100)]}
    run = resolve(table, overrides={"max_time": "5m"})
    training = run.recipe.training
    assert training.max_time == "5m"
    assert training.max_epochs is not None
    assert training.max_epochs >= 16
    steps = training.max_epochs * len(run.data.splits["train"]) / training.batch_size
    assert steps >= 500
