import io

import numpy as np
import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.points.modality import (
    PointsAugmentConfig,
    PointsModality,
    PointsPreprocessConfig,
    measure_points,
)

STILL = PointsAugmentConfig(scale=(1.0, 1.0))
SQUARE = b"OFF\n4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2\n3 0 2 3\n"


def clouds(num_points=4, num_channels=0, augment=None, **options):
    config = PointsPreprocessConfig(num_points=num_points, num_channels=num_channels, **options)
    return PointsModality(config, augment)


def decoded(reader, points):
    return reader.decode(EncodedItem("row 3", value=points))


def sampled(reader, points, seed=None):
    rng = None if seed is None else np.random.default_rng(seed)
    return reader.transform(decoded(reader, points).value, rng=rng)


def scattered(count, width=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, width)).astype(np.float32)


def test_clouds_are_a_modality_of_whole_samples():
    assert isinstance(clouds(), Modality)
    assert not clouds().has_clips


@pytest.mark.parametrize("missing", ["num_points", "num_channels"])
def test_sizes_must_be_known(missing):
    with pytest.raises(ValueError, match=r"Expected the numbers of points.*Measure them first"):
        clouds(**{missing: None})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": 0}, "num_points of at least 1"),
        ({"num_channels": -1}, "num_channels of at least 0"),
        ({"num_channels": 3, "mean": (1.0,)}, "mean and std of 3 numbers each"),
        ({"num_channels": 1, "std": (0.0,)}, "std above 0"),
        ({"std": (1.0,)}, "mean and std of 0 numbers each"),
        ({"num_channels": 3, "normals": 1}, "three of 3 further channels for normals=1"),
        ({"num_channels": 3, "normals": -1}, "for normals=-1"),
    ],
)
def test_a_configuration_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PointsPreprocessConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (1.0, 0.9)}, r"Expected scale=\(smallest, largest\)"),
        ({"cloud_scale": (0.0, 1.0)}, "Expected cloud_scale="),
        ({"jitter": (-0.1, 0.1)}, "jitter, translate"),
        ({"translate": -1.0}, "jitter, translate"),
        ({"max_angle": -1.0}, "jitter, translate"),
        ({"mixup": -1.0}, "jitter, translate"),
        ({"flip": (0.0, 1.1, 0.0)}, "flip in"),
        ({"flip": (-0.1, 0.0, 0.0)}, "flip in"),
        ({"drop": 1.0}, "drop in"),
    ],
)
def test_augmentation_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PointsAugmentConfig(**options)


def test_a_cloud_is_centered_and_fills_the_cube():
    points = [[1, 2, 3], [5, 2, 3], [3, 1, 3], [3, 3, 3]]
    expected = [[-1, 0, 0], [1, 0, 0], [0, -0.5, 0], [0, 0.5, 0]]
    sample = sampled(clouds(), points)
    np.testing.assert_array_equal(sample, expected)
    assert sample.dtype == np.float32
    np.testing.assert_array_equal(sampled(clouds(normalize="sphere"), points), expected)
    np.testing.assert_array_equal(
        sampled(clouds(normalize="center"), points), 2 * np.array(expected)
    )
    np.testing.assert_array_equal(sampled(clouds(normalize="none"), points), points)


def test_the_sphere_holds_a_cloud_whose_cube_does_not():
    points = [[3, 4, 0], [-3, -4, 0]]
    np.testing.assert_allclose(
        np.linalg.norm(sampled(clouds(normalize="sphere"), points), axis=1), 1
    )
    np.testing.assert_allclose(sampled(clouds(), points), [[0.75, 1, 0], [-0.75, -1, 0]])


@pytest.mark.parametrize("normalize", ["cube", "sphere", "center"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_one_point_and_equal_points_lie_in_the_middle(normalize, count):
    reader = clouds(num_points=100, normalize=normalize, augment=PointsAugmentConfig())
    points = np.full((count, 3), 1e6 + 0.1)
    notes = decoded(reader, points).notes
    assert notes == (("all points are the same",) if count > 1 else ())
    for seed in (None, 0):
        np.testing.assert_array_equal(sampled(reader, points, seed), np.zeros((count, 3)))


def test_coordinates_of_a_map_keep_their_detail():
    small = scattered(50).astype(np.float64)
    near, far = sampled(clouds(50), small), sampled(clouds(50), small + 5e6)
    np.testing.assert_allclose(near, far, atol=1e-6)


def test_an_evenly_spread_array_keeps_its_order_and_its_first_points_are_read():
    points = scattered(300)
    points[:8] = [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    reader = clouds(100, normalize="none")
    np.testing.assert_array_equal(decoded(reader, points).value, points)
    np.testing.assert_array_equal(sampled(reader, points), points[:100])


def test_a_sorted_array_is_not_read_from_one_end():
    points = np.sort(scattered(300), axis=0)
    sample = sampled(clouds(100, normalize="none"), points)
    assert np.ptp(sample[:, 0]) > 1.8
    assert {tuple(p) for p in sample.tolist()} <= {tuple(p) for p in points.tolist()}
    np.testing.assert_array_equal(sampled(clouds(100, normalize="none"), points), sample)


def test_of_a_large_cloud_four_times_the_points_are_kept():
    points = np.sort(scattered(5000), axis=0)
    value = decoded(clouds(100), points).value
    assert value.shape == (400, 3)
    assert np.ptp(value[:100, 0]) > 1.8


def test_training_draws_other_points_each_time():
    reader = clouds(100, normalize="none")
    points = scattered(300)
    first, second = (sampled(reader, points, seed) for seed in (0, 1))
    assert first.shape == second.shape == (100, 3)
    assert not np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 100


def test_points_of_a_mesh_lie_on_its_surface_and_repeat():
    reader = clouds(64, normalize="none")
    value = reader.decode(EncodedItem("a.off", data=SQUARE)).value
    assert value.shape == (256, 3)
    assert value.dtype == np.float32
    assert (value[:, 2] == 0).all()
    assert value.min() >= 0
    assert value.max() <= 2
    np.testing.assert_array_equal(reader.decode(EncodedItem("b.off", data=SQUARE)).value, value)
    assert reader.transform(value).shape == (64, 3)


def test_a_mesh_without_area_is_refused():
    flat = b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n"
    with pytest.raises(
        ValueError, match=r"Cannot read 'a.off' as a point cloud: none of its 1 faces"
    ):
        clouds().decode(EncodedItem("a.off", data=flat))


def test_notes_of_the_file_are_kept():
    bare = b"OFF\n2 0 0\n0 0 0\n1 0 0\n"
    assert clouds().decode(EncodedItem("a.off", data=bare)).notes == ("mesh without faces",)


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="row 3 is empty"):
        clouds().decode(EncodedItem("row 3"))


def test_further_channels_are_standardized_and_not_scaled_with_the_cloud():
    reader = clouds(num_channels=1, mean=(10.0,), std=(5.0,))
    sample = sampled(reader, [[0, 0, 0, 10], [8, 0, 0, 20]])
    np.testing.assert_array_equal(sample, [[-1, 0, 0, 0], [1, 0, 0, 2]])
    plain = clouds(num_channels=1)
    np.testing.assert_array_equal(sampled(plain, [[0, 0, 0, 7], [8, 0, 0, 9]])[:, 3], [7, 9])


def test_too_few_channels_are_refused_and_too_many_left_out():
    with pytest.raises(ValueError, match=r"Expected 4 numbers for each point of 'row 3'.*got 3"):
        decoded(clouds(num_channels=1), [[1, 2, 3]])
    more = decoded(clouds(num_channels=1), [[1, 2, 3, 4, 5]])
    assert more.value.shape == (1, 4)
    assert more.notes == ("further channels left out",)


def test_augmentation_needs_chance():
    augment = PointsAugmentConfig(rotate="all", drop=0.9, translate=1.0)
    points = scattered(4)
    plain = sampled(clouds(), points)
    np.testing.assert_array_equal(sampled(clouds(augment=augment), points), plain)
    np.testing.assert_allclose(sampled(clouds(), points, seed=0), plain)


def test_each_point_is_scaled_by_itself():
    augment = PointsAugmentConfig()
    points = scattered(1000) + np.float32(0.5)
    reader = clouds(1000, augment=augment, normalize="center")
    value = decoded(reader, points).value
    sample = reader.transform(value, rng=np.random.default_rng(0))
    shift = sample + (value * 1.0 - sample).mean(axis=0)  # centering again moves them a little
    factors = (shift * value).sum(axis=1) / np.square(value).sum(axis=1)
    far = np.linalg.norm(value, axis=1) > 0.5
    assert factors[far].min() == pytest.approx(0.99, abs=0.002)
    assert factors[far].max() == pytest.approx(1.01, abs=0.002)
    filled = clouds(1000, augment=augment)
    assert np.abs(sampled(filled, points, seed=0)).max() == 1


@pytest.mark.parametrize(("axis", "kept"), [("z", 2), ("y", 1)])
def test_a_cloud_turns_about_its_axis(axis, kept):
    augment = PointsAugmentConfig(scale=(1.0, 1.0), rotate=axis)
    reader = clouds(50, normalize="center", augment=augment)
    points = scattered(50)
    value = decoded(reader, points).value
    turned = reader.transform(value, rng=np.random.default_rng(0))
    np.testing.assert_allclose(turned[:, kept], value[:, kept], atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1), np.linalg.norm(value, axis=1), rtol=1e-5
    )
    assert np.abs(turned - value).max() > 0.1


def test_turns_keep_their_limit_and_their_handedness():
    augment = PointsAugmentConfig(scale=(1.0, 1.0), rotate="all", max_angle=10.0)
    reader = clouds(3, normalize="none", augment=augment)
    value = np.eye(3, dtype=np.float32)
    for seed in range(20):
        turned = reader.transform(value, rng=np.random.default_rng(seed)).T
        assert np.linalg.det(turned) == pytest.approx(1, abs=1e-5)
        angle = np.rad2deg(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1)))
        assert angle <= 10.1


def test_normals_turn_and_are_mirrored_with_the_cloud():
    augment = PointsAugmentConfig(scale=(1.0, 1.0), rotate="all", flip=(0.5, 0.5, 0.5))
    reader = clouds(50, num_channels=4, normals=1, normalize="none", augment=augment)
    points = scattered(50)
    both = np.concatenate([points, np.ones((50, 1), dtype=np.float32), points], axis=1)
    sample = reader.transform(both, rng=np.random.default_rng(3))
    np.testing.assert_allclose(sample[:, :3], sample[:, 4:], atol=1e-6)
    np.testing.assert_array_equal(sample[:, 3], 1)
    unmarked = clouds(50, num_channels=4, normalize="none", augment=augment)
    sample = unmarked.transform(both, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(sample[:, 4:], points)


def test_a_cloud_is_mirrored_along_the_stated_axis():
    augment = PointsAugmentConfig(scale=(1.0, 1.0), flip=(0.0, 1.0, 0.0))
    points = scattered(4)
    sample = sampled(clouds(normalize="none", augment=augment), points, seed=0)
    np.testing.assert_array_equal(np.sort(sample, axis=0), np.sort(points * [1, -1, 1], axis=0))


def test_a_normalized_cloud_is_scaled_shaken_and_moved():
    points = scattered(2000)
    plain = sampled(clouds(2000), points)

    def with_(**options):
        augment = PointsAugmentConfig(scale=(1.0, 1.0), **options)
        return sampled(clouds(2000, augment=augment), points, seed=0)

    np.testing.assert_allclose(with_(cloud_scale=(2.0, 2.0)), 2 * plain, atol=1e-6)
    noise = with_(jitter=(0.01, 0.02)) - plain
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert np.abs(noise).max() == pytest.approx(0.02, rel=1e-3)
    move = with_(translate=0.3) - plain
    assert np.ptp(move, axis=0).max() < 1e-6
    assert 0.01 < np.abs(move).max() <= 0.3


def test_dropping_keeps_at_least_one_point():
    reader = clouds(100, augment=PointsAugmentConfig(drop=0.99))
    value = decoded(reader, scattered(100)).value
    sizes = [reader.transform(value, rng=np.random.default_rng(s)).shape[0] for s in range(50)]
    assert min(sizes) >= 1
    assert np.mean(sizes) == pytest.approx(50, abs=12)
    single = clouds(1, augment=PointsAugmentConfig(drop=0.9))
    assert sampled(single, [[1, 2, 3]], seed=0).shape == (1, 3)


def test_shorter_clouds_are_padded_and_missing_ones_masked():
    reader = clouds(5)
    samples = [scattered(5), scattered(2), None]
    stacked, mask = reader.collate(samples)
    assert stacked.shape == (3, 5, 3)
    assert stacked.dtype == torch.float32
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [5, 2, 0]
    assert reader.collate([scattered(5), scattered(5)])[1] is None
    assert reader.collate([None])[0].shape == (1, 5, 3)


def test_padding_changes_no_real_point():
    reader = clouds(64)
    samples = [sampled(reader, scattered(n, seed=n)) for n in (1, 7, 64, 30)]
    stacked, mask = reader.collate(samples)
    assert mask is not None
    for place, sample in enumerate(samples):
        assert torch.equal(stacked[place][mask[place]], torch.from_numpy(sample))
        assert not stacked[place][~mask[place]].any()


def test_the_order_of_points_does_not_matter_to_the_set():
    points = scattered(64)
    shuffled = np.random.default_rng(1).permutation(points)
    first, second = (sampled(clouds(64), p) for p in (points, shuffled))
    order = [np.lexsort(s.T) for s in (first, second)]
    np.testing.assert_allclose(first[order[0]], second[order[1]], atol=1e-6)


def test_a_file_of_points_is_read_as_the_same_array_is():
    points = scattered(64)
    file = io.BytesIO()
    np.save(file, points)
    reader = clouds(64)
    value = reader.decode(EncodedItem("a.npy", data=file.getvalue())).value
    np.testing.assert_array_equal(value, decoded(reader, points).value)


def test_numbers_of_points_and_channels_are_measured():
    cells = [EncodedItem("row", value=scattered(n)) for n in (50, 60, 60)]
    config = measure_points([*cells, EncodedItem("bad", data=b"\x00")], PointsPreprocessConfig())
    assert (config.num_points, config.num_channels) == (60, 0)
    assert (config.mean, config.std, config.normals) == ((), (), None)
    config = measure_points([EncodedItem("row", value=scattered(9999))], PointsPreprocessConfig())
    assert config.num_points == 2048


def test_a_model_of_meshes_reads_1024_points():
    config = measure_points([EncodedItem("a.off", data=SQUARE)] * 2, PointsPreprocessConfig())
    assert (config.num_points, config.num_channels) == (1024, 0)


def test_further_channels_are_measured_and_normals_recognized():
    normals = scattered(500)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    red = np.where(np.arange(500) % 2, 10.0, 30.0)[:, None]
    cloud = np.concatenate([scattered(500), red, np.full((500, 1), 7.0), normals], axis=1)
    wider = np.concatenate([cloud, red], axis=1)
    cells = [EncodedItem("row", value=c) for c in (cloud, wider)]
    config = measure_points(cells, PointsPreprocessConfig())
    assert (config.num_channels, config.normals) == (5, 2)
    assert config.mean == (20.0, 7.0, 0.0, 0.0, 0.0)
    assert config.std == (10.0, 1.0, 1.0, 1.0, 1.0)  # a constant channel is not divided
    colors = np.concatenate([scattered(500), np.abs(normals)], axis=1)
    assert (
        measure_points([EncodedItem("row", value=colors)], PointsPreprocessConfig()).normals is None
    )


def test_what_is_set_is_not_measured():
    config = PointsPreprocessConfig(num_points=10, num_channels=1)
    assert measure_points([EncodedItem("row", value=scattered(50, width=5))], config) == config


def test_a_sample_without_readable_clouds_says_why():
    with pytest.raises(
        ValueError, match=r"No point cloud of a sample can be read\. Cannot read 'bad'"
    ):
        measure_points([EncodedItem("bad", data=b"\x00")], PointsPreprocessConfig())
    with pytest.raises(ValueError, match="It holds no rows"):
        measure_points([], PointsPreprocessConfig())
