import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.frame_pair import FramePairInput, FramePairInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.registry import build_input
from support.tolerance import assert_close

POSITIONS = FourierPositionsConfig(num_bands=2)
BARE = FramePairInputConfig(size=(4, 5), project_channels=None, positions=POSITIONS)


def test_the_papers_elements_are_322_channels_wide():
    with torch.device("meta"):
        adapter = FramePairInput(FramePairInputConfig())
    assert (adapter.num_elements, adapter.channels) == (182_528, 322)
    assert adapter.project.in_features == 54


def test_a_pixel_is_its_neighborhood_in_both_frames():
    adapter = build_input(BARE)
    assert isinstance(adapter, InputAdapter)
    assert (adapter.num_elements, adapter.channels, adapter.axes) == (20, 54 + 10, (4, 5))
    frames = torch.randn(2, 2, 3, 4, 5)
    content = adapter(frames).content.reshape(2, 4, 5, 2, 3, 3, 3)  # frame, row, column, color
    assert_close(content[1, 2, 3, 0], frames[1, 0, :, 1:4, 2:5].permute(1, 2, 0))
    assert_close(content[0, 1, 1, 1, 1, 1], frames[0, 1, :, 1, 1])
    assert not content[:, 0, :, :, 0].any()  # above the first row there is nothing


def test_frames_of_another_size_have_positions_of_their_own():
    elements = FramePairInput(BARE)(torch.randn(1, 2, 3, 6, 7))
    assert elements.dense().shape == (1, 42, 64)
    assert elements.positions.sizes == (6, 7)


def test_a_sample_without_frames_has_no_real_element():
    adapter = FramePairInput(BARE)
    elements = adapter(adapter.example(2), torch.tensor([[True], [False]]))
    assert elements.mask.sum(dim=1).tolist() == [20, 0]


def test_what_is_no_pair_of_frames_is_refused():
    with pytest.raises(
        ValueError, match=r"B x 2 x 3 x height x width\), got shape \(1, 3, 3, 4, 5"
    ):
        FramePairInput(BARE)(torch.zeros(1, 3, 3, 4, 5))
    with pytest.raises(ValueError, match=r"size of the frames.*got None"):
        FramePairInput(FramePairInputConfig(size=None))
    with pytest.raises(ValueError, match="to be odd, got 2"):
        FramePairInputConfig(patch=2)
