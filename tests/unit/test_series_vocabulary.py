"""Values of series as tokens: bins, scale of the context, missing values, and which values are predicted."""

import math

import numpy as np
import pytest
import torch

from perceivers.data.modalities.series.decode import SeriesValue
from perceivers.data.modalities.series.modality import SeriesModality, SeriesPreprocessConfig
from perceivers.inputs.tokens import SeriesTokenInput, SeriesTokenInputConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.byte_tokens import IGNORED
from perceivers.tasks.next_token import NextTokenTask, NextTokenTaskConfig
from perceivers.tasks.series_vocabulary import SeriesVocabulary


def prepared(*series, channels=("a",), length=8, has_missing=False, **fields):
    """Return a vocabulary, and the batch of series with its mask as their modality prepares them."""
    preprocess = SeriesPreprocessConfig(
        length=length,
        channels=channels,
        has_missing=has_missing,
        irregular=False,
        mean=(3.0,) * len(channels),
        std=(2.0,) * len(channels),
    )
    modality = SeriesModality(preprocess)
    values = [np.asarray(one, np.float32).reshape(-1, len(channels)) for one in series]
    read = [modality.transform(SeriesValue(one, None, channels)) for one in values]
    return SeriesVocabulary(**fields).fit_to(preprocess), *modality.collate(read)


def test_values_come_back_from_their_bins():
    vocabulary, content, mask = prepared([1, 2, 3, 4, 5, 6, 7, 8.0], horizon=2)
    tokens, real = vocabulary.tokens(content, mask)
    assert real.all()
    known = torch.ones(1, 6, 1, dtype=torch.bool)
    scale = vocabulary.scale(torch.arange(1, 7.0)[None, :, None], known)  # of the context
    assert scale.center.item() == 3.5
    assert scale.unit.item() == pytest.approx(np.std(np.arange(1, 7)))
    found = vocabulary.values(tokens[..., None], scale)
    width = 2 * vocabulary.limit / vocabulary.num_bins * scale.unit.item()
    torch.testing.assert_close(found[0, :, 0], torch.arange(1, 9.0), atol=width / 2, rtol=0)


@pytest.mark.parametrize("bins", ["uniform", "quantiles"])
def test_bins_cover_the_limit(bins):
    vocabulary = SeriesVocabulary(num_bins=5, bins=bins, limit=2.0, num_channels=1)
    scale = vocabulary.scale(torch.tensor([[[-1.0], [1.0]]]), torch.ones(1, 2, 1).bool())
    values = torch.tensor([-99.0, -2, 0, 2, 99]).view(1, 5, 1)
    tokens = vocabulary.quantize(values, torch.ones_like(values).bool(), scale)
    assert tokens.flatten().tolist() == [3, 3, 5, 7, 7]
    centers = vocabulary.values(torch.arange(3, 8).view(1, 5, 1), scale).flatten()
    torch.testing.assert_close(centers, -centers.flip(0), atol=1e-6, rtol=0)
    widths = centers.diff()
    if bins == "uniform":
        torch.testing.assert_close(widths, torch.full((4,), 0.8))
    else:
        assert centers[-1].item() == pytest.approx(2.0)
        assert widths[0] > widths[1]
    assert vocabulary.token_name(5) in ("0", "-0")


def test_mean_absolute_values_are_a_scale():
    vocabulary = SeriesVocabulary(scaling="mean_abs", num_channels=1)
    scale = vocabulary.scale(
        torch.tensor([[[-1.0], [3.0], [9.0]]]), torch.tensor([[[1], [1], [0]]]).bool()
    )
    assert (scale.center.item(), scale.unit.item()) == (0.0, 2.0)


def test_missing_values_are_read_and_not_predicted():
    nan = math.nan
    vocabulary, content, mask = prepared(
        [1, nan, 3, 4, nan, 6, nan, nan], has_missing=True, horizon=2
    )
    tokens, real = vocabulary.tokens(content, mask)
    assert real[0].tolist() == [True] * 6 + [False] * 2  # up to the last known step
    assert (tokens[0, [1, 4]] == 1).all()
    assert vocabulary.measured(tokens, real)[0].tolist() == [False] * 5 + [True] + [False] * 2
    task = NextTokenTask(NextTokenTaskConfig(modality="series", vocabulary=vocabulary))
    masks = {} if mask is None else {"series": mask}
    batch = task.prepare_batch({"series": content}, masks, None, training=True)
    assert batch.targets.shape == (1, 8)
    assert (batch.targets != IGNORED).tolist() == [[False] * 7 + [True]]


def test_a_step_that_is_masked_as_a_whole_is_missing():
    vocabulary, content, mask = prepared([1, 2, math.nan, 4, 5, 6, 7, 8.0], horizon=2)
    tokens, real = vocabulary.tokens(content, mask)
    assert tokens[0, 2].item() == 1
    assert real.all()


def test_of_short_series_at_least_half_is_context():
    vocabulary, content, mask = prepared([1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8], horizon=6)
    tokens, real = vocabulary.tokens(content, mask)
    measured = vocabulary.measured(tokens, real)
    assert measured.sum(dim=1).tolist() == [1, 4]
    assert measured[0].tolist() == [False, False, True] + [False] * 5


def test_channels_take_turns_at_each_step():
    vocabulary, content, mask = prepared(
        [[1, 10], [2, 20], [3, 30], [4, 40]], channels=("a", "b"), length=4, horizon=1
    )
    tokens, _ = vocabulary.tokens(content, mask)
    assert tokens.shape == (1, 8)
    assert tokens[0, ::2].tolist() == tokens[0, 1::2].tolist()  # each in its own units
    adapter = SeriesTokenInput(SeriesTokenInputConfig(length=4, num_channels=2))
    assert adapter.position_indices(torch.arange(5)).flatten().tolist() == [0, 1, 2, 1, 2]
    encoder = vocabulary.fit_encoder(get_recipe("series_ar").encoder)
    assert (encoder.max_length, encoder.num_latents, encoder.axes) == (9, 2, (3,))
    assert vocabulary.fit_encoder(PerceiverARConfig(vocab_size=9, num_latents=1)).axes == ()


def test_equal_values_stay_equal():
    vocabulary, content, mask = prepared([5.0] * 8)
    tokens, _ = vocabulary.tokens(content, mask)
    scale = vocabulary.scale(torch.full((1, 6, 1), 5.0), torch.ones(1, 6, 1).bool())
    assert scale.unit.item() == 0
    assert len(set(tokens[0].tolist())) == 1
    assert (vocabulary.values(torch.tensor([[[3], [100]]]), scale) == 5).all()


def test_the_scale_varies_in_training():
    torch.manual_seed(0)
    vocabulary, content, mask = prepared(np.arange(8.0))
    plain = vocabulary.tokens(content, mask)[0]
    assert any(not vocabulary.training_tokens(content, mask)[0].equal(plain) for _ in range(3))
    still = SeriesVocabulary(
        scale_jitter=0.0,
        **{k: getattr(vocabulary, k) for k in ("horizon", "length", "num_channels", "mean", "std")},
    )
    assert still.training_tokens(content, mask)[0].equal(plain)
    assert vocabulary.tokens(plain, torch.ones_like(plain).bool())[0] is plain


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_bins": 1}, "at least 2 bins"),
        ({"limit": 0.0}, "limit above 0"),
        ({"scale_jitter": -1.0}, "scale_jitter of 0 or more"),
        ({"horizon": 0}, "horizon from 1"),
        ({"horizon": 8, "length": 8}, "below the steps of a window, 8, got 8"),
    ],
)
def test_numbers_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        SeriesVocabulary(**fields)


def test_sizes_must_be_known():
    with pytest.raises(ValueError, match="num_channels of the series"):
        _ = SeriesVocabulary().known_channels
    with pytest.raises(ValueError, match="horizon of the series"):
        _ = SeriesVocabulary().known_horizon
    with pytest.raises(ValueError, match="length and num_channels"):
        SeriesTokenInput(SeriesTokenInputConfig())
    with pytest.raises(ValueError, match=r"'x\.csv' is a series"):
        SeriesVocabulary().check_sample("x.csv")
