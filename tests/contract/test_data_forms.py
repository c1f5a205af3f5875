"""The same pictures in every form give the same records. A new form is tested by being listed."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from support.image_data import CLASSES, FORMS, SPLITS, STREAMED, WITH_SPLIT_COLUMN, label, pixels

EXPECTED = {
    split: sorted((pixels(n).tobytes(), label(n)) for n in numbers)
    for split, numbers in SPLITS.items()
}


def content(row, column):
    media = row[column]
    array = media.array
    if array is None:
        array = np.asarray(Image.open(io.BytesIO(media.read())))
    return array.tobytes(), row["label"]


def opened(form, folder, **config):
    column = "split" if form in WITH_SPLIT_COLUMN else None
    data = FORMS[form](folder / "data")
    return open_data(data, DataConfig(split_column=column, **config))


@pytest.mark.parametrize("form", FORMS)
class TestEveryForm:
    def test_gives_the_same_records(self, form, tmp_path):
        source = opened(form, tmp_path)
        assert source.label_names == CLASSES
        assert list(source.inputs) == ["image"]
        assert source.target == "label"
        assert list(source.splits) == ["train", "test"]
        column = source.inputs["image"].column
        for split, expected in EXPECTED.items():
            records = source.splits[split]
            rows = [content(records.row(i), column) for i in range(len(records))]
            assert sorted(rows) == expected
            assert source.targets(split) == [target for _, target in rows]

    def test_is_sent_to_another_process(self, form, tmp_path):
        source = with_validation(opened(form, tmp_path), DataConfig(validation_fraction=0.3))
        column = source.inputs["image"].column
        for records in source.splits.values():
            copy = pickle.loads(pickle.dumps(records))
            assert content(copy.row(0), column) == content(records.row(0), column)

    def test_says_what_it_saw(self, form, tmp_path):
        source = opened(form, tmp_path)
        assert source.notes[0].startswith(f"Recognized {source.form}: train 9 rows, test 3 rows")
        assert "3 classes: cat, dog, eel." in source.notes

    def test_knows_the_classes_of_a_trained_model(self, form, tmp_path):
        names = ("ant", *reversed(CLASSES))
        column = "split" if form in WITH_SPLIT_COLUMN else None
        data = FORMS[form](tmp_path / "data")
        source = open_data(data, DataConfig(split_column=column), label_names=names)
        assert source.label_names == names
        rows = {names[target] for target in source.targets("test")}
        assert rows == set(CLASSES)


@pytest.mark.parametrize("form", STREAMED)
def test_streams_give_the_same_records(form, tmp_path):
    source = opened(form, tmp_path, stream=True)
    assert source.label_names == CLASSES
    assert source.splits == {}
    column = source.inputs["image"].column
    for split, expected in EXPECTED.items():
        assert sorted(content(row, column) for row in source.streams[split]) == expected
