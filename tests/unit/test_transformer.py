import pytest
import torch

from perceivers.inputs.elements import Elements
from perceivers.models.transformer import TransformerEncoder, TransformerEncoderConfig
from support.tolerance import assert_close

CONFIG = TransformerEncoderConfig(channels=8, num_self_attends=2, num_self_attend_heads=2)


def test_every_element_stays_an_element():
    encoder = TransformerEncoder(CONFIG, input_channels=6)
    elements = Elements(torch.randn(2, 5, 6))
    x = encoder.project(elements.content)
    for layer in encoder.self_attends:
        x = layer(x)
    assert_close(encoder([elements]), x)


def test_padding_is_refused():
    encoder = TransformerEncoder(CONFIG, input_channels=6)
    mask = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="takes no mask; expected inputs of one length"):
        encoder([Elements(torch.randn(1, 2, 6), mask=mask)])
