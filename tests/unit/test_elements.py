import pytest
import torch

from perceivers.inputs.elements import Elements, GridPositions, MaskedElements, dense
from perceivers.inputs.positions import FourierPositions, FourierPositionsConfig
from perceivers.nn.position import axis_coordinates, fourier_features
from support.tolerance import assert_close


def grid(*sizes, num_bands=3):
    module = FourierPositions(FourierPositionsConfig(num_bands=num_bands), sizes)
    return module(sizes, torch.device("cpu"))


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (2, 3, 4)])
def test_dense_grid_positions_are_those_of_each_point(sizes):
    axes = torch.meshgrid(*(axis_coordinates(n) for n in sizes), indexing="ij")
    points = torch.stack([axis.flatten() for axis in axes], dim=-1)
    positions = grid(*sizes)
    expected = fourier_features(points, num_bands=3, max_resolution=sizes)
    assert torch.equal(positions.dense(), expected)
    assert positions.sizes == sizes
    assert positions.num_channels == expected.shape[1]


def test_dense_is_content_then_positions_then_tag():
    content, tag = torch.randn(2, 6, 4), torch.randn(5)
    elements = Elements(content, grid(2, 3), tag)
    array = elements.dense()
    assert torch.equal(array[..., :4], content)
    assert torch.equal(array[0, :, 4:-5], grid(2, 3).dense())
    assert torch.equal(array[1, 3, -5:], tag)
    assert elements.num_channels == array.shape[-1] == 4 + 14 + 5
    assert elements.num_elements == 6


@pytest.mark.parametrize("shape", [(6, 2), (2, 6, 2)])
def test_positions_may_be_shared_or_one_for_each_sample(shape):
    content, positions = torch.randn(2, 6, 4), torch.randn(shape)
    elements = Elements(content, positions)
    assert torch.equal(elements.dense()[..., 4:], positions.expand(2, 6, 2))
    assert elements.num_channels == 6


def test_without_positions_there_is_only_content():
    content = torch.randn(2, 6, 4)
    assert torch.equal(Elements(content).dense(), content)
    assert Elements(content).num_channels == 4


def test_what_padding_holds_is_zero_even_where_it_is_nan():
    content = torch.full((1, 2, 3), float("nan"))
    content[:, 0] = 1.0
    mask = torch.tensor([[True, False]])
    assert Elements(content, mask=mask).dense().tolist() == [[[1, 1, 1], [0, 0, 0]]]


def test_replaced_elements_are_the_token_over_all_channels():
    where = torch.tensor([[False, True, False, False, False, False]] * 2)
    token = torch.randn(18)
    plain = Elements(torch.randn(2, 6, 4), grid(2, 3))
    hidden = Elements(plain.content, plain.positions, masked=MaskedElements(where, token))
    assert torch.equal(hidden.dense()[1, 1], token)
    assert torch.equal(hidden.dense()[:, 2:], plain.dense()[:, 2:])


def test_permuted_elements_keep_their_positions_and_marks():
    order = torch.tensor([3, 1, 0, 5, 2, 4])
    mask = torch.tensor([[True, True, True, True, False, True]] * 2)
    where = torch.tensor([[False, True, False, False, False, False]] * 2)
    elements = Elements(
        torch.randn(2, 6, 4),
        grid(2, 3),
        torch.randn(2),
        mask=mask,
        masked=MaskedElements(where, torch.randn(20)),
    )
    permuted = elements.permuted(order)
    assert not isinstance(permuted.positions, GridPositions)
    assert torch.equal(permuted.dense(), elements.dense()[:, order])
    assert torch.equal(permuted.mask, mask[:, order])
    plain = Elements(torch.randn(2, 6, 4))
    assert torch.equal(plain.permuted(order).dense(), plain.content[:, order])


def test_several_modalities_become_one_array_and_one_mask():
    mask = torch.tensor([[True, False], [True, True]])
    first, second = Elements(torch.randn(2, 2, 4), mask=mask), Elements(torch.randn(2, 3, 4))
    array, joint = dense([first, second])
    assert array.shape == (2, 5, 4)
    assert joint.tolist() == [[True, False, True, True, True], [True] * 5]
    assert dense([second])[1] is None
    assert_close(dense([second], torch.float64)[0], second.content.double())


def test_modalities_of_different_width_are_refused():
    with pytest.raises(ValueError, match=r"one common width C to be read together, got \[4, 5\]"):
        dense([Elements(torch.zeros(1, 2, 4)), Elements(torch.zeros(1, 2, 5))])
