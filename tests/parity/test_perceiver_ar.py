"""Logits, losses, gradients and parameter counts of Perceiver AR in DeepMind's release and krasserm's library.

The files in `vectors/` were written by the original code in float64 with seeded random weights. Rows of DeepMind's are
padded at the end; here rows are padded on the left, so they are shifted. Latents without a token, which its loss leaves
out, are not compared.
"""

import pytest
import torch
from torch.nn.functional import cross_entropy

from perceivers.cross_attention import token_prefix
from perceivers.hub.perceiver_ar import from_haiku, from_krasserm
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig, krasserm_perceiver_ar
from perceivers.nn.rotary import RotaryConfig
from support.perceiver_ar import haiku_model, krasserm_model, part


@pytest.fixture(params=[5, 2048])
def chunk(request, monkeypatch):
    monkeypatch.setattr(token_prefix, "CHUNK", request.param)


def assert_gradients(model, expected, *, atol=1e-10):
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=atol, msg=name)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_krasserm(name, monkeypatch):
    model, found, _ = krasserm_model(f"kr_forward_{name}")
    # Frequencies of the source are rounded to float32.
    stored = found["weight.input_adapter.frq_pos_encoding.inv_freq"]
    frequencies = model.config.rotary.frequencies(8)
    torch.testing.assert_close(frequencies, stored, rtol=1e-6, atol=0)
    monkeypatch.setattr(RotaryConfig, "frequencies", lambda *_: stored)
    tokens, mask = found["tokens"], ~found["pad_mask"].bool()
    cases = {"full_prefix16": (24, 8), "n20_prefix13": (20, 7), "n8_prefix0": (8, 8)}
    cases["n9_prefix8_one_latent"] = (9, 1)
    compared = 0
    for key, expected in part(found, "logits.").items():
        length, latents = cases[key.removesuffix("_pad")]
        real = mask[:, :length] if key.endswith("_pad") else None
        logits = model(tokens[:, :length], real, num_latents=latents)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10, msg=key)
        compared += 1
    assert compared >= 4
    logits = model(tokens[:, :-1], mask[:, :-1], num_latents=8)
    torch.testing.assert_close(logits, found["loss_logits"], rtol=0, atol=1e-10)
    loss = cross_entropy(logits.flatten(0, 1), tokens[:, -8:].flatten())
    torch.testing.assert_close(loss, found["loss"][0], rtol=0, atol=1e-10)
    loss.backward()
    assert_gradients(model, from_krasserm(part(found, "grad.")))


def shifted(x, lengths, fill=0):
    """Return rows padded on the left instead of at the end."""
    out = torch.full_like(x, fill)
    for row, length in enumerate(lengths):
        out[row, x.shape[1] - length :] = x[row, :length]
    return out


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("name", ["absolute", "rotary", "learned_axes"])
def test_deepmind(name, monkeypatch):
    model, found = haiku_model(f"par_forward_{name}")
    if name == "absolute":  # the table of the source is rounded to float32
        table = found["weight.perceiver_ar/~/embed_1/embeddings"]
        sinusoids = model._sinusoids(torch.arange(len(table))[None])[0]
        torch.testing.assert_close(sinusoids, table, rtol=0, atol=1e-6)
        monkeypatch.setattr(model, "_sinusoids", table.__getitem__)
    lengths = (found["inputs"] > 0).sum(dim=1).tolist()
    tokens, mask = (shifted(x, lengths) for x in (found["inputs"], found["inputs"] > 0))
    targets = shifted(found["targets"], lengths)
    indices = shifted(found["input_idxs"], lengths)
    logits = model(tokens.long(), mask, indices=indices.long())
    count = logits.shape[1]
    kept = found["loss_mask"].bool()
    assert (kept == mask[:, -count:]).all()
    torch.testing.assert_close(logits[kept], found["logits"][kept], rtol=0, atol=1e-10)
    log_sum = logits[kept].logsumexp(dim=-1)
    z_loss = 1e-4 * log_sum.square().sum()
    torch.testing.assert_close(z_loss, found["z_loss"][0], rtol=0, atol=1e-10)
    loss = cross_entropy(logits[kept], targets[:, -count:][kept].long(), reduction="sum") + z_loss
    torch.testing.assert_close(loss, found["loss"][0], rtol=0, atol=1e-10)
    loss.backward()
    expected = from_haiku(part(found, "grad."))
    if name == "absolute":  # the gradient of fixed sinusoids
        del expected["position_tables.0.weight"]
    assert_gradients(model, expected, atol=1e-6 if name == "learned_axes" else 1e-10)


def deepmind_config(**changes):
    """Return the architecture of the release's configurations."""
    return PerceiverARConfig(**{"channels": 1024, "num_heads": 16, "vocab_size": 259} | changes)


def krasserm_config(**changes):
    """Return the architecture of that library's configurations; by default that of WikiText-103."""
    sizes = {"vocab_size": 262, "max_length": 4096, "absolute": True}
    return krasserm_perceiver_ar(**sizes | changes)


MIDI = {"vocab_size": 389, "absolute": False, "output_norm": True, "output_bias": False}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (
            deepmind_config(
                max_length=32, num_latents=16, num_layers=1, positions="sinusoidal", rotary=None
            ),
            26_776_835,
        ),
        (
            deepmind_config(
                max_length=131_072,
                num_latents=1024,
                num_layers=6,
                positions="sinusoidal",
                rotary=None,
            ),
            89_757_955,
        ),
        (
            deepmind_config(
                max_length=12_416,
                num_latents=1024,
                num_layers=60,
                positions="learned",
                axes=(66, 66, 5),
                rotary=None,
            ),
            770_094_339,
        ),
        (deepmind_config(num_latents=1024, num_layers=12), 165_335_299),
        (krasserm_config(), 30_563_078),
        (krasserm_config(**MIDI, max_length=2048, num_latents=1024), 28_531_712),
        (
            krasserm_config(**MIDI, max_length=6144, num_latents=2048, channels=768, num_layers=18),
            134_840_832,
        ),
        (
            krasserm_config(
                **MIDI | {"vocab_size": 32_000},
                max_length=1024,
                channels=1280,
                num_heads=10,
                num_layers=20,
            ),
            453_950_720,
        ),
    ],
)
def test_parameter_counts(config, count):
    with torch.device("meta"):
        model = PerceiverAR(config)
    assert sum(p.numel() for p in model.parameters()) == count
