import numpy as np
import pytest

from perceivers.data.tables.table import Field
from perceivers.data.targets.infer import TargetEncoder, find_targets, is_missing, moments

OTHER = Field("other")
NUMBER = Field("number")
STRING = Field("string")


def found(values, holds=OTHER, **options):
    return find_targets(values, holds, "y", table="t", **options)


def read(values, holds=OTHER, **options):
    reader, _ = found(values, holds, **options)
    return reader.stacked([reader(value, f"t, row {n}") for n, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "holds", "kind"),
    [
        (["a", "b"], STRING, "class"),
        (["a;b", "b"], STRING, "class"),
        ([0, 1, 2], NUMBER, "class"),
        ([0.5, 1.5] * 4, NUMBER, "class"),
        ([n + 0.5 for n in range(30)], NUMBER, "number"),
        ([["a"], ["b", "a"]], OTHER, "labels"),
        ([["a", "b"], ["b", "c"]], OTHER, "labels"),
        ([[0], [1, 2]], OTHER, "labels"),
        ([[0, 1], [1, 2], []], OTHER, "labels"),
        ([[0, 1], [1, 2]], Field("other", names=("a", "b", "c")), "labels"),
        ([[0, 1, 0], [1, 1, 0]], OTHER, "labels"),
        ([np.array([0.0, 1.0]), np.array([1.0, 1.0])], OTHER, "labels"),
        ([[0, 1], [1, 0]], OTHER, "number"),  # may be pairs of indices; nothing says so
        ([[3, 4], [5, 6]], OTHER, "number"),
        ([[0.5, 1.0], [0.25, 2.0]], OTHER, "number"),
        (list(np.array([[0.5, 1.0], [0.25, 2.0]])), OTHER, "number"),
    ],
)
def test_what_a_target_is_shows_in_its_cells(values, holds, kind):
    reader, notes = found(values, holds)
    assert reader.kind == kind
    assert notes


def test_one_class_a_row():
    assert read(["b", "a", "b"], STRING).tolist() == [1, 0, 1]
    assert read([1, 0], NUMBER, names=("ant", "bee")).tolist() == [1, 0]
    reader, notes = found(["b", "a"], STRING)
    assert notes == ("2 classes: a, b.",)
    with pytest.raises(ValueError, match="t, row 3 has no label: column 'y' is empty"):
        reader(None, "t, row 3")


def test_lists_where_one_class_is_expected_are_refused():
    with pytest.raises(ValueError, match=r"Column 'y' of t holds lists: expected one class a row"):
        found([["a"], ["b"]], kind="class")


def test_a_known_model_takes_numbers_with_fractions_for_unknown_classes():
    values = [n + 0.5 for n in range(30)]
    reader, _ = found(values, NUMBER, names=("a", "b"))
    with pytest.raises(ValueError, match=r"has the label '0\.5', which was not seen in training"):
        reader(values[0], "t, row 0")


def test_lists_of_names_become_vectors():
    values = [["wind", "dog"], [], ["rain"]]
    reader, notes = found(values)
    assert reader.names == ("dog", "rain", "wind")
    assert read(values).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert read(values).dtype == np.float32
    assert notes == (
        "3 labels, several in a row: dog, rain, wind.",
        "1 of 3 rows has none of the labels.",
    )


def test_lists_of_indices_become_vectors():
    assert read([[2], [0, 10]]).tolist() == [[0, 1, 0], [1, 0, 1]]  # names 0, 2, 10
    named = Field("other", names=("a", "b", "c"))
    assert read([[2], [0, 1]], named).tolist() == [[0, 0, 1], [1, 1, 0]]
    assert read([np.array([1]), np.array([0, 1])], names=("a", "b")).tolist() == [[0, 1], [1, 1]]
    with pytest.raises(ValueError, match="t, row 0: the label 7 is no index of 3 named classes"):
        read([[7], [0, 1]], named)


@pytest.mark.parametrize("mark", [";", "|", ","])
def test_labels_in_a_text_are_separated_by_a_mark(mark):
    values = [f"dog{mark} rain", "rain", "", None, f"dog{mark}"]
    reader, notes = found(values, STRING, kind="labels")
    assert (reader.names, reader.separator) == (("dog", "rain"), mark)
    assert read(values, STRING, kind="labels").tolist() == [[1, 1], [0, 1], [0, 0], [0, 0], [1, 0]]
    assert notes[1] == "2 of 5 rows have none of the labels."


def test_the_rarer_mark_separates_so_that_names_may_hold_commas():
    values = ["Speech, male;Dog", "Dog", "Speech, male"]
    assert found(values, STRING, kind="labels")[0].names == ("Dog", "Speech, male")
    known = found(["Speech, male"], STRING, kind="labels", names=("Dog", "Speech, male"))[0]
    assert known("Speech, male", "t").tolist() == [0, 1]


def test_texts_without_a_mark_are_single_labels():
    assert read(["dog", "rain"], STRING, kind="labels").tolist() == [[1, 0], [0, 1]]
    assert read([3, 5], NUMBER, kind="labels").tolist() == [[1, 0], [0, 1]]


def test_labels_as_zeros_and_ones():
    values = [[0, 1, 0], [1, 1, 0]]
    reader, notes = found(values)
    assert reader.names == ("0", "1", "2")
    assert read(values).tolist() == values
    assert notes == ("3 labels, several in a row: 0, 1, 2.",)
    named = Field("number", names=("a", "b", "c"))
    assert found(values, named)[0].names == ("a", "b", "c")
    assert found(values, names=("x", "y", "z"))[0].names == ("x", "y", "z")
    with pytest.raises(
        ValueError, match=r"t: 5\.0 in column 'y' is neither 0 nor 1, as the labels"
    ):
        reader([5, 0, 0], "t")
    with pytest.raises(ValueError, match="t has no labels of 0 or 1: column 'y' is empty there"):
        reader(None, "t")


def test_a_missing_list_is_not_an_empty_one():
    reader, _ = found([["a"], ["a", "b"], None])
    with pytest.raises(ValueError, match=r"t, row 2 has no labels: .* Give an empty list if"):
        reader(None, "t, row 2")


def test_unknown_labels_are_named():
    reader, _ = found([["a"], ["a", "b"]])
    with pytest.raises(ValueError, match="t, row 9 has the label 'cow', which was not seen in tra"):
        reader(["a", "cow"], "t, row 9")


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match="names no label in any of its 2 rows"):
        found([[], []], kind="labels")
    with pytest.raises(ValueError, match="has 60 different labels in 30 rows, such as '0': rather"):
        found([f"{2 * n}, {2 * n + 1}" for n in range(30)], STRING, kind="labels")


def test_lists_that_are_neither_labels_nor_numbers_are_refused():
    with pytest.raises(ValueError, match="lists of numbers with fractions, of different lengths"):
        found([[0.5], [0.5, 1.5]])


def test_numbers_become_vectors():
    values = [1.5, "2.5", 3]
    assert read(values, kind="number").tolist() == [[1.5], [2.5], [3.0]]
    assert read([[1, 2], [3, 5]]).tolist() == [[1, 2], [3, 5]]
    assert found([[1, 2], [3, 5]])[0].names == ("y[0]", "y[1]")
    assert found([[1, 2], [3, 5]], names=("a", "b"))[0].names == ("a", "b")


def test_it_is_said_that_a_number_is_learned():
    values = [n + 0.5 for n in range(30)]
    assert found(values, NUMBER)[1] == (
        "Column 'y' of t holds a number to learn: y (0.5 to 29.5).",
    )
    (note,) = found([[1, 2], [3, 5]])[1]
    assert note.endswith("y[1] (2 to 5). If they are indices of labels, say --target labels.")
    (note,) = found([list(range(25)), list(range(1, 26))])[1]
    assert "25 numbers to learn: y[0] (0 to 1), " in note
    assert note.count("(") == 20


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "t, row 1 has no number: column 'y' is empty there. Fill it in, or remove the row"),
        ("", "t, row 1 has no number: column 'y' is empty there"),
        ("tall", "t, row 1: expected 1 number in column 'y', got 'tall'"),
        ([1, 2], r"t, row 1: expected 1 number in column 'y', as many .* of train, got 2\."),
        (float("inf"), "t, row 1: inf in column 'y' is no number"),
        (float("nan"), "t, row 1: nan in column 'y' is no number"),
        (1e300, "t, row 1: inf in column 'y' is no number"),
    ],
)
def test_a_bad_number_is_named_with_its_row(value, message):
    with pytest.raises(ValueError, match=message):
        read([1.0, value, 2.0], kind="number")


def test_several_numbers_are_all_needed():
    with pytest.raises(ValueError, match=r"t, row 1: expected 2 numbers .* got 2 x 1\."):
        read([[1, 2], [[3], [4]]], kind="number")


def test_nothing_to_learn_is_refused():
    with pytest.raises(ValueError, match=r"Column 'y' of t: 'y\[1\]' is 2 in all rows, so there"):
        found([[0.5, 2], [1.5, 2]])
    with pytest.raises(ValueError, match=r"t holds no numbers in its 2 rows: there is nothing"):
        found([None, None], kind="number")
    with pytest.raises(ValueError, match=r"t holds no numbers in its 2 rows, such as 'a': there"):
        found(["a", "b"], kind="number")
    assert found([2.0, 2.0], kind="number", names=("y",))[0].names == ("y",)


def test_missing_cells():
    assert is_missing(None)
    assert is_missing("")
    assert not is_missing(-1)
    assert is_missing(-1, marks=("", -1))
    assert not is_missing([])
    assert not is_missing(np.zeros(2))


def test_moments_of_numbers():
    values = np.array([[1.0, 7.0], [3.0, 7.0]], dtype=np.float32)
    assert moments(values) == ((2.0, 7.0), (1.0, 1.0))


def test_a_reader_can_be_made_without_looking_at_values():
    reader = TargetEncoder("labels", ("a", "b"), "y", Field("other", names=("a", "b")))
    assert reader([1], "t").tolist() == [0, 1]


def test_many_whole_numbers_of_few_rows_may_be_a_quantity():
    values = [float(n) for n in range(40)] * 3
    hint = "If these numbers are a quantity, learn it with --target number."
    assert found(values, NUMBER)[1][1:] == (hint,)
    assert found(values * 4, NUMBER)[1][1:] == ()
    assert found(values, NUMBER, kind="class")[1][1:] == ()
    assert found([f"c{n}" for n in values], STRING)[1][1:] == ()
    assert found(values, NUMBER, names=("1", "2"))[1][1:] == ()
