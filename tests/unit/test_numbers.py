import pytest

from perceivers.data.tables.numbers import NumberFormat, NumberScan, is_missing_spelling


def scan(*cells):
    found = NumberScan()
    found.add(cells)
    return found


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1e-05", "2E+3", "-.5", "+7"], [1e-5, 2000.0, -0.5, 7]),
        (["0,5", "1,25", "3"], [0.5, 1.25, 3]),
        (["1,000.5", "2,000", "12"], [1000.5, 2000, 12]),
        (["1.000,5", "2.000", "12"], [1000.5, 2000, 12]),
        (["1 000,5", "2\u202f000,25"], [1000.5, 2000.25]),
        (["1'000.5", "2\u2019000"], [1000.5, 2000]),
        (["1,234,567", "12"], [1234567, 12]),
        (["1.234.567", "12"], [1234567, 12]),
        (["1.234", "2.5"], [1.234, 2.5]),
        (["0.906", "1.23", "0.5"], [0.906, 1.23, 0.5]),
        (["0,906", "1,23", "1,025"], [0.906, 1.23, 1.025]),
        (["1,234", "2,5"], [1.234, 2.5]),
        (["1,234", "2.5"], [1234, 2.5]),
        (["\u22121.5", "2"], [-1.5, 2]),
        (["NA", "1", "n/a", "?", "-", "NaN"], [None, 1, None, None, None, None]),
    ],
)
def test_spellings_of_numbers(cells, values):
    form = scan(*cells).found()
    assert [form.parse(cell) for cell in cells] == values


def test_the_rest_of_the_file_decides_over_ambiguous_numbers():
    assert scan("1,234").found() == NumberFormat(".", ",")
    assert scan("1,234").found(comma=True) == NumberFormat(",")
    assert scan("1.234").found() == NumberFormat()
    assert scan("1.234").found(grouped=True) == NumberFormat(",", ".")


@pytest.mark.parametrize(
    "cells",
    [["007", "12"], ["1", "two"], ["1.5", "2,5"], ["1.234", "1,234"], ["NA"], ["1" * 19]],
)
def test_other_columns_hold_no_numbers(cells):
    assert scan(*cells).found() is None


def test_a_declared_column_holds_numbers_and_its_other_cells_are_bad():
    form = scan("007", "12", "abc").found(declared=True)
    assert form.parse("007") == 7
    with pytest.raises(ValueError, match="'abc' is no number"):
        form.parse("abc")
    assert scan("abc").found(declared=True) is None


def test_a_few_cells_without_a_number_are_stated():
    found = scan(*map(str, range(100)), "abc", "NA")
    assert found.found() == NumberFormat()
    assert found.note_about_rest("x") == (
        "Of 102 cells of column 'x', 1 are spelled as missing and 1 are no numbers, such as 'abc', and their rows are "
        "left out."
    )
    assert NumberFormat().is_usual
    assert not NumberFormat(",").is_usual


def test_missing_spellings():
    assert all(map(is_missing_spelling, ("", " NA ", "n/a", "null", "#N/A", "None")))
    assert not any(map(is_missing_spelling, ("0", "no", "nano")))
