"""Attention rolled up, held against products of whole maps."""

from dataclasses import replace

import pytest
import torch

from perceivers.explain.attribution import attention as calls
from perceivers.explain.attribution.attention import watch_attention
from perceivers.explain.attribution.attribute import attribute
from perceivers.explain.attribution.rollup import relevance
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_encoder, untrained
from support.tolerance import assert_close

PICTURE = {"image": torch.rand(1, 3, 4, 6)}
ENCODER = tiny_encoder(
    num_latents=7,
    latent_channels=8,
    num_blocks=2,
    num_cross_attends=2,
    num_self_attends_per_block=2,
    num_cross_attend_heads=3,
    cross_attend_qk_channels=6,
    latent_init_scale=1.0,
)


def model(encoder=ENCODER, output=None, **changes) -> Perceiver:
    torch.manual_seed(0)
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(4, 6))},
        encoder=encoder,
        output=output or MeanPoolConfig(num_outputs=3),
        **changes,
    )
    built = build(config).eval()
    for parameter in built.output.parameters():
        torch.nn.init.normal_(parameter)
    return built


def whole(maps, *, residual=True):
    """Return the share of each element in each last latent, N x M, by whole matrices from the first layer on."""
    found = None
    for name, attention in maps.calls:
        if name.startswith("output."):
            continue
        mean = attention[0].mean(dim=0)
        if "cross_attends" in name:
            part = 0.5 if residual else 1.0
            found = part * mean + (0.0 if found is None else (1 - part) * found)
        else:
            found = (found + mean @ found) / 2
    return found


@pytest.mark.parametrize("piece", [5, 2**14])
@pytest.mark.parametrize("residual", [True, False])
def test_rolled_up_from_behind_it_is_the_product_of_all_layers(piece, residual, monkeypatch):
    monkeypatch.setattr(calls, "PIECE", piece)
    monkeypatch.setattr(calls, "CHUNK", 30 if piece == 5 else 2**24)
    perceiver = model(replace(ENCODER, use_query_residual=residual))
    found = attribute(perceiver, PICTURE, latents=[0, 5]).rolled
    with torch.no_grad(), watch_attention(perceiver) as maps:
        perceiver(PICTURE)
    expected = whole(maps, residual=residual)
    assert_close(found.elements, torch.cat([expected.mean(dim=0)[None], expected[[0, 5]]]))
    assert_close(found.elements.sum(dim=-1) + found.kept, torch.ones(3))
    if not residual:
        assert not found.kept.any()


@pytest.mark.parametrize("query", [None, 0])
def test_an_output_query_goes_through_the_latents_that_it_read(query):
    perceiver = model(output=DecoderConfig.classifier(3))
    found = attribute(perceiver, PICTURE, query=query).rolled
    with torch.no_grad(), watch_attention(perceiver) as maps:
        perceiver(PICTURE)
    query = maps["output.cross_attend.attention"][0][0].mean(dim=0)
    assert_close(found.elements, query @ whole(maps))


def test_layers_of_the_baseline_are_multiplied():
    perceiver = model(
        TransformerEncoderConfig(channels=8, num_self_attends=3, num_self_attend_heads=2)
    )
    found = attribute(perceiver, PICTURE, latents=[3]).rolled
    with torch.no_grad(), watch_attention(perceiver) as maps:
        perceiver(PICTURE)
    product = torch.eye(24)
    for _, attention in maps.calls:
        product = (product + attention[0].mean(dim=0) @ product) / 2
    assert_close(found.elements, torch.stack([product.mean(dim=0), product[3]]))
    assert relevance(perceiver, PICTURE, index=1).shape == (24,)


def by_autograd(perceiver, index: int) -> torch.Tensor:
    """Return the same relevance with whole maps that autograd differentiates: attention written out."""
    kept = []

    def hook(module, args, kwargs, output):
        query, source = args[0], args[1]
        if not isinstance(source, torch.Tensor):
            source, _ = source.dense()
        weights = module.weights(query, source)
        weights.retain_grad()
        _, values = module.keys_values(source)
        kept.append((module, weights))
        return module.to_output((weights @ values).transpose(1, 2).flatten(2))

    handles = [
        part.register_forward_hook(hook, with_kwargs=True)
        for part in perceiver.modules()
        if isinstance(part, calls.Attention)
    ]
    perceiver(PICTURE).flatten()[index].backward()
    for handle in handles:
        handle.remove()
    maps = [(weights.grad * weights).detach().clamp_min(0)[0].mean(dim=0) for _, weights in kept]
    row = torch.full((1, 7), 1 / 7)
    if len(maps) % 2:  # the decoder's comes last
        row = maps.pop()
        row = row / row.sum()
    total = torch.zeros(1, 24)
    for found in reversed(maps):
        if found.shape == (7, 24):
            total = total + row @ found
        else:
            row = row + row @ found
    return total[0]


@pytest.mark.parametrize("decoder", [False, True])
def test_relevance_is_what_autograd_says_of_the_maps(decoder, monkeypatch):
    monkeypatch.setattr(calls, "PIECE", 5)
    perceiver = model(output=DecoderConfig.classifier(3) if decoder else None)
    for index in range(2):
        found = relevance(perceiver, PICTURE, index=index)
        assert (found >= 0).all()
        expected = by_autograd(perceiver, index)
        assert_close(found / found.sum(), expected / expected.sum())
    best = int(perceiver(PICTURE).argmax())
    assert_close(relevance(perceiver, PICTURE), relevance(perceiver, PICTURE, index=best))


def test_reads_of_parts_are_refused():
    perceiver = model(replace(ENCODER, unroll_time=True))
    for way in (attribute, relevance):
        with pytest.raises(ValueError, match=r"to see all 24 elements, got attention to \[12\]"):
            way(perceiver, PICTURE)


def test_no_map_of_a_large_picture_is_ever_whole(monkeypatch):
    made: list[int] = []
    plain = calls.Call._scores

    def watched(self, *args):
        scores = plain(self, *args)
        made.append(scores.numel())
        return scores

    monkeypatch.setattr(calls.Call, "_scores", watched)
    monkeypatch.setattr(calls, "CHUNK", 2**15)
    monkeypatch.setattr(calls, "PIECE", 2**11)
    perceiver = model(replace(ENCODER, num_latents=16, num_cross_attends=1))
    perceiver = build(replace(perceiver.config, inputs={"image": PixelInputConfig(size=(96, 96))}))
    picture = {"image": torch.rand(1, 3, 96, 96)}
    found = attribute(perceiver.eval(), picture).rolled
    assert found.elements.shape == (1, 96 * 96)
    assert relevance(perceiver, picture, index=0).shape == (96 * 96,)
    assert max(made) <= 2**15 < 16 * 3 * 96 * 96


def test_pooled_elements_are_part_of_the_relevance():
    model = untrained("text", element_pools=("mean",))[0]
    ids = torch.randint(6, 262, (1, 64))
    mask = torch.arange(64)[None] < 40
    attended = relevance(model, {"text": ids}, {"text": mask}, index=1)
    assert attended.shape == (8,)
    with torch.no_grad():
        model.output.to_logits.weight.zero_()
    found = relevance(model, {"text": ids}, {"text": mask}, index=1)
    assert found.sum().item() == pytest.approx(1)
    assert found[5:].tolist() == [0, 0, 0]
    assert not torch.allclose(found, attended)
    (elements,) = model.elements({"text": ids}, {"text": mask})
    weight = model.output.element_pools["text"].to_logits.weight
    evidence = (elements.content[0, :5] @ (weight[1] - weight[0])).detach()
    assert found.argmax() == evidence.argmax()
