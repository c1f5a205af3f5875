"""Recipes on the bytes of texts, and what they take over from one another."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.hub.checkpoint import save
from perceivers.models.perceiver import build
from perceivers.recipes.published.language import byte_model
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.config import OutputPart
from perceivers.training.finetune import plan_warm_start
from support.resolved import specialize

TEXTS = ["A fine film. " * 12, "Two hours of my life. " * 9, "Neither. " * 16] * 2
TARGETS = {
    "class": ["good", "bad", "so"] * 2,
    "labels": [["fun", "long"], ["long"], ["fun"]] * 2,
    "number": [0.5, 1.5, 2.5] * 2,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_text_io_learns_any_target(kind):
    table = pd.DataFrame({"text": TEXTS, "label": TARGETS[kind]})
    source = open_data(table, DataConfig(target=kind))
    recipe, _ = specialize(get_recipe("text_io"), source)
    assert recipe.output.num_outputs == len(source.label_names)
    assert source.target_kind == kind
    with torch.device("meta"):
        outputs = build(recipe.model_config())({"text": torch.zeros(2, 64, dtype=torch.long)})
    assert outputs.shape == (2, len(source.label_names))


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_text_io_has_the_reader_of_mlm_bytes(size):
    words, texts = (get_recipe(name, size=size) for name in ("mlm_bytes", "text_io"))
    assert words.inputs == texts.inputs
    assert words.encoder == texts.encoder
    assert byte_model(size).length == texts.preprocess["text"].max_length
    for field in ("num_heads", "qk_channels", "v_channels", "use_query_residual"):
        assert getattr(words.output, field) == getattr(texts.output, field)


def test_text_io_takes_over_everything_but_its_question(tmp_path):
    words = build(get_recipe("mlm_bytes", size="tiny").model_config())
    save(tmp_path, words)
    config = get_recipe("text_io").model_config()
    config = replace(config, output=config.output.fit_to({"label": OutputPart(num_outputs=2)}))
    plan = plan_warm_start(config, tmp_path)
    assert set(plan.fresh) == {
        "output.queries.label.table",
        "output.heads.label.to_logits.weight",
        "output.heads.label.to_logits.bias",
    }
    assert not plan.resized
    model = build(config)
    plan.apply(model)
    for name in ("inputs.text.embedding.weight", "inputs.text.places", "encoder.latents"):
        assert torch.equal(model.get_parameter(name), words.get_parameter(name))
