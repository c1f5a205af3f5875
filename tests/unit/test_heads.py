import pytest
import torch

from perceivers.outputs.heads import (
    LinearHeadConfig,
    MeanPool,
    MeanPoolConfig,
    TiedHeadConfig,
    build_head,
)
from perceivers.tasks.base import OutputPart
from support.tolerance import assert_close


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


def test_a_layer_begins_small_or_at_zero_and_its_outputs_are_scaled():
    x = torch.randn(2, 3, 8)
    head = build_head(LinearHeadConfig(num_outputs=5, scale=0.01), channels=8, tables={})
    assert_close(head(x), head.to_logits(x) / 100)
    assert 0 < head.to_logits.weight.abs().max() <= 2 * 8**-0.5
    zeros = build_head(LinearHeadConfig(num_outputs=2, init="zeros"), channels=8, tables={})
    assert not zeros(x).any()


def test_a_tied_head_compares_with_the_vectors_it_is_given():
    head = build_head(TiedHeadConfig(), channels=8, tables={"text": (6, 8)})
    torch.nn.init.normal_(head.bias)
    x, table = torch.randn(2, 3, 8), torch.randn(6, 8)
    assert_close(head(x, table), x @ table.T + head.bias)
    with pytest.raises(ValueError, match="8 channels; the model has embeddings of none"):
        build_head(TiedHeadConfig(), channels=8, tables={})


def test_the_number_of_classes_can_be_told_later():
    assert (
        MeanPoolConfig(num_outputs=None).fit_to({"label": OutputPart(num_outputs=4)}).num_outputs
        == 4
    )


def test_a_hidden_layer_has_a_tanh_behind_it():
    config = LinearHeadConfig(num_outputs=2, hidden_channels=5)
    head = build_head(config, channels=8, tables={})
    x = torch.randn(3, 1, 8)
    torch.testing.assert_close(head(x), head.to_logits(torch.tanh(head.to_hidden(x))))
    assert head.to_hidden.weight.shape == (5, 8)
