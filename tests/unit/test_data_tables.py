import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from perceivers.data.base import MapStyleSplit
from perceivers.data.tables.table import (
    ColumnTable,
    Concatenated,
    Field,
    Subset,
    Table,
    infer_field,
    plain,
)
from support.image_data import pixels, png


def table(name="t", **columns):
    return ColumnTable(name=name, columns=columns)


def test_rows_and_columns():
    made = table(image=[png(1), png(2)], label=np.array([3, 4]))
    assert isinstance(made, Table)
    assert isinstance(made, MapStyleSplit)
    assert len(made) == 2
    row = made.row(1)
    assert (row["image"].read(), row["label"]) == (png(2), 4)
    assert row["image"].name == made.where(1) == "t, row 1"
    assert made.column("label") == [3, 4]
    assert list(made.keep({"label": Field("number")}).row(0)) == ["label"]
    assert made.num_bytes == 0
    assert len(table()) == 0


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ([], Field("other")),
        ([None, float("nan")], Field("other")),
        ([1, 2.5, True], Field("number")),
        ([np.int64(3)], Field("number")),
        (["a", None, "b"], Field("string")),
        ([dt.date(2026, 1, 1)], Field("string")),
        (["a.png", Path("b.JPG")], Field("image", by_path=True)),
        (["a.png", "b.wav"], Field("string")),
        (["a.mp4"], Field("video", by_path=True)),
        (["long " * 40], Field("text")),
        (["two\nlines"], Field("text")),
        ([png(1)], Field("image")),
        ([b"?"], Field("other")),
        ([{"bytes": png(1), "path": None}], Field("image")),
        ([{"bytes": b"?", "path": "a.flac"}], Field("audio")),
        ([{"x": 1}], Field("other")),
        ([Image.new("L", (2, 2))], Field("image")),
        ([pixels(1)], Field("image")),
        ([np.zeros((4, 4))], Field("array", shape=(4, 4))),
        ([[1, 2, 3]], Field("array", shape=(3,))),
        ([1, "a"], Field("other")),
        ([object()], Field("other")),
    ],
)
def test_cells_tell_what_a_column_holds(cells, field):
    assert infer_field(cells) == field


def test_missing_cells_are_none_however_they_are_written():
    assert [plain(c) for c in (float("nan"), pd.NA, pd.NaT, None)] == [None] * 4
    assert [plain(c) for c in (np.float32(0.5), np.True_, "a", 1.5)] == [0.5, True, "a", 1.5]


def test_shards_are_one_table():
    whole = Concatenated([table("a", x=[1, 2]), table("b", x=[3]), table("c", x=[4, 5])])
    assert isinstance(whole, Table)
    assert len(whole) == 5
    assert [whole.row(i)["x"] for i in range(5)] == whole.column("x") == [1, 2, 3, 4, 5]
    assert [whole.where(i) for i in (1, 2, 3)] == ["a, row 1", "b, row 0", "c, row 0"]
    assert whole.name == "a and 2 more"
    assert whole.num_bytes == 0
    assert whole.keep({"x": Field("string")}).fields == {"x": Field("string")}
    assert Concatenated([table("a", x=[1])]).name == "a"


def test_shards_of_different_columns_are_refused():
    with pytest.raises(ValueError, match="b lacks the column 'x' that a has"):
        Concatenated([table("a", x=[1]), table("b", y=[1])])
    parts = [
        ColumnTable(name=n, columns={"x": [0]}, fields={"x": Field("number", names=(n,))})
        for n in "ab"
    ]
    with pytest.raises(ValueError, match="b and a give the classes of column 'x' different names"):
        Concatenated(parts)


def test_some_rows_of_a_table():
    some = Subset(table(x=[1, 2, 3]), [2, 0])
    assert isinstance(some, Table)
    assert len(some) == 2
    assert some.column("x") == [3, 1]
    assert some.row(0) == {"x": 3}
    assert some.where(0) == "t, row 2"
    assert (some.name, some.folder, some.num_bytes) == ("t", Path(), 0)
    assert some.fields == {"x": Field("number")}
    assert some.keep({"x": Field("string")}).fields == {"x": Field("string")}


def test_ragged_lists_and_lists_of_names_have_no_shape():
    assert infer_field([[[1], [2, 3]]]) == Field("array")
    assert infer_field([["a", "b"]]) == Field("array")
