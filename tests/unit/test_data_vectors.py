import numpy as np
import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.table.modality import (
    TableAugmentConfig,
    TableModality,
    TablePreprocessConfig,
    measure_table,
)

CONFIG = TablePreprocessConfig(
    numbers=("age", "height"),
    categories={"color": ("blue", "red")},
    means=(10.0, 100.0),
    stds=(5.0, 10.0),
)
NAN = float("nan")


def decode(value, config=CONFIG):
    return TableModality(config).decode(EncodedItem("row 1", value=value))


def cells(*values) -> list[EncodedItem]:
    return [EncodedItem(f"row {i}", value=value) for i, value in enumerate(values)]


def test_numbers_are_normalized_and_categories_are_their_index():
    reader = TableModality(CONFIG)
    assert isinstance(reader, Modality)
    decoded = reader.decode(EncodedItem("a", value={"color": "red", "age": 20, "height": "90"}))
    assert decoded.value.tolist() == [2, -1, 1]
    assert decoded.value.dtype == np.float32
    assert reader.transform(decoded.value) is decoded.value


def test_large_numbers_keep_their_differences():
    config = TablePreprocessConfig(numbers=("id",), means=(1e9,), stds=(1.0,))
    assert decode({"id": 1_000_000_001}, config).value.tolist() == [1]
    assert decode(1_000_000_002, config).value.tolist() == [2]  # the cell alone


@pytest.mark.parametrize("empty", [None, NAN, "", " ", np.float64("nan")])
def test_what_is_missing_is_masked(empty):
    reader = TableModality(CONFIG)
    decoded = decode({"age": empty, "height": 110, "color": empty})
    assert decoded.notes == ()
    values, mask = reader.collate([reader.transform(decoded.value)])
    assert values.tolist() == [[0, 1, 0]]
    assert mask is not None
    assert mask.tolist() == [[False, True, False]]


def test_a_column_that_is_not_there_is_missing():
    assert np.isnan(decode({"age": 10}).value).tolist() == [False, True, True]


def test_an_unknown_category_is_masked_and_noted():
    decoded = decode({"age": 10, "height": 100, "color": "green"})
    assert np.isnan(decoded.value).tolist() == [False, False, True]
    assert decoded.notes == ("unknown category",)
    assert decode({"color": "green"}).notes == ("unknown category",)


@pytest.mark.parametrize("cell", ["tall", float("inf"), [1], 10**400])
def test_what_is_no_number_is_an_error(cell):
    with pytest.raises(
        ValueError, match=r"'row 1', column 'height': expected a number from -1e.18 to 1e.18, got"
    ):
        decode({"height": cell})


def test_an_empty_row_is_missing():
    with pytest.raises(MissingValueError, match="expected numbers and categories, got no cell"):
        decode(None)
    with pytest.raises(MissingValueError, match="none of age, height, color holds anything"):
        decode({"age": None})


def test_a_cell_that_is_no_row_is_an_error():
    with pytest.raises(ValueError, match="a cell for each of age, height, color, got 5"):
        decode(5)


def test_rows_become_a_batch_and_missing_ones_are_zeros():
    reader = TableModality(CONFIG)
    full = decode({"color": "red", "age": 20, "height": 90}).value
    values, mask = reader.collate([full, full])
    assert values.shape == (2, 3)
    assert values.dtype == torch.float32
    assert mask is None
    values, mask = reader.collate([full, None])
    assert values.tolist() == [[2, -1, 1], [0, 0, 0]]
    assert mask is not None
    assert mask.tolist() == [[True] * 3, [False] * 3]


def test_noise_is_added_to_numbers_only():
    reader = TableModality(CONFIG, TableAugmentConfig(noise=0.1))
    full = decode({"color": "red", "age": 20, "height": 90}).value
    found = reader.transform(full, rng=np.random.default_rng(0))
    assert found[2] == 1
    assert 0 < abs(found[0] - 2) < 1
    assert full.tolist() == [2, -1, 1]
    assert reader.transform(full).tolist() == [2, -1, 1]


def test_fields_are_hidden_but_one_always_stays():
    reader = TableModality(CONFIG, TableAugmentConfig(drop=0.7))
    full = decode({"color": "red", "age": 20}).value
    left = [
        (~np.isnan(reader.transform(full, rng=np.random.default_rng(seed)))).sum()
        for seed in range(50)
    ]
    assert set(left) == {1, 2}
    nothing = np.full(3, np.nan, dtype=np.float32)
    assert np.isnan(reader.transform(nothing, rng=np.random.default_rng(0))).all()


def test_rows_say_what_columns_they_have():
    found = measure_table(
        cells(
            {"age": 1, "color": "red", "flag": True},
            {"age": 3, "color": "blue", "flag": False},
            {"age": None, "color": "", "flag": None},
            None,
        ),
        TablePreprocessConfig(),
    )
    assert found.numbers == ("age", "flag")
    assert found.categories == {"color": ("blue", "red")}
    assert found.means == (2.0, 0.5)
    assert found.stds == (1.0, 0.5)
    assert found.columns == ("age", "flag", "color")


def test_what_is_stated_stays():
    stated = TablePreprocessConfig(
        numbers=("age",), categories={"code": ()}, means=(0.0,), stds=(1.0,)
    )
    found = measure_table(cells({"age": "7", "code": 30}, {"age": 8, "code": 4}), stated)
    assert (found.numbers, found.means, found.stds) == (("age",), (0.0,), (1.0,))
    assert found.categories == {"code": ("30", "4")}


def test_a_constant_number_has_a_deviation_to_divide_by():
    found = measure_table(cells({"a": 5}, {"a": 5}), TablePreprocessConfig())
    assert (found.means, found.stds) == ((5.0,), (1.0,))


def test_only_categories_need_no_statistics():
    found = measure_table(cells({"a": "x"}), TablePreprocessConfig())
    assert (found.numbers, found.means) == ((), ())
    assert TableModality(found).decode(cells({"a": "x"})[0]).value.tolist() == [0]


def test_names_of_rows_are_no_category():
    rows = cells(*({"id": f"name {i}"} for i in range(1001)))
    with pytest.raises(
        ValueError, match="'id' has 1,001 different values; expected from 1 to 1,000"
    ):
        measure_table(rows, TablePreprocessConfig())
    with pytest.raises(ValueError, match="'code' has 0 different values"):
        measure_table(cells({"a": 1}), TablePreprocessConfig(categories={"code": ()}))


def test_no_rows_cannot_be_measured():
    with pytest.raises(ValueError, match="cannot be measured, since there are no rows"):
        measure_table(cells(None), TablePreprocessConfig())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"numbers": ("a",), "categories": {"a": ("x",)}}, "every column once"),
        ({"numbers": ("a",), "means": ()}, "a number for each of the columns"),
        ({"numbers": ("a",), "stds": (0.0,)}, "stds above zero"),
    ],
)
def test_settings_that_do_not_fit_are_errors(settings, told):
    with pytest.raises(ValueError, match=told):
        TablePreprocessConfig(**settings)


def test_augmentation_out_of_range_is_an_error():
    with pytest.raises(ValueError, match=r"drop in \[0, 1\), got 0.0 and 1"):
        TableAugmentConfig(drop=1)


def test_what_is_not_measured_is_an_error():
    with pytest.raises(ValueError, match="got no column"):
        TableModality(TablePreprocessConfig())
    with pytest.raises(ValueError, match="got no names for color"):
        TableModality(TablePreprocessConfig(categories={"color": ()}))
