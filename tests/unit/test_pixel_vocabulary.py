"""Pixels as tokens: exact values, order, positions, sizes that follow from the images, and refused images."""

import numpy as np
import pytest
import torch

from perceivers.data.modalities.image.preprocess import ImagePreprocessConfig, normalize_pixels
from perceivers.inputs.tokens import PixelTokenInput, PixelTokenInputConfig
from perceivers.models.perceiver import build
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.recipes.assume import assume
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.next_token import NextTokenTask, NextTokenTaskConfig
from perceivers.tasks.pixel_vocabulary import PixelVocabulary


def pixel_vocabulary(size=(4, 5), channels=3, **fields):
    """Return a vocabulary of images of a size, with their mean and deviation."""
    images = ImagePreprocessConfig(
        size=size,
        num_channels=channels,
        mean=(0.4, 0.5, 0.1)[:channels],
        std=(0.2, 0.3, 0.004)[:channels],
    )
    return PixelVocabulary(**fields).fit_to(images), images


@pytest.mark.parametrize("channels", [1, 3])
def test_every_value_of_a_pixel_is_kept(channels):
    vocabulary, images = pixel_vocabulary((16, 16), channels)
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, axis=3)
    tokens, real = vocabulary.tokens(normalize_pixels(torch.from_numpy(values), images), None)
    assert real.all()
    assert tokens.shape == (1, 256 * channels)
    assert tokens[0, ::channels].tolist() == list(range(3, 259))
    assert np.array_equal(vocabulary.images(tokens).numpy(), values)


def test_pixels_follow_each_other_by_rows_columns_and_channels():
    vocabulary, images = pixel_vocabulary((2, 2))
    values = torch.arange(12, dtype=torch.uint8).view(1, 2, 2, 3)  # in that order
    tokens, _ = vocabulary.tokens(normalize_pixels(values, images), None)
    assert tokens.tolist() == [list(range(3, 15))]
    assert vocabulary.tokens(tokens, torch.ones(1, 1, dtype=torch.bool))[0] is tokens


def test_values_between_levels_are_rounded():
    vocabulary, images = pixel_vocabulary((1, 6), 1, levels=4)
    values = torch.tensor([0, 42, 43, 85, 170, 255], dtype=torch.uint8).view(1, 1, 6, 1)
    tokens, _ = vocabulary.tokens(normalize_pixels(values, images), None)
    assert [vocabulary.token_name(token) for token in tokens[0].tolist()] == list("001123")
    assert vocabulary.images(tokens).flatten().tolist() == [0, 0, 85, 85, 170, 255]
    assert list(vocabulary.data_tokens) == [3, 4, 5, 6]


def test_positions_are_those_of_the_release():
    adapter = PixelTokenInput(PixelTokenInputConfig(size=(2, 3), num_channels=3))
    places = adapter.position_indices(torch.arange(adapter.num_elements + 1))
    assert places[0].tolist() == [1, 1, 1]  # of the start
    expected = [[y, x, c] for y in (2, 3) for x in (2, 3, 4) for c in (2, 3, 4)]
    assert places[1:].tolist() == expected
    content = adapter(adapter.example(2)).content
    assert content.shape == (2, 18, 4)
    assert content[1, :, 1:].long().tolist() == places[:-1].tolist()
    mask = torch.arange(18) >= torch.tensor([[0], [3]])
    padded = adapter(adapter.example(2), mask).content
    assert padded[1, 3:, 1:].long().tolist() == places[:15].tolist()


def test_the_encoder_has_the_sizes_of_the_images():
    recipe = get_recipe("image_ar")
    vocabulary, images = pixel_vocabulary((6, 4), 1, levels=16)
    task = NextTokenTaskConfig(modality="image", vocabulary=PixelVocabulary(levels=16))
    task = task.fit_to_inputs({}, {"image": images})
    assert task.vocabulary == vocabulary
    encoder = task.fit_encoder(recipe.encoder)
    assert (encoder.vocab_size, encoder.max_length, encoder.num_latents) == (19, 25, 24)
    assert encoder.axes == (8, 6, 3)
    plain = task.fit_encoder(PerceiverARConfig(vocab_size=2, num_latents=8))
    assert (plain.axes, plain.num_latents) == ((), 8)


def test_every_pixel_is_measured_from_those_before_it():
    """The bits of an image are those of one pass over all of its tokens with as many latents."""
    recipe, _ = assume(get_recipe("image_ar"))
    vocabulary, images = pixel_vocabulary((5, 4), 1, levels=8)
    task = NextTokenTask(NextTokenTaskConfig(modality="image", vocabulary=vocabulary, z_loss=0.0))
    encoder = task.config.fit_encoder(recipe.encoder)
    config = recipe.model_config()
    small = {"channels": 16, "num_heads": 2, "num_layers": 1, "init": "normal", "init_scale": 0.3}
    torch.manual_seed(0)
    model = build(
        type(config)(
            inputs={"image": PixelTokenInputConfig(size=(5, 4), num_channels=1)},
            encoder=type(encoder)(**{**vars(encoder), **small, "num_latents": 7}),
            output=config.output,
        )
    ).eval()
    pixels = torch.randint(0, 256, (2, 5, 4, 1), dtype=torch.uint8)
    batch = task.prepare_batch(
        {"image": normalize_pixels(pixels, images)}, {}, None, training=False
    )
    assert batch.inputs["image"][:, 0].tolist() == [vocabulary.start] * 2
    assert not batch.masks
    with torch.no_grad():
        outputs = task.infer(model, batch)
        last = model({"image": batch.inputs["image"][:, :13]})[:, -1]
    assert outputs.shape == (2, 20, 11)
    torch.testing.assert_close(outputs[:, 12], last)  # a block of 7 tokens ends there
    meter = task.meter()
    meter.update(outputs, batch.targets)
    found = meter.compute()
    assert found["dimensions"] == 40
    assert found["bits_per_dimension"] == pytest.approx(found["loss"] / np.log(2))


def test_the_next_pixel_of_a_complete_image_is_not_predicted():
    task = NextTokenTaskConfig(modality="image", vocabulary=PixelVocabulary())
    with pytest.raises(ValueError, match=r"'a\.png' is a complete image"):
        task.check_sample({}, "a.png")


@pytest.mark.parametrize("levels", [1, 257])
def test_levels_out_of_range(levels):
    with pytest.raises(ValueError, match="2 to 256 levels"):
        PixelVocabulary(levels=levels)


def test_images_that_are_too_large_are_refused():
    with pytest.raises(
        ValueError, match="128 x 128 pixels and 3 channels are 49,152 tokens"
    ) as found:
        pixel_vocabulary((128, 128))
    assert "--inputs.image.size" in str(found.value)


def test_sizes_must_be_known():
    with pytest.raises(ValueError, match="size and num_channels"):
        PixelTokenInput(PixelTokenInputConfig())
    with pytest.raises(ValueError, match="image_size and num_channels"):
        _ = PixelVocabulary().shape
