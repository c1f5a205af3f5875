import pytest
import torch

from perceivers.outputs.heads import (
    LinearHeadConfig,
    MeanPool,
    MeanPoolConfig,
    TiedHeadConfig,
    build_head,
)
from perceivers.tasks.config import OutputPart
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


def pooled(*kinds, outputs=5, **fields):
    config = MeanPoolConfig(num_outputs=outputs, element_pools=kinds, **fields)
    head = MeanPool(config, latent_channels=8, content_channels={"text": 3})
    torch.nn.init.normal_(head.element_pools["text"].to_logits.weight)
    return head


def test_pools_over_elements_are_standardized_and_added_to_the_outputs():
    head = pooled("mean", "max").double()
    content, latents = torch.randn(6, 4, 3).double() * 7 + 2, torch.zeros(6, 2, 8).double()
    x = torch.cat([content.mean(1), content.amax(1)], dim=1)
    expected = head.element_pools["text"].to_logits(
        (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    )
    assert_close(head(latents, {"text": (content, None)}), expected)
    # the first batch alone gives the running statistics
    reference = torch.nn.BatchNorm1d(6, affine=False, momentum=1.0).double()
    reference(x)
    assert_close(head.element_pools["text"].norm.running_var, reference.running_var)
    x = head.eval().element_pools["text"].to_logits(reference.eval()(x))
    assert_close(head(latents, {"text": (content, None)}), x)


@pytest.mark.parametrize("training", [True, False])
def test_samples_without_elements_have_no_part_in_pools(training):
    content = torch.randn(5, 4, 3)
    real = torch.ones(5, 4, dtype=torch.bool)
    real[1], real[2, 2:] = False, False
    content[~real] = float("nan")
    kept, latents = [0, 2, 3, 4], torch.zeros(5, 2, 8)
    one, other = pooled("mean", "max").train(training), pooled("mean", "max").train(training)
    other.load_state_dict(one.state_dict())
    found = one(latents, {"text": (content, real)})
    assert not found[1].any()
    assert_close(found[kept], other(latents[kept], {"text": (content[kept], real[kept])}))
    norms = [head.element_pools["text"].norm for head in (one, other)]
    assert_close(norms[0].running_mean, norms[1].running_mean)


def test_a_single_sample_in_training_is_standardized_by_the_running_statistics():
    head = pooled("mean")
    content, latents = torch.randn(1, 4, 3), torch.zeros(1, 2, 8)
    found = head(latents, {"text": (content, None)})
    assert_close(found, head.eval()(latents, {"text": (content, None)}))


def test_pools_without_a_norm_are_a_linear_model_of_the_mean():
    config = MeanPoolConfig(num_outputs=5, element_pools=("mean",), standardize_pools=False)
    head = MeanPool(config, latent_channels=8, content_channels={"text": 3})
    weight = torch.nn.init.normal_(head.element_pools["text"].to_logits.weight)
    content, mask = torch.randn(2, 4, 3), torch.tensor([[True] * 2 + [False] * 2] * 2)
    found = head(torch.zeros(2, 2, 8), {"text": (content, mask)})
    assert_close(found, content[:, :2].mean(dim=1) @ weight.T)


def test_pools_without_elements_are_refused():
    with pytest.raises(ValueError, match=r"the head pools elements of text; got none"):
        pooled("mean")(torch.zeros(1, 2, 8))


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


def test_the_latents_of_a_share_of_the_samples_are_left_out_in_training():
    head = pooled("mean", latent_dropout=0.5)
    torch.nn.init.ones_(head.to_logits.weight)
    torch.nn.init.ones_(head.to_logits.bias)
    torch.nn.init.zeros_(head.element_pools["text"].to_logits.weight)
    content, latents = torch.randn(400, 4, 3), torch.ones(400, 2, 8)
    found = head(latents, {"text": (content, None)})
    kept = found[:, 0] > 1
    assert_close(found[~kept], torch.ones_like(found[~kept]))  # the bias stays
    assert_close(
        found[kept], torch.full_like(found[kept], 17.0)
    )  # scaled, so that the mean is the same
    assert 150 < kept.sum() < 250
    found = head.eval()(latents, {"text": (content, None)})
    assert_close(found, torch.full_like(found, 9.0))
    with pytest.raises(ValueError, match=r"Expected a latent_dropout from 0 to below 1, got 1.0"):
        MeanPoolConfig(latent_dropout=1.0)
