import pickle

import numpy as np
import pytest

from perceivers.data.formats.parquet import ParquetTable, field_of_feature
from perceivers.data.tables.table import Field
from support.files import write_parquet
from support.image_data import FEATURES, cells, png


def test_features_tell_what_columns_hold(tmp_path):
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", cells(range(6)), FEATURES))
    assert table.fields == {
        "image": Field("image"),
        "label": Field("number", names=("cat", "dog", "eel")),
    }
    assert len(table) == 6
    assert table.row(5)["image"].read() == png(5)
    assert table.row(5)["image"].name == f"{table.where(5)} (5.png)"


def test_without_features_the_first_cells_tell(tmp_path):
    columns = {
        "image": [png(1)],
        "file": ["a.png"],
        "label": ["a"],
        "numbers": [[1, 2]],
        "empty": [None],
    }
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", columns))
    assert list(table.fields.values()) == [
        Field("image"),
        Field("image", by_path=True),
        Field("string"),
        Field("array", shape=(2,)),
        Field("other"),
    ]
    none = ParquetTable(write_parquet(tmp_path / "b.parquet", {"x": []}))
    assert none.fields == {"x": Field("other")}
    assert len(none) == 0


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        ({"_type": "Image"}, Field("image")),
        ({"_type": "Audio", "sampling_rate": 8000}, Field("audio")),
        ({"_type": "Sequence", "feature": {}}, None),
        ({"_type": "Value", "dtype": "int8"}, Field("number")),
        ({"_type": "Value", "dtype": "string"}, None),
        ([{"_type": "Image"}], None),
        (None, None),
    ],
)
def test_features(feature, field):
    assert field_of_feature(feature) == field


def test_labels_are_read_without_media(tmp_path, monkeypatch):
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", cells(range(6)), FEATURES))
    assert table.column("label") == [0, 1, 2, 0, 1, 2]
    assert table._cells is None


def test_a_copy_for_another_process_is_small(tmp_path):
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", cells(range(400)), FEATURES))
    table.row(0)
    copy = pickle.dumps(table)
    assert len(copy) < 2000 < table.num_bytes
    assert pickle.loads(copy).row(3)["label"] == 0


def test_only_kept_columns_count(tmp_path):
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", cells(range(6)), FEATURES))
    labels = table.keep({"label": table.fields["label"]})
    assert labels.row(1) == {"label": 1}
    assert labels.num_bytes < table.num_bytes


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_corrupt_file_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: .* cut off"):
        ParquetTable(tmp_path / "a.parquet")


def test_a_file_cut_off_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(6)), FEATURES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        ParquetTable(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.parquet"):
        ParquetTable(tmp_path / "a.parquet")


def test_damage_inside_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": [png(i) for i in range(6)]})
    table = ParquetTable(path)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        table.row(0)
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        table.column("image")


def test_lists_come_as_arrays_unless_values_are_missing(tmp_path):
    columns = {"x": [[1.0, 2.0], [3.0, None], None], "label": [0, 1, 0]}
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", columns))
    whole, holey, empty = (table.row(index)["x"] for index in range(3))
    assert isinstance(whole.value, np.ndarray)
    assert whole.value.tolist() == [1.0, 2.0]
    assert holey.value == [3.0, None]
    assert empty.is_missing


def test_lists_of_classes_know_their_names():
    feature = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["a", "b"]}}
    assert field_of_feature(feature) == Field("array", names=("a", "b"))
