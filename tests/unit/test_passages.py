"""Several texts of a row, read as one."""

import io
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import perceivers as pv
from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sample_cache import SampleCache
from perceivers.data.loading.transform import encoded_item_of
from perceivers.data.modalities.text.modality import (
    SEP,
    TextAugmentConfig,
    TextModality,
    TextPreprocessConfig,
    measure_text,
    read_multi_text,
    room_of_each,
)
from perceivers.data.sources.open import open_data
from perceivers.recipes.registry import get_recipe
from perceivers.recipes.resolve import _bind_columns, choose_recipe
from support.resolved import specialize

# The columns of GLUE's tasks of two sentences, and what their labels are.
PAIRS = {
    "mnli": ("premise", "hypothesis", ["entailment", "neutral", "contradiction"]),
    "qnli": ("question", "sentence", ["yes", "no"]),
    "stsb": ("sentence1", "sentence2", [0.2 + 0.37 * n for n in range(12)]),
}


def read(media, *, max_length=16, augment=None, rng=None, **settings):
    texts = TextModality(TextPreprocessConfig(max_length=max_length, **settings), augment)
    return as_text(texts.transform(texts.decode(media).value, rng=rng))


def as_text(ids):
    return "".join("|" if i == SEP else "_" if i == 3 else chr(i - 6) for i in ids.tolist())


def pair(*texts):
    return EncodedItem("row 3", value=dict(zip("abc", texts, strict=False)))


def test_a_mark_stands_between_them():
    assert read(pair("a man", "a cat")) == "a man|a cat"
    assert read(pair("one", "two", "3")) == "one|two|3"
    assert read(pair("a [MASK][MASK]", b"b"), max_length=32, marks=True) == "a __|b"


def test_the_longest_are_cut():
    assert read(pair("a" * 20, "bcd"), max_length=16) == "a" * 12 + "|bcd"
    assert read(pair("a" * 20, "b" * 9), max_length=16) == "a" * 8 + "|" + "b" * 7


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [((3, 4), 10, [3, 4]), ((9, 2), 8, [6, 2]), ((9, 9, 2), 10, [4, 4, 2]), ((5,), 3, [3])],
)
def test_room_goes_to_the_shorter_first(lengths, room, kept):
    assert room_of_each(lengths, room) == kept


def test_words_are_left_out_of_each_and_the_mark_stays():
    augment = TextAugmentConfig(word_dropout=0.5)
    found = {
        read(pair("a b c", "d e f"), augment=augment, rng=np.random.default_rng(seed))
        for seed in range(8)
    }
    assert len(found) > 2
    assert all(text.count("|") == 1 for text in found)


def test_one_that_is_missing_is_noted_and_two_are_refused():
    texts, notes = read_multi_text(pair("a", None), 100)
    assert notes == ("no b",)
    assert [part.tobytes() for part in texts.parts()] == [b"a", b""]
    assert read(pair("a", None), augment=TextAugmentConfig(), rng=np.random.default_rng(0)) == "a|"
    with pytest.raises(ValueError, match=r"'row 3' is empty: expected texts"):
        read_multi_text(pair("", None), 100)
    with pytest.raises(ValueError, match=r"'b' of 'row 3' is no text: expected a string, got int"):
        read_multi_text(pair("a", 3), 100)
    assert read_multi_text(EncodedItem("one", value="text"), 100) is None


def test_they_are_kept_decoded():
    texts, _ = read_multi_text(pair("a man", "a cat"), 100)
    cache = SampleCache(None, limit_bytes=1 << 20)
    cache.put("0", texts)
    assert np.array_equal(cache.get("0").ends, texts.ends)


def test_their_length_is_that_of_all_with_the_marks():
    found = measure_text([pair("a" * 60, "b" * 60)] * 3, TextPreprocessConfig())
    assert found.max_length == 128


def glue_like(task, rows=12):
    first, second, labels = PAIRS[task]
    numbers = range(rows)
    return pd.DataFrame(
        {
            first: [f"A man, number {n}." for n in numbers],
            second: [f"He sings {n} songs." for n in numbers],
            "label": [labels[n % len(labels)] for n in numbers],
            "idx": list(numbers),
        }
    )


def opened(task, recipe):
    first, second, _ = PAIRS[task]
    config = DataConfig(columns={first: "text", second: "text"})
    source = open_data(glue_like(task), config)
    return _bind_columns(source, choose_recipe(source, recipe)[0])


@pytest.mark.parametrize("task", PAIRS)
def test_recipes_of_one_text_read_the_columns_of_glue(task):
    first, second, labels = PAIRS[task]
    source = opened(task, get_recipe("glue"))
    assert source.notes[-1] == f"Read as one text with a mark between them: {first}, {second}."
    recipe, preprocess = specialize(get_recipe("glue"), source)
    assert recipe.output.num_outputs == (1 if task == "stsb" else len(labels))
    media = encoded_item_of(source.splits["train"].row(0), source.inputs["text"])
    assert read(media, max_length=64) == "A man, number 0.|He sings 0 songs."
    assert preprocess["text"].max_length == 2048


def test_other_recipes_read_them_apart_or_not_at_all():
    source = opened("mnli", get_recipe("multimodal"))
    assert set(source.inputs) == {"premise", "hypothesis"}
    words = get_recipe("mlm_bytes", size="tiny")
    with pytest.raises(
        ValueError, match=r"learns from one column of texts, .* premise, hypothesis"
    ):
        opened("mnli", words)
    one = open_data(glue_like("mnli"), DataConfig(columns={"premise": "text"}))
    assert _bind_columns(one, words) is one


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    recipe = get_recipe("glue", size="tiny")
    small = replace(
        recipe.encoder,
        num_latents=2,
        latent_channels=8,
        num_self_attends_per_block=1,
        num_self_attend_heads=2,
        cross_attend_v_channels=8,
    )
    recipe = replace(
        recipe, encoder=small, preprocess={"text": TextPreprocessConfig(max_length=64)}
    )
    glue_like("mnli").to_csv(folder / "mnli.csv", index=False)
    pv.fit(
        str(folder / "mnli.csv"),
        recipe,
        out=folder / "run",
        columns={"premise": "text", "hypothesis": "text"},
        max_steps=1,
        batch_size=4,
        workers=0,
        progress=False,
        on_message=lambda _: None,
    )
    return folder / "run"


def test_a_run_of_pairs_is_evaluated_and_predicts_tables_dicts_and_texts(run, capsys):
    data = str(run.parent / "mnli.csv")
    assert main(["evaluate", str(run), data]) == 0
    assert main(["predict", str(run), data]) == 0
    given = ["--text", "A, b.", "--text", "C."]
    assert main(["predict", str(run), *given]) == 0
    assert "A, b. | C." in capsys.readouterr().out
    predictor = pv.load(run)
    pair_of = {"premise": "A, b.", "hypothesis": "C."}
    found = predictor.predict([pair_of, {"text": pair_of}])
    assert found[0].probabilities == found[1].probabilities


def test_a_run_of_pairs_explains_one(run, tmp_path):
    given = ["explain", str(run), "--text", "A.", "--text", "B."]
    with redirect_stdout(io.StringIO()):
        assert main([*given, "--out", str(tmp_path / "a.npz")]) == 0


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_half_a_pair_is_refused(run, command, capsys):
    assert main([command, str(run), "--text", "A."]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "Expected --text 2 times for each sample, for premise, hypothesis; got 1." in told
