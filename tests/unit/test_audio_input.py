import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from perceivers.inputs.audio import (
    ConvWaveInput,
    ConvWaveInputConfig,
    ResidualSpectrogramInput,
    ResidualSpectrogramInputConfig,
    SpectrogramInput,
    SpectrogramInputConfig,
    WaveInput,
    WaveInputConfig,
)
from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.registry import build_input
from perceivers.inputs.stems import ResidualStemConfig
from support.tolerance import assert_close

FEW = FourierPositionsConfig(num_bands=2)
STEM = ResidualStemConfig(channels=(3, 4), blocks=(0, 1), pools=(1, 2), stride=2)
LEARNED = LearnedPositionsConfig(channels=5)
ALL = [
    WaveInputConfig(num_samples=40, patch=6, positions=FEW),
    WaveInputConfig(num_samples=40, patch=8, num_channels=2, positions=LEARNED, project_channels=7),
    ConvWaveInputConfig(num_samples=40, stem_channels=(3, 4), kernel=5, stride=3, positions=FEW),
    SpectrogramInputConfig(size=(40, 5), positions=FEW),
    SpectrogramInputConfig(size=(40, 5), patch=(3, 2), positions=LEARNED, project_channels=4),
    ResidualSpectrogramInputConfig(size=(40, 16), stem=STEM, positions=FEW),
    ResidualSpectrogramInputConfig(
        size=(40, 9),
        stem=ResidualStemConfig(channels=(3, 4), blocks=(0, 0), pools=(1, (3, 1)), stride=(2, 1)),
        normalize_bands=False,
        positions=LEARNED,
    ),
]


def values_of(config):
    """Return what each place of the input holds: channels or bands."""
    return getattr(config, "num_channels", None) or config.size[1]


def test_the_papers_1_28_seconds_are_480_elements_of_128_samples():
    adapter = WaveInput(WaveInputConfig(num_samples=61_440))
    assert (adapter.num_elements, adapter.axes, adapter.channels) == (480, (480,), 128 + 129)
    assert adapter(adapter.example(2)).content.shape == (2, 480, 128)


def test_the_papers_spectrogram_is_4800_elements():
    adapter = SpectrogramInput(SpectrogramInputConfig(size=(60, 80)))
    assert (adapter.num_elements, adapter.axes, adapter.channels) == (4_800, (60, 80), 1 + 258)


def test_a_patch_holds_its_samples_with_all_channels_of_each():
    adapter = WaveInput(WaveInputConfig(num_samples=10, num_channels=2, patch=4, positions=FEW))
    x = torch.arange(20.0).reshape(1, 10, 2)
    content = adapter(x).content
    assert content.shape == (1, 3, 8)
    assert content[0, 1].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert content[0, 2].tolist() == [16, 17, 18, 19, 0, 0, 0, 0]  # zeros behind the end


def test_a_spectrograms_elements_go_through_all_bands_of_a_frame_first():
    adapter = SpectrogramInput(SpectrogramInputConfig(size=(3, 4), positions=FEW))
    x = torch.randn(2, 3, 4)
    elements = adapter(x)
    assert torch.equal(elements.content[:, 6, 0], x[:, 1, 2])
    assert elements.positions.sizes == (3, 4)
    patched = SpectrogramInput(SpectrogramInputConfig(size=(3, 4), patch=(2, 2), positions=FEW))
    content = patched(x).content
    assert content.shape == (2, 4, 4)
    assert torch.equal(
        content[:, 1], torch.stack([x[:, 0, 2], x[:, 0, 3], x[:, 1, 2], x[:, 1, 3]], 1)
    )
    assert not content[:, 2, 2:].any()


def test_an_element_is_real_if_any_of_its_values_is():
    adapter = WaveInput(WaveInputConfig(num_samples=10, patch=4, positions=FEW))
    mask = torch.arange(10) < torch.tensor([[10], [5], [0]])
    elements = adapter(torch.ones(3, 10, 1), mask)
    assert elements.mask.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert elements.content[1, 1].tolist() == [1, 0, 0, 0]
    grid = SpectrogramInput(SpectrogramInputConfig(size=(10, 2), patch=(4, 1), positions=FEW))
    assert grid(torch.ones(3, 10, 2), mask).mask[1].tolist() == [True] * 4 + [False] * 2


def test_what_is_padded_may_be_anything_even_not_finite():
    adapter = WaveInput(WaveInputConfig(num_samples=10, patch=4, project_channels=3, positions=FEW))
    x = torch.randn(1, 10, 1)
    mask = torch.arange(10)[None] < 6
    spoiled = x.masked_fill(~mask[..., None], float("nan"))
    assert torch.equal(adapter(spoiled, mask).dense(), adapter(x, mask).dense())


def test_a_missing_clip_is_said_by_one_place_of_the_mask():
    for config in ALL:
        adapter = build_input(config)
        elements = adapter(adapter.example(2), torch.tensor([[True], [False]]))
        assert elements.mask.shape == (2, adapter.num_elements)
        assert elements.mask[0].all()
        assert not elements.mask[1].any()


@pytest.mark.parametrize("config", ALL)
@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3), data=st.data())
def test_padding_changes_no_real_element(config, lengths, data):
    adapter = build_input(config).eval()  # statistics of a batch depend on all its samples
    longest = max(lengths)
    further = data.draw(st.integers(longest, 40))
    x = torch.randn(len(lengths), longest, values_of(config))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    short = adapter(x, mask)
    long = adapter(
        pad(x, (0, 0, 0, further - longest), value=9.0), pad(mask, (0, further - longest))
    )
    real = short.mask
    count = short.num_elements
    assert torch.equal(long.mask[:, :count], real)
    assert not long.mask[:, count:].any()
    assert_close(long.dense()[:, :count][real], short.dense()[real])
    # And a clip alone, without a mask, is the same as in the batch.
    for place, length in enumerate(lengths):
        alone = adapter(x[place : place + 1, :length]).dense()[0]
        assert_close(short.dense()[place][real[place]], alone)


@pytest.mark.parametrize("config", ALL)
def test_an_adapter_says_the_truth_about_its_elements(config):
    adapter = build_input(config)
    assert isinstance(adapter, InputAdapter)
    elements = adapter(adapter.example(3))
    assert elements.mask is None
    assert elements.dense().shape == (3, adapter.num_elements, adapter.channels)
    assert adapter.num_elements == torch.Size(adapter.axes).numel()


def test_convolved_elements_have_the_stems_width_and_grid():
    wave = ConvWaveInput(ConvWaveInputConfig(num_samples=16_000, positions=FEW))
    assert (wave.axes, wave.channels) == ((250,), 128 + 5)
    mel = ResidualSpectrogramInput(ResidualSpectrogramInputConfig(size=(99, 64), positions=None))
    assert (mel.axes, mel.channels, mel.element_step) == ((13, 4), 128, (8, 16))
    assert mel(mel.example(1)).positions is None


def test_each_band_is_standardized_by_its_real_frames():
    adapter = ResidualSpectrogramInput(ResidualSpectrogramInputConfig(size=(40, 16), stem=STEM))
    x = torch.randn(4, 40, 16) * 3 + torch.arange(16.0)
    mask = torch.arange(40)[None] < torch.tensor([[40], [9], [30], [1]])
    adapter.norm.momentum = 1.0
    adapter(x.masked_fill(~mask[..., None], 50.0), mask)
    assert_close(adapter.norm.running_mean, x[mask].mean(dim=0))
    assert_close(adapter.norm.running_var, x[mask].var(dim=0))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_norm_of_bands_are_right(training):
    adapter = ResidualSpectrogramInput(ResidualSpectrogramInputConfig(size=(24, 16), stem=STEM))
    adapter = adapter.double().train(training)
    x, weight = torch.randn(2, 24, 16, dtype=torch.float64), adapter.norm.weight

    def loss():
        content = adapter(x).content
        return (content * torch.arange(content.numel()).view_as(content).sin()).sum()

    loss().backward()
    with torch.no_grad():
        for band in (0, 7):
            values = []
            for step in (1e-6, -1e-6):
                weight[band] += step
                values.append(loss())
                weight[band] -= step
            difference = (values[0] - values[1]) / 2e-6
            torch.testing.assert_close(weight.grad[band], difference, rtol=1e-5, atol=1e-6)


def test_each_configuration_has_its_adapter():
    kinds = [type(build_input(config)) for config in ALL]
    assert kinds == [
        *[WaveInput] * 2,
        ConvWaveInput,
        *[SpectrogramInput] * 2,
        *[ResidualSpectrogramInput] * 2,
    ]


def test_sizes_must_be_known():
    for config in (WaveInputConfig(), ConvWaveInputConfig()):
        with pytest.raises(
            ValueError, match="Expected the samples of a clip, num_samples=rate x seconds"
        ):
            build_input(config)
    for config in (SpectrogramInputConfig(), ResidualSpectrogramInputConfig()):
        with pytest.raises(ValueError, match=r"size=\(frames, bands\), got None"):
            build_input(config)


def test_a_stem_needs_a_convolution():
    with pytest.raises(ValueError, match=r"at least one convolution, got stem_channels=\(\)"):
        ConvWaveInput(ConvWaveInputConfig(num_samples=10, stem_channels=()))


def test_one_channel_without_a_position_cannot_be_read():
    adapter = SpectrogramInput(SpectrogramInputConfig(size=(3, 4), positions=None))
    assert "An element of one channel without a position" in adapter.unreadable


def test_clips_of_another_size_are_refused():
    adapter = WaveInput(WaveInputConfig(num_samples=10, patch=4, positions=FEW))
    with pytest.raises(
        ValueError, match=r"length x 1 with a length of at most 10, got shape \(1, 11, 1\)"
    ):
        adapter(torch.zeros(1, 11, 1))
    with pytest.raises(ValueError, match=r"got shape \(1, 10, 2\)"):
        adapter(torch.zeros(1, 10, 2))


def test_an_adapter_is_exported_for_any_batch():
    adapter = WaveInput(WaveInputConfig(num_samples=40, patch=4, positions=FEW))

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.adapter = adapter

        def forward(self, x, mask):
            return self.adapter(x, mask).dense()

    batch = torch.export.Dim("batch", min=1, max=64)
    x, mask = torch.randn(3, 40, 1), torch.ones(3, 40, dtype=torch.bool)
    shapes = ({0: batch}, {0: batch})
    exported = torch.export.export(Dense(), (x, mask), dynamic_shapes=shapes).module()
    x, mask = torch.randn(2, 40, 1), torch.arange(40)[None] < torch.tensor([[40], [9]])
    assert_close(exported(x, mask), Dense()(x, mask))
