"""Attention of an autoregressive model to the bytes before: sums, causality, and a model that copies."""

from functools import partial

import numpy as np
import pytest
import torch

from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.next_token import (
    attribute_tokens,
    num_latents,
    token_attention,
    token_relevance,
)
from perceivers.hub.checkpoint import load
from perceivers.models.ensemble import Ensemble
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig, krasserm_perceiver_ar
from support.models import save_generating

SMALL = {"max_length": 20, "num_latents": 6, "channels": 8, "num_heads": 2, "num_layers": 2}
CONFIGS = {
    "rotary": PerceiverARConfig(vocab_size=11, **SMALL),
    "two cross-attentions": PerceiverARConfig(
        vocab_size=11, **SMALL, cross_attends_after=(0,), positions="sinusoidal", rotary=None
    ),
    "two latents of each position": PerceiverARConfig(
        vocab_size=11, **SMALL, latents_per_position=2
    ),
    "krasserm": krasserm_perceiver_ar(absolute=True, vocab_size=11, **SMALL),
}


def model_of(config):
    torch.manual_seed(0)
    model = PerceiverAR(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [1, 4, 17])
def test_recorded_attention_gives_the_logits_and_its_rows_sum_to_one(name, length):
    model = model_of(CONFIGS[name])
    tokens = torch.randint(11, (1, length))
    with torch.no_grad():
        expected = model(tokens)
        logits, layers = token_attention(model, tokens)
    torch.testing.assert_close(logits, expected[0], rtol=1e-5, atol=1e-5)
    assert len(layers) == 2 + len(model.cross_attends)
    per_position = model.config.latents_per_position
    for layer in layers:
        torch.testing.assert_close(
            layer.weights.sum(dim=-1), torch.ones(layer.weights.shape[:2]), rtol=0, atol=1e-5
        )
        rows, columns = layer.weights.shape[1:]
        step = 1 if layer.is_cross_attend else per_position
        for row in range(rows):  # later ones get exactly nothing
            last = columns // step - rows // per_position + row // per_position
            assert not layer.weights[:, row, (last + 1) * step :].any()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return load(save_generating(tmp_path_factory.mktemp("runs") / "bytes"))


@pytest.fixture(scope="module")
def task(saved):
    from perceivers.tasks.registry import build_task

    return build_task(saved.config.task)


def batch_of(text, length):
    ids = torch.zeros(1, length, dtype=torch.long)
    ids[0, : len(text)] = torch.tensor(list(text)) + 6
    mask = torch.arange(length)[None] < len(text)
    return {"text": ids}, {"text": mask}


def test_maps_are_zero_at_padding_and_do_not_depend_on_it(saved, task):
    short = attribute_tokens(task, saved.model, *batch_of(b"the cat", 7), latents=[0, 7])
    long = attribute_tokens(task, saved.model, *batch_of(b"the cat", 16), latents=[0, 7])
    assert num_latents(saved.model, *batch_of(b"the cat", 16)) == 8
    (first,), (second,) = short.maps, long.maps
    assert not second.share[7:].any()
    assert (second.head_scores[..., 7:] == float("-inf")).all()
    for name in ("share", "heads", "weights", "head_scores"):
        torch.testing.assert_close(
            getattr(second, name)[..., :7], getattr(first, name), equal_nan=True
        )
    assert second.head_scores[:, 0, :7].isnan().all()  # the first latent is that of the start
    assert second.head_scores[:, 1, :7].isfinite().all()
    rolled = long.rolled
    torch.testing.assert_close(rolled.elements.sum(dim=1) + rolled.kept, torch.ones(3))
    torch.testing.assert_close(rolled.elements[0], rolled.elements[2])  # the last latent
    assert rolled.kept[1] == 1  # the first latent sees the start alone
    with pytest.raises(ValueError, match="latents between 0 and 7"):
        attribute_tokens(task, saved.model, *batch_of(b"the cat", 16), latents=[8])


def test_the_map_of_a_token_is_that_of_its_gradient(saved, task):
    relevance = partial(token_relevance, task, saved.model, *batch_of(b"the cat", 16))
    first, second = relevance(), relevance(index=6 + ord("x"))
    assert not first[7:].any()
    assert (first >= 0).all()
    assert first.sum() > 0
    assert not torch.equal(first, second)


def test_members_are_averaged(saved, task):
    single = attribute_tokens(task, saved.model, *batch_of(b"the cat", 8))
    both = Ensemble([saved.model, saved.model])
    found = attribute_tokens(task, both, *batch_of(b"the cat", 8))
    torch.testing.assert_close(found.rolled.elements, single.rolled.elements)
    torch.testing.assert_close(found.outputs, single.outputs.log_softmax(dim=-1))


def test_an_explanation_has_the_text_and_its_next_bytes(saved):
    text = "thé cat"
    found = explain_sample(saved, text, latents=2)
    assert (found.map, found.task, len(found.label_names)) == ("rollup", "classification", 256)
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
    (view,) = found.views
    assert len(view.content.units) == len(text.encode())
    assert np.isfinite(view.overall[: len(text.encode())]).all()
    chosen = explain_sample(saved, text, map="class")
    assert chosen.about == chosen.label_names[int(chosen.probabilities.argmax())]
    with pytest.raises(ValueError, match="no class 'x' to explain"):
        explain_sample(saved, text, about="x")


def test_a_text_that_is_longer_than_the_context_is_explained_at_its_end(saved):
    (view,) = explain_sample(saved, "a" * 64).views
    assert np.isfinite(view.overall).all()


@pytest.fixture(scope="module")
def copier(tmp_path_factory):
    """A run whose next byte is always that of three places before, by its one attention."""
    folder = save_generating(
        tmp_path_factory.mktemp("runs") / "copier", num_layers=0, num_heads=1, channels=32
    )
    saved = load(folder)
    model = saved.model.encoder.model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(100):
        tokens = torch.randint(6 + 97, 6 + 101, (16, 33))
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, -16 - 4 : -4].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    return saved


@pytest.mark.parametrize("kind", ["rollup", "class", "mean"])
def test_a_model_that_copies_looks_at_the_byte_that_it_copies(copier, kind):
    text = "abcdcabdacbdbac"
    found = explain_sample(copier, text, map=kind)
    assert found.label_names[int(found.probabilities.argmax())] == text[-4]
    if kind == "mean":  # of all latents
        return
    values = found.views[0].summary[: len(text)].copy()
    if kind == "rollup":
        values[-1] = 0  # half of it stays with the last byte by the residual
    assert int(values.argmax()) == len(text) - 4
