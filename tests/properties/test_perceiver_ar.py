"""Properties of Perceiver AR in float64: the cache, padding, the streamed prefix and causality change nothing else."""

import pytest
import torch
from torch.nn.functional import layer_norm

from perceivers.cross_attention import token_prefix
from perceivers.cross_attention.token_prefix import KeyValueProjection, TokenPrefix, attend_prefix
from perceivers.models.generate import GenerationConfig, TokenGenerator
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig, krasserm_perceiver_ar
from perceivers.nn.rotary import RotaryConfig, rotate

SIZES = {
    "vocab_size": 11,
    "max_length": 14,
    "num_latents": 6,
    "channels": 16,
    "num_heads": 2,
    "num_layers": 2,
}
CONFIGS = {
    "rotary": PerceiverARConfig(**SIZES),
    "sinusoidal": PerceiverARConfig(**SIZES, positions="sinusoidal", rotary=None),
    "learned_two_latents_two_reads": PerceiverARConfig(
        **SIZES,
        positions="learned",
        rotary=None,
        latents_per_position=2,
        cross_attends_after=(0,),
    ),
    "krasserm": krasserm_perceiver_ar(**SIZES, absolute=False, rotary_layers=None),
    "krasserm_absolute": krasserm_perceiver_ar(**SIZES, absolute=True, output_norm=True),
}


def model_of(name):
    """Return a model with random weights everywhere, in float64."""
    torch.manual_seed(0)
    model = PerceiverAR(CONFIGS[name]).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def logits_of(model, prompts, steps, tokens=None, **options):
    """Return the logits of each step, B x L x V, and the tokens: given ones, or the most probable ones."""
    generator = TokenGenerator(model, prompts, length=steps, config=GenerationConfig(**options))
    found, chosen = [], []
    for step in range(steps):
        found.append(generator.next_logits())
        token = found[-1].argmax(dim=-1) if tokens is None else tokens[:, step]
        chosen.append(token)
        generator.append(token)
    return torch.stack(found, dim=1), torch.stack(chosen, dim=1)


@pytest.mark.parametrize("latents", ["reset", "full"])
@pytest.mark.parametrize("prompt", [1, 4, 9, 20])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_changes_nothing(name, prompt, latents):
    model = model_of(name)
    rows = torch.randint(0, 11, (2, prompt))
    options = {"latents": latents, "first_latents": 3}
    cached, tokens = logits_of(model, list(rows), 18, **options)
    full, same = logits_of(model, list(rows), 18, use_cache=False, **options)
    assert (tokens == same).all()
    torch.testing.assert_close(cached, full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_is_the_model_on_its_context(name):
    model = model_of(name)
    rows = torch.randint(0, 11, (2, 5))
    generator = TokenGenerator(model, list(rows), length=12, config=GenerationConfig())
    counts = []
    for _ in range(12):
        logits = generator.next_logits()
        context = generator.tokens[:, generator.start :]
        counts.append(generator.count)
        with torch.no_grad():
            expected = model(context, num_latents=generator.count)[:, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
        generator.append(logits.argmax(dim=-1))
    assert counts == [3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6]


@pytest.mark.parametrize("latents", ["reset", "full"])
@pytest.mark.parametrize("name", CONFIGS)
def test_prompts_of_unequal_length_do_not_change_each_other(name, latents):
    model = model_of(name)
    prompts = [torch.randint(0, 11, (length,)) for length in (3, 12, 7)]
    options = {"latents": latents, "first_latents": 2}
    together, tokens = logits_of(model, prompts, 16, **options)
    for row, prompt in enumerate(prompts):
        alone, _ = logits_of(model, [prompt], 16, tokens[row : row + 1], **options)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_on_the_left_changes_nothing(name):
    model = model_of(name)
    tokens = torch.randint(0, 11, (2, 9))
    padded = torch.cat([torch.randint(0, 11, (2, 4)), tokens], dim=1)
    mask = torch.arange(13).expand(2, -1) >= 4
    expected = model(tokens, num_latents=6)
    torch.testing.assert_close(model(padded, mask, num_latents=6), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [6, 12])
@pytest.mark.parametrize("latents", [1, 2])
def test_an_output_has_no_gradient_of_later_tokens(length, latents):
    torch.manual_seed(0)
    # Each position has a row of its own, whose gradient is that of its token.
    config = PerceiverARConfig(
        **SIZES, positions="learned", latents_per_position=latents, cross_attends_after=(0,)
    )
    model = PerceiverAR(config).double()
    torch.nn.init.normal_(model.to_logits.weight)
    tokens = torch.randint(0, 11, (1, length))
    for place in range(6):
        model.zero_grad()
        model(tokens)[0, place].sum().backward()
        gradient = model.position_tables[0].weight.grad[1 : length + 1].abs().sum(dim=1)
        last = length - 6 + place
        assert (gradient[: last + 1] > 0).all()
        assert (gradient[last + 1 :] == 0).all()


def dense(queries, prefix, block, mask, projection, weights, scale):
    """Return the attention over prefix and block by a softmax of the whole map."""
    x = prefix.embedded()
    scale_weight, offset, to_key, to_value, key_bias, value_bias = weights
    x = layer_norm(x, x.shape[-1:], scale_weight, offset, projection.eps)
    split = lambda y: y.unflatten(2, (projection.num_heads, -1)).transpose(1, 2)  # noqa: E731
    keys, values = split(x @ to_key.T + key_bias), split(x @ to_value.T + value_bias)
    angles = projection.rotary.angles(prefix.positions, keys.shape[-1], keys.dtype)
    keys = torch.cat([rotate(keys, angles), block[0]], dim=2)
    values = torch.cat([values, block[1]], dim=2)
    rows = queries.shape[2]
    seen = torch.cat([prefix.mask[:, None, None].expand(-1, 1, rows, -1), mask], dim=3)
    scores = (queries @ keys.transpose(-2, -1) * scale).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1) @ values


@pytest.mark.parametrize("has_positions", [True, False])
@pytest.mark.parametrize("kept", [0, 1000])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_streamed_prefix_has_the_values_and_gradients_of_a_dense_map(
    chunk, fused, kept, has_positions, monkeypatch
):
    monkeypatch.setattr(token_prefix, "CHUNK", chunk)
    monkeypatch.setattr(token_prefix, "KEPT", kept)
    assert token_prefix._FLASH is not None
    if not fused:
        monkeypatch.setattr(token_prefix, "_FLASH", None)
        monkeypatch.setattr(token_prefix, "_FLASH_BACKWARD", None)
    torch.manual_seed(0)
    new = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    tables = (new(11, 8), new(13, 8), new(5, 8))[: 3 if has_positions else 1]
    mask = torch.rand(3, 12) > 0.4
    mask[0] = False  # a row without any prefix
    prefix = TokenPrefix(
        tokens=torch.randint(0, 11, (3, 12)),
        positions=torch.randint(0, 20, (3, 12)),
        indices=torch.stack([torch.randint(0, 13, (3, 12)), torch.randint(0, 5, (3, 12))], dim=2),
        mask=mask,
        tables=tables,
    )
    assert prefix.is_longer_than_table is not has_positions
    projection = KeyValueProjection(num_heads=2, eps=1e-5, rotary=RotaryConfig(channel_share=1.0))
    weights = [new(8), new(8), new(8, 8), new(8, 8), new(8), new(8)]
    queries, block = new(3, 2, 5, 4), (new(3, 2, 5, 4), new(3, 2, 5, 4))
    block_mask = torch.ones(5, 5, dtype=torch.bool).tril().expand(3, 1, -1, -1)
    leaves = [queries, *block, *tables, *weights]
    ways = []
    for attend in (attend_prefix, dense):
        arguments = (
            {"block_mask": block_mask, "projection": projection, "weights": weights, "scale": 0.5}
            if attend is attend_prefix
            else {"mask": block_mask, "projection": projection, "weights": weights, "scale": 0.5}
        )
        out = attend(queries, prefix, block, **arguments)
        gradients = torch.autograd.grad((out * torch.linspace(1, 2, 4)).sum(), leaves)
        ways.append([out, *gradients])
    for found, expected in zip(*ways, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_prefix_dropout_leaves_out_a_share_of_each_sample():
    config = PerceiverARConfig(**SIZES, prefix_dropout=0.5)
    model = PerceiverAR(config)
    tokens, mask = torch.randint(0, 11, (4, 14)), torch.ones(4, 14, dtype=torch.bool)
    kept = model._places(tokens, mask, None, None, None).prefix
    assert kept.length == 4
    assert (kept.positions.diff(dim=1) > 0).all()
    assert model.eval()._places(tokens, mask, None, None, None).prefix.length == 8
