"""Tables as people have them: short texts, plain numbers, labels that are missing or only in test."""

import json

import datasets
import numpy as np
import pandas as pd
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.samples import samples_of
from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation.predict import modality_names
from perceivers.recipes.overrides import override_data
from perceivers.recipes.resolve import resolve
from support.files import write_csv, write_wav
from support.image_data import write_png

REVIEWS = ["Good.", "so very dull", "what a fine evening", "never again, please"]


def write_tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def reviews(count=40):
    return [("text", "label"), *((f"{REVIEWS[n % 4]} {n}", "ab"[n % 2]) for n in range(count))]


@pytest.mark.parametrize("config", [DataConfig(), DataConfig(stream=True)])
def test_short_texts_in_split_files_are_text(tmp_path, config):
    for split in ("train", "dev", "test"):
        write_tsv(tmp_path / f"{split}.tsv", reviews())
    source = open_data(tmp_path, config)
    assert source.form == "TSV, split into train, validation and test"
    assert {name: part.kind for name, part in source.inputs.items()} == {"text": "text"}
    assert source.label_names == ("a", "b")
    assert "Short texts are read as text: text." in source.notes


def test_texts_come_before_numbers_and_row_numbers_are_never_read(tmp_path):
    rows = [
        {"id": n, "text": f"{REVIEWS[n % 4]} {n}", "stars": n % 5, "label": "ab"[n % 2]}
        for n in range(40)
    ]
    source = open_data(write_csv(tmp_path / "a.csv", rows), DataConfig())
    assert list(source.inputs) == ["text"]
    assert "Ignored, as they number the rows: id." in source.notes
    assert source.ignored == ("id", "stars")


def test_single_words_are_text_where_nothing_else_could_be_an_input(tmp_path):
    rows = [{"name": f"name{n}", "label": "ab"[n % 2]} for n in range(40)]
    source = open_data(write_csv(tmp_path / "a.csv", rows), DataConfig())
    assert source.inputs["text"].column == "name"


def wine(path, count=40, **more):
    rows = [
        {"": n, "acid": n * 0.1, "kind": "rw"[n % 2], "code": f"x{n}", "quality": n % 3, **more}
        for n in range(count)
    ]
    return write_csv(path, rows)


def test_a_plain_table_is_read_once_the_label_is_known(tmp_path):
    path = wine(tmp_path / "wine.csv")
    with pytest.raises(
        ValueError, match=r"Name the column to learn with --label, such as --label q"
    ):
        open_data(path, DataConfig())
    source = open_data(path, DataConfig(label="quality"))
    part = source.inputs["table"]
    assert dict(zip(part.columns, part.kinds, strict=True)) == {
        "acid": "number",
        "kind": "category",
    }
    assert "Ignored, as they number the rows: column_1." in source.notes


@pytest.mark.parametrize(
    ("columns", "kinds"),
    [
        ({"*": "auto"}, {"acid": "number", "kind": "category"}),
        ({"*": "number", "kind": "category", "code": "category"}, None),
        ({"acid": "auto"}, {"acid": "number"}),
    ],
)
def test_all_columns_are_named_by_a_star(tmp_path, columns, kinds):
    path = wine(tmp_path / "wine.csv")
    part = open_data(path, DataConfig(label="quality", columns=columns)).inputs["table"]
    found = dict(zip(part.columns, part.kinds, strict=True))
    assert found == (
        kinds or {"kind": "category", "code": "category", "column_1": "number", "acid": "number"}
    )


def test_declared_codes_stay_categories(tmp_path):
    rows = [{"age": 20 + n % 9, "zone": n % 3 + 1, "label": "ab"[n % 2]} for n in range(40)]
    path = write_csv(tmp_path / "a.csv", rows)
    config = {"columns": {"age": "number", "zone": "category"}, "max_steps": 1}
    table = resolve(path, overrides=config).preprocess["table"]
    assert table.numbers == ("age",)
    assert table.categories == {"zone": ("1", "2", "3")}


def test_declared_numbers_name_the_cell_that_is_none(tmp_path):
    rows = [{"a": "0,5" if n else "abc", "label": "ab"[n % 2]} for n in range(8)]
    path = write_csv(tmp_path / "a.csv", rows)
    source = open_data(path, DataConfig(columns={"a": "number"}))
    split = source.splits["train"]
    assert split.row(1)["a"] == 0.5
    assert split.row(0)["a"].name.endswith("a.csv, line 2")


def test_columns_of_any_name_have_identifiers(tmp_path):
    for n in range(4):
        write_png(tmp_path / f"{n}.png", n)
    names = ("img.left", "Front view", "class", "keys", "2nd", "a,b")
    rows = [{**dict.fromkeys(names, f"{n}.png"), "label": "ab"[n % 2]} for n in range(4)]
    source = open_data(write_csv(tmp_path / "a.csv", rows), DataConfig())
    assert list(source.inputs) == [
        "img_left",
        "Front_view",
        "class_",
        "keys_",
        "column_2nd",
        "a_b",
    ]
    assert "img.left (images, named img_left)" in source.notes[1]
    part = open_data(
        tmp_path / "a.csv", DataConfig(columns={"a": "auto", "b": "image", "img.left": "image"})
    )
    assert [one.column for one in part.inputs.values()] == ["a,b", "img.left"]


def test_a_column_that_is_empty_at_first_is_an_input(tmp_path):
    write_png(tmp_path / "1.png", 1)
    write_wav(tmp_path / "1.wav", np.zeros(400))
    rows = [
        {"photo": "1.png", "sound": "1.wav" if n > 120 else "", "label": n % 2} for n in range(150)
    ]
    for suffix in ("csv", "jsonl"):
        path = tmp_path / f"a.{suffix}"
        if suffix == "csv":
            write_csv(path, rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for stream in (False, True):
            source = open_data(path, DataConfig(stream=stream))
            assert sorted(source.inputs) == ["audio", "image"]


def test_a_class_only_in_test_is_stated_and_not_counted(tmp_path):
    write_tsv(tmp_path / "train.tsv", reviews())
    write_tsv(tmp_path / "test.tsv", [*reviews(), ("what is it", "c"), ("who knows", "c")])
    source = open_data(tmp_path, DataConfig())
    assert len(source.splits["test"]) == 40
    (note,) = [note for note in source.notes if note.startswith("Skipped")]
    assert note == (
        "Skipped: 2 of 42 rows of test have a label that is not in the training data and cannot be learned: 'c' (2). "
        "Metrics do not count them."
    )
    streamed = open_data(tmp_path, DataConfig(stream=True))
    assert any("cannot be learned" in note and "'c' (2)" in note for note in streamed.notes)
    assert len(list(streamed.streams["test"])) == 40


def test_streams_go_on_after_a_damaged_line_and_know_all_classes(tmp_path):
    lines = [
        json.dumps({"text": f"{REVIEWS[n % 4]} {n}", "label": "abc"[n // 50]}) for n in range(150)
    ]
    lines[70] = '{"text": '
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + "\n")
    source = open_data(path, DataConfig(stream=True))
    stream = source.streams["train"]
    assert source.label_names == ("a", "b", "c")
    assert stream.num_rows == 150
    assert len(list(stream)) == 149
    ((where, reason),) = stream.take_damage()
    assert where == f"{path}, line 71"
    assert "is not JSON" in reason


def test_columns_of_zeros_and_ones_are_labels_of_one_task(tmp_path):
    rows = [
        {"text": f"{REVIEWS[n % 4]} {n}", "toxic": n % 2, "rude": n % 3 == 0, "mild": ""}
        for n in range(30)
    ]
    for row in rows:
        row["rude"] = int(row["rude"])
    path = write_csv(tmp_path / "a.csv", rows)
    config = DataConfig(label="toxic,rude", target="labels")
    source = open_data(path, config)
    assert (source.target_kind, source.label_names) == ("labels", ("toxic", "rude"))
    assert np.asarray(source.targets("train")[:3]).tolist() == [[0, 1], [1, 0], [0, 0]]
    rows[4]["rude"] = 2
    write_csv(path, rows)
    with pytest.raises(ValueError, match=r"line 6, column 'rude': .* expects 0 or 1 .*, got 2"):
        open_data(path, config)


def test_too_many_damaged_lines_are_refused(tmp_path):
    rows = [f"{text}\t{label}" for text, label in reviews()]
    path = tmp_path / "a.tsv"
    path.write_text("\n".join([*rows, "one", "two"]))
    with pytest.raises(ValueError, match=r"2 of 42 rows \(4\.8%\) cannot be read.*--max-bad 0\.05"):
        open_data(path, DataConfig())
    source = open_data(path, DataConfig(max_bad=0.1))
    assert any(note.startswith("Skipped: 2 rows that cannot be read.") for note in source.notes)


@pytest.mark.parametrize("suffix", [None, ".png", "png"])
def test_ids_without_suffix_beside_a_folder_of_files(tmp_path, suffix):
    for n in range(6):
        write_png(tmp_path / "files" / f"{n:03d}.png", n)
    rows = [{"key": f"{n:03d}", "x": n * 1.5, "label": "ab"[n % 2]} for n in range(6)]
    path = write_csv(tmp_path / "a.csv", rows)
    source = open_data(path, DataConfig(files="files", suffix=suffix))
    assert source.inputs["image"].column == "key"
    assert source.splits["train"].row(3)["key"].path == tmp_path / "files" / "003.png"
    with pytest.raises(ValueError, match=r"No column of .* names files .* looked for '000\.jpg'"):
        open_data(path, DataConfig(files="files", suffix=".jpg"))
    with pytest.raises(ValueError, match=r"--suffix expects a suffix of files that are read"):
        open_data(path, DataConfig(files="files", suffix=".what"))


TEXTS = {"text": InputColumn("text", "text")}
MIXED = {
    "image": InputColumn("photo", "image"),
    "table": InputColumn("age", "table", ("age", "zone"), ("number", "category")),
}


def rows_in_memory(count=20):
    return [{"text": f"{REVIEWS[n % 4]} {n}", "label": "ab"[n % 2]} for n in range(count)]


def in_memory(kind):
    rows = rows_in_memory()
    if kind == "list":
        return rows
    if kind == "dict":
        return {name: [row[name] for row in rows] for name in rows[0]}
    if kind == "frame":
        return pd.DataFrame(rows)
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("kind", ["list", "dict", "frame", "dataset"])
def test_tables_in_memory_are_learned_from(kind):
    source = open_data(in_memory(kind), DataConfig())
    assert (list(source.inputs), source.label_names) == (["text"], ("a", "b"))
    assert len(source.splits["train"]) == 20


@pytest.mark.parametrize("kind", ["list", "frame", "series", "row", "dataset"])
def test_tables_in_memory_are_predicted(kind):
    rows = rows_in_memory()
    items = {
        "series": lambda: pd.DataFrame(rows)["text"],
        "row": lambda: pd.DataFrame(rows).iloc[0],
    }.get(kind, lambda: in_memory(kind))()
    found = [sample.row["text"].value for sample in samples_of(items, TEXTS)]
    assert found == [row["text"] for row in rows[: 1 if kind == "row" else None]]


def test_further_keys_of_a_row_are_ignored_unless_they_are_misspelled():
    (sample,) = samples_of({"photo": "a.png", "zone": 1, "age": 3, "label": "x"}, MIXED)
    assert set(sample.row) == {"photo", "age", "zone"}
    (sample,) = samples_of({"image": "a.png", "label": "x"}, MIXED)
    assert sample.row["age"] is None
    with pytest.raises(KeyError, match="'aeg' in item 0"):
        list(samples_of({"photo": "a.png", "aeg": 3}, MIXED))
    with pytest.raises(KeyError, match="'label' in item 0"):
        list(samples_of({"label": "x"}, MIXED))


def test_duplicate_and_numbered_columns_of_a_frame():
    frame = pd.DataFrame(rows_in_memory())
    twice = pd.concat([frame, frame[["label"]]], axis=1)
    for read in (lambda data: open_data(data, DataConfig()), lambda d: list(samples_of(d, TEXTS))):
        with pytest.raises(ValueError, match=r"several columns of the name 'label'\. Rename"):
            read(twice)
    numbered = frame.rename(columns={"label": 0, "text": 1})
    config = override_data(DataConfig(), {"label": 0, "columns": {1: "text"}})
    assert open_data(numbered, config).label_names == ("a", "b")
    assert override_data(DataConfig(), {"label": ["a", 1]}).label == "a,1"


@pytest.mark.parametrize("data", [[{"a": 1}, 3], {"a": [1], "b": [1, 2]}, {"a": "text"}, {}, 3])
def test_other_objects_are_refused(data):
    with pytest.raises((TypeError, ValueError), match="Expected a"):
        open_data(data, DataConfig())


def test_damaged_lines_of_a_table_to_predict_are_errors_of_their_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood,a\nx,y,z\nbad,b\n")
    errors = {}
    found = samples_of(path, TEXTS, on_error=lambda name, error: errors.update({name: str(error)}))
    assert [sample.row["text"].value for sample in found] == ["good", "bad"]
    assert list(errors) == [f"{path}, line 3"]
    with pytest.raises(ValueError, match="line 3: expected 2 cells"):
        list(samples_of(path, TEXTS))


def test_addresses_are_predicted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood,a\nbad,b\n")
    found = list(samples_of(f"file://{path}", TEXTS))
    assert [sample.row["text"].value for sample in found] == ["good", "bad"]
    write_png(tmp_path / "1.png", 1)
    (sample,) = samples_of(f"file://{tmp_path}/1.png", {"image": InputColumn("image", "image")})
    assert sample.row["image"].read() == (tmp_path / "1.png").read_bytes()


def test_the_spelling_of_numbers_is_stated_once(tmp_path):
    rows = "".join(f"{n},5;1.{n:03d},25;{'ab'[n % 2]}\n" for n in range(9))
    (tmp_path / "a.csv").write_text(f"x;y;label\n{rows}")
    source = open_data(tmp_path / "a.csv", DataConfig())
    assert source.splits["train"].row(3)["y"] == 1003.25
    found = [note for note in source.notes if note.startswith("Numbers are read")]
    assert found == [
        "Numbers are read as '0,5' = 0.5: x.",
        "Numbers are read as '1.000,25' = 1000.25: y.",
    ]


def test_modalities_may_be_named_by_their_column():
    assert modality_names(["photo", "table", "age", "what"], MIXED) == [
        "image",
        "table",
        "age",
        "what",
    ]


def test_classes_spelled_like_missing_values_are_named(tmp_path):
    rows = "".join(f"{n},{('yes', 'no', 'NA', 'nan')[n % 4]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text("x,label\n" + rows)
    config = DataConfig(label="label", columns={"x": "number"})
    notes = open_data(str(tmp_path / "t.csv"), config).notes
    assert any("spelled like missing values: NA, nan." in note for note in notes)
