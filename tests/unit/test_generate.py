"""Sampling of tokens, and refused prompts and settings."""

import pytest
import torch

from perceivers.models.generate import GenerationConfig, TokenGenerator, sample_tokens
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def drawn(**options):
    config = GenerationConfig(**options)
    generator = torch.Generator().manual_seed(0)
    rows = LOGITS.expand(4000, -1)
    return sample_tokens(rows, config, generator).bincount(minlength=4) / 4000


def test_tokens_are_drawn_by_their_probabilities():
    assert drawn() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_p": 0}, {"top_k": 1}])
def test_the_most_probable_token(options):
    assert drawn(**options).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.45}, [1, 0, 0, 0]),
        ({"top_p": 0.6}, [0.625, 0.375, 0, 0]),
        ({"temperature": 0.5}, [0.685, 0.247, 0.062, 0.007]),
        # The share is that of the probabilities before the temperature.
        ({"top_p": 0.9, "temperature": 4}, [0.384, 0.337, 0.283, 0]),
    ],
)
def test_the_tokens_among_which_one_is_drawn(options, shares):
    assert drawn(**options) == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 1.5}, "top_p from 0 to 1"),
        ({"top_p": -0.1}, "top_p from 0 to 1"),
        ({"top_k": 0}, "top_k"),
        ({"num_latents": 0}, "num_latents"),
        ({"first_latents": 0}, "first_latents"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**options)


SIZES = {"max_length": 10, "num_latents": 4, "channels": 8, "num_heads": 2, "num_layers": 1}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PerceiverAR(PerceiverARConfig(vocab_size=5, **SIZES)).eval()


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "at least one token"),
        ([[1], []], {}, "at least one token"),
        ([[1, 5]], {}, "from 0 to 4, got 1 to 5"),
        ([[-1]], {}, "from 0 to 4"),
        ([[1]], {"length": 0}, "length=0"),
        ([[1]], {"config": GenerationConfig(num_latents=5)}, "num_latents from 1 to 4, got 5"),
    ],
)
def test_unusable_prompts_are_refused(model, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        TokenGenerator(model, prompts, **{"length": 3} | options)


def test_a_seed_repeats_the_tokens(model):
    def tokens(seed, **options):
        config = GenerationConfig(seed=seed, **options)
        return [int(one) for one in TokenGenerator(model, [[1, 2]], length=30, config=config)]

    assert len(tokens(0)) == 30
    assert tokens(0) == tokens(0) == tokens(0, use_cache=False) != tokens(1)


def test_only_allowed_tokens_are_drawn(model):
    allowed = torch.zeros(2, 5, dtype=torch.bool)
    allowed[0, :2] = allowed[1, 2:] = True
    generator = TokenGenerator(model, [[1]], length=20, allowed=allowed)
    tokens = [int(token) for token in generator]
    assert all(token > 1 for token in tokens[::2])
    assert all(token < 2 for token in tokens[1::2])


def test_a_context_that_is_too_long_is_refused(model):
    with pytest.raises(ValueError, match="1 to 10 tokens"):
        model(torch.zeros(1, 11, dtype=torch.long))
    with pytest.raises(ValueError, match="1 to 10 tokens"):
        model(torch.zeros(1, 0, dtype=torch.long))


def test_nothing_is_left_out_of_a_sequence_that_fits_into_the_context(model):
    generator = TokenGenerator(model, [[1, 2, 3]], length=8, config=GenerationConfig(seed=2))
    for _ in generator:
        pass
    assert generator.start == 0
    longer = TokenGenerator(model, [[1, 2, 3]], length=9, config=GenerationConfig(seed=2))
    for _ in longer:
        pass
    assert longer.start > 0
