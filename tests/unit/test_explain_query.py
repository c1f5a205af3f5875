"""Attribution of a blank of a text: the latents that its query attends to, and through them the bytes."""

from dataclasses import replace

import pytest
import torch

from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.explain.attribution.attention import watch_attention
from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.explanation import arrays_of
from perceivers.explain.attribution.rollup import trace_query
from perceivers.explain.render.figure import draw_explanation
from perceivers.hub.checkpoint import load, save
from perceivers.models.perceiver import build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes import get_recipe
from perceivers.tasks.masked import MASK, MaskedBytesConfig

RECIPE = get_recipe("mlm_bytes", size="tiny")
TEXT = torch.tensor(
    [[byte + 6 for byte in b"the c"] + [MASK, MASK] + [byte + 6 for byte in b" sat"]]
)


def model_of(**changes):
    torch.manual_seed(0)
    return build(replace(RECIPE.model_config(), **changes)).eval()


def test_the_trace_is_the_product_of_both_maps():
    model = model_of()
    found = trace_query(model, {"text": TEXT}, None, query=5)
    assert found.latents.sum().item() == pytest.approx(1)
    assert found.elements.sum().item() == pytest.approx(1)
    with torch.no_grad(), watch_attention(model) as maps:
        model({"text": TEXT})
    attended, query = (
        next(iter(maps[name]))[0].mean(dim=0)
        for name in ("encoder.cross_attends.0.attention", "output.cross_attend.attention")
    )
    torch.testing.assert_close(found.elements, (query @ attended)[5])
    # The number of queries that are decoded at once does not matter.
    chunked = model_of(output=replace(RECIPE.output, chunk=4))
    torch.testing.assert_close(
        trace_query(chunked, {"text": TEXT}, None, query=5).elements, found.elements
    )


def test_padding_gets_no_attention():
    padded = torch.cat([TEXT, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    real = torch.arange(padded.shape[1])[None] < TEXT.shape[1]
    found = trace_query(model_of(), {"text": padded}, {"text": real}, query=5)
    assert not found.elements[TEXT.shape[1] :].any()
    alone = trace_query(model_of(), {"text": TEXT}, None, query=5)
    torch.testing.assert_close(found.elements[: TEXT.shape[1]], alone.elements)


def test_a_model_without_queries_is_refused():
    model = model_of(output=MeanPoolConfig(num_outputs=2))
    with pytest.raises(TypeError, match="with output queries, got MeanPool"):
        trace_query(model, {"text": TEXT}, None, query=0)


def test_the_first_blank_is_explained_and_drawn(tmp_path):
    column = {"column": "text", "kind": "text", "columns": (), "kinds": ()}
    save(
        tmp_path / "run",
        model_of(),
        preprocess={"text": TextPreprocessConfig(max_length=128, marks=True)},
        task=MaskedBytesConfig(),
        columns={
            "data": None,
            "form": "f",
            "inputs": {"text": column},
            "target": None,
            "config": {},
        },
    )
    found = explain_sample(load(tmp_path / "run"), {"text": "the c[MASK][MASK] sat"})
    arrays = arrays_of(found)
    assert arrays["query_latents"].shape == (64,)
    assert arrays["query"].shape == (11,)  # without padding
    assert arrays["query"].mean() == pytest.approx(1, abs=1e-4)
    # With local attention, the blank attends to the bytes around it.
    assert arrays["query"][4:8].mean() > 1.2
    figure = draw_explanation(found)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "query of the first blank" in titles
    best = int(found.query.argmax())
    assert any(f"latents {best} (" in text.get_text() for text in figure.findobj(match=_is_text))


def _is_text(artist):
    return hasattr(artist, "get_text")
