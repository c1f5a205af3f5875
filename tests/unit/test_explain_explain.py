from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.explain.attribution import attribute as attribution
from perceivers.explain.attribution.attention import watch_attention
from perceivers.explain.attribution.explain import axes_of, explain_sample
from perceivers.explain.attribution.sample import read_sample
from perceivers.explain.contents.image import ImageContent
from perceivers.explain.contents.text import TextContent
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.image import (
    ConvInputConfig,
    PatchInputConfig,
    PixelInputConfig,
    ResidualInputConfig,
)
from perceivers.inputs.text import ConvTextInputConfig, TextInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.regression import RegressionConfig
from support.models import tiny_encoder

ENCODER = tiny_encoder(
    num_latents=6, latent_channels=8, num_blocks=2, num_cross_attends=2, latent_init_scale=1.0
)
CLASSES = ClassificationConfig(label_names=("cat", "dog", "ship"))


def saved(adapter=None, encoder=ENCODER, *, text=None, permute=None, task=CLASSES) -> Saved:
    adapter = adapter or PixelInputConfig(size=(6, 8))
    inputs = {"image": adapter}
    preprocess = {
        "image": ImagePreprocessConfig.imagenet(
            size=adapter.size,
            num_channels=adapter.num_channels,
            mean=(0.5,) * adapter.num_channels,
            std=(0.25,) * adapter.num_channels,
            crop_fraction=1.0,
        )
    }
    if text is not None:
        inputs["text"] = text
        preprocess["text"] = TextPreprocessConfig(max_length=text.max_length)
    config = PerceiverConfig(
        inputs=inputs, encoder=encoder, output=MeanPoolConfig(num_outputs=3), permute=permute
    )
    return Saved(
        model=build(config).eval(),
        config=SavedConfig(model=config, preprocess=preprocess, task=task),
        folder=Path("run"),
    )


def noise(height: int, width: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("adapter", "grid"),
    [
        (PixelInputConfig(size=(6, 8)), (6, 8)),
        (PatchInputConfig(size=(6, 8), patch=(2, 2)), (3, 4)),
        (ConvInputConfig(size=(12, 16)), (3, 4)),
        (ResidualInputConfig(size=(12, 16)), (3, 4)),
        (PixelInputConfig(size=(6, 8), num_channels=1), (6, 8)),
    ],
    ids=["pixels", "patches", "convolved", "residual", "gray"],
)
def test_maps_lie_on_the_axes_of_the_adapter(adapter, grid):
    explanation = explain_sample(saved(adapter), noise(30, 40), latents=4, map="mean")
    (view,) = explanation.views
    assert view.attention.shape == (2, *grid)
    assert view.scores.shape == (2, 4, *grid)
    np.testing.assert_allclose(view.attention.mean(axis=(1, 2)), 1.0, rtol=1e-4)
    np.testing.assert_allclose(view.share, 1.0, rtol=1e-4)
    np.testing.assert_allclose(view.overall, view.attention.mean(axis=0), rtol=1e-5)
    assert view.even == 1.0
    assert isinstance(view.content, ImageContent)
    np.testing.assert_allclose(explanation.probabilities.sum(), 1.0, rtol=1e-5)
    assert explanation.label_names == ("cat", "dog", "ship")


@pytest.mark.parametrize("text", [None, TextInputConfig(max_length=64, channels=16)])
def test_a_permuted_model_is_drawn_where_its_elements_stand(text):
    plain, permuted = saved(text=text), saved(text=text, permute=7)
    permuted.model.load_state_dict(plain.model.state_dict())
    file = noise(6, 8) if text is None else {"image": noise(6, 8), "text": "a good film"}
    expected, actual = (explain_sample(run, file) for run in (plain, permuted))
    for one, other in zip(actual.views, expected.views, strict=True):
        np.testing.assert_allclose(one.attention, other.attention, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-4)


class TestSeveralModalities:
    def test_attention_is_split_and_padding_has_none(self):
        run = saved(text=TextInputConfig(max_length=64, channels=16))
        explanation = explain_sample(run, {"image": noise(6, 8), "text": "good"})
        image, text = explanation.views
        assert (image.name, text.name) == ("image", "text")
        assert text.attention.shape == (2, 64)
        assert np.isnan(text.attention[:, 4:]).all()
        assert np.isnan(text.scores[..., 4:]).all()
        np.testing.assert_allclose(text.attention[:, :4].mean(axis=1), 1.0, rtol=1e-4)
        np.testing.assert_allclose(image.share + text.share, 1.0, rtol=1e-4)
        assert image.even == pytest.approx(48 / 52)
        assert np.isnan(text.overall[4:]).all()
        assert isinstance(text.content, TextContent)
        assert text.content.units.tolist() == list(b"good")

    def test_a_missing_one_is_named(self):
        run = saved(text=ConvTextInputConfig(max_length=64))
        explanation = explain_sample(run, {"text": "good"})
        assert [view.name for view in explanation.views] == ["text"]
        assert explanation.missing == ("image",)
        assert explanation.views[0].attention.shape == (2, 16)
        np.testing.assert_allclose(explanation.views[0].share, 1.0, rtol=1e-4)

    def test_one_that_got_nothing_was_looked_at_nowhere(self, monkeypatch):
        plain = attribution.summarize_call

        def one(call, latents):
            read = plain(call, latents)
            share = torch.zeros(48 + 64)
            share[0] = 1.0
            return replace(read, share=share, heads=share[None])

        monkeypatch.setattr(attribution, "summarize_call", one)
        run = saved(text=TextInputConfig(max_length=64, channels=16))
        image, text = explain_sample(run, {"image": noise(6, 8), "text": "good"}, latents=1).views
        assert image.attention[0, 0, 0] == 48.0
        assert (text.attention[0, :4] == 0).all()
        assert text.share.tolist() == [0.0, 0.0]


def test_latents_are_spread_evenly_or_as_asked():
    picture = noise(6, 8)
    assert explain_sample(saved(), picture, latents=3).latents == (0, 2, 4)
    assert explain_sample(saved(), picture, latents=50).latents == tuple(range(6))
    assert explain_sample(saved(), picture, latents=[5, 1]).latents == (5, 1)


def test_elements_of_the_baseline_stand_in_for_latents():
    encoder = TransformerEncoderConfig(channels=8, num_self_attends=1, num_self_attend_heads=2)
    explanation = explain_sample(saved(encoder=encoder), noise(6, 8), latents=2)
    assert explanation.latents == (12, 36)
    assert explanation.views[0].attention.shape == (1, 6, 8)


def test_every_task_answers_in_its_own_way():
    several = MultiLabelConfig(label_names=("cat", "dog", "ship"), threshold=0.3)
    explanation = explain_sample(saved(task=several), noise(6, 8))
    assert (explanation.task, explanation.threshold) == ("multilabel", 0.3)
    numbers = RegressionConfig(target_names=("x", "y", "z"), mean=(0, 5, 9), std=(1, 1, 1))
    explanation = explain_sample(saved(task=numbers), noise(6, 8))
    assert explanation.label_names == ("x", "y", "z")
    np.testing.assert_allclose(explanation.probabilities, [0, 5, 9], atol=2)


@pytest.mark.parametrize("missing", ["preprocess", "task"])
def test_what_was_saved_without_labels_or_preprocessing_is_refused(missing):
    run = saved()
    config = replace(run.config, **{missing: {} if missing == "preprocess" else None})
    with pytest.raises(ValueError, match="The model in run was saved without its labels or its"):
        explain_sample(replace(run, config=config), noise(6, 8))


def test_reads_of_a_part_of_the_input_are_refused():
    encoder = tiny_encoder(
        num_latents=6,
        latent_channels=8,
        num_blocks=2,
        num_cross_attends=2,
        num_self_attends_per_block=0,
        unroll_time=True,
    )
    with pytest.raises(
        ValueError,
        match=r"every cross-attention to see all 48 elements, got attention to \[24\]",
    ):
        explain_sample(saved(encoder=encoder), noise(6, 8))


def test_elements_that_fill_no_grid_lie_in_a_row():
    assert axes_of(build(saved().config.model).inputs["image"], 16) == (2, 8)
    assert axes_of(build(saved().config.model).inputs["image"], 15) == (15,)


def test_the_map_of_the_whole_model_is_about_a_class():
    run = saved()
    torch.nn.init.normal_(run.model.output.to_logits.weight)
    found = explain_sample(run, noise(6, 8), latents=2)
    best = found.label_names[int(found.probabilities.argmax())]
    (view,) = found.views
    assert (found.map, found.about, view.summary_title) == ("class", best, f"for {best}")
    np.testing.assert_allclose(view.overall.mean(), 1.0, rtol=1e-4)
    assert view.latents.shape == (2, 2, 6, 8)
    assert view.rolled.shape == (2, 6, 8)
    np.testing.assert_allclose(view.latents.mean(axis=(2, 3)), 1.0, rtol=1e-4)
    other = next(name for name in found.label_names if name != best)
    (changed,) = explain_sample(run, noise(6, 8), about=other).views
    assert np.abs(changed.overall - view.overall).max() > 0.1
    for kind, title in (
        ("rollup", "all layers"),
        ("last", "last cross-attention"),
        ("mean", "all cross-attentions"),
    ):
        (view,) = explain_sample(run, noise(6, 8), map=kind).views
        assert view.summary_title == title
    np.testing.assert_allclose(view.overall, view.attention.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"map": "rolup"}, r"a map out of mean, last, rollup, class; got 'rolup'\. .*'rollup'"),
        ({"about": "cow"}, "no class 'cow' to explain; the run learned cat, dog, ship"),
        ({"about": "cat", "map": "mean"}, "A map of mean is of no class"),
    ],
)
def test_a_map_or_class_that_is_not_there_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        explain_sample(saved(), noise(6, 8), **given)


def test_the_model_is_left_without_gradients_and_hooks():
    run = saved()
    explain_sample(run, noise(6, 8))
    assert all(p.grad is None for p in run.model.parameters())
    assert not any(m._forward_pre_hooks for m in run.model.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("latent", "head"), [(2, None), (None, 0), (5, 0)])
def test_one_latent_or_head_alone(latent, head):
    model = saved()
    image = noise(6, 8)
    explanation = explain_sample(model, image, map="mean", alone=(latent, head))
    sample = read_sample(model, image)
    with watch_attention(model.model) as maps:
        model.model(sample.inputs)
    for seen, weights in zip(
        explanation.views[0].attention, maps.cross_attends, strict=True
    ):  # 1 x H x N x M
        own = weights[0] if head is None else weights[0, head : head + 1]
        own = own if latent is None else own[:, latent : latent + 1]
        expected = own.mean(dim=(0, 1)) * own.shape[-1]
        np.testing.assert_allclose(seen.ravel(), expected.detach().numpy(), rtol=1e-4)


def test_a_head_that_there_is_not():
    with pytest.raises(ValueError, match="Expected a head between 0 and 0, got 1"):
        explain_sample(saved(), noise(6, 8), alone=(None, 1))
