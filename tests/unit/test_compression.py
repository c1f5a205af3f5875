"""How much smaller the latents are, in the papers' way of counting and in the plain one."""

import pytest

from perceivers.inputs.image import PixelInputConfig
from perceivers.models.compression import compression
from perceivers.models.perceiver import PerceiverConfig
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.recipes.registry import get_recipe


def test_kinetics_has_the_values_that_follow_from_the_paper():
    found = compression(get_recipe("kinetics_autoencoder").model_config())
    assert found.raw_values == 16 * 224 * 224 * 3 + 30_720 + 700 == 2_439_868
    assert found.array_values == 52_097 * 704
    assert found.latent_values == 784 * 512
    assert found.of_raw == pytest.approx(6.08, abs=0.01)
    # 88 times as printed is with 480 elements of sound, where text and code have 1,920.
    assert found.of_array == pytest.approx(91.4, abs=0.05)
    printed = 704 * (50_176 + 480 + 1) / (784 * 512)
    assert printed == pytest.approx(88.8, abs=0.05)
    assert found.sentence() == (
        "401,408 values of the latents stand for 2,439,868 of the inputs (6.1 to 1); the papers count against the "
        "padded input array, 36,676,288 values (91.4 to 1)"
    )


def test_a_transformer_keeps_every_element():
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(4, 4))},
        encoder=TransformerEncoderConfig(channels=32),
    )
    assert compression(config).latent_values == 16 * 32
