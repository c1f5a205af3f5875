"""Weights that begin as a map of places: what is near is read, before anything is learned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from perceivers.hub.checkpoint import load, save
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder
from perceivers.models.local_attention_init import position_sines
from perceivers.models.perceiver import Perceiver, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.nn.blocks import CrossAttend
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.outputs.queries import LearnedQueries
from perceivers.recipes import get_recipe
from perceivers.tasks.byte_tokens import FIRST_BYTE

LENGTH, LATENTS = 128, 64


@pytest.fixture(scope="module")
def models() -> dict[str, Perceiver]:
    """Return the tiny model of masked bytes, begun in both ways."""
    config = get_recipe("mlm_bytes", size="tiny").model_config()
    torch.manual_seed(0)
    return {
        "papers": build(replace(config, init="papers")),
        "local": build(replace(config, init="local_attention")),
    }


def near(weights: torch.Tensor, reach: float) -> float:
    """Return the share of attention that falls within `reach` bytes of where each query lies."""
    queries, sources = weights.shape[-2:]
    where = (torch.arange(queries) + 0.5) * (LENGTH / queries)
    there = (torch.arange(sources) + 0.5) * (LENGTH / sources)
    is_near = (where[:, None] - there[None]).abs() <= reach
    return float((weights * is_near).sum(dim=-1).mean())


@torch.no_grad()
def reads(model: Perceiver) -> tuple[float, float]:
    """Return the near shares of the latents' read and of the queries' read of a random text."""
    text = torch.randint(FIRST_BYTE + 97, FIRST_BYTE + 123, (2, LENGTH))
    encoder, decoder = model.encoder, model.output
    assert isinstance(encoder, PerceiverEncoder)
    assert isinstance(decoder, PerceiverDecoder)
    read, queries = encoder.cross_attends[0], decoder.queries["text"]
    assert isinstance(read, CrossAttend)
    assert isinstance(queries, LearnedQueries)
    elements = model.elements({"text": text})[0].content
    latents = encoder.latents[None]
    first = read.attention.weights(
        read.query_norm(latents).expand(2, -1, -1), read.source_norm(elements)
    )
    asked = decoder.cross_attend
    last = asked.attention.weights(
        asked.query_norm(queries.table[None].expand(2, -1, -1)),
        asked.source_norm(model.encode({"text": text})),
    )
    return near(first, 2.0), near(last, 3.0)


def test_both_reads_begin_near_by(models: dict[str, Perceiver]) -> None:
    """Most of each read falls on its own place; begun as published it falls anywhere."""
    first, last = reads(models["local"])
    assert first > 0.6
    assert last > 0.6
    assert max(reads(models["papers"])) < 0.15


def test_it_changes_no_shape_and_all_is_learned(models: dict[str, Perceiver]) -> None:
    """The same weights by name and shape, all of which get a gradient."""
    shapes = [{n: w.shape for n, w in model.named_parameters()} for model in models.values()]
    assert shapes[0] == shapes[1]
    model = models["local"]
    model({"text": torch.randint(FIRST_BYTE, 200, (2, LENGTH))}).square().mean().backward()
    assert all(w.grad is not None and bool(w.grad.any()) for w in model.parameters())
    model.zero_grad()


def test_sizes_are_counted_without_allocating() -> None:
    """As `inspect` and `fit` do."""
    with torch.device("meta"):
        model = build(get_recipe("mlm_bytes", size="small").model_config())
    assert all(weight.is_meta for weight in model.parameters())


def test_what_was_learned_is_read_back(models: dict[str, Perceiver], tmp_path: Path) -> None:
    save(tmp_path, models["local"])
    read = load(tmp_path).model.state_dict()
    for name, weight in models["local"].state_dict().items():
        assert torch.equal(read[name], weight)


def test_sines_tell_places_apart() -> None:
    """A place is most like itself, and less and less like those up to a wave away."""
    sines = position_sines(64, 64, length=64, highest=3.1)
    likeness = sines @ sines.T / 64
    assert torch.allclose(likeness.diagonal(), torch.ones(64), atol=1e-5)
    assert bool((likeness - 2 * torch.eye(64)).max() < 0.5)
    assert position_sines(3, 5, length=6, highest=1.0).shape == (3, 5)


@pytest.mark.parametrize("changes", [{"inputs": {"image": PixelInputConfig(size=(8, 8))}}, {}])
def test_only_models_of_one_text_begin_so(changes: dict[str, Any]) -> None:
    """Pictures have positions of another kind, and a transformer has no latents."""
    config = get_recipe("mlm_bytes", size="tiny").model_config()
    encoder = config.encoder if changes else TransformerEncoderConfig()
    whole = replace(config, output=MeanPoolConfig(num_outputs=2), encoder=encoder, **changes)
    with pytest.raises(
        ValueError, match="init='local_attention' is for a Perceiver with one text as input"
    ):
        build(whole)
