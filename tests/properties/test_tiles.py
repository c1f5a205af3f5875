"""What must hold for tiles of any frame: they cover it, and what does not depend on the tile comes out as it is."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.tasks.flow import OVERLAP, blend_tiles, predict_tiles, tile_starts, tile_weights

lengths = st.integers(1, 200)
sizes = st.tuples(st.integers(2, 40), st.integers(2, 40))


@settings(max_examples=200)
@given(extent=lengths, size=st.integers(2, 120))
def test_tiles_cover_an_axis_and_overlap_enough(extent, size):
    starts = tile_starts(extent, size)
    shared = min(OVERLAP, size // 4)
    assert starts[0] == 0
    if extent <= size:
        assert starts == (0,)
        return
    assert starts[-1] == extent - size
    gaps = [after - before for before, after in pairwise(starts)]
    assert max(gaps) <= size - shared
    assert max(gaps) - min(gaps) <= 1  # evenly spaced
    fewest = -(-(extent - shared) // (size - shared))
    assert len(starts) == fewest


def test_sintel_is_read_in_six_tiles():
    rows, columns = tile_starts(436, 368), tile_starts(1024, 496)
    assert rows == (0, 68)
    assert columns == (0, 264, 528)


@settings(max_examples=200)
@given(extent=lengths, size=st.integers(2, 120))
def test_tiles_at_fixed_steps_cover_an_axis(extent, size):
    starts = tile_starts(extent, size, spacing="fixed")
    shared = min(OVERLAP, size // 4)
    assert starts[0] == 0
    if extent > size:
        assert starts[-1] == extent - size
        assert all(after - before == size - shared for before, after in pairwise(starts[:-1]))
        assert 0 < starts[-1] - starts[-2] <= size - shared


def test_tiles_at_fixed_steps_are_those_of_the_release():
    """The starts are 0, 348, ... and 0, 476, ... below the extent; the last becomes extent - size."""
    assert tile_starts(436, 368, spacing="fixed") == (0, 68)
    assert tile_starts(1024, 496, spacing="fixed") == (0, 476, 528)
    assert tile_starts(1500, 496, spacing="fixed") == (0, 476, 952, 1004)


@given(size=sizes)
def test_every_pixel_of_a_tile_counts_and_the_middle_most(size):
    weights = tile_weights(size)
    assert weights.shape == size
    assert weights.min() == 1
    assert weights.max() == (min(size) + 1) // 2
    torch.testing.assert_close(weights, weights.flip(0, 1))


@settings(max_examples=50)
@given(
    extent=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=sizes,
    seed=st.integers(0, 9),
    spacing=st.sampled_from(["even", "fixed"]),
)
def test_a_field_that_does_not_depend_on_the_tile_comes_out_as_it_is(extent, size, seed, spacing):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, 2, 3, *extent, generator=generator)
    calls = []

    def read(tile):
        assert tile.shape[-2:] == size
        calls.append(tile)
        return torch.stack([tile[:, 0, 0] - tile[:, 1, 2], tile[:, 1, 1] * 2], dim=-1)

    found = predict_tiles(read, frames, size, spacing=spacing)
    expected = torch.stack([frames[:, 0, 0] - frames[:, 1, 2], frames[:, 1, 1] * 2], dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if extent[0] <= size[0] and extent[1] <= size[1]:
        assert len(calls) == 1
        assert torch.equal(found, expected)  # one tile: not even rounded


def test_where_tiles_differ_each_counts_by_its_distance_to_the_edge():
    zeros, ones = torch.zeros(1, 5, 6, 1), torch.ones(1, 5, 6, 1)
    whole = blend_tiles({(0, 0): zeros, (0, 2): ones}, (5, 8))
    assert not whole[:, :, :2].any()
    assert (whole[:, :, 6:] == 1).all()
    inside = whole[0, 2, 2:6, 0]
    torch.testing.assert_close(inside, torch.tensor([1 / 4, 2 / 5, 3 / 5, 3 / 4]))
