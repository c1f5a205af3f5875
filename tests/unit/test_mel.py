import math

import numpy as np
import pytest

from perceivers.data.modalities.audio.mel import (
    MelPreprocessConfig,
    fft_size,
    log_mel,
    mel_edges,
    mel_frames,
    mel_matrices,
)

CONFIG = MelPreprocessConfig(sample_rate=16_000, seconds=1.0)


def noise(length):
    return np.random.default_rng(0).uniform(-0.5, 0.5, length).astype(np.float32)


def slowly(samples, config):
    """Return the spectrogram frame by frame and band by band, in float64."""
    rate, hop, window = config.steps
    highest = rate / 2 if config.highest_hz is None else config.highest_hz
    edges = mel_edges(config.num_mels, config.lowest_hz, highest, config.mel_scale)
    size = fft_size(window, rate, edges)
    edges = edges.astype(float)
    taper = [0.5 - 0.5 * math.cos(2 * math.pi * i / window) for i in range(window)]
    rows = []
    for t in range(mel_frames(len(samples), hop)):
        begin = t * hop - (window - hop) // 2
        frame = [samples[i] if 0 <= i < len(samples) else 0.0 for i in range(begin, begin + window)]
        weighed = np.array(frame, dtype=float) * taper
        power = np.abs(np.fft.rfft(weighed, size) / (sum(taper) / 2)) ** 2
        bands = []
        for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
            hertz = np.arange(len(power)) * rate / size
            weights = np.clip(
                np.minimum((hertz - low) / (peak - low), (high - hertz) / (high - peak)), 0, None
            )
            bands.append(float(weights @ power))
        rows.append(np.log(np.array(bands) + config.log_offset))
    return np.array(rows)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        MelPreprocessConfig(sample_rate=8_000, seconds=1.0, num_mels=40, mel_scale="htk"),
        MelPreprocessConfig(sample_rate=16_000, seconds=1.0, num_mels=9, highest_hz=3_000.0),
        MelPreprocessConfig(
            sample_rate=48_000, seconds=1.0, hop=1024 / 48_000, window=1 / 24, num_mels=80
        ),
    ],
)
def test_a_spectrogram_is_that_of_the_formula(config):
    samples = noise(3_001)
    values = log_mel(samples, config)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, slowly(samples, config), atol=2e-4)


def test_the_papers_1_28_seconds_are_60_frames_of_80_bands():
    config = MelPreprocessConfig(
        sample_rate=48_000, seconds=1.28, num_mels=80, hop=1024 / 48_000, window=2048 / 48_000
    )
    assert (config.num_frames, config.steps) == (60, (48_000, 1_024, 2_048))
    assert log_mel(noise(61_440), config).shape == (60, 80)


def test_there_is_a_frame_for_every_hop_and_for_what_is_left():
    assert [mel_frames(n, 160) for n in (0, 1, 160, 161)] == [0, 1, 1, 2]
    assert log_mel(noise(0), CONFIG).shape == (0, 64)
    assert log_mel(noise(1), CONFIG).shape == (1, 64)
    assert log_mel(noise(160 * 300), CONFIG).shape == (300, 64)  # more than are computed at once


def test_a_full_scale_tone_has_a_power_of_one_in_its_band():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    values = log_mel(tone, CONFIG)
    edges = mel_edges(64, 20.0, 8_000.0, "slaney")
    band = int(np.argmin(np.abs(edges[1:-1] - 1_000)))
    assert int(values[50].argmax()) == band
    assert abs(values[50].max()) < 1.0


def test_silence_is_the_logarithm_of_the_offset():
    np.testing.assert_allclose(
        log_mel(np.zeros(400, np.float32), CONFIG), math.log(1e-8), rtol=1e-6
    )


def test_ten_times_as_loud_adds_a_constant():
    samples = noise(1_600)
    louder = log_mel(samples, CONFIG) - log_mel(samples / 10, CONFIG)
    np.testing.assert_allclose(louder, math.log(100), atol=0.02)


def test_edges_are_even_in_mel():
    htk = mel_edges(3, 0.0, 8_000.0, "htk").astype(float)
    np.testing.assert_allclose(np.diff(2595 * np.log10(1 + htk / 700), 2), 0.0, atol=1e-2)
    low = mel_edges(3, 0.0, 800.0, "slaney")
    np.testing.assert_allclose(low, [0, 200, 400, 600, 800], rtol=1e-6)
    high = mel_edges(26, 1_000.0, 6_400.0, "slaney").astype(float)  # 27 steps for a factor of 6.4
    np.testing.assert_allclose(high[1:] / high[:-1], 6.4 ** (1 / 27), rtol=1e-5)


def test_the_transform_holds_the_window_and_resolves_the_narrowest_band():
    assert fft_size(400, 16_000, mel_edges(64, 20.0, 8_000.0, "slaney")) == 512
    edges = mel_edges(64, 20.0, 8_000.0, "htk")
    size = fft_size(400, 16_000, edges)
    assert size == 1_024
    assert 16_000 / size <= np.diff(edges).min() < 16_000 / (size / 2)


def test_too_many_bands_are_refused():
    config = MelPreprocessConfig(sample_rate=16_000, seconds=1.0, num_mels=60_000)
    with pytest.raises(
        ValueError, match=r"got 60000 between 20 and 8000 Hz.*Use fewer bands, num_mels"
    ):
        log_mel(noise(100), config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_mels": 0}, "Expected num_mels above 0 of a mel spectrogram, got 0"),
        ({"std": 0.0}, "Expected std above 0"),
        ({"hop": 0.05}, r"hop=0.05 s and window=0.025 s"),
        (
            {"sample_rate": 8_000, "highest_hz": 5_000.0},
            r"half the sample rate \(4000.0 Hz\), got lowest_hz=20.0",
        ),
        ({"lowest_hz": 90.0, "highest_hz": 80.0}, "got lowest_hz=90.0 and highest_hz=80.0"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MelPreprocessConfig(**settings)


def test_what_is_taken_from_the_data_must_be_known():
    with pytest.raises(ValueError, match="Expected sample_rate in Hz, got None"):
        _ = MelPreprocessConfig(seconds=1.0).num_frames
    with pytest.raises(ValueError, match="Expected seconds of a clip, got None"):
        _ = MelPreprocessConfig(sample_rate=8_000).num_frames


def test_two_matrix_products_give_the_same_spectrogram():
    samples = noise(4_000)
    _, hop, window = CONFIG.steps
    waves, bands = mel_matrices(CONFIG)
    begin = (window - hop) // 2
    padded = np.pad(samples, (begin, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: 4_000 // hop]
    real, imaginary = np.split(frames @ waves.T, 2, axis=1)
    found = np.log((real**2 + imaginary**2) @ bands + CONFIG.log_offset)
    np.testing.assert_allclose(found, log_mel(samples, CONFIG), atol=1e-3)
