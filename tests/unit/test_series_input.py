from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv1d, pad

from perceivers.inputs.elements import GridPositions, InputAdapter
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.registry import build_input
from perceivers.inputs.series import (
    BankSeriesInputConfig,
    ConvSeriesInput,
    ConvSeriesInputConfig,
    RowPositions,
    SeriesInput,
    SeriesInputConfig,
)
from perceivers.nn.kernel_bank import KernelBank
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
    adapter = SeriesInput(SeriesInputConfig(length=8, num_channels=1, positions=None))
    assert "An element of one channel without a position" in adapter.unreadable


BANKS = [
    BankSeriesInputConfig(length=16, num_channels=1, channels=6),
    BankSeriesInputConfig(length=30, num_channels=3, channels=6, windows=3, groups=4),
    BankSeriesInputConfig(length=16, num_channels=2, channels=4, irregular=True, groups=0),
    BankSeriesInputConfig(length=40, num_channels=2, channels=4, stem_channels=(5,), places=10),
    BankSeriesInputConfig(
        length=16,
        num_channels=1,
        channels=4,
        stem_channels=(5, 6),
        irregular=True,
        has_missing=True,
    ),
    BankSeriesInputConfig(length=16, num_channels=2, channels=4, windows=2, has_missing=True),
]


@cache
def bank(index):
    """Return an adapter whose bank has measured some series, in evaluation mode."""
    torch.manual_seed(0)
    adapter = build_input(BANKS[index])
    adapter(torch.randn_like(adapter.example(8)))
    return adapter.eval()


@pytest.mark.parametrize("index", range(len(BANKS)))
def test_a_bank_makes_the_elements_that_it_states(index):
    adapter = bank(index)
    assert isinstance(adapter, InputAdapter)
    elements = adapter(torch.randn_like(adapter.example(2)))
    assert elements.dense().shape == (2, adapter.num_elements, adapter.channels)
    assert elements.mask is None
    missing = adapter(adapter.example(2), torch.tensor([[True], [False]]))
    assert missing.mask.sum(dim=1).tolist() == [adapter.num_elements, 0]
    assert not missing.content[1].any()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(range(len(BANKS))), st.integers(1, 16), st.integers(0, 2**31))
def test_padding_reaches_no_element_of_a_bank(index, length, seed):
    adapter, config = bank(index), BANKS[index]
    torch.manual_seed(seed)
    x = torch.randn(2, length, adapter.example(1).shape[2])
    alone = adapter(x)
    padded = torch.full((2, config.length, x.shape[2]), float("nan"))
    padded[:, :length] = x
    elements = adapter(padded, real(config.length, length, length))
    there = alone.mask if alone.mask is not None else torch.ones(alone.content.shape[:2]) > 0
    assert elements.mask.sum(dim=1).tolist() == there.sum(dim=1).tolist()
    count = there.shape[1]
    assert_close(elements.dense()[:, :count][there], alone.dense()[there])


def test_masked_steps_inside_a_series_count_as_zeros_and_in_no_statistic():
    adapter = bank(1)
    x = torch.randn(1, 30, 3)
    mask = torch.ones(1, 30, dtype=torch.bool)
    mask[:, 11:14] = False
    other = x.masked_fill(~mask[..., None], float("nan"))
    assert_close(adapter(x, mask).content, adapter(other, mask).content)


def test_kernels_read_the_last_value_where_one_is_missing():
    config = BankSeriesInputConfig(length=12, num_channels=2, channels=4, has_missing=True)
    adapter = build_input(config).eval()
    nan = float("nan")
    first = [nan, nan, 1.0, 2.0, nan, nan, nan, 5.0, nan, 3.0]
    values = torch.tensor([first, [nan] * 10]).T[None]
    x = torch.cat([values.nan_to_num(0.0), (~values.isnan()).float()], dim=2)
    read = adapter._read(x, None)[0]
    assert read[:, 0].tolist() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 5.0, 5.0, 3.0]
    assert not read[:, 1].any()
    mask = torch.arange(10)[None] < 8
    held = adapter._read(x.masked_fill(~mask[..., None], 0.0), mask)[0]
    assert torch.equal(held[:8], read[:8])
    assert not held[8:].any()


def test_which_values_are_missing_changes_the_elements_of_a_bank():
    config = BankSeriesInputConfig(length=12, num_channels=2, channels=4, has_missing=True)
    adapter = build_input(config).eval()
    zeros = torch.zeros(1, 12, 2)
    there, missing = torch.ones(1, 12, 2), torch.tensor([1.0, 0.0]).expand(1, 12, 2)
    first, second = (adapter(torch.cat([zeros, flags], dim=2)) for flags in (there, missing))
    assert not torch.allclose(first.content, second.content)


def test_a_bank_measures_thresholds_in_training_and_keeps_them():
    config = BankSeriesInputConfig(length=32, num_channels=1, channels=4, dropout=0.0)
    torch.manual_seed(0)
    adapter = build_input(config)
    batches = [3 * torch.randn(64, 32, 1) + 1 for _ in range(12)]
    for x in batches:
        adapter(x)
    adapter.eval()
    statistics, _ = adapter.bank(torch.cat(batches), None)
    assert statistics.mean().abs() < 0.02
    assert 0.9 < statistics.std() < 1.1
    before = adapter(batches[0]).content
    loaded = build_input(config)
    loaded.load_state_dict(adapter.state_dict())
    loaded.train()
    assert loaded.bank._seen == 12
    assert_close(loaded.eval()(batches[0]).content, before)


def test_banks_of_one_configuration_have_the_same_kernels():
    first, second = (build_input(BANKS[1]).bank for _ in range(2))
    assert torch.equal(first.get_buffer("kernels"), second.get_buffer("kernels"))
    assert torch.equal(first.get_buffer("sums"), second.get_buffer("sums"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_masked", [False, True])
def test_statistics_of_a_bank_are_those_of_convolutions(channels, is_masked):
    torch.manual_seed(0)
    bank = KernelBank(40, channels, thresholds=2, groups=16, windows=1, places=20)
    bank.get_buffer("cutoffs").normal_()
    bank._seen = 1000
    x, mask = torch.randn(3, 40, channels), None
    real = torch.ones(3, 40, dtype=torch.bool)
    if is_masked:
        real = mask = torch.arange(40) < torch.tensor([[40], [31], [17]])
        x = x.masked_fill(~mask[..., None], 0.0)
    changes = pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
    changed = real & pad(real[:, :-1], (1, 0))
    changes = changes.masked_fill(~changed[..., None], 0.0)
    means = (1e-6 + bank.get_buffer("variances")).sqrt()
    expected = []
    for number in range(bank.num_scales):
        source, there = ((x, real), (changes, changed))[number >= len(bank.dilations)]
        dilation = bank.dilations[number % len(bank.dilations)]
        mixed = (source @ bank.get_buffer("sums")[number]).movedim(2, 1)
        kernels = bank.get_buffer("kernels")[number][:, None]
        options = {"stride": 2, "padding": 4 * dilation, "dilation": dilation}
        groups = mixed[:, torch.arange(16) % mixed.shape[1]]
        first = conv1d(mixed, kernels[:84], groups=mixed.shape[1], **options)
        rest = conv1d(groups, kernels[84:], groups=16, **options).unflatten(1, (16, 8))
        expected.append(
            plain_statistics(first, rest, there[:, ::2], bank.get_buffer("cutoffs")[number])
        )
    found, _ = bank(x, mask)
    assert_close(found * means, torch.stack(expected, dim=1).clamp(-5, 5))


def plain_statistics(first, rest, real, cutoffs):
    samples = []
    for padded, groups, there in zip(first, rest, real, strict=True):
        one, other = padded[:, there], groups[..., there]
        shares = (one[..., None] > cutoffs[:, None] + 1e-4).float().mean(dim=1)
        first_ones = torch.cat([one.amax(dim=1)[:, None], shares], dim=1).reshape(4, -1)
        high, low = other.amax(dim=1, keepdim=True), other.amin(dim=1, keepdim=True)
        strength = ((other >= high - 1e-4) * high.relu()).mean(dim=2)
        wins = (other <= low + 1e-4).float().mean(dim=2)
        both = torch.cat([strength, wins], dim=1).sqrt().reshape(4, -1)
        samples.append(torch.cat([first_ones, both], dim=1))
    return torch.stack(samples)


def test_a_bank_of_impossible_sizes_is_an_error():
    with pytest.raises(ValueError, match="groups in a multiple of 4"):
        BankSeriesInputConfig(length=8, num_channels=1, groups=3)
    with pytest.raises(ValueError, match=r"a dropout in \[0, 1\)"):
        BankSeriesInputConfig(length=8, num_channels=1, dropout=1.0)
    with pytest.raises(ValueError, match="at most 16 steps and of 1 values a step"):
        bank(0)(torch.zeros(1, 17, 1))


@pytest.mark.parametrize("index", [0, 1, 4])
def test_shares_of_steps_sum_to_one_over_real_steps(index):
    adapter, config = bank(index), BANKS[index]
    x = torch.randn(1, config.length, adapter.example(1).shape[2])
    shares = adapter.element_shares(x)
    assert shares.shape == (adapter.num_elements, config.length)
    assert_close(shares.sum(dim=1), torch.ones(adapter.num_elements))
    shares = adapter.element_shares(x, real(config.length, 9))
    assert not shares[:, 9:].any()
    there = adapter(x, real(config.length, 9)).mask[0]
    assert_close(shares.sum(dim=1), there.float())


def test_a_step_at_which_kernels_respond_has_the_largest_share():
    adapter = bank(0)
    x = torch.zeros(1, 16, 1)
    x[0, 9] = 4.0
    assert adapter.element_shares(x)[: adapter.bank.parts].mean(dim=0).argmax().item() in range(
        7, 12
    )
