"""Point clouds whose elements have features of their nearest neighbors."""

import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.points import (
    NeighborPointsInput,
    NeighborPointsInputConfig,
    nearest_neighbors,
    neighbor_max,
)
from perceivers.inputs.registry import build_input, default_input
from perceivers.nn.position import fourier_features


def adapter(**options):
    small = {"num_points": 12, "num_neighbors": 4, "stem_channels": (6, 5), "num_bands": 2}
    return build_input(NeighborPointsInputConfig(**small | options))


def trained(points):
    """Return an adapter whose norms have seen data, in evaluation."""
    torch.manual_seed(0)
    for _ in range(3):
        points(torch.rand(4, points.num_elements, points.in_channels))
    return points.eval()


def test_an_element_is_its_features_and_its_position():
    points = trained(adapter(num_channels=2))
    assert isinstance(points, NeighborPointsInput)
    assert isinstance(points, InputAdapter)
    assert (points.channels, points.num_elements, points.axes) == (5 + 15, 12, (12,))
    x = torch.rand(3, 12, 5)
    elements = points(x)
    assert elements.content.shape == (3, 12, 5)
    expected = fourier_features(x[..., :3], num_bands=2, max_resolution=(8.0,) * 3)
    torch.testing.assert_close(elements.positions, expected)
    assert points(points.example(2)).dense().shape == (2, 12, 20)


def test_it_is_the_default_of_points():
    found = default_input("points", 64)
    assert found.kind == "neighbor_points"
    assert found.stem_channels == (64, 128)


def test_neighbors_are_the_nearest_points():
    torch.manual_seed(0)
    x = torch.rand(2, 30, 3) + 50  # far from the origin
    found = nearest_neighbors(x, 6)
    expected = torch.cdist(x.double(), x.double()).topk(6, largest=False).indices
    assert torch.equal(found.sort().values, expected.sort().values)
    assert (found == torch.arange(30)[:, None]).any(dim=2).all()


def test_masked_points_are_neighbors_of_none():
    x, mask = torch.rand(2, 10, 3), torch.ones(2, 10, dtype=torch.bool)
    mask[0, 3:] = False
    found = nearest_neighbors(x, 6, mask)
    assert set(found[0, :3].flatten().tolist()) == {0, 1, 2}
    alone = nearest_neighbors(x[:1, :3], 6)
    assert torch.equal(alone[0].sort().values, found[0, :3].sort().values)
    assert nearest_neighbors(x, 6, torch.zeros(2, 10, dtype=torch.bool)).max() == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_the_largest_neighbor_and_its_gradient(dtype, count):
    torch.manual_seed(0)
    x = torch.randn(9, 3).to(dtype).requires_grad_()
    rows = torch.stack([torch.randperm(9)[:count] for _ in range(9)])
    found, expected = neighbor_max(x, rows), x[rows].amax(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(9, 3).to(dtype)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_point_or_none_uses_the_statistics_of_evaluation():
    points = trained(adapter()).train()
    x, mask = torch.rand(2, 12, 3), torch.zeros(2, 12, dtype=torch.bool)
    assert (points(x, mask).dense()[..., :5] == 0).all()
    mask[0, 0] = True
    expected = points.eval()(x[:1, :1]).content
    torch.testing.assert_close(points.train()(x, mask).content[:1, :1], expected)


def test_padding_changes_no_real_element_whatever_stands_in_it():
    points = trained(adapter())
    x = torch.rand(1, 3, 3)  # fewer than neighbors
    padded = torch.cat([x, torch.full((1, 9, 3), torch.nan)], dim=1)
    mask = torch.arange(12)[None] < 3
    elements = points(padded, mask)
    torch.testing.assert_close(elements.dense()[:, :3], points(x).dense())
    assert elements.dense().isfinite().all()
    assert torch.equal(elements.mask, mask)


def test_statistics_of_evaluation_are_right_after_the_first_step():
    torch.manual_seed(0)
    points = adapter()
    x = 0.01 * torch.rand(8, 12, 3)
    content = points(x).content
    torch.testing.assert_close(points.eval()(x).content, content, rtol=0.05, atol=0.05)


def test_statistics_of_training_are_those_of_real_points():
    torch.manual_seed(0)
    x = torch.rand(2, 12, 3)
    mask = torch.ones(2, 12, dtype=torch.bool)
    full, masked = adapter(), adapter()
    masked.load_state_dict(full.state_dict())
    mask[:, 8:] = False
    found = masked(x, mask).content[:, :8]
    torch.testing.assert_close(found, full(x[:, :8]).content, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        masked.layers[1].edge_norm.running_var, full.layers[1].edge_norm.running_var
    )


def test_the_order_of_points_does_not_matter_to_the_set():
    points = trained(adapter())
    x, order = torch.rand(1, 12, 3), torch.randperm(12)
    torch.testing.assert_close(points(x[:, order]).dense(), points(x).dense()[:, order])


def test_every_weight_learns():
    points = adapter(num_channels=1)
    points(torch.rand(3, 12, 4)).content.square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in points.parameters())


def test_the_adapter_can_be_exported_for_any_number_of_points():
    points = trained(adapter())

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.points = points

        def forward(self, x, mask):
            return self.points(x, mask).dense()

    x, mask = points.example(2), torch.ones(2, 12, dtype=torch.bool)
    places = torch.export.Dim("places", min=2, max=64)
    program = torch.export.export(
        Dense(), (x, mask), dynamic_shapes={"x": {1: places}, "mask": {1: places}}
    )
    other, real = torch.rand(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(program.module()(other, real), points(other, real).dense())


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"points of 3 numbers .* 0 further channels\), got shape"):
        adapter()(torch.rand(1, 12, 4))
    with pytest.raises(ValueError, match="number of points of a sample, num_points, got None"):
        adapter(num_points=None)
    with pytest.raises(ValueError, match="one or more stem_channels of at least 1"):
        adapter(stem_channels=())
    with pytest.raises(ValueError, match="max_resolution of at least 2 cells"):
        adapter(max_resolution=1.0)
