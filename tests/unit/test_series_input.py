import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.inputs.elements import GridPositions, InputAdapter
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.registry import build_input
from perceivers.inputs.series import (
    ConvSeriesInput,
    ConvSeriesInputConfig,
    RowPositions,
    SeriesInput,
    SeriesInputConfig,
)
from perceivers.nn.position import fourier_features
from support.tolerance import assert_close

FEW = FourierPositionsConfig(num_bands=2)
LEARNED = LearnedPositionsConfig(channels=5)
CONFIGS = [
    SeriesInputConfig(length=16, num_channels=3, positions=FEW),
    SeriesInputConfig(length=18, num_channels=3, patch=4, positions=LEARNED),
    SeriesInputConfig(length=16, num_channels=1, patch=4, has_missing=True, project_channels=6),
    SeriesInputConfig(length=17, num_channels=2, patch=3, irregular=True, has_missing=True),
    ConvSeriesInputConfig(length=18, num_channels=3, stem_channels=(4, 6)),
    ConvSeriesInputConfig(length=18, num_channels=2, stem_channels=(4,), irregular=True, kernel=4),
    ConvSeriesInputConfig(length=16, num_channels=2, stem_channels=(4,), positions=None),
]


def real(length: int, *counts: int) -> torch.Tensor:
    return torch.arange(length) < torch.tensor(counts)[:, None]


def test_an_element_holds_the_values_of_its_steps_one_after_the_other():
    adapter = build_input(SeriesInputConfig(length=8, num_channels=3, patch=2, positions=FEW))
    x = torch.randn(2, 8, 3)
    elements = adapter(x)
    assert torch.equal(elements.content[:, 1], torch.cat([x[:, 2], x[:, 3]], dim=-1))
    assert (adapter.num_elements, adapter.axes, adapter.channels) == (4, (4,), 6 + 5)
    assert elements.num_channels == adapter.channels
    assert isinstance(elements.positions, GridPositions)


def test_flags_follow_the_values_and_are_content():
    adapter = build_input(
        SeriesInputConfig(length=8, num_channels=3, has_missing=True, positions=FEW)
    )
    x = torch.randn(2, 8, 6)
    assert torch.equal(adapter(x).content, x)
    assert adapter.example(2).shape == (2, 8, 6)


def test_values_may_be_projected():
    adapter = SeriesInput(
        SeriesInputConfig(length=8, num_channels=3, project_channels=7, positions=FEW)
    )
    x = torch.randn(2, 8, 3)
    assert_close(adapter(x).content, adapter.project(x))
    assert adapter.channels == 7 + 5


def test_a_last_patch_that_is_not_full_ends_with_zeros():
    adapter = build_input(SeriesInputConfig(length=5, num_channels=1, patch=4))
    content = adapter(torch.ones(1, 5, 1)).content
    assert content.tolist() == [[[1, 1, 1, 1], [1, 0, 0, 0]]]
    assert adapter.num_elements == 2


def test_an_uneven_patch_lies_at_the_mean_of_its_real_times():
    adapter = SeriesInput(
        SeriesInputConfig(length=4, num_channels=1, patch=2, irregular=True, positions=FEW)
    )
    x = torch.tensor([[[5.0, -1.0], [6.0, -0.5], [7.0, 0.25], [8.0, 1.0]]])
    elements = adapter(x, torch.tensor([[True, True, True, False]]))
    assert elements.content.tolist() == [[[5, 6], [7, 0]]]
    places = torch.tensor([[[-0.75], [0.25]]])
    expected = fourier_features(places, num_bands=2, max_resolution=(2,))
    assert_close(elements.positions, expected)
    assert_close(adapter(x).positions[:, 1, 0], torch.tensor([0.625]))


def test_a_shorter_batch_has_the_positions_of_the_first_elements():
    for config in (FEW, LEARNED):
        positions = RowPositions(config, 9)
        whole, part = (positions(n, torch.device("cpu")) for n in (9, 4))
        if isinstance(whole, GridPositions):
            whole, part = whole.dense(), part.dense()
        assert torch.equal(part, whole[:4])


def test_learned_positions_are_of_no_place_between():
    with pytest.raises(TypeError, match="expected Fourier features for places"):
        RowPositions(LEARNED, 9).at(torch.zeros(1, 2))


def test_a_convolved_recording_has_fewer_elements():
    adapter = build_input(ConvSeriesInputConfig(length=200, num_channels=6))
    assert isinstance(adapter, ConvSeriesInput)
    assert (adapter.num_elements, adapter.axes) == (50, (50,))
    elements = adapter(adapter.example(2))
    assert elements.content.shape == (2, 50, 128)
    assert elements.num_channels == adapter.channels == 128 + 2 * 25 + 1


@pytest.mark.parametrize("config", CONFIGS)
def test_every_way_makes_the_elements_that_it_says(config):
    adapter = build_input(config)
    assert isinstance(adapter, InputAdapter)
    elements = adapter(torch.randn_like(adapter.example(2)))
    assert elements.dense().shape == (2, adapter.num_elements, adapter.channels)
    assert elements.mask is None
    missing = adapter(adapter.example(2), torch.tensor([[True], [False]]))
    assert missing.mask.sum(dim=1).tolist() == [adapter.num_elements, 0]


@settings(max_examples=30)
@given(st.sampled_from(CONFIGS), st.integers(1, 16), st.integers(0, 2**31))
def test_padding_changes_no_real_element(config, length, seed):
    torch.manual_seed(seed)
    adapter = build_input(config)
    x = torch.randn(2, length, adapter.example(1).shape[2])
    alone = adapter(x).dense()
    padded = torch.full((2, 16, x.shape[2]), float("nan"))
    padded[:, :length] = x
    elements = adapter(padded, real(16, length, length))
    count = alone.shape[1]
    assert elements.mask.sum(dim=1).tolist() == [count, count]
    assert_close(elements.dense()[:, :count], alone)


def test_other_shapes_than_configured_are_an_error():
    adapter = build_input(SeriesInputConfig(length=8, num_channels=3, irregular=True))
    for shape in ((2, 9, 4), (2, 8, 3)):
        with pytest.raises(ValueError, match="at most 8 steps and of 4 values a step"):
            adapter(torch.zeros(shape))


def test_an_unknown_size_is_an_error():
    for config in (SeriesInputConfig(length=8), ConvSeriesInputConfig(num_channels=3)):
        with pytest.raises(ValueError, match="length and num_channels of the series, got"):
            build_input(config)


@pytest.mark.parametrize("positions", [None, LEARNED])
def test_uneven_times_need_fourier_features(positions):
    with pytest.raises(ValueError, match="need Fourier features as positions"):
        SeriesInput(
            SeriesInputConfig(length=8, num_channels=3, irregular=True, positions=positions)
        )


def test_one_channel_without_a_position_cannot_be_read():
    with pytest.raises(ValueError, match="An element of one channel without a position"):
        SeriesInput(SeriesInputConfig(length=8, num_channels=1, positions=None))
