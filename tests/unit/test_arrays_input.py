import pytest
import torch

from perceivers.inputs.array import ArrayInput, ArrayInputConfig
from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.registry import build_input
from perceivers.nn.position import fourier_features


def adapter(length=6, num_channels=2, num_coordinates=0, **options):
    return build_input(
        ArrayInputConfig(
            length=length, num_channels=num_channels, num_coordinates=num_coordinates, **options
        )
    )


def test_elements_without_coordinates_have_a_learned_vector_for_their_place():
    arrays = adapter(position_channels=5)
    assert isinstance(arrays, ArrayInput)
    assert isinstance(arrays, InputAdapter)
    assert (arrays.channels, arrays.num_elements, arrays.axes) == (7, 6, (6,))
    x = torch.rand(3, 6, 2)
    elements = arrays(x)
    torch.testing.assert_close(elements.content, x)
    torch.testing.assert_close(elements.positions, arrays.positions.table)
    assert arrays.example(4).shape == (4, 6, 2)


def test_a_shorter_batch_has_the_first_vectors():
    arrays = adapter()
    assert torch.equal(arrays(torch.rand(1, 2, 2)).positions, arrays.positions.table[:2])


def test_more_elements_than_learned_vectors_are_refused():
    with pytest.raises(
        ValueError, match="Expected at most 6 elements, one for each learned position"
    ):
        adapter()(torch.rand(1, 7, 2))


def test_coordinates_become_fourier_features():
    arrays = adapter(num_coordinates=2, num_bands=3, max_resolution=8.0)
    assert arrays.channels == 2 + 2 * 7
    x = torch.rand(1, 9, 4)
    elements = arrays(x)
    torch.testing.assert_close(elements.content, x[..., :2])
    expected = fourier_features(x[..., 2:], num_bands=3, max_resolution=(8.0, 8.0))
    torch.testing.assert_close(elements.positions, expected)
    assert arrays.example(2).shape == (2, 6, 4)


@pytest.mark.parametrize(
    ("length", "coordinates", "side", "bands"),
    [(100, 1, 100, 50), (100, 2, 10, 5), (1, 1, 2, 1), (9999, 1, 9999, 64)],
)
def test_frequencies_follow_from_the_number_of_elements(length, coordinates, side, bands):
    arrays = adapter(length=length, num_coordinates=coordinates)
    assert arrays.max_resolution == pytest.approx(side)
    assert arrays.num_bands == bands
    assert arrays.channels == 2 + coordinates * (2 * bands + 1)


@pytest.mark.parametrize("coordinates", [0, 1])
def test_values_may_be_projected(coordinates):
    arrays = adapter(num_coordinates=coordinates, project_channels=9)
    x = torch.rand(1, 6, 2 + coordinates)
    elements = arrays(x)
    torch.testing.assert_close(elements.content, arrays.project(x[..., :2]))
    assert elements.dense().shape[-1] == arrays.channels


@pytest.mark.parametrize("options", [{}, {"num_coordinates": 1}, {"project_channels": 5}])
def test_padding_changes_no_real_element_whatever_stands_in_it(options):
    arrays = adapter(length=9, **options)
    width = 2 + options.get("num_coordinates", 0)
    x = torch.rand(1, 6, width)
    mask = torch.arange(9)[None] < 6
    elements = arrays(torch.cat([x, torch.full((1, 3, width), torch.nan)], dim=1), mask)
    torch.testing.assert_close(elements.dense()[:, :6], arrays(x).dense())
    assert elements.dense().isfinite().all()
    assert torch.equal(elements.mask, mask)


def test_the_order_of_elements_with_coordinates_does_not_matter_to_the_set():
    arrays = adapter(num_coordinates=2)
    x, order = torch.rand(1, 6, 4), torch.randperm(6)
    torch.testing.assert_close(arrays(x[:, order]).dense(), arrays(x).dense()[:, order])


@pytest.mark.parametrize("coordinates", [0, 2])
def test_the_adapter_can_be_exported_for_any_number_of_elements(coordinates):
    arrays = adapter(length=64, num_coordinates=coordinates)

    class Dense(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.arrays = arrays

        def forward(self, x):
            return self.arrays(x).dense()

    places = torch.export.Dim("places", min=2, max=64)
    shapes = {"x": {1: places}}
    x = torch.rand(2, 9, 2 + coordinates)
    program = torch.export.export(Dense(), (x,), dynamic_shapes=shapes)
    other = torch.rand(2, 5, 2 + coordinates)
    torch.testing.assert_close(program.module()(other), arrays(other).dense())


def test_a_mask_of_one_place_tells_of_the_whole_array():
    elements = adapter()(torch.ones(2, 6, 2), torch.tensor([[True], [False]]))
    assert elements.mask.tolist() == [[True] * 6, [False] * 6]


def test_other_channels_are_refused():
    with pytest.raises(
        ValueError, match=r"elements of 3 numbers \(2 values and 1 coordinates\), got shape"
    ):
        adapter(num_coordinates=1)(torch.zeros(1, 6, 2))


@pytest.mark.parametrize("missing", ["length", "num_channels", "num_coordinates"])
def test_sizes_must_be_known(missing):
    with pytest.raises(ValueError, match="Expected length, num_channels and num_coordinates"):
        adapter(**{missing: None})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length, channels and num_bands of at least 1"),
        ({"num_channels": 0}, "at least 1"),
        ({"num_bands": 0}, "at least 1"),
        ({"position_channels": 0}, "at least 1"),
        ({"project_channels": 0}, "at least 1"),
        ({"num_coordinates": -1}, "num_coordinates of at least 0, got -1"),
        ({"max_resolution": 1.0}, "max_resolution of at least 2 cells"),
    ],
)
def test_a_configuration_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ArrayInputConfig(**options)
