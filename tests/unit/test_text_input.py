import pytest
import torch

from perceivers.inputs.elements import GridPositions, InputAdapter
from perceivers.inputs.registry import build_input
from perceivers.inputs.text import (
    BytesInput,
    ConvBytesInput,
    ConvTextInputConfig,
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


@pytest.mark.parametrize("config", [SMALL, CONVOLVED, LEARNED])
@pytest.mark.parametrize("length", [1, 7, 16, 32])
def test_padding_changes_no_real_element(config, length):
    adapter = build_input(config)
    ids = torch.randint(6, 262, (2, length))
    alone = adapter(ids).dense()
    padded = torch.randint(0, 262, (2, 32))
    padded[:, :length] = ids
    elements = adapter(padded, (torch.arange(32) < length).expand(2, -1))
    assert elements.mask is not None
    count = alone.shape[1]
    assert elements.mask.sum(dim=1).tolist() == [count, count]
    assert_close(elements.dense()[:, :count], alone)


@pytest.mark.parametrize("config", [SMALL, CONVOLVED, LEARNED])
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
