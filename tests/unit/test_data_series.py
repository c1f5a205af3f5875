import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.series.augment import resampled
from perceivers.data.modalities.series.decode import SeriesValue, read_series
from perceivers.data.modalities.series.modality import (
    SeriesAugmentConfig,
    SeriesModality,
    SeriesPreprocessConfig,
    measure_series,
)

NAN = float("nan")


def windows(length=8, channels=("x", "y"), augment=None, **settings) -> SeriesModality:
    return SeriesModality(
        SeriesPreprocessConfig(length=length, channels=channels, **settings), augment
    )


def quiet(**settings) -> SeriesAugmentConfig:
    return SeriesAugmentConfig(**{"scale": 0.0, "jitter": 0.0, **settings})


def sample(reader: SeriesModality, value, **how) -> np.ndarray:
    return reader.transform(reader.decode(EncodedItem("row 1", value=value)).value, **how)


def ramp(steps: int, channels: int = 2) -> dict:
    return {name: np.arange(steps) + 100.0 * i for i, name in enumerate("xyzabc"[:channels])}


def new_rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_window_is_normalized_steps_by_channels():
    reader = windows(mean=(1.0, 2.0), std=(2.0, 4.0))
    assert isinstance(reader, Modality)
    assert reader.has_clips
    found = sample(reader, {"x": [1, 3], "y": [6, 2]})
    assert found.tolist() == [[0, 1], [1, 0]]
    assert found.dtype == np.float32


def test_channels_are_chosen_by_name_in_the_models_order():
    found = sample(windows(channels=("y", "x")), {"x": [1], "other": [9], "y": [2]})
    assert found.tolist() == [[2, 1]]


def test_a_channel_that_is_not_there_is_an_error_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"no channel 'accel_x'. Did you mean 'acel_x'. Expected"):
        sample(windows(channels=("accel_x",)), {"acel_x": [1], "y": [2]})


def test_channels_without_names_are_taken_in_their_order():
    assert sample(windows(), np.array([[1, 2]])).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"expected 2 channels \(x, y\), got 3 without names"):
        sample(windows(), np.ones((4, 3)))


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="'row 1' is empty"):
        sample(windows(), None)


def test_a_longer_recording_is_cut_at_the_moment():
    reader = windows(length=4)
    starts = [sample(reader, ramp(14), clip_position=m)[0, 0] for m in (0.0, 0.5, 1.0)]
    assert starts == [0, 5, 10]
    assert sample(reader, ramp(14)).shape == (4, 2)


def test_what_is_missing_is_zero_with_a_flag_of_zero():
    reader = windows(has_missing=True, mean=(1.0, 1.0), std=(1.0, 1.0))
    assert reader.width == 4
    found = sample(reader, {"x": [2, None, None], "y": [None, 3, None]})
    assert found[:2].tolist() == [[1, 0, 1, 0], [0, 2, 0, 1]]
    values, mask = reader.collate([found])
    assert values[0, :3].tolist() == [[1, 0, 1, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    assert mask is not None
    assert mask[0].tolist() == [True, True] + [False] * 6


def test_without_flags_a_step_with_a_missing_channel_is_masked():
    reader = windows(length=3)
    values, mask = reader.collate([sample(reader, {"x": [1, 2, 3], "y": [4, None, 6]})])
    assert values.tolist() == [[[1, 4], [0, 0], [3, 6]]]
    assert mask is not None
    assert mask.tolist() == [[True, False, True]]


def test_batches_are_padded_to_a_multiple_but_not_beyond_the_model():
    reader = windows(length=20)
    values, mask = reader.collate([sample(reader, ramp(3)), None, sample(reader, ramp(9))])
    assert values.shape == (3, 16, 2)
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [3, 0, 9]
    values, mask = reader.collate([sample(reader, ramp(50))])
    assert values.shape == (1, 20, 2)
    assert mask is None
    values, mask = reader.collate([None])
    assert values.shape == (1, 20, 2)
    assert mask is not None
    assert not mask.any()


def test_times_follow_the_values_where_they_go_into_the_model():
    reader = windows(channels=("x",), irregular=True, duration=4.0)
    assert reader.width == 2
    found = sample(reader, {"time": [10, 11, 14], "x": [1, 2, 3]})
    assert found.tolist() == [[1, -1], [2, -0.5], [3, 1]]


def test_a_window_of_stated_duration_lies_at_the_moment():
    reader = windows(channels=("x",), irregular=True, duration=4.0)
    value = {"time": [0, 1, 2, 8, 9, 10], "x": [0, 1, 2, 8, 9, 10]}
    assert sample(reader, value, clip_position=0.0).tolist() == [[0, -1], [1, -0.5], [2, 0]]
    assert sample(reader, value, clip_position=1.0).tolist() == [[8, 0], [9, 0.5], [10, 1]]
    gap = {"time": [0, 1, 99, 100], "x": [0, 1, 99, 100]}
    assert sample(reader, gap, clip_position=0.5).tolist() == [
        [99, 1]
    ]  # nothing lies there: the next


def test_more_rows_than_fit_are_cut_within_the_duration():
    reader = windows(length=2, channels=("x",), irregular=True, duration=8.0)
    value = {"time": np.arange(5), "x": np.arange(5)}
    assert sample(reader, value, clip_position=1.0).tolist() == [[3, -1], [4, -0.75]]


def test_without_a_duration_times_are_relative_to_the_window():
    reader = windows(channels=("x",), irregular=True)
    found = sample(reader, {"time": [0, 1, 4], "x": [1, 2, 3]})
    assert found[:, 1].tolist() == [-1, -0.5, 1]
    assert sample(reader, {"time": [7], "x": [1]}).tolist() == [[1, -1]]


def test_a_model_that_reads_times_needs_them():
    with pytest.raises(ValueError, match="'row 1' has no time stamps, which this model reads"):
        sample(windows(irregular=True), ramp(3))


def test_recordings_are_brought_to_the_rate():
    reader = windows(channels=("x",), rate=2.0)
    even = sample(reader, {"time": [0, 1, 2], "x": [0, 2, 4]})
    assert even.flatten().tolist() == [0, 1, 2, 3, 4]
    same = sample(reader, {"time": [0, 0.5, 1.0], "x": [5, 7, 6]})
    assert same.flatten().tolist() == [5, 7, 6]
    faster = sample(reader, {"time": np.arange(8) / 8, "x": np.arange(8)})
    assert faster.flatten().tolist() == [1.5, 5.5]
    assert sample(reader, {"time": [3], "x": [5]}).tolist() == [[5]]
    assert sample(reader, {"x": [5, 6]}).flatten().tolist() == [5, 6]  # no times: row by row


def test_gaps_stay_gaps_at_the_rate():
    times = np.array([0.0, 0.5, 1.0, 3.0, 3.5])
    values = np.array([[0, NAN], [1, NAN], [2, NAN], [6, NAN], [7, NAN]], dtype=np.float32)
    found = resampled("a", values, times, 2.0)
    expected = [0, 1, 2, NAN, NAN, NAN, 6, 7]
    assert np.array_equal(found[:, 0], np.float32(expected), equal_nan=True)
    assert np.isnan(found[:, 1]).all()
    assert found.dtype == np.float32


def test_a_wrong_time_stamp_does_not_fill_the_memory():
    with pytest.raises(ValueError, match=r"'row 1' would have 170,000,000,000 steps at 100"):
        sample(windows(channels=("x",), rate=100.0), {"time": [0, 1.7e9], "x": [1, 2]})


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=30), st.floats(0.2, 20))
def test_at_any_rate_values_lie_between_those_recorded(steps, rate):
    times = np.concatenate([[0], np.cumsum(steps)])
    values = np.sin(times).astype(np.float32)[:, None]
    found = resampled("a", values, times, rate)
    assert found.shape == (int(np.floor(times[-1] * rate + 1e-6)) + 1, 1)
    known = found[~np.isnan(found)]
    assert ((known >= values.min() - 1e-6) & (known <= values.max() + 1e-6)).all()


def test_without_chance_nothing_is_random():
    reader = windows(augment=SeriesAugmentConfig(shift=True, warp=0.5))
    assert np.array_equal(sample(reader, ramp(8)), sample(windows(), ramp(8)))
    assert np.array_equal(sample(windows(), ramp(8), rng=new_rng()), sample(reader, ramp(8)))


def test_what_is_kept_is_not_changed_by_chance():
    reader = windows(augment=SeriesAugmentConfig(drop_channels=0.5, time_mask=0.5, warp=0.2))
    kept = SeriesValue(np.ones((8, 2), dtype=np.float32))
    for seed in range(20):
        reader.transform(kept, rng=new_rng(seed))
    assert (kept.values == 1).all()


def test_channels_are_scaled_each_by_a_factor():
    found = sample(windows(augment=quiet(scale=0.1)), ramp(8), rng=new_rng())
    factors = found[1:] / sample(windows(), ramp(8))[1:]
    assert np.ptp(factors, axis=0).max() < 1e-5
    assert 0 < abs(factors[0, 0] - factors[0, 1]) < 1
    assert found.dtype == np.float32


def test_noise_is_in_units_of_the_deviation():
    reader = windows(length=4000, std=(100.0, 1.0), augment=quiet(jitter=0.5))
    value = {"x": np.zeros(4000), "y": np.zeros(4000)}
    assert sample(reader, value, rng=new_rng()).std(axis=0).tolist() == pytest.approx(
        [0.5, 0.5], rel=0.05
    )


def test_a_window_may_lie_anywhere():
    reader = windows(length=4, augment=quiet(shift=True))
    starts = {sample(reader, ramp(8), rng=new_rng(seed))[0, 0] for seed in range(50)}
    assert starts == {0, 1, 2, 3, 4}


def test_a_turn_keeps_lengths_and_is_the_same_for_all_sensors():
    augment = quiet(rotate=True)
    reader = windows(channels=tuple("xyzabc"), augment=augment)
    value = {name: np.arange(8) + i % 3 for i, name in enumerate("xyzabc")}
    found = sample(reader, value, rng=new_rng())
    before = sample(windows(channels=tuple("xyzabc")), value)
    assert np.allclose(found[:, :3], found[:, 3:])
    assert np.allclose((found[:, :3] ** 2).sum(1), (before[:, :3] ** 2).sum(1), rtol=1e-4)
    assert not np.allclose(found, before, atol=0.1)
    still = windows(channels=tuple("xyzabc"), augment=quiet(rotate=True, rotate_degrees=0.0))
    assert np.allclose(sample(still, value, rng=new_rng()), before)


def test_a_hidden_channel_is_missing_or_the_mean_and_one_always_stays():
    reader = windows(has_missing=True, augment=quiet(drop_channels=0.9))
    for seed in range(20):
        flags = sample(reader, ramp(8), rng=new_rng(seed))[:, 2:]
        assert flags.any(axis=1).all()
    assert flags.sum() == 8
    plain = windows(augment=quiet(drop_channels=0.9))
    found = sample(plain, {"x": [1, 2], "y": [1, 2]}, rng=new_rng())
    assert sorted(found.sum(axis=0).tolist()) == [0, 3]


def test_a_hidden_piece_is_masked():
    reader = windows(length=16, augment=quiet(time_mask=0.5))
    for seed in range(10):
        values, mask = reader.collate([sample(reader, ramp(16), rng=new_rng(seed))])
        if mask is not None:
            hidden = (~mask[0]).nonzero().flatten()
            assert hidden.tolist() == list(range(hidden[0], hidden[-1] + 1))
            assert len(hidden) <= 8
            assert not values[0, hidden].any()


def test_time_may_run_at_another_speed():
    reader = windows(length=32, channels=("x",), augment=quiet(warp=0.5))
    found = sample(reader, ramp(32, 1), rng=new_rng())[:, 0]
    assert found[[0, -1]].tolist() == pytest.approx([0, 31], abs=1e-3)
    assert (np.diff(found) > 0).all()
    assert np.diff(found).std() > 0.05
    assert sample(reader, ramp(1, 1), rng=new_rng()).tolist() == [[0]]
    timed = windows(length=32, channels=("x",), irregular=True, augment=quiet(warp=0.5))
    found = sample(timed, {"time": np.arange(32), **ramp(32, 1)}, rng=new_rng())
    assert found[:, 0].tolist() == list(range(32))
    assert found[[0, -1], 1].tolist() == pytest.approx([-1, 1])
    assert np.diff(found[:, 1]).std() > 0.003


def cells(*values) -> list[EncodedItem]:
    return [EncodedItem(f"row {i}", value=value) for i, value in enumerate(values)]


def test_recordings_say_what_suits_them():
    config = measure_series(cells(*[ramp(20)] * 3), SeriesPreprocessConfig())
    assert (config.length, config.channels) == (20, ("x", "y"))
    assert (config.rate, config.irregular, config.has_missing) == (None, False, False)
    assert config.mean == pytest.approx((9.5, 109.5))
    assert config.std == pytest.approx((33.25**0.5,) * 2)
    windows_ = SeriesModality(config)
    assert sample(windows_, ramp(20)).mean() == pytest.approx(0, abs=1e-5)


def test_the_length_is_what_most_recordings_fit_into():
    found = cells(*[ramp(9)] * 30, ramp(500), None, "not a recording")
    assert measure_series(found, SeriesPreprocessConfig()).length == 16
    assert measure_series(cells(ramp(500)), SeriesPreprocessConfig(), largest=100).length == 100


def test_channels_are_those_that_all_recordings_have():
    found = cells({"x": [1], "y": [2], "z": [3]}, {"z": [1], "x": [3]})
    config = measure_series(found, SeriesPreprocessConfig())
    assert config.channels == ("x", "z")
    assert config.mean == (2, 2)
    assert measure_series(cells(np.ones((3, 2))), SeriesPreprocessConfig()).channels == ("0", "1")
    with pytest.raises(ValueError, match="no channel in common"):
        measure_series(cells({"x": [1]}, {"y": [1]}), SeriesPreprocessConfig())


def test_what_is_stated_stays():
    stated = SeriesPreprocessConfig(
        length=3, channels=("y",), rate=5.0, irregular=False, has_missing=True, mean=(1,), std=(2,)
    )
    assert measure_series(cells(ramp(9)), stated) == stated
    with pytest.raises(
        ValueError, match=r"No series of a sample can be read. 'row 0' has no channel 'q'"
    ):
        measure_series(cells(ramp(9)), SeriesPreprocessConfig(channels=("q",)))
    with pytest.raises(ValueError, match="It holds no rows"):
        measure_series([], SeriesPreprocessConfig())


def test_a_constant_channel_has_a_deviation_to_divide_by():
    found = measure_series(cells({"x": [5.0, 5.0], "y": [0, 0]}), SeriesPreprocessConfig())
    assert found.std == (1.0, 1.0)


def test_missing_values_are_found_and_not_averaged():
    found = measure_series(cells({"x": [1, None, 3]}, ramp(3, 1)), SeriesPreprocessConfig())
    assert found.has_missing
    assert found.mean == pytest.approx(((1 + 3 + 0 + 1 + 2) / 5,))


def test_even_time_stamps_are_a_rate_and_uneven_ones_are_read():
    even = {"time": np.arange(40) / 20, **ramp(40)}
    config = measure_series(cells(even), SeriesPreprocessConfig())
    assert (config.rate, config.irregular, config.has_missing) == (20.0, False, False)
    assert config.length == 40
    gappy = {name: np.delete(column, 7) for name, column in even.items()}
    config = measure_series(cells(gappy), SeriesPreprocessConfig())
    assert (config.rate, config.has_missing, config.length) == (20.0, True, 40)
    uneven = {"time": np.cumsum(np.arange(1, 11)), **ramp(10)}
    config = measure_series(cells(uneven), SeriesPreprocessConfig())
    assert (config.rate, config.irregular, config.duration) == (None, True, 54.0)
    config = measure_series(cells(uneven), SeriesPreprocessConfig(rate=1.0))
    assert (config.rate, config.irregular, config.length) == (1.0, False, 55)
    single = {"time": [3], "x": [1]}
    config = measure_series(cells(single), SeriesPreprocessConfig())
    assert (config.rate, config.irregular, config.length) == (None, False, 1)
    config = measure_series(cells(single), SeriesPreprocessConfig(irregular=True))
    assert (config.irregular, config.duration) == (True, None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"length": 0}, "length above zero, got 0"),
        ({"rate": -1.0}, "rate above zero, got -1.0"),
        ({"duration": NAN}, "duration above zero, got nan"),
        ({"channels": ("x", "x")}, "channels of different names"),
        ({"channels": ()}, "channels of different names"),
        ({"channels": ("x",), "mean": (1.0, 2.0)}, "a number for each of the channels"),
        ({"std": (1.0, 0.0)}, "std above zero"),
    ],
)
def test_settings_out_of_range_are_errors(settings, told):
    with pytest.raises(ValueError, match=told):
        SeriesPreprocessConfig(**settings)


def test_augmentation_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="jitter of zero or more, got -1"):
        SeriesAugmentConfig(jitter=-1)
    with pytest.raises(ValueError, match=r"time_mask in \[0, 1\), got 1"):
        SeriesAugmentConfig(time_mask=1)


def test_what_is_not_measured_is_an_error():
    with pytest.raises(ValueError, match="length and channels of the series, got None and None"):
        SeriesModality(SeriesPreprocessConfig())
    with pytest.raises(ValueError, match=r"rotate turns channels by threes .* there are 2: x, y"):
        windows(augment=SeriesAugmentConfig(rotate=True))


def test_a_batch_is_float32():
    reader = windows()
    assert reader.collate([sample(reader, ramp(8))])[0].dtype == torch.float32


@pytest.mark.parametrize("cell", ["oops", EncodedItem("oops", value="oops")])
def test_a_text_in_a_column_of_lists_is_an_error(cell):
    media = EncodedItem("row 3", value={"x": [0.0, 1.0], "y": cell})
    with pytest.raises(ValueError, match=r"'y': expected a list of numbers .* the text 'oops'"):
        read_series(media)
