from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import ImagePreprocessConfig
from perceivers.explain.image import explain_picture, show_pixels
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.image import ConvInputConfig, PatchInputConfig, PixelInputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig

ENCODER = PerceiverEncoderConfig(
    num_latents=6,
    latent_channels=8,
    num_blocks=2,
    num_cross_attends=2,
    num_self_attends_per_block=1,
    num_self_attend_heads=2,
    latent_init_scale=1.0,
)


def saved(adapter=None, encoder=ENCODER, *, permute=None) -> Saved:
    adapter = adapter or PixelInputConfig(size=(6, 8))
    config = PerceiverConfig(
        inputs={"image": adapter},
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=3),
        permute=permute,
    )
    preprocess = ImagePreprocessConfig(
        size=adapter.size,
        num_channels=adapter.num_channels,
        mean=(0.5,) * adapter.num_channels,
        std=(0.25,) * adapter.num_channels,
        crop_fraction=1.0,
    )
    task = ClassificationConfig(label_names=("cat", "dog", "ship"))
    return Saved(
        model=build(config).eval(),
        config=SavedConfig(model=config, preprocess={"image": preprocess}, task=task),
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
        (PixelInputConfig(size=(6, 8), num_channels=1), (6, 8)),
    ],
    ids=["pixels", "patches", "convolved", "gray"],
)
def test_maps_lie_on_the_grid_of_the_adapter(adapter, grid):
    explanation = explain_picture(saved(adapter), noise(30, 40), latents=4)
    assert explanation.attention.shape == (2, *grid)
    assert explanation.scores.shape == (2, 4, *grid)
    np.testing.assert_allclose(explanation.attention.mean(axis=(1, 2)), 1.0, rtol=1e-4)
    assert explanation.probabilities.shape == (3,)
    np.testing.assert_allclose(explanation.probabilities.sum(), 1.0, rtol=1e-5)
    assert explanation.label_names == ("cat", "dog", "ship")


def test_a_permuted_model_is_drawn_where_its_elements_stand():
    plain = saved()
    permuted = saved(permute=7)
    permuted.model.load_state_dict(plain.model.state_dict())
    picture = noise(6, 8)
    expected, actual = (explain_picture(run, picture) for run in (plain, permuted))
    np.testing.assert_allclose(actual.attention, expected.attention, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_latents_are_spread_evenly_or_as_asked():
    picture = noise(6, 8)
    assert explain_picture(saved(), picture, latents=3).latents == (0, 2, 4)
    assert explain_picture(saved(), picture, latents=50).latents == tuple(range(6))
    assert explain_picture(saved(), picture, latents=[5, 1]).latents == (5, 1)


def test_elements_of_the_baseline_stand_in_for_latents():
    encoder = TransformerEncoderConfig(channels=8, num_self_attends=1, num_self_attend_heads=2)
    explanation = explain_picture(saved(encoder=encoder), noise(6, 8), latents=2)
    assert explanation.latents == (12, 36)
    assert explanation.attention.shape == (1, 6, 8)


def test_a_picture_is_shown_in_the_pixels_that_it_has():
    config = saved().config.preprocess["image"]
    assert show_pixels(noise(60, 80), config).shape == (60, 80, 3)
    assert show_pixels(noise(3, 4), config).shape == (6, 8, 3)
    assert show_pixels(noise(6000, 8000), config).shape == (64 * 6, 64 * 8, 3)


def test_normalization_is_undone_and_gray_has_three_equal_channels():
    config = saved(PixelInputConfig(size=(6, 8), num_channels=1)).config.preprocess["image"]
    image = noise(6, 8, "L")
    shown = show_pixels(image, config)
    np.testing.assert_array_equal(shown[..., 0], np.asarray(image))
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])


def test_a_path_gives_its_name(tmp_path):
    noise(6, 8).save(tmp_path / "a.png")
    assert explain_picture(saved(), tmp_path / "a.png").name == "a.png"
    assert explain_picture(saved(), str(tmp_path / "a.png")).name == "a.png"
    assert explain_picture(saved(), np.zeros((6, 8, 3), np.uint8)).name == "picture"


@pytest.mark.parametrize("missing", ["preprocess", "task"])
def test_what_is_no_classifier_of_pictures_is_refused(missing):
    run = saved()
    config = replace(run.config, **{missing: {} if missing == "preprocess" else None})
    with pytest.raises(ValueError, match="Expected a classifier of single pictures"):
        explain_picture(replace(run, config=config), noise(6, 8))


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"nowhere\.png"):
        explain_picture(saved(), "nowhere.png")


def test_the_model_is_left_without_gradients_and_hooks():
    run = saved()
    explain_picture(run, noise(6, 8))
    assert all(p.grad is None for p in run.model.parameters())
    assert not any(m._forward_pre_hooks for m in run.model.modules())
    assert torch.is_grad_enabled()
