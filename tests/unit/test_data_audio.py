import io

import numpy as np
import pytest
import soundfile
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio import measure as module
from perceivers.data.modalities.audio.mel import log_mel
from perceivers.data.modalities.audio.modality import (
    AudioAugmentConfig,
    MelModality,
    MelPreprocessConfig,
    WaveformModality,
    WavePreprocessConfig,
)
from perceivers.data.modalities.base import MissingValueError, Modality

RATE = 8_000
WAVE = WavePreprocessConfig(sample_rate=RATE, seconds=1.0, scale=0.5)
MEL = MelPreprocessConfig(sample_rate=RATE, seconds=1.0, num_mels=16, mean=-5.0, std=2.0)
NOTHING = AudioAugmentConfig(time_masks=0, frequency_masks=0, gain=0.0, polarity=False)


def noise(seconds, rate=RATE, channels=1):
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def media(samples, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return EncodedItem("a.wav", data=file.getvalue())


def new_rng(seed=0):
    return np.random.default_rng(seed)


def test_both_are_modalities_of_clips():
    for audio in (WaveformModality(WAVE), MelModality(MEL)):
        assert isinstance(audio, Modality)
        assert audio.has_clips


def test_a_clip_is_cut_at_its_moment_and_scaled():
    samples = noise(3.0)
    audio = WaveformModality(WAVE)
    value = audio.decode(media(samples)).value
    for clip_position, begin in ((0.0, 0), (0.5, RATE), (1.0, 2 * RATE)):
        clip = audio.transform(value, clip_position=clip_position)
        np.testing.assert_allclose(clip, samples[begin : begin + RATE] * 2, rtol=1e-6)
        alone = audio.transform(
            audio.decode(media(samples), clip_position=clip_position).value,
            clip_position=clip_position,
        )
        np.testing.assert_array_equal(alone, clip)


def test_a_sound_gets_the_configured_rate_and_channels():
    audio = WaveformModality(WAVE)
    decoded = audio.decode(media(noise(0.5, rate=16_000, channels=7), rate=16_000))
    assert decoded.notes == ("mixed to mono",)
    assert audio.transform(decoded.value).shape == (RATE // 2, 1)


def test_a_shorter_recording_is_there_as_a_whole_and_batches_are_as_long_as_their_longest():
    audio = WaveformModality(WAVE)
    samples = [audio.transform(audio.decode(media(noise(s))).value) for s in (0.25, 0.5)]
    values, mask = audio.collate([*samples, None])
    assert values.shape == (3, RATE // 2, 1)
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [RATE // 4, RATE // 2, 0]
    assert not values[0, RATE // 4 :].any()
    values, mask = audio.collate([None])
    assert values.shape == (1, RATE, 1)
    assert mask is not None
    assert not mask.any()
    assert audio.collate([samples[0]])[1] is None


def test_a_spectrogram_is_normalized_and_has_frames_for_real_samples_only():
    audio = MelModality(MEL)
    samples = noise(0.255)
    values = audio.transform(audio.decode(media(samples)).value)
    assert (values.shape, values.dtype) == ((26, 16), np.float32)
    np.testing.assert_allclose(values, (log_mel(samples[:, 0], MEL) + 5) / 2, atol=1e-6)
    batch, mask = audio.collate([values, None])
    assert batch.shape == (2, 26, 16)
    assert batch.dtype == torch.float32
    assert mask is not None
    assert mask[0].all()
    assert audio.transform(audio.decode(media(noise(9.0))).value).shape == (100, 16)


def test_nothing_is_random_without_chance_or_augmentation():
    sound = WaveformModality(WAVE).decode(media(noise(2.0))).value
    for with_it, without in (
        (WaveformModality(WAVE, AudioAugmentConfig(speed=0.1)), WaveformModality(WAVE)),
        (MelModality(MEL, AudioAugmentConfig()), MelModality(MEL)),
    ):
        plain = without.transform(sound)
        np.testing.assert_array_equal(with_it.transform(sound), plain)
        np.testing.assert_array_equal(without.transform(sound, rng=new_rng()), plain)
        augmented = with_it.transform(sound, rng=new_rng())
        assert augmented.shape == plain.shape
        assert not np.array_equal(augmented, plain)
        np.testing.assert_array_equal(with_it.transform(sound, rng=new_rng()), augmented)


def test_augmentation_that_does_nothing_changes_nothing():
    sound = WaveformModality(WAVE).decode(media(noise(2.0))).value
    before = sound.samples.copy()
    for kind, config in ((WaveformModality, WAVE), (MelModality, MEL)):
        plain = kind(config).transform(sound)
        np.testing.assert_allclose(kind(config, NOTHING).transform(sound, rng=new_rng()), plain)
    np.testing.assert_array_equal(sound.samples, before)


def test_masks_put_the_mean_over_time_and_bands():
    sound = WaveformModality(WAVE).decode(media(noise(2.0))).value
    config = AudioAugmentConfig(time_share=0.5, frequency_share=0.5, gain=0.0)
    wave = WaveformModality(WAVE, config).transform(sound, rng=new_rng(1))
    assert 100 < (wave == 0).sum() < RATE
    mel = MelModality(MEL, config).transform(sound, rng=new_rng(1))
    assert (mel == 0).all(axis=0).any()  # a band
    assert (mel == 0).all(axis=1).any()  # a frame


def test_a_faster_clip_takes_more_of_the_recording():
    config = AudioAugmentConfig(time_masks=0, gain=0.0, polarity=False, speed=0.2)
    audio = WaveformModality(WAVE, config)
    time = np.arange(6 * RATE) / RATE
    tone = media((0.5 * np.sin(2 * np.pi * 200 * time))[:, None])
    frequencies = []
    for seed in range(12):
        value = audio.decode(tone, clip_position=0.7).value
        assert value.samples.shape[0] < 3 * RATE
        clip = audio.transform(value, clip_position=0.7, rng=new_rng(seed))
        whole = audio.transform(audio.decode(tone).value, clip_position=0.7, rng=new_rng(seed))
        np.testing.assert_allclose(clip, whole, atol=1e-5)
        assert clip.shape == (RATE, 1)
        frequencies.append(int(np.abs(np.fft.rfft(clip[:, 0])).argmax()))  # 1 Hz apart
    assert 160 <= min(frequencies) < 190
    assert 210 < max(frequencies) <= 240


def test_half_of_the_whole_files_are_rotated_in_time():
    config = AudioAugmentConfig(time_masks=0, gain=0.0, polarity=False, roll=True)
    audio = WaveformModality(WAVE, config)
    short, long = media(noise(0.1)), media(noise(2.0))
    plain = audio.transform(audio.decode(short).value)
    made = [audio.transform(audio.decode(short).value, rng=new_rng(seed)) for seed in range(40)]
    rotated = [clip for clip in made if not np.array_equal(clip, plain)]
    assert 10 < len(rotated) < 30
    np.testing.assert_array_equal(np.sort(rotated[0], axis=0), np.sort(plain, axis=0))
    value = audio.decode(long).value
    for seed in range(5):  # a file longer than a clip is cut only
        np.testing.assert_array_equal(
            audio.transform(value, rng=new_rng(seed)), audio.transform(value)
        )


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="row 3 is empty"):
        MelModality(MEL).decode(EncodedItem("row 3"))


@pytest.mark.parametrize("length", [1, 100])
def test_one_sample_and_silence_work(length):
    cell = media(np.zeros((length, 1)))
    for audio in (WaveformModality(WAVE), MelModality(MEL, AudioAugmentConfig(noise=0.1))):
        decoded = audio.decode(cell)
        assert decoded.notes == ("silent",)
        values = audio.transform(decoded.value, rng=new_rng())
        assert values.shape[0] == (length if values.shape[1] == 1 else -(-length // 80))
        assert np.isfinite(values).all()


def test_incomplete_configurations_are_refused():
    with pytest.raises(ValueError, match="got sample_rate=None and seconds=None"):
        WaveformModality(WavePreprocessConfig())
    with pytest.raises(ValueError, match="scale=None"):
        WaveformModality(WavePreprocessConfig(sample_rate=RATE, seconds=1.0))
    with pytest.raises(ValueError, match="got mean=None and std=None"):
        MelModality(MelPreprocessConfig(sample_rate=RATE, seconds=1.0))
    with pytest.raises(ValueError, match="Expected num_channels above 0 of a waveform, got 0"):
        WavePreprocessConfig(num_channels=0)


def test_the_papers_clip_has_61440_samples():
    assert WavePreprocessConfig(sample_rate=48_000, seconds=1.28).num_samples == 61_440


def test_what_is_unknown_is_taken_from_the_data(monkeypatch):
    cells = [
        media(noise(s, rate=r), rate=r) for s, r in ((0.4, 44_100), (1.0, 44_100), (1.1, 8_000))
    ]
    wave = WavePreprocessConfig().measure(lambda _: cells)
    assert (wave.sample_rate, wave.seconds) == (16_000, 1.1)
    # Even noise has a deviation of 1 / sqrt(12); of 44.1 kHz only what lies below 8 kHz is left.
    left = (1.4 * 16 / 44.1 + 1.1) / 2.5
    assert wave.scale == pytest.approx((left / 12) ** 0.5, rel=0.05)
    monkeypatch.setattr(module, "HIGHEST_RATE", 48_000)
    monkeypatch.setattr(module, "LONGEST", 0.5)
    mel = MelPreprocessConfig(num_mels=8).measure(lambda _: cells)
    assert (mel.sample_rate, mel.seconds) == (44_100, 0.5)
    audio = MelModality(mel)
    values = np.concatenate([audio.transform(audio.decode(cell).value) for cell in cells])
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-2)
    assert float(values.std()) == pytest.approx(1.0, abs=1e-2)


def test_what_is_stated_stays():
    cells = [media(noise(1.0))]
    assert WAVE.measure(lambda _: []) == WAVE
    assert MEL.measure(lambda _: []) == MEL
    config = MelPreprocessConfig(sample_rate=4_000, std=3.0).measure(lambda _: cells)
    assert (config.sample_rate, config.seconds, config.std) == (4_000, 1.0, 3.0)
    assert WavePreprocessConfig(seconds=0.3).measure(lambda _: cells).seconds == 0.3
    assert MelPreprocessConfig(mean=1.0, seconds=0.5).measure(lambda _: cells).mean == 1.0


def test_unreadable_sounds_are_passed_over_unless_all_are():
    bad = EncodedItem("bad.wav", data=b"no sound, but some text")
    config = WavePreprocessConfig().measure(lambda _: [bad, media(noise(1.0))])
    assert config.sample_rate == RATE
    with pytest.raises(
        ValueError, match=r"No audio of a sample can be read\. Cannot read 'bad.wav'"
    ):
        WavePreprocessConfig().measure(lambda _: [bad])
    with pytest.raises(ValueError, match="It holds no rows"):
        MelPreprocessConfig().measure(lambda _: [])


def test_silent_data_have_a_deviation_to_divide_by():
    assert WavePreprocessConfig().measure(lambda _: [media(np.zeros((100, 1)))]).scale == 1e-5


def test_statistics_are_of_some_of_the_data(monkeypatch):
    monkeypatch.setattr(module, "MOST_SECONDS", 0.5)
    cells = [media(noise(1.0)), media(np.zeros((RATE, 1)))]
    assert WavePreprocessConfig().measure(lambda _: cells).scale == pytest.approx(0.289, abs=0.01)
