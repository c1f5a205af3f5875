import numpy as np
import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.modality import (
    ArrayAugmentConfig,
    ArrayModality,
    ArrayPreprocessConfig,
    measure_array,
)
from perceivers.data.modalities.base import Modality


def reader(length=4, channels=2, coordinates=0, augment=None, **options):
    config = ArrayPreprocessConfig(
        length=length, num_channels=channels, num_coordinates=coordinates, **options
    )
    return ArrayModality(config, augment)


def new_rng():
    return np.random.default_rng(1)


def of(value, **options):
    return EncodedItem("hand.npz", value={"values": value, **options})


def test_arrays_are_a_modality_of_whole_samples():
    assert isinstance(reader(), Modality)
    assert not reader().has_clips


@pytest.mark.parametrize("missing", ["length", "channels", "coordinates"])
def test_sizes_must_be_known(missing):
    with pytest.raises(ValueError, match=r"Expected sizes of the arrays.*Measure them first"):
        reader(**{missing: None})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length of at least 1, got 0"),
        ({"num_channels": 0}, "num_channels of at least 1, got 0"),
        ({"num_coordinates": -1}, "num_coordinates of at least 0, got -1"),
        ({"num_channels": 2, "mean": (1.0,)}, "mean and std of 2 numbers each"),
        ({"num_channels": 1, "std": (0.0,)}, "std above 0"),
        ({"num_coordinates": 1, "low": (0.0,)}, "low and high of 1 number each"),
        ({"low": (0.0,), "high": (1.0,)}, "low and high of 0 numbers each"),
    ],
)
def test_a_configuration_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayPreprocessConfig(**options)


@pytest.mark.parametrize(
    "options",
    [{"noise": -1.0}, {"mixup": -1.0}, {"drop": 1.0}, {"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}],
)
def test_augmentation_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="Expected noise and mixup of at least 0"):
        ArrayAugmentConfig(**options)


def test_values_are_standardized():
    arrays = reader(mean=(1.0, 2.0), std=(2.0, 4.0))
    value = arrays.decode(of([[1, 2], [3, 10]])).value
    np.testing.assert_array_equal(arrays.transform(value), [[0, 0], [1, 2]])


def test_without_statistics_values_stay():
    arrays = reader()
    sample = arrays.transform(arrays.decode(of([[1, 2]])).value)
    np.testing.assert_array_equal(sample, [[1, 2]])
    assert sample.dtype == np.float32


def test_coordinates_stand_behind_the_values_and_are_scaled():
    arrays = reader(channels=1, coordinates=2, low=(0.0, 5.0), high=(10.0, 5.0))
    value = arrays.decode(of([[7], [8]], coordinates=[[0, 5], [10, 5]])).value
    np.testing.assert_array_equal(arrays.transform(value), [[7, -1, -1], [8, 1, -1]])
    unscaled = reader(channels=1, coordinates=2)
    np.testing.assert_array_equal(unscaled.transform(value), [[7, 0, 5], [8, 10, 5]])


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"Expected 2 channels .* 'hand.npz' \(M x 2\), got 1 x 3"):
        reader().decode(of([[1, 2, 3]]))


def test_missing_coordinates_are_refused_and_unwanted_ones_left_out():
    with pytest.raises(
        ValueError, match=r"Expected 1 coordinates for each element of 'hand.npz', got 0"
    ):
        reader(coordinates=1).decode(of([[1, 2]]))
    decoded = reader().decode(of([[1, 2]], coordinates=[[3]]))
    assert decoded.notes == ("coordinates left out",)
    assert decoded.value.coordinates is None


def test_coordinates_of_a_grid_are_noted():
    decoded = reader(channels=3, coordinates=2).decode(of(np.ones((2, 2, 3))))
    assert decoded.notes == ("coordinates made from the array's axes",)


def test_a_longer_row_is_cut_to_its_first_or_a_random_window():
    arrays = reader(length=3, channels=1)
    decoded = arrays.decode(of(np.arange(100)))
    assert decoded.notes == ("cut to length",)
    np.testing.assert_array_equal(arrays.transform(decoded.value)[:, 0], [0, 1, 2])
    drawn = arrays.transform(decoded.value, rng=new_rng())[:, 0]
    assert drawn[0] > 0
    np.testing.assert_array_equal(np.diff(drawn), [1, 1])


def test_more_elements_with_coordinates_are_thinned_evenly_or_at_random():
    arrays = reader(length=3, channels=1, coordinates=1)
    decoded = arrays.decode(of(np.arange(101), times=np.arange(101)))
    assert decoded.notes == ("elements drawn",)
    np.testing.assert_array_equal(arrays.transform(decoded.value), [[0, 0], [50, 50], [100, 100]])
    drawn = arrays.transform(decoded.value, rng=new_rng())
    assert drawn.shape == (3, 2)
    assert (np.diff(drawn[:, 0]) > 0).all()
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])


def test_elements_that_are_not_real_are_masked_in_a_row_and_left_out_of_a_set():
    row = reader(channels=1, mean=(1.0,))
    sample = row.transform(row.decode(of([1, np.nan, 3], mask=[1, 0, 1])).value)
    np.testing.assert_array_equal(sample, [[0], [np.nan], [2]])
    stacked, mask = row.collate([sample, np.ones((2, 1), dtype=np.float32)])
    assert stacked.tolist() == [[[0], [0], [2]], [[1], [1], [0]]]
    assert mask is not None
    assert mask.tolist() == [[True, False, True], [True, True, False]]
    placed = reader(channels=1, coordinates=1)
    value = placed.decode(of([1, np.nan, 3], times=[4, 5, 6], mask=[1, 0, 1])).value
    np.testing.assert_array_equal(placed.transform(value), [[1, 4], [3, 6]])


def test_a_batch_needs_a_mask_only_where_something_is_missing():
    arrays = reader()
    full = np.ones((3, 2), dtype=np.float32)
    stacked, mask = arrays.collate([full, full])
    assert stacked.shape == (2, 3, 2)
    assert mask is None
    hole = full.copy()
    hole[1] = np.nan
    _, mask = arrays.collate([full, hole])
    assert mask is not None
    assert mask.tolist() == [[True] * 3, [True, False, True]]
    stacked, mask = arrays.collate([None, None])
    assert stacked.shape == (2, 4, 2)
    assert mask is not None
    assert not mask.any()


def test_augmentation_needs_chance():
    arrays = reader(augment=ArrayAugmentConfig(noise=1.0, scale=(2.0, 3.0), drop=0.9))
    value = arrays.decode(of([[1, 2], [3, 4]])).value
    np.testing.assert_array_equal(arrays.transform(value), [[1, 2], [3, 4]])


def test_values_are_scaled_together():
    arrays = reader(augment=ArrayAugmentConfig(scale=(2.0, 3.0)))
    sample = arrays.transform(arrays.decode(of([[1, 2], [3, 4]])).value, rng=new_rng())
    factor = sample[0, 0]
    assert 2 <= factor <= 3
    np.testing.assert_allclose(sample, factor * np.array([[1, 2], [3, 4]]), rtol=1e-6)


def test_noise_has_the_stated_size():
    arrays = reader(length=10_000, channels=1, augment=ArrayAugmentConfig(noise=0.1))
    value = arrays.decode(of(np.zeros(10_000))).value
    assert arrays.transform(value, rng=new_rng()).std() == pytest.approx(0.1, rel=0.05)
    assert arrays.transform(value, rng=new_rng()).dtype == np.float32


def test_dropping_masks_a_row_and_thins_a_set():
    augment = ArrayAugmentConfig(drop=0.99)
    row = reader(length=100, channels=1, augment=augment)
    sample = row.transform(row.decode(of(np.arange(100))).value, rng=new_rng())
    real = ~np.isnan(sample[:, 0])
    assert sample.shape == (100, 1)
    assert 1 <= real.sum() < 100
    np.testing.assert_array_equal(sample[real, 0], np.flatnonzero(real))
    placed = reader(length=100, channels=1, coordinates=1, augment=augment)
    value = placed.decode(of(np.arange(100), times=np.arange(100))).value
    sizes = [placed.transform(value, rng=np.random.default_rng(s)).shape[0] for s in range(30)]
    assert min(sizes) >= 1
    assert len(set(sizes)) > 10


def test_one_element_survives_dropping():
    arrays = reader(length=2, channels=1, augment=ArrayAugmentConfig(drop=0.99))
    value = arrays.decode(of([5, 6])).value
    for seed in range(20):
        sample = arrays.transform(value, rng=np.random.default_rng(seed))
        assert np.isfinite(sample).any()


def test_padding_changes_no_real_element():
    arrays = reader(length=50, channels=2)
    rng = new_rng()
    samples = [rng.normal(size=(n, 2)).astype(np.float32) for n in (1, 7, 50, 20)]
    stacked, mask = arrays.collate(samples)
    assert mask is not None
    for place, sample in enumerate(samples):
        assert torch.equal(stacked[place][mask[place]], torch.from_numpy(sample))


def test_everything_is_measured_from_a_sample():
    cells = [
        of([[0, 5], [2, 5]], coordinates=[[0], [4]]),
        of([[4, 5], [6, 5], [np.nan, 1]], coordinates=[[1], [9], [np.nan]], mask=[1, 1, 0]),
        EncodedItem("bad", data=b"hello"),
    ]
    config = measure_array(cells, ArrayPreprocessConfig())
    assert (config.length, config.num_channels, config.num_coordinates) == (3, 2, 1)
    assert config.mean == (3.0, 5.0)
    assert config.std == (2.2361, 1.0)  # a constant channel is not divided
    assert (config.low, config.high) == ((0.0,), (9.0,))


def test_the_commonest_width_is_measured_and_the_length_bounded():
    cells = [of(np.zeros((20_000, 2))), of(np.zeros((3, 2))), of(np.zeros((3, 7)))]
    config = measure_array(cells, ArrayPreprocessConfig())
    assert (config.length, config.num_channels, config.num_coordinates) == (16_384, 2, 0)
    assert (config.low, config.high) == ((), ())


def test_what_is_set_is_not_measured():
    config = ArrayPreprocessConfig(
        length=5, num_channels=2, num_coordinates=0, mean=(1.0, 1.0), std=(3.0, 3.0)
    )
    assert measure_array([of([[1, 2]])], config) == config


def test_a_sample_without_readable_arrays_says_why():
    with pytest.raises(ValueError, match=r"No array of a sample can be read.*'bad' as an array"):
        measure_array([EncodedItem("bad", data=b"hello")], ArrayPreprocessConfig())
    with pytest.raises(ValueError, match="It holds no rows"):
        measure_array([], ArrayPreprocessConfig())
