import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.frame_pair import ConvFramePairInput, ConvFramePairInputConfig
from perceivers.inputs.registry import build_input

CONFIG = ConvFramePairInputConfig(size=(16, 24), stem_channels=(6, 8))


def test_an_element_stands_for_four_by_four_pixels_of_both_frames():
    adapter = build_input(CONFIG)
    assert isinstance(adapter, ConvFramePairInput)
    assert isinstance(adapter, InputAdapter)
    assert adapter.axes == (4, 6)
    assert adapter.num_elements == 24
    elements = adapter(adapter.example(3))
    assert elements.content.shape == (3, 24, 8)
    assert elements.dense().shape == (3, 24, adapter.channels)


def test_both_frames_and_their_order_matter():
    adapter = build_input(CONFIG)
    frames = torch.randn(2, 2, 3, 16, 24)
    one = adapter(frames).content
    for other in (frames.flip(1), frames * torch.tensor([1.0, 0])[:, None, None, None]):
        assert not torch.allclose(one, adapter(other).content)


def test_other_sizes_have_their_own_grid():
    elements = build_input(CONFIG)(torch.randn(1, 2, 3, 9, 30))
    assert elements.content.shape[1] == 3 * 8


def test_missing_pairs_are_masked():
    mask = torch.tensor([[True], [False]])
    elements = build_input(CONFIG)(torch.randn(2, 2, 3, 16, 24), mask)
    assert elements.mask is not None
    assert elements.mask.all(dim=1).tolist() == [True, False]


def test_what_are_no_pairs_is_refused():
    with pytest.raises(ValueError, match="the size of the frames"):
        ConvFramePairInput(ConvFramePairInputConfig())
    with pytest.raises(ValueError, match=r"pairs of frames \(B x 2 x 3 x height x width\)"):
        build_input(CONFIG)(torch.randn(2, 3, 3, 16, 24))
