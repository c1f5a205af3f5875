import pytest
import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.registry import build_input
from perceivers.inputs.table import TableInput, TableInputConfig
from support.tolerance import assert_close

CONFIG = TableInputConfig(num_numbers=2, category_sizes=(3, 2), channels=4)


def test_every_field_is_an_element():
    adapter = build_input(CONFIG)
    assert isinstance(adapter, InputAdapter)
    assert (adapter.num_elements, adapter.channels, adapter.axes) == (4, 4, (4,))
    elements = adapter(adapter.example(5))
    assert elements.content.shape == (5, 4, 4)
    assert elements.positions is None
    assert elements.mask is None


def test_a_number_scales_its_vector_and_a_category_has_its_own():
    adapter = TableInput(CONFIG)
    with torch.no_grad():
        adapter.bias.normal_()
    content = adapter(torch.tensor([[2.0, -1.0, 2.0, 1.0]])).content[0]
    assert_close(content[0], 2 * adapter.weight[0] + adapter.bias[0] + adapter.fields[0])
    assert_close(content[1], -adapter.weight[1] + adapter.bias[1] + adapter.fields[1])
    assert_close(content[2], adapter.categories[2] + adapter.fields[2])
    assert_close(content[3], adapter.categories[3 + 1] + adapter.fields[3])


def test_what_is_missing_changes_no_real_element():
    adapter = TableInput(CONFIG)
    x = torch.tensor([[2.0, -1.0, 2.0, 1.0]])
    odd = torch.tensor([[2.0, float("nan"), 99.0, 1.0]])
    mask = torch.tensor([[True, False, False, True]])
    elements = adapter(odd, mask)
    assert torch.equal(elements.mask, mask)
    dense = elements.dense()
    assert_close(dense[mask], adapter(x).dense()[mask])
    assert not dense[~mask].any()


def test_a_missing_row_has_no_real_element():
    elements = TableInput(CONFIG)(torch.zeros(2, 4), torch.tensor([[True], [False]]))
    assert elements.mask.sum(dim=1).tolist() == [4, 0]


def test_only_numbers_and_only_categories_are_rows_too():
    numbers = TableInput(TableInputConfig(num_numbers=3, category_sizes=(), channels=4))
    assert numbers(numbers.example(2)).content.shape == (2, 3, 4)
    names = TableInput(TableInputConfig(num_numbers=0, category_sizes=(5,), channels=4))
    assert names(names.example(2)).content.shape == (2, 1, 4)


def test_other_fields_than_configured_are_an_error():
    with pytest.raises(ValueError, match=r"rows of 4 fields \(B x 4\), got shape \(2, 5\)"):
        TableInput(CONFIG)(torch.zeros(2, 5))


def test_unknown_fields_are_an_error():
    with pytest.raises(ValueError, match="got num_numbers=None and category_sizes=None"):
        build_input(TableInputConfig())


@pytest.mark.parametrize(
    "settings",
    [
        {"num_numbers": 0, "category_sizes": ()},
        {"num_numbers": 1, "category_sizes": (0,)},
        {"num_numbers": 1, "category_sizes": (), "channels": 1},
    ],
)
def test_a_row_of_nothing_is_an_error(settings):
    with pytest.raises(ValueError, match="at least one field, one name for each category and two"):
        TableInput(TableInputConfig(**settings))
