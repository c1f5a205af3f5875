import datasets
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.formats import huggingface
from perceivers.data.formats.huggingface import (
    HuggingFaceTable,
    is_dataset,
    load_hub_dataset,
    load_saved_dataset,
    select_splits,
)
from perceivers.data.sources.open import open_data
from perceivers.data.tables.table import Field, Table
from support.image_data import CLASSES, SPLITS, dataset_dict, png, write_png


def test_rows_stay_encoded():
    table = HuggingFaceTable(dataset_dict()["train"], "birds")
    assert isinstance(table, Table)
    assert table.fields == {"image": Field("image"), "label": Field("number", names=CLASSES)}
    assert table.row(4)["image"].read() == png(4)
    assert table.row(4)["label"] == 1
    assert table.where(4) == "birds, row 4"
    assert table.keep({"label": Field("number")}).row(4) == {"label": 1}


def test_selected_rows_and_formats_are_honoured():
    dataset = dataset_dict()["train"].select([5, 1]).with_format("numpy")
    table = HuggingFaceTable(dataset, "birds")
    assert table.column("label") == [2, 1]
    assert table.row(0)["image"].read() == png(5)


def test_strings_are_told_by_their_cells(tmp_path):
    path = str(write_png(tmp_path / "1.png", 1))
    dataset = datasets.Dataset.from_dict({"file": [path], "who": ["me"], "x": [0.5]})
    table = HuggingFaceTable(dataset, "birds")
    assert table.fields == {
        "file": Field("image", by_path=True),
        "who": Field("string"),
        "x": Field("number"),
    }
    assert table.row(0)["file"].read() == png(1)


def test_splits_by_their_names():
    splits, notes = select_splits({"test": 1, "dev": 2, "train": 3, "unsupervised": 4}, "birds")
    assert list(splits.items()) == [("train", 3), ("validation", 2), ("test", 1)]
    assert notes == ["Left out (splits that are neither train, validation nor test): unsupervised."]
    assert select_splits({"all": 1}, "birds") == ({"train": 1}, [])
    with pytest.raises(ValueError, match="birds has two splits for validation"):
        select_splits({"val": 1, "valid": 2}, "birds")
    with pytest.raises(ValueError, match="no split called train, validation or test; it has a, b"):
        select_splits({"a": 1, "b": 2}, "birds")


def test_objects_of_the_library_are_known():
    assert is_dataset(dataset_dict())
    assert is_dataset(dataset_dict()["train"])
    assert not is_dataset({})


def test_a_saved_data_set(tmp_path):
    dataset_dict()["train"].save_to_disk(str(tmp_path / "one"))
    source = open_data(tmp_path / "one", DataConfig())
    assert source.form == "a saved Hugging Face data set"
    assert len(source.splits["train"]) == 9
    dataset_dict().save_to_disk(str(tmp_path / "two"))
    source = open_data(tmp_path / "two", DataConfig())
    assert source.form == "a saved Hugging Face data set, split into train and test"


def test_a_saved_data_set_that_is_damaged_is_named(tmp_path):
    dataset_dict()["train"].save_to_disk(str(tmp_path / "one"))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="looks like a saved Hugging Face data set, but cannot be"):
        load_saved_dataset(tmp_path / "one")


class Library:
    """Stands in for `datasets`, whose hub tests do not ask."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = None

    def __getattr__(self, name):
        return getattr(datasets, name)

    def load_dataset(self, *names, streaming):
        self.asked = (*names, streaming)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(monkeypatch):
    def answer(with_):
        library = Library(with_)
        monkeypatch.setattr(huggingface, "require", lambda module, extra: library)
        return library

    return answer


def test_a_hub_id_is_loaded(hub):
    library = hub(dataset_dict())
    source = open_data("owner/birds:small", DataConfig())
    assert library.asked == ("owner/birds", "small", False)
    assert source.form == "a data set of the Hugging Face hub"
    assert {split: len(records) for split, records in source.splits.items()} == {
        split: len(numbers) for split, numbers in SPLITS.items()
    }
    assert source.splits["test"].base.where(0) == "owner/birds:small (test), row 0"


def test_a_hub_id_is_streamed(hub):
    whole = dataset_dict()
    library = hub(
        datasets.IterableDatasetDict(
            {split: data.to_iterable_dataset(num_shards=2) for split, data in whole.items()}
        )
    )
    source = open_data("owner/birds", DataConfig(stream=True))
    assert library.asked == ("owner/birds", True)
    assert len(source.streams["train"].shards) == 2
    assert sorted(row["label"] for row in source.streams["train"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_hub_that_does_not_answer_is_told_from_a_missing_path(hub):
    hub(ConnectionError("no network\n  here"))
    with pytest.raises(
        ValueError, match=r"'birds' is no path that exists here, and the .* name: no network here"
    ):
        load_hub_dataset("birds", stream=False)
