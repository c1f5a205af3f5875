import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.label import LabelInput, LabelInputConfig
from perceivers.inputs.registry import build_input


def test_a_label_is_one_element():
    adapter = build_input(LabelInputConfig(num_classes=4))
    assert isinstance(adapter, InputAdapter)
    assert (adapter.num_elements, adapter.channels, adapter.axes) == (1, 4, (1,))
    shares = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.2, 0.0, 0.8, 0.0]])
    elements = adapter(shares, torch.tensor([[True], [False]]))
    assert torch.equal(elements.dense()[0, 0], shares[0])
    assert not elements.dense()[1].any()
    assert adapter(adapter.example(3)).content.shape == (3, 1, 4)


def test_what_is_no_label_is_refused():
    with pytest.raises(ValueError, match="at least two, got num_classes=None"):
        LabelInput(LabelInputConfig())
    with pytest.raises(ValueError, match=r"4 classes \(B x 4\), got shape \(2, 5\)"):
        LabelInput(LabelInputConfig(num_classes=4))(torch.zeros(2, 5))
