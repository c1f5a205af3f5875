import math

import numpy as np
import pytest

from perceivers.data.formats.delimited import detect_dialect, parse_list, text_rows
from perceivers.data.formats.files import read_files


def table(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_files([path])


def cells(path, content):
    found = table(path, content)
    return {name: found.column(name) for name in found.fields}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_detected(tmp_path, mark):
    content = f"text{mark}label\nhello, there; you{mark}a\nso it is{mark}b\n"
    if mark in ",;":
        content = content.replace("hello, there; you", '"hello, there; you"')
    assert cells(tmp_path / "a.csv", content) == {
        "text": ["hello, there; you", "so it is"],
        "label": ["a", "b"],
    }


def test_a_first_line_that_names_the_separator(tmp_path):
    found = table(tmp_path / "a.csv", "sep=;\na;b\n1,5;x\n2,5;y\n")
    assert found.column("a") == [1.5, 2.5]
    assert found.where(1).endswith("a.csv, line 4")


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("latin-1", "Windows-1252"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16")],
)
def test_other_encodings_are_detected_and_stated(tmp_path, encoding, name):
    found = table(tmp_path / "a.csv", "text,label\ncafé,a\nnaïve,b\n".encode(encoding))
    assert found.column("text") == ["café", "naïve"]
    (note,) = found.notes
    assert f"is not in UTF-8 and is read as {name}" in note
    assert table(tmp_path / "b.csv", "text\ncafé\n").notes == ()
    lines = '{"text": "café"}\n'.encode(encoding)
    assert table(tmp_path / "a.jsonl", lines).column("text") == ["café"]


def test_a_letter_in_another_encoding_far_down_is_read(tmp_path):
    content = (
        b"text,label\n"
        + (b"plain words " * 60 + b",a\n") * 1_500
        + "caf\u00e9,b\n".encode("latin-1")
    )
    assert len(content) > 1 << 20
    assert table(tmp_path / "a.csv", content).column("text")[-1] == "café"


def test_damaged_lines_are_bad_rows_and_reading_goes_on(tmp_path):
    content = 'text,label\n"not closed,a\nnext,b\nx,y,z\n"closed, here",c\nshort\nlast,d\n'
    found = table(tmp_path / "a.csv", content)
    assert found.column("text") == ["next", "closed, here", "last"]
    assert [found.where(n).rpartition(" ")[2] for n in range(3)] == ["3", "5", "7"]
    assert [name.rpartition(" ")[2] for name, _ in found.bad] == ["2", "4", "6"]
    assert "expected 2 cells (text, label), got 3. Cells with commas" in found.bad[1][1]


def test_bytes_of_another_encoding_in_utf8_are_a_bad_row(tmp_path):
    content = b"text,label\n\xff\xfe,a\n" + "für,b\n".encode() * 9
    found = table(tmp_path / "a.csv", content)
    assert len(found) == 9
    assert "line 2: column 'text' has bytes that are not in the encoding" in found.bad[0][1]


def test_quotes_in_tab_separated_text_are_letters(tmp_path):
    content = 'text\tlabel\n"hello there\ta\nhe said "so"\tb\n"two\tc\n'
    found = table(tmp_path / "a.tsv", content)
    assert found.column("text") == ['"hello there', 'he said "so"', '"two']
    assert "Quotes in" in found.notes[0]
    quoted = table(tmp_path / "b.tsv", 'text\tlabel\n"a\ttab"\ta\n"two\nlines"\tb\n')
    assert quoted.column("text") == ["a\ttab", "two\nlines"]
    assert quoted.notes == ()


def test_long_cells_and_columns_without_a_name(tmp_path):
    content = f"id,,label\n1,{'x' * 200_000},a\n2,y,b\n"
    assert list(cells(tmp_path / "a.csv", content)) == ["id", "column_2", "label"]
    assert cells(tmp_path / "b.csv", "a;b;\n1;2;\n3;4;\n") == {"a": [1, 3], "b": [2, 4]}


def test_one_column_may_hold_separators(tmp_path):
    assert cells(tmp_path / "a.csv", "text\nhello, there\n") == {"text": ["hello, there"]}


def test_column_types_follow_from_all_rows(tmp_path):
    rows = "".join(f",{n}\n" for n in range(300))
    found = table(tmp_path / "a.csv", f"file,x\n{rows}b.png,half\n")
    assert found.fields["file"].kind == "image"
    assert found.fields["x"].kind == "number"  # one of 301 cells is none
    assert found.row(300)["x"].name.endswith("a.csv, line 302")
    assert "1 are no numbers, such as 'half'" in found.fields["x"].statistics.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        '[{"a": 1, "b": "x"}, {"a": 2}]',
        '{"data": [{"a": 1, "b": "x"}, {"a": 2}]}',
        '{"a": [1, 2], "b": ["x", null]}',
        '{"a": 1, "b": "x"}\n{"a": 2}\n',
    ],
)
def test_json_files(tmp_path, content):
    assert cells(tmp_path / "a.json", content) == {"a": [1, 2], "b": ["x", None]}


@pytest.mark.parametrize("content", ["{", "3", '["a"]', '{"a": {"b": 1}}'])
def test_what_is_no_table_of_json_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"a\.json.*expected a list of objects like"):
        table(tmp_path / "a.json", content)


def test_rows_are_named_by_their_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"two\nlines",1\n\nx,2\n')
    assert [row.line for row in text_rows(path)] == [2, 5]
    assert detect_dialect(path).delimiter == ","


def test_columns_of_lists_of_numbers_are_lists(tmp_path):
    rows = ['"[1, 2.5, -3e2]",a,[1]', '"[]",b,[2]', ",c,[3]"]
    found = table(tmp_path / "a.csv", "values,label,note\n" + "\n".join(rows) + "\n")
    assert found.column("values") == [[1, 2.5, -300.0], [], None]
    assert found.fields["values"].kind == "array"
    assert found.column("note") == ["[1]", "[2]", "[3]"]  # no cell has several numbers
    assert next(iter(text_rows(tmp_path / "a.csv"))).cells == {
        "values": [1, 2.5, -300.0],
        "label": "a",
        "note": "[1]",
    }


def test_other_texts_in_a_column_of_lists_are_counted(tmp_path):
    content = 'values,label\n"[1, 2]",a\n"[3, 4]",b\nbroken,a\n'
    found = table(tmp_path / "a.csv", content)
    assert found.fields["values"].kind == "array"
    assert found.fields["values"].statistics.notes == (
        "Cells of 'values' that are no list of numbers: 1 of 3; their rows are left out.",
    )
    few = table(tmp_path / "b.csv", 'values,label\n"[1, 2]",a\nword,b\nword,a\n')
    assert few.column("values") == ["[1, 2]", "word", "word"]


def test_lists_as_numpy_prints_them():
    array = np.linspace(-1, 1, 30)
    assert np.allclose(parse_list(str(array)), array, atol=1e-7)
    matrix = np.arange(6.0).reshape(2, 3)
    assert parse_list(str(matrix)) == parse_list(str(matrix.tolist())) == matrix.tolist()
    missing = parse_list("[1, None, nan, null]")
    assert missing[0] == 1
    assert all(math.isnan(value) for value in missing[1:])


@pytest.mark.parametrize("text", ["[1, 2", "1, 2", "[a, b]", "[1, [2]]", "['1']", "[1 2 ... 9]"])
def test_other_texts_are_no_lists(text):
    assert parse_list(text) is None
