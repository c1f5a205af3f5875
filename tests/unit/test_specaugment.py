import numpy as np
import pytest

from perceivers.data.modalities.audio.augment import AudioAugmentConfig, augment_samples, mask_axis


def new_rng():
    return np.random.default_rng(0)


def test_masks_are_stretches_of_at_most_their_share():
    widths = set()
    generator = new_rng()
    for _ in range(300):
        values = np.ones((20, 3))
        mask_axis(values, 0, masks=1, share=0.25, rng=generator)
        hidden = np.flatnonzero(values[:, 0] == 0)
        assert (values == values[:, :1]).all()
        assert not hidden.size or hidden[-1] - hidden[0] + 1 == hidden.size
        widths.add(hidden.size)
    assert widths == {0, 1, 2, 3, 4, 5}


def test_masks_may_lie_along_any_axis_and_reach_the_ends():
    hidden = np.zeros(10, dtype=int)
    generator = new_rng()
    for _ in range(200):
        values = np.ones((2, 10))
        mask_axis(values, 1, masks=2, share=0.5, rng=generator)
        hidden += values[0] == 0
    assert (hidden > 0).all()


def test_a_mask_over_nothing_changes_nothing():
    values = np.ones((0, 4))
    mask_axis(values, 0, masks=2, share=1.0, rng=new_rng())
    assert values.shape == (0, 4)


def test_gain_stays_within_its_decibels_and_half_is_upside_down():
    config = AudioAugmentConfig(gain=6.0)
    generator = new_rng()
    samples = np.full((4, 1), 0.1, dtype=np.float32)
    factors = (
        np.array([augment_samples(samples, config, generator)[0, 0] for _ in range(400)]) / 0.1
    )
    assert 10 ** (-6 / 20) - 1e-6 < np.abs(factors).min() < 0.52
    assert 1.9 < np.abs(factors).max() < 10 ** (6 / 20) + 1e-6
    assert 150 < (factors < 0).sum() < 250
    assert samples[0, 0] == np.float32(0.1)


def test_noise_is_a_share_of_the_clips_deviation():
    config = AudioAugmentConfig(gain=0.0, polarity=False, noise=0.5)
    samples = np.random.default_rng(1).standard_normal((4_000, 1)).astype(np.float32) * 0.1
    generator = new_rng()
    shares = [
        (augment_samples(samples, config, generator) - samples).std() / 0.1 for _ in range(20)
    ]
    assert max(shares) < 0.52
    assert min(shares) < 0.2
    silent = np.zeros((5, 1), dtype=np.float32)
    assert not augment_samples(silent, config, generator).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_masks": -1}, "Expected time_masks of 0 or more, got -1"),
        ({"mixup": -0.1}, "Expected mixup of 0 or more"),
        ({"frequency_share": 1.5}, "Expected frequency_share between 0 and 1, got 1.5"),
        ({"speed": 1.0}, "Expected speed to be a share of at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AudioAugmentConfig(**settings)
