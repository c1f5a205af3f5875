"""Explanations of Hierarchical Perceivers, held against products of whole maps."""

from dataclasses import replace

import pytest
import torch

from perceivers.explain.attribution.attention import record_calls, watch_attention
from perceivers.explain.attribution.attribute import attribute
from perceivers.explain.attribution.faithfulness import input_gradients
from perceivers.explain.attribution.rollup import relevance, trace_query
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.hip_config import HiPConfig, hip_blocks
from perceivers.models.hip_encoder import ElementDecoderConfig, ElementOutputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import LinearHeadConfig, MeanPoolConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from support.tolerance import assert_close

CONFIG = HiPConfig(
    blocks=hip_blocks(
        num_groups=(4, 2, 1, 2, 4),
        num_latents=(4, 4, 6, 4, 4),
        channels=(8, 12, 16, 6, 10),
        num_self_attends=(1, 1, 2, 1, 1),
        num_self_attend_heads=(2, 3, 4, 1, 2),
        num_cross_attend_heads=(2, 1, 3, 2, 1),
    ),
    embed_channels=8,
    regroup="transpose_reshape",
    attend_padding=False,
)
INPUTS = {
    "image": PixelInputConfig(size=(3, 7), positions=None),
    "text": TextInputConfig(max_length=11, channels=8),
}
SAMPLE = {"image": torch.rand(1, 3, 3, 7), "text": torch.randint(6, 262, (1, 9))}
MASKS = {"text": torch.arange(9)[None] < 8}
COUNT, REAL = 21 + 9, 21 + 8


def model_of(encoder):
    torch.manual_seed(0)
    config = PerceiverConfig(inputs=INPUTS, encoder=encoder, output=MeanPoolConfig(num_outputs=3))
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def whole_map(attention, columns, count):
    """Return the map of all groups, latents x sources, averaged over heads, without what fills up groups."""
    groups, _, rows, _ = attention.shape
    found = torch.zeros(groups * rows, count)
    for group in range(groups):
        for row in range(rows):
            for place, column in enumerate(columns[group].tolist()):
                if column >= 0:
                    weight = attention[group, :, row, place].mean()
                    found[group * rows + row, column] += weight
    return found


def products(model, maps, *, rolled):
    """Return the share of each element in each last latent by whole matrices from the first block on.

    Rolled up with all layers and skips, or the product of the cross-attentions alone.
    """
    config, outputs = model.encoder.config, []
    routes = model.encoder.attention_routes([21, 9])
    calls = iter(maps.calls)
    for number, block in enumerate(config.used_blocks):
        name, attention = next(calls)
        route = routes[name.removeprefix("encoder.")]
        before = outputs[-1] if number else torch.eye(COUNT)
        passed = whole_map(attention, route.columns, len(before)) @ before
        is_later = number > config.middle
        own = outputs[len(config.blocks) - 1 - number] if is_later else torch.zeros_like(passed)
        found = (own + passed) / 2 if rolled else passed
        for _ in range(block.num_self_attends):
            _, attention = next(calls)
            groups, _, rows, _ = attention.shape
            columns = torch.arange(groups * rows).reshape(groups, rows)
            if rolled:
                found = (found + whole_map(attention, columns, groups * rows) @ found) / 2
        outputs.append(found)
    return outputs[-1]


@pytest.mark.parametrize("latents", ["middle", "last"])
def test_attention_is_mapped_back_to_the_elements(latents):
    model = model_of(replace(CONFIG, latents=latents))
    with watch_attention(model) as maps:
        outputs = model(SAMPLE, MASKS)
    count = model.encoder.config.num_latents
    found = attribute(model, SAMPLE, MASKS, latents=[0, count - 1])
    assert_close(found.outputs, outputs)
    rolled = products(model, maps, rolled=True)
    assert_close(found.rolled.elements[0], rolled.mean(dim=0))
    assert_close(found.rolled.elements[1:], rolled[[0, -1]])
    total = found.rolled.elements.sum(dim=1) + found.rolled.kept
    assert_close(total, torch.ones_like(total))
    (one,) = found.maps
    passed = products(model, maps, rolled=False)
    assert_close(one.share, passed.mean(dim=0))
    assert_close(one.weights[0], passed[[0, -1]])
    assert_close(one.scores.softmax(dim=-1), passed[[0, -1]])
    assert_close(one.share.sum(), torch.tensor(1.0))
    assert one.share[REAL] == 0
    with pytest.raises(ValueError, match=f"Expected latents between 0 and {count - 1}"):
        attribute(model, SAMPLE, MASKS, latents=[count])


@pytest.mark.parametrize("latents", ["middle", "last"])
def test_relevance_is_the_gradient_along_the_layers(latents):
    model = model_of(replace(CONFIG, latents=latents))
    found = relevance(model, SAMPLE, MASKS, index=1)
    assert found.shape == (COUNT,)
    assert (found >= 0).all()
    assert found[:REAL].sum() > 0
    assert found[REAL] == 0
    gradients = input_gradients(model, SAMPLE, MASKS, probability=lambda x: x.softmax(dim=-1)[:, 1])
    assert gradients[:REAL].min() > 0
    assert gradients[REAL] == 0


@pytest.mark.parametrize("permute", [None, 7])
@pytest.mark.parametrize("query", [0, 7])
def test_the_query_of_an_element_is_traced_through_the_latents_of_its_group(query, permute):
    outputs = ElementDecoderConfig(
        outputs={"text": ElementOutputConfig(modality="text", num_outputs=5, follows_input=True)}
    )
    torch.manual_seed(0)
    encoder = replace(CONFIG, latents="last")
    model = build(
        PerceiverConfig(inputs=INPUTS, encoder=encoder, output=outputs, permute=permute)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    with watch_attention(model) as maps:
        assert model(SAMPLE, MASKS).shape == (1, 9, 5)
    place = query if permute is None else int(model.element_order("text", 9).argsort()[query])
    parts = model.encoder.trunk.plan.parts
    group, row = divmod(place, parts["text"].rows)
    group += parts["image"].groups
    attention = maps["output.reconstruct.head.attention"][0].mean(dim=1)
    count = attention.shape[2]
    latents = torch.zeros(len(attention) * count)
    latents[group * count : (group + 1) * count] = attention[group, row]
    found = trace_query(model, SAMPLE, MASKS, query=query)
    assert_close(found.latents, latents)
    assert_close(found.elements, latents @ products(model, maps, rolled=False))
    rolled = attribute(model, SAMPLE, MASKS, latents=[0], query=query).rolled
    assert_close(rolled.elements[0], latents @ products(model, maps, rolled=True))


def test_output_queries_are_traced_through_all_blocks():
    torch.manual_seed(0)
    queries = LearnedQueriesConfig(num_queries=3, channels=8)
    head = LinearHeadConfig(num_outputs=5)
    decoder = DecoderConfig(outputs={"text": OutputConfig(queries=queries, head=head)}, chunk=2)
    model = build(PerceiverConfig(inputs=INPUTS, encoder=CONFIG, output=decoder)).eval()
    with torch.no_grad(), watch_attention(model) as maps:
        model(SAMPLE, MASKS)
    found = trace_query(model, SAMPLE, MASKS, query=2)
    latents = maps["output.cross_attend.attention"][1][0].mean(dim=0)[0]
    assert_close(found.latents, latents)
    assert_close(found.elements, latents @ products(model, maps, rolled=False))
    assert_close(found.elements.sum(), torch.tensor(1.0))


def test_recording_leaves_no_hooks():
    model = model_of(CONFIG)
    with record_calls(model) as calls:
        model(SAMPLE, MASKS)
    assert len(calls) == 7
    model(SAMPLE, MASKS)
    assert len(calls) == 7
    assert not model.encoder._forward_pre_hooks
