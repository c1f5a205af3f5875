import pytest
import torch

from perceivers.nn.patches import depth_to_space, pad_to_multiple, space_to_depth


def test_values_of_a_patch_are_in_reading_order_with_colors_together():
    x = torch.arange(2 * 4 * 4).view(1, 2, 4, 4).float()
    patches = space_to_depth(x, (2, 2))
    assert patches.shape == (1, 2, 2, 8)
    assert patches[0, 0, 1].tolist() == [
        2,
        18,
        3,
        19,
        6,
        22,
        7,
        23,
    ]  # channels of each pixel together


@pytest.mark.parametrize(
    ("sizes", "patch"), [((6,), (3,)), ((4, 6), (2, 3)), ((4, 2, 6), (2, 1, 3))]
)
def test_depth_to_space_is_the_inverse(sizes, patch):
    x = torch.randn(2, 3, *sizes)
    assert torch.equal(depth_to_space(space_to_depth(x, patch), patch), x)


def test_a_patch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"divides into patches of \(2, 2\), got \(3, 4\)"):
        space_to_depth(torch.zeros(1, 1, 3, 4), (2, 2))


def test_channels_that_are_no_whole_patch_are_refused():
    with pytest.raises(ValueError, match=r"whole patches of \(2, 2\), got \(1, 3, 3, 5\)"):
        depth_to_space(torch.zeros(1, 3, 3, 5), (2, 2))


def test_padding_comes_behind_and_only_where_it_is_missing():
    x = torch.ones(1, 1, 3, 4)
    padded = pad_to_multiple(x, (2, 2))
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, 3].tolist() == [0, 0, 0, 0]
    assert pad_to_multiple(padded, (2, 2)) is padded
