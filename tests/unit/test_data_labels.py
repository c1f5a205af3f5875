import numpy as np
import pytest

from perceivers.data.tables.table import ColumnTable, Field
from perceivers.data.targets.classes import (
    class_names,
    describe_classes,
    is_count,
    label_name,
    quantity,
)
from perceivers.data.targets.encode import LabelledSplit
from perceivers.data.targets.infer import TargetEncoder, find_targets

NUMBER = Field("number")
NAMED = Field("number", names=("ant", "bee"))


@pytest.mark.parametrize(
    ("value", "field", "name"),
    [
        (3, NUMBER, "3"),
        (3.0, NUMBER, "3"),
        (0.5, NUMBER, "0.5"),
        (True, NUMBER, "True"),
        ("x", Field("string"), "x"),
        (1, NAMED, "bee"),
        (1.0, NAMED, "bee"),
        (-1, NAMED, None),
        (None, NUMBER, None),
        ("", Field("string"), None),
    ],
)
def test_values_stand_for_names(value, field, name):
    assert label_name(value, field, "t") == name


@pytest.mark.parametrize("value", [2, -2, 0.5])
def test_an_index_of_no_class_is_refused(value):
    with pytest.raises(ValueError, match=rf"t, row 1: the label {value} is no index of 2 named"):
        label_name(value, NAMED, "t, row 1")


@pytest.mark.parametrize(
    ("values", "field", "names"),
    [
        ([10, 9, 2], NUMBER, ("2", "9", "10")),
        (["10", "9", "b", "a"], Field("string"), ("9", "10", "a", "b")),
        ([2.0, 1.0, None], NUMBER, ("1", "2")),
        ([True, False], NUMBER, ("False", "True")),
        ([0.5, 1.5] * 4, NUMBER, ("0.5", "1.5")),
        ([0, 1], NAMED, ("ant", "bee")),
        ([0, 1], Field("number", names=("ant", "bee", "cow")), ("ant", "bee", "cow")),
    ],
)
def test_names_of_classes_in_their_order(values, field, names):
    assert class_names(values, field, "t") == names


@pytest.mark.parametrize(("values", "field", "name"), [([7] * 3, NUMBER, "7"), ([1], NAMED, "bee")])
def test_one_class_only_is_refused(values, field, name):
    with pytest.raises(
        ValueError, match=f"t has one class only, '{name}', in all .* nothing to distinguish"
    ):
        class_names(values, field, "t")


def test_quantities_are_refused():
    with pytest.raises(
        ValueError, match=r"t holds 8 different numbers with fractions, such as 0\.1"
    ):
        class_names([i + 0.1 for i in range(8)], NUMBER, "t")


def test_identifiers_are_refused():
    with pytest.raises(
        ValueError, match=r"t has 30 different values in 30 rows, such as 'n0': rath"
    ):
        class_names([f"n{i}" for i in range(30)], Field("string"), "t")


def test_labels_become_indices():
    index = TargetEncoder("class", ("ant", "bee"), "label", Field("string"))
    assert [index("bee", "t"), index("ant", "t")] == [1, 0]


def test_numbers_without_names_are_indices_of_known_names():
    assert TargetEncoder("class", ("ant", "bee"), "label", NUMBER)(1, "t") == 1
    with pytest.raises(ValueError, match="has the label '2', which was not seen in training"):
        TargetEncoder("class", ("ant", "bee"), "label", NUMBER)(2, "t")
    with pytest.raises(ValueError, match="has the label '0', which was not seen in training"):
        TargetEncoder("class", ("3", "5"), "label", NUMBER)(0, "t")


def test_unknown_labels_are_named_with_the_known_ones():
    index = TargetEncoder("class", ("ant", "bee"), "label", Field("string"))
    with pytest.raises(
        ValueError,
        match=r"t, row 4 has the label 'cow', which was not seen .* there were 2 classes: ant, bee\.",
    ):
        index("cow", "t, row 4")


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_label_is_named(value):
    with pytest.raises(ValueError, match="t, row 4 has no label: column 'label' is empty there"):
        TargetEncoder("class", ("ant",), "label", Field("string"))(value, "t, row 4")


def test_many_classes_are_not_all_listed():
    assert describe_classes([str(i) for i in range(30)]).endswith("18, 19, ....")


def test_rows_hold_the_index():
    table = ColumnTable(name="t", columns={"label": ["b", "a"], "x": [1, 2]})
    labelled = LabelledSplit(table, "label", np.array([1, 0]))
    assert len(labelled) == 2
    assert labelled.row(0) == {"label": 1, "x": 1}
    assert labelled.column("label") == [1, 0]
    assert labelled.column("x") == [1, 2]


def test_rows_hold_vectors_of_labels_or_numbers():
    table = ColumnTable(name="t", columns={"label": ["b", "a"], "x": [1, 2]})
    labelled = LabelledSplit(table, "label", np.eye(2, dtype=np.float32))
    assert labelled.row(1)["label"].tolist() == [0, 1]
    assert [row.tolist() for row in labelled.column("label")] == [[1, 0], [0, 1]]
    assert labelled.column("x") == [1, 2]


def test_quantities_are_seen():
    assert quantity([0.5, 1.5] * 4, NUMBER) is None
    assert quantity([0, 1], NAMED) is None
    assert quantity([n + 0.5 for n in range(9)], NUMBER) == (
        "9 different numbers with fractions, such as 0.5"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([25 + (7 * n) % 321 for n in range(200)] + [25, 31, 32] * 20, True),
        (list(range(0, 500, 2)), False),  # identifiers: every row another
        ([n % 100 for n in range(400)], False),  # codes without gaps
        ([7 * (n % 30) for n in range(900)], False),  # many rows each
        ([1, 5, 9] * 10, False),
        ([7 * (n % 150) + 0.5 for n in range(300)], False),
        ([str(7 * (n % 150)) for n in range(300)], False),
    ],
)
def test_whole_numbers_with_gaps_and_few_rows_each_are_a_quantity(values, expected):
    assert is_count(values, NUMBER) is expected
    assert not is_count([*values, True], NUMBER)
    assert not is_count(values, NAMED)


def test_a_target_of_whole_numbers_says_how_to_learn_classes():
    values = [float(25 + (7 * n) % 321) for n in range(200)] + [25.0, 31.0, 32.0] * 100
    encoder, (note,) = find_targets(values, NUMBER, "target", table="train.csv")
    assert encoder.kind == "number"
    assert note.endswith("If they are codes of classes, say --target class.")
    assert find_targets(values, NUMBER, "target", table="t", kind="class")[0].kind == "class"
