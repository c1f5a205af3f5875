"""Films as elements: the paper's counts, the order inside a patch, positions, and padding that changes nothing."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.registry import build_input
from perceivers.inputs.stems import ResidualStemConfig
from perceivers.inputs.video import (
    ResidualVideoInput,
    ResidualVideoInputConfig,
    VideoInput,
    VideoInputConfig,
)
from perceivers.nn.position import fourier_features
from support.tolerance import assert_close

FEW = FourierPositionsConfig(num_bands=2)
SMALL = VideoInputConfig(num_frames=4, size=(4, 6), patch=(2, 2, 3), positions=FEW)
STEM = ResidualStemConfig(channels=(4, 5), blocks=(0, 1), pools=(1, 2), stride=2)
ONE = ResidualStemConfig(channels=(4,), blocks=(0,), pools=(1,), stride=2)
CONV = ResidualVideoInputConfig(num_frames=4, size=(8, 6), stem=STEM, positions=FEW)


def test_the_papers_clip_has_12544_elements_of_384_values():
    adapter = build_input(VideoInputConfig())
    assert isinstance(adapter, VideoInput)
    assert isinstance(adapter, InputAdapter)
    assert adapter.axes == (16, 28, 28)
    assert adapter.num_elements == 12_544
    assert adapter.channels == 384 + 3 * (2 * 16 + 1) == 483
    elements = adapter(torch.zeros(1, 32, 3, 224, 224))
    assert elements.content.shape == (1, 12_544, 384)
    assert elements.num_channels == 483


def test_every_pixel_of_every_frame_may_be_an_element():
    config = VideoInputConfig(num_frames=3, size=(4, 5), patch=(1, 1, 1), positions=FEW)
    adapter = build_input(config)
    assert adapter.axes == (3, 4, 5)
    clip = torch.randn(2, 3, 3, 4, 5)
    elements = adapter(clip)
    assert elements.content.shape == (2, 60, 3)
    assert_close(elements.content[1, 20 * 2 + 5 * 3 + 1], clip[1, 2, :, 3, 1])


def test_a_patch_holds_its_pixels_in_order_of_time_rows_and_columns():
    clip = torch.randn(1, 4, 3, 4, 6)
    content = build_input(SMALL)(clip).content
    assert content.shape == (1, 2 * 2 * 2, 2 * 2 * 3 * 3)
    # The patch of the second two frames, upper rows, right columns.
    patch = clip[0, 2:4, :, 0:2, 3:6]
    wanted = [
        patch[t, c, y, x] for t in range(2) for y in range(2) for x in range(3) for c in range(3)
    ]
    assert_close(content[0, 5], torch.stack(wanted))


def test_positions_are_fourier_features_of_time_rows_and_columns():
    elements = build_input(SMALL)(torch.zeros(1, 4, 3, 4, 6))
    axes = [torch.linspace(-1, 1, n) for n in (2, 2, 2)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(8, 3)
    wanted = fourier_features(points, num_bands=2, max_resolution=(2, 2, 2))
    assert_close(elements.positions.dense(), wanted)


def test_patches_may_be_projected():
    config = VideoInputConfig(num_frames=4, size=(4, 4), patch=(2, 2, 2), project_channels=7)
    adapter = build_input(config)
    assert adapter.channels == 7 + 99
    assert adapter(torch.randn(1, 4, 3, 4, 4)).content.shape == (1, 8, 7)


def test_a_clip_that_does_not_divide_gets_zeros_behind():
    config = VideoInputConfig(num_frames=3, size=(3, 3), patch=(2, 2, 2), positions=None)
    adapter = build_input(config)
    assert adapter.axes == (2, 2, 2)
    content = adapter(torch.ones(1, 3, 3, 3, 3)).content
    assert content.sum(dim=-1).tolist() == [[24, 12, 12, 6, 12, 6, 6, 3]]
    assert adapter.channels == 24


def test_an_element_is_real_if_one_of_its_frames_is():
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    clip = torch.full((2, 4, 3, 4, 6), float("nan"))
    clip[mask] = 1.0
    elements = build_input(SMALL)(clip, mask)
    assert elements.mask.tolist() == [[True] * 8, [True] * 4 + [False] * 4]
    assert elements.content.isfinite().all()
    there = torch.tensor([[True], [False]])
    elements = build_input(SMALL)(torch.ones(2, 4, 3, 4, 6), there)
    assert elements.mask.tolist() == [[True] * 8, [False] * 8]


def adapters():
    return [
        SMALL,
        VideoInputConfig(num_frames=5, size=(4, 4), patch=(1, 2, 2), project_channels=6),
        VideoInputConfig(
            num_frames=6, size=(4, 4), patch=(3, 2, 2), positions=LearnedPositionsConfig(channels=3)
        ),
        CONV,
        ResidualVideoInputConfig(
            num_frames=6, size=(6, 6), stem=ONE, frame_step=2, difference=True
        ),
    ]


@pytest.mark.parametrize("config", adapters())
@settings(max_examples=20)
@given(data=st.data())
def test_padding_changes_nothing(config, data):
    torch.manual_seed(0)
    adapter = build_input(config).eval()
    for (
        parameter
    ) in adapter.parameters():  # norms begin with a bias of zero, which hides what is not masked
        parameter.data.normal_()
    length = data.draw(st.integers(1, config.num_frames))
    clip = torch.randn(1, length, 3, *config.size)
    alone = adapter(clip)
    behind = torch.full((1, config.num_frames - length, 3, *config.size), float("inf"))
    mask = torch.arange(config.num_frames)[None] < length
    padded = adapter(torch.cat([clip, behind], dim=1), mask)
    assert padded.content.shape[1] == adapter.num_elements
    kept = padded.mask[0]
    assert kept.sum() == alone.num_elements
    assert_close(padded.dense()[:, kept], alone.dense())


def test_learned_positions_are_one_vector_for_each_cell():
    positions = LearnedPositionsConfig(channels=5)
    config = VideoInputConfig(num_frames=4, size=(4, 4), patch=(2, 2, 2), positions=positions)
    adapter = build_input(config)
    assert adapter.positions.table.shape == (8, 5)
    assert_close(adapter(torch.zeros(1, 2, 3, 4, 4)).positions, adapter.positions.table[:4])


def test_longer_clips_and_larger_frames_are_read_too():
    elements = build_input(SMALL)(torch.zeros(1, 8, 3, 8, 6))
    assert elements.positions.sizes == (4, 4, 2)
    assert_close(elements.positions.tables[0][:, 0], torch.linspace(-1, 1, 4))


def test_a_stem_sees_every_frame_by_itself():
    adapter = build_input(CONV).eval()
    assert isinstance(adapter, ResidualVideoInput)
    assert adapter.axes == (4, 2, 2)
    assert adapter.num_elements == 16
    assert adapter.channels == 5 + 15
    clip = torch.randn(2, 4, 3, 8, 6)
    content = adapter(clip).content
    assert content.shape == (2, 16, 5)
    changed = clip.clone()
    changed[:, 2] += 1
    moved = (adapter(changed).content != content).any(dim=-1)[0].reshape(4, 4).any(dim=1)
    assert moved.tolist() == [False, False, True, False]
    frame, _ = adapter.stem(clip[:, 1])
    assert_close(content[:, 4:8], frame.flatten(2).transpose(1, 2))


def test_a_few_frames_may_make_one_element():
    config = ResidualVideoInputConfig(num_frames=5, size=(4, 4), stem=ONE, frame_step=2)
    adapter = build_input(config).eval()
    assert adapter.axes == (3, 2, 2)
    clip = torch.randn(1, 5, 3, 4, 4)
    content = adapter(clip).content
    assert content.shape == (1, 12, 8)
    frames, _ = adapter.stem(clip[0])
    assert_close(content[0, 0], torch.cat([frames[0, :, 0, 0], frames[1, :, 0, 0]]))
    assert (content[0, 8:, 4:] == 0).all()


def test_the_change_since_the_frame_before_may_be_seen():
    config = ResidualVideoInputConfig(num_frames=3, size=(4, 4), stem=ONE, difference=True)
    adapter = build_input(config).eval()
    clip = torch.randn(1, 3, 3, 4, 4)
    change = torch.stack([torch.zeros(3, 4, 4), clip[0, 1] - clip[0, 0], clip[0, 2] - clip[0, 1]])
    frames, _ = adapter.stem(torch.cat([clip[0], change], dim=1))
    assert_close(adapter(clip).content[0], frames.permute(0, 2, 3, 1).reshape(-1, 4))


@pytest.mark.parametrize("config", [SMALL, CONV])
def test_an_example_has_the_configured_size(config):
    adapter = build_input(config)
    example = adapter.example(2)
    assert example.shape == (2, 4, 3, *config.size)
    assert adapter(example).num_elements == adapter.num_elements
    assert adapter(example).num_channels == adapter.channels


@pytest.mark.parametrize("config", [SMALL, CONV])
def test_adapters_can_be_exported(config):
    adapter = build_input(config).eval()

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.adapter = adapter

        def forward(self, clip, mask):
            return self.adapter(clip, mask).dense()

    clip = torch.randn(2, *adapter.shape)
    mask = torch.ones(2, 4, dtype=torch.bool)
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(Dense(), (clip, mask), dynamic_shapes=({0: batch}, {0: batch}))
    clip, mask = torch.randn(3, *adapter.shape), torch.arange(4).expand(3, 4) < 3
    assert_close(exported.module()(clip, mask), adapter(clip, mask).dense())


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (VideoInputConfig, {"patch": (0, 1, 1)}, r"at least 1 each, got \(0, 1, 1\)"),
        (ResidualVideoInputConfig, {"frame_step": 0}, "frame_step must be at least 1, got 0"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        config(**change)


@pytest.mark.parametrize("config", [VideoInputConfig(num_frames=None), ResidualVideoInputConfig()])
def test_an_open_size_is_refused(config):
    with pytest.raises(ValueError, match="the length and size of the clips"):
        build_input(config)


def test_single_numbers_without_positions_are_refused():
    config = VideoInputConfig(num_channels=1, patch=(1, 1, 1), positions=None)
    config = replace(config, num_frames=2, size=(3, 4))
    assert "An element of one channel without a position" in build_input(config).unreadable


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"clips of 3 channels .*got shape \(1, 4, 1, 4, 6\)"):
        build_input(SMALL)(torch.zeros(1, 4, 1, 4, 6))


def test_missing_frames_change_nothing_of_the_others_in_training():
    adapter = build_input(CONV)
    clip = torch.randn(2, 4, 3, 8, 6)
    there = torch.tensor([[True], [False]])
    assert_close(adapter(clip, there).content[:1], adapter(clip[:1]).content)


def test_an_element_covers_frames_and_pixels():
    config = ResidualVideoInputConfig(num_frames=4, size=(8, 6), stem=STEM, frame_step=2)
    assert build_input(config).element_step == (2, 4, 4)
