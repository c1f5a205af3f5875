from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from perceivers.inputs.elements import GridPositions, InputAdapter
from perceivers.inputs.hashed_units import HashedUnitsConfig, UnitHashes
from perceivers.inputs.registry import build_input
from perceivers.inputs.text import (
    BytesInput,
    ConvBytesInput,
    ConvTextInputConfig,
    HashedTextInput,
    HashedTextInputConfig,
    TextInputConfig,
)
from support.tolerance import assert_close

SMALL = TextInputConfig(max_length=32, channels=8)
CONVOLVED = ConvTextInputConfig(
    max_length=32, embedding_channels=4, stem_channels=(6, 8), kernel=3, stride=2
)
LEARNED = ConvTextInputConfig(
    max_length=32,
    embedding_channels=4,
    stem_channels=(6, 8),
    positions="learned",
    kernel=4,
    stride=4,
)
UNITS = HashedUnitsConfig(
    word_rows=64, word_channels=4, phrase_rows=64, phrase_channels=3, run_rows=64, run_channels=2
)
HASHED = HashedTextInputConfig(max_length=32, stride=4, units=UNITS, num_bands=2)
ADDED = TextInputConfig(max_length=32, channels=8, hashed=UNITS)
ADDED_TO_CELLS = ConvTextInputConfig(
    max_length=32, embedding_channels=4, stem_channels=(6, 8), kernel=4, stride=4, hashed=UNITS
)
ALL = [SMALL, CONVOLVED, LEARNED, HASHED, ADDED, ADDED_TO_CELLS]


def ids_of(text):
    return torch.tensor([list(text.encode())]) + 6


def hashes_of(text, phrase_lengths=(2,), run_lengths=(3,)):
    ids = ids_of(text)
    found = UnitHashes(64, 262)(ids, torch.ones_like(ids) > 0, phrase_lengths, run_lengths)
    return {name: one[0, :, 0].tolist() for name, one in found.items()}


def words_of(text):
    """Return the words of a text by where they begin."""
    begins = [place for place, one in enumerate(hashes_of(text)["words"]) if one]
    data = text.encode()
    return [data[a:b].decode().strip() for a, b in pairwise([*begins, len(data)])]


def test_bytes_are_2048_elements_of_768_channels():
    with torch.device("meta"):
        adapter = build_input(TextInputConfig())
    assert (adapter.num_elements, adapter.channels, adapter.axes) == (2048, 768, (2048,))
    assert sum(p.numel() for p in adapter.parameters()) == (262 + 2048) * 768


def test_an_element_is_the_vector_of_its_byte_plus_that_of_its_place():
    adapter = BytesInput(SMALL)
    elements = adapter(torch.tensor([[70, 71, 70]]))
    assert elements.positions is None
    assert_close(elements.content[0, 2], adapter.embedding.weight[70] + adapter.places[2])


def test_vectors_begin_at_the_scales_of_the_release():
    adapter = BytesInput(TextInputConfig(max_length=512, channels=64))
    assert adapter.embedding.weight.std().item() == pytest.approx(0.88, rel=0.02)
    assert adapter.places.std().item() == pytest.approx(0.0176, rel=0.02)


def test_convolved_bytes_are_fewer_elements():
    adapter = build_input(CONVOLVED)
    assert (adapter.num_elements, adapter.axes) == (8, (8,))
    elements = adapter(adapter.example(2))
    assert isinstance(elements.positions, GridPositions)
    assert elements.content.shape == (2, 8, 8)
    assert elements.num_channels == adapter.channels == 8 + 2 * 4 + 1


def test_learned_places_are_added_to_convolved_bytes():
    adapter = build_input(LEARNED)
    assert isinstance(adapter, ConvBytesInput)
    ids = torch.randint(6, 262, (2, 32))
    before = adapter(ids).content
    with torch.no_grad():
        adapter.places += 1
    assert_close(adapter(ids).content, before + 1)
    assert adapter.channels == 8


@pytest.mark.parametrize("config", ALL)
@pytest.mark.parametrize("length", [1, 7, 16, 32])
def test_padding_changes_no_real_element(config, length):
    adapter = build_input(config).eval()
    ids = torch.randint(6, 262, (2, length))
    alone = adapter(ids).dense()
    padded = torch.randint(0, 262, (2, 32))
    padded[:, :length] = ids
    elements = adapter(padded, (torch.arange(32) < length).expand(2, -1))
    assert elements.mask is not None
    count = alone.shape[1]
    assert elements.mask.sum(dim=1).tolist() == [count, count]
    assert_close(elements.dense()[:, :count], alone)


@pytest.mark.parametrize("config", ALL)
def test_a_sample_without_a_text_has_no_real_element(config):
    adapter = build_input(config)
    assert isinstance(adapter, InputAdapter)
    elements = adapter(adapter.example(2), torch.tensor([[True], [False]]))
    assert elements.mask is not None
    assert elements.mask.sum(dim=1).tolist() == [adapter.num_elements, 0]


def test_the_example_is_the_letter_a():
    assert BytesInput(SMALL).example(3).tolist() == [[103] * 32] * 3
    few = TextInputConfig(max_length=8, vocab_size=10, channels=2)
    assert BytesInput(few).example(1).max() == 9


def test_a_longer_text_is_an_error():
    with pytest.raises(ValueError, match=r"texts of at most 32 bytes, got shape \(2, 33\)"):
        BytesInput(SMALL)(torch.zeros(2, 33, dtype=torch.int64))


def test_an_unknown_length_is_an_error():
    with pytest.raises(ValueError, match="length of texts in bytes, max_length, got None"):
        build_input(ConvTextInputConfig(max_length=None))


def test_only_a_known_byte_has_a_vector():
    with pytest.raises(IndexError):
        BytesInput(SMALL)(torch.tensor([[262]]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Isn't it 'good'?!", ["Isn't", "it", "'", "good", "'?!"]),
        ("a1 b-2\tc\n", ["a1", "b", "-", "2", "c"]),
        ("naïve “q” café", ["naïve", "“", "q", "”", "café"]),
        ("中文 字a😀b", ["中", "文", "字", "a", "😀", "b"]),
        ("  ", []),
    ],
)
def test_words_are_runs_of_letters_or_of_symbols(text, words):
    assert words_of(text) == words


def test_the_hash_of_a_word_is_independent_of_case_and_place():
    words = hashes_of("The end of the  THE")["words"]
    assert words[0] == words[11] == words[16] != 0
    assert len({words[0], words[4], words[8]}) == 3


def test_a_phrase_ends_with_its_last_word():
    phrases = hashes_of("not good. Not  GOOD, so not bad")["phrases"]
    assert phrases[4] == phrases[15] != phrases[27]
    assert phrases[0] == hashes_of("not bad")["phrases"][0]  # with the mark of the beginning
    longer = hashes_of("a b c", phrase_lengths=(3,))["phrases"]
    assert [place for place, one in enumerate(longer) if one] == [2, 4]


def test_a_byte_run_begins_at_every_byte_that_has_enough_behind_it():
    runs = hashes_of("abcABCab")["runs"]
    assert runs[0] == runs[3] != 0
    assert runs[1] == runs[4] != 0
    assert runs[6:] == [0, 0]
    assert hashes_of("ab")["runs"] == [0, 0]


def test_sums_are_divided_by_the_root_of_their_number():
    units = HashedUnitsConfig(word_rows=64, word_channels=4, phrase_rows=0, run_rows=0, gain=2.0)
    adapter = HashedTextInput(HashedTextInputConfig(max_length=16, units=units)).eval()
    rows = [row % 64 for row in hashes_of("ab cd ef", run_lengths=())["words"] if row]
    table = adapter.units.tables["words"]
    expected = adapter.offset + 2 * table[rows].sum(dim=0) / 3**0.5
    assert_close(adapter(ids_of("ab cd ef")).content[0, 0], expected)


def test_units_are_left_out_in_training_only():
    adapter = HashedTextInput(HASHED)
    ids = torch.randint(6, 262, (2, 32))
    assert not torch.equal(adapter(ids).content, adapter(ids).content)
    adapter.eval()
    assert torch.equal(adapter(ids).content, adapter(ids).content)


def test_elements_are_left_out_in_training_but_never_all():
    adapter = HashedTextInput(replace(HASHED, element_dropout=0.5))
    ids, mask = torch.randint(6, 262, (200, 32)), torch.arange(32).expand(200, -1) < 9
    found = adapter(ids, mask).mask
    assert found is not None
    assert not found[:, 3:].any()
    assert found.any(dim=1).all()
    assert 300 < found.sum() < 450
    assert adapter(ids, torch.zeros(200, 1, dtype=torch.bool)).mask.sum() == 0
    assert adapter.eval()(ids, mask).mask.sum() == 200 * 3


def test_a_graph_of_hashed_units_gives_the_same_sums():
    adapter = build_input(HASHED).eval()
    ids = torch.randint(0, 262, (2, 32))
    graph = torch.export.export(adapter.units, (ids, ids > 40)).module()
    assert_close(graph(ids, ids > 40), adapter.units(ids, ids > 40))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, r"share of the units in \[0, 1\), got dropout=1.0"),
        ({"word_rows": 0, "phrase_rows": 0, "run_rows": 0}, "Expected rows for words"),
        ({"run_lengths": (0,)}, "run_lengths from 1 to 16 bytes"),
        ({"phrase_lengths": (1,)}, "phrase_lengths from 2 to 8 words"),
    ],
)
def test_units_that_cannot_be_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        HashedUnitsConfig(**changes)
