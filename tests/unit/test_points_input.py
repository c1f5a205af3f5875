import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.points import PointsInput, PointsInputConfig
from perceivers.inputs.registry import build_input
from perceivers.nn.position import fourier_features


def adapter(**options):
    return build_input(PointsInputConfig(**options))


def test_the_paper_has_387_channels_for_each_of_2048_points():
    points = adapter()
    assert isinstance(points, PointsInput)
    assert isinstance(points, InputAdapter)
    assert (points.channels, points.num_elements, points.axes) == (387, 2048, (2048,))
    assert not list(points.parameters())
    x = points.example(2)
    assert x.shape == (2, 2048, 3)
    assert points(x[:, :10]).dense().shape == (2, 10, 387)


def test_elements_are_coordinates_and_the_papers_features_without_them():
    points = adapter(num_points=5)
    x = torch.rand(2, 5, 3) * 2 - 1
    expected = fourier_features(x, num_bands=64, max_resolution=(2240.0,) * 3)
    torch.testing.assert_close(points(x).dense(), expected)
    assert points(x).mask is None


def test_frequencies_run_to_half_the_resolution():
    x = torch.tensor([[[0.25, 0.0, 0.0]]])
    elements = adapter(num_points=1, num_bands=2, max_resolution=4.0)(x)
    assert elements.content.tolist() == x.tolist()
    expected = [0.5**0.5, 1, 0, 0, 0, 0, 0.5**0.5, 0, 1, 1, 1, 1]  # of pi/4 and pi/2
    torch.testing.assert_close(elements.positions[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_further_channels_stand_behind_the_coordinates():
    points = adapter(num_points=5, num_channels=2, num_bands=4)
    x = torch.rand(1, 5, 5)
    elements = points(x)
    assert points.channels == elements.num_channels == 5 + 24
    torch.testing.assert_close(elements.content, x)
    torch.testing.assert_close(
        elements.positions, adapter(num_points=5, num_bands=4)(x[..., :3]).positions
    )


def test_layers_see_each_point_and_their_output_joins_it():
    points = adapter(num_points=5, num_bands=4, mlp_channels=(8, 6))
    assert points.channels == 3 + 6 + 24
    x = torch.rand(2, 5, 3)
    elements = points(x)
    assert elements.num_channels == points.channels
    torch.testing.assert_close(elements.content[..., :3], x)
    first, _, second = points.mlp
    whole = adapter(num_points=5, num_bands=4)(x).dense()
    torch.testing.assert_close(elements.content[..., 3:], second(first(whole).relu()))


def test_an_element_is_projected_as_a_whole():
    points = adapter(num_points=5, num_bands=4, project_channels=7)
    x = torch.rand(2, 5, 3)
    elements = points(x)
    assert points.channels == elements.num_channels == 7
    assert elements.positions is None
    whole = adapter(num_points=5, num_bands=4)(x).dense()
    torch.testing.assert_close(elements.dense(), points.project(whole))
    both = adapter(num_points=5, num_bands=4, mlp_channels=(6,), project_channels=7)
    assert both(x).dense().shape == (2, 5, 7)
    assert both.project.in_features == 3 + 6 + 24


@pytest.mark.parametrize("options", [{}, {"mlp_channels": (8, 6)}, {"project_channels": 7}])
def test_padding_changes_no_real_element_whatever_stands_in_it(options):
    points = adapter(num_points=9, num_bands=4, **options)
    x = torch.rand(1, 6, 3)
    alone = points(x)
    padded = torch.cat([x, torch.full((1, 3, 3), torch.nan)], dim=1)
    mask = torch.arange(9)[None] < 6
    elements = points(padded, mask)
    torch.testing.assert_close(elements.dense()[:, :6], alone.dense())
    assert elements.dense().isfinite().all()
    assert torch.equal(elements.mask, mask)


@pytest.mark.parametrize("options", [{}, {"mlp_channels": (8, 6)}, {"project_channels": 7}])
def test_the_order_of_points_does_not_matter_to_the_set(options):
    points = adapter(num_points=9, num_bands=4, **options)
    x, order = torch.rand(1, 9, 3), torch.randperm(9)
    torch.testing.assert_close(points(x[:, order]).dense(), points(x).dense()[:, order])


def test_a_mask_of_one_place_tells_of_the_whole_cloud():
    elements = adapter(num_points=4)(torch.ones(2, 4, 3), torch.tensor([[True], [False]]))
    assert elements.mask.tolist() == [[True] * 4, [False] * 4]


def test_points_may_leave_the_cube():
    assert adapter(num_points=2)(torch.tensor([[[1.5, -3.0, 0.0]]])).dense().isfinite().all()


def test_the_adapter_can_be_exported_for_any_number_of_points():
    points = adapter(num_points=8, num_bands=4, mlp_channels=(8, 6))

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.points = points

        def forward(self, x, mask):
            return self.points(x, mask).dense()

    x, mask = points.example(2), torch.ones(2, 8, dtype=torch.bool)
    places = torch.export.Dim("places", min=2, max=64)
    program = torch.export.export(
        Dense(), (x, mask), dynamic_shapes={"x": {1: places}, "mask": {1: places}}
    )
    other, real = torch.rand(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(program.module()(other, real), points(other, real).dense())


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"points of 4 numbers .* 1 further channels\), got shape"):
        adapter(num_points=2, num_channels=1)(torch.zeros(1, 2, 3))


def test_the_number_of_points_must_be_known():
    with pytest.raises(ValueError, match="Expected the number of points of a sample"):
        adapter(num_points=None)


@pytest.mark.parametrize(
    "options",
    [
        {"num_points": -1},
        {"num_channels": -1},
        {"num_bands": -1},
        {"mlp_channels": (0,)},
        {"project_channels": -1},
    ],
)
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="Expected widths and num_points of at least 1"):
        PointsInputConfig(**options)


def test_a_resolution_without_a_frequency_is_refused():
    with pytest.raises(ValueError, match="max_resolution of at least 2 cells"):
        PointsInputConfig(max_resolution=1.0)
