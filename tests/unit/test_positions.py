import pytest
import torch

from perceivers.inputs.positions import (
    FourierPositions,
    FourierPositionsConfig,
    LearnedPositions,
    LearnedPositionsConfig,
    build_positions,
)
from support.tolerance import assert_close

CPU = torch.device("cpu")


def test_frequencies_stay_when_the_grid_changes():
    module = FourierPositions(FourierPositionsConfig(num_bands=4), (8, 8))
    small, large = module((8, 8), CPU), module((15, 6), CPU)
    assert large.sizes == (15, 6)
    # both ends and, on 15 = 2 * 8 - 1 rows, every second row are the same points
    assert_close(large.tables[0][::2], small.tables[0])


def test_bands_left_open_are_the_whole_frequencies_below_nyquist():
    assert FourierPositions(FourierPositionsConfig(num_bands=None), (8, 8)).num_bands == 4
    assert FourierPositions(FourierPositionsConfig(num_bands=None), (224, 224)).num_bands == 64
    assert FourierPositions(FourierPositionsConfig(num_bands=None), (1, 1)).num_bands == 1


def test_max_resolution_may_be_given_for_each_axis():
    config = FourierPositionsConfig(num_bands=2, max_resolution=(10, 20))
    assert FourierPositions(config, (4, 4)).max_resolution == (10, 20)
    with pytest.raises(ValueError, match=r"one max_resolution for each of the 2 axes, got \(10,\)"):
        FourierPositions(FourierPositionsConfig(max_resolution=(10,)), (4, 4))


def test_learned_positions_begin_at_their_scale():
    table = LearnedPositions(LearnedPositionsConfig(channels=128, init_scale=1.0), (50, 50)).table
    assert table.shape == (2500, 128)
    assert table.abs().max() <= 2.0
    assert abs(table.std().item() - 0.8796) < 5e-3


def test_learned_positions_of_perceiver_io_are_projected():
    config = LearnedPositionsConfig(channels=6, init_scale=0.02, project_channels=4)
    module = build_positions(config, (2, 3))
    assert module.channels == 4
    assert_close(module((2, 3), CPU), module.project(module.table))


def test_learned_positions_are_interpolated_for_another_grid():
    module = build_positions(LearnedPositionsConfig(channels=5), (3, 4))
    finer = module((5, 7), CPU).view(5, 7, 5)
    table = module.table.view(3, 4, 5)
    assert_close(finer[::2, ::2], table)  # align_corners: old cells keep their vectors
    assert_close(finer[1, 0], (table[0, 0] + table[1, 0]) / 2)
    assert torch.equal(module((3, 4), CPU), module.table)


def test_fourier_is_built_for_its_kind():
    assert isinstance(build_positions(FourierPositionsConfig(), (2, 2)), FourierPositions)
