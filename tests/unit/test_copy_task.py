"""The copy task: its data, the recipe, and that only the second half is learned and measured."""

import json

import pytest
import torch

from perceivers.cli.main import main
from perceivers.data.sources.synthetic_copy import write_copy_texts
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.byte_tokens import IGNORED
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.registry import build_task


def rows(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_the_second_half_is_the_first_in_reverse_order(tmp_path, capsys):
    flags = ["--length", "20", "--count", "10", "--test", "0.2"]
    assert main(["make-copy-data", "--out", str(tmp_path / "copy"), *flags]) == 0
    assert "10 texts" in capsys.readouterr().out
    train, test = rows(tmp_path / "copy" / "train.jsonl"), rows(tmp_path / "copy" / "test.jsonl")
    assert (len(train), len(test), len({*train, *test})) == (8, 2, 10)
    for text in (*train, *test):
        assert len(text) == 18
        assert text[:9] == text[:8:-1]
        assert text.isascii()
        assert text.isprintable()
    write_copy_texts(tmp_path / "again", length=20, count=10, test=0.2)
    assert rows(tmp_path / "again" / "train.jsonl") == train
    assert main(["make-copy-data", "--out", str(tmp_path / "copy")]) == 1
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [{"length": 21}, {"length": 8}, {"count": 1}, {"test": 0.0}, {"test": 1.0}]
)
def test_numbers_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="Expected an even length of at least 10"):
        write_copy_texts(tmp_path / "copy", **{"length": 20, "count": 10} | options)


@pytest.mark.parametrize("size", ["paper", "tiny"])
def test_the_model_reads_a_whole_text_and_predicts_its_second_half(size):
    recipe = get_recipe("copy_131072", size=size)
    length = recipe.preprocess["text"].max_length
    assert length == recipe.encoder.max_length - 2
    assert recipe.task.context == length // 2
    assert max(map(ord, "~")) + 6 < recipe.encoder.vocab_size


def test_tokens_of_the_context_are_no_targets():
    task = build_task(NextTokenTaskConfig(context=3, shortest_crop=6))
    ids = torch.arange(10, 16)[None].repeat(2, 1)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    batch = task.prepare_batch({"text": ids}, {"text": mask}, None, training=True)
    assert batch.targets.tolist() == [
        [IGNORED] * 3 + [13, 14, 15],
        [IGNORED] * 5 + [13],
    ]
    with pytest.raises(ValueError, match="a context"):
        NextTokenTaskConfig(context=-1)
