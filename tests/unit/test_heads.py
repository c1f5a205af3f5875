import pytest
import torch
from tolerance import assert_close

from perceivers.outputs.heads import MeanPool, MeanPoolConfig


def test_the_mean_comes_before_the_projection():
    head = MeanPool(MeanPoolConfig(num_outputs=5), latent_channels=8)
    torch.nn.init.normal_(head.to_logits.weight)
    latents = torch.randn(2, 3, 8)
    assert_close(head(latents), head.to_logits(latents.mean(1)))


def test_it_begins_at_zero_and_still_learns():
    head = MeanPool(MeanPoolConfig(num_outputs=5), latent_channels=8)
    out = head(torch.randn(2, 3, 8))
    assert not out.any()
    out[:, 0].sum().backward()
    assert head.to_logits.weight.grad.abs().sum() > 0


def test_an_open_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"Expected the number of classes.*got None"):
        MeanPool(MeanPoolConfig(num_outputs=None), latent_channels=8)
