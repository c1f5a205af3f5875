"""Windows of long series as rows: which steps are learned and predicted, held-out ends, and files that are series."""

import numpy as np
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.modalities.series.decode import read_series
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.series_parts import windows_of_series
from perceivers.recipes.resolve import split_for_task
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.series_vocabulary import SeriesVocabulary


def windows(data, *, length=16, horizon=4, held_out=True, **config):
    """Return the first and last value of each window of each split."""
    settings = DataConfig(target="nothing", series_files=True, **config)
    source = open_data(data, settings)
    task = NextTokenTaskConfig(modality="series", vocabulary=SeriesVocabulary(horizon=horizon))
    preprocess = {"series": SeriesPreprocessConfig(length=length, use_times=False)}
    found = split_for_task(source, task, preprocess, settings if held_out else None)
    name = found.inputs["series"].column

    def ends(split):
        parts = (read_series(split.row(n)[name])[0].values[:, 0] for n in range(len(split)))
        return [(int(part[0]), int(part[-1])) for part in parts]

    return {split: ends(rows) for split, rows in found.splits.items()}, found


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "one.csv"
    rows = [f"2020-01-{1 + n // 24:02d}T{n % 24:02d}:00,{n},{-n}" for n in range(100)]
    path.write_text("\n".join(["time,up,down", *rows]) + "\n")
    return path


def test_the_end_of_a_series_is_held_out(table):
    found, source = windows(table, validation_fraction=0.2)
    # the last 4 steps of the windows are all held-out steps, each once
    assert found["validation"] == [(68, 83), (72, 87), (76, 91), (80, 95), (84, 99)]
    assert found["train"][-1] == (62, 79)  # no held-out step
    assert found["train"][0] == (0, 5)  # short contexts, too
    assert all(last - first <= 17 for first, last in found["train"])
    assert "held out for validation" in source.notes[-1]
    name = source.inputs["series"].column
    row = source.splits["validation"].row(0)[name]
    assert row.name.endswith("one.csv from step 68")
    value = read_series(row)[0]
    assert value.names == ("up", "down")
    assert value.times is not None
    assert np.allclose(np.diff(value.times), 3600)


def test_other_data_are_predicted_as_a_whole(table):
    found, _ = windows(table, held_out=False)
    assert "validation" not in found
    folder = table.parent / "parts"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "a.csv").write_bytes(table.read_bytes())
    found, _ = windows(folder)
    assert found["test"][0] == (0, 3)
    assert [last for _, last in found["test"]] == list(range(3, 100, 4))


def test_of_many_series_some_are_held_out():
    rows = [{"series": np.arange(10.0) + 100 * n} for n in range(30)]
    found, source = windows({"series": [row["series"] for row in rows]}, validation_fraction=0.1)
    held = {first // 100 for first, _ in found["validation"]}
    assert len(held) == 3
    assert not held & {first // 100 for first, _ in found["train"]}
    assert source.splits["train"].column is not None


def test_a_series_shorter_than_the_horizon_is_one_window():
    found, _ = windows({"series": [np.arange(3.0)]}, held_out=False)
    assert found["train"] == [(0, 2)]
    found, _ = windows({"series": [np.arange(3.0)]})
    assert found == {"train": [(0, 1)], "validation": [(0, 2)]}


def test_rows_in_memory_are_steps():
    found, _ = windows({"time": list(range(40)), "value": list(range(40))}, held_out=False)
    assert found["train"][-1] == (22, 39)


def test_columns_of_lists_are_channels():
    data = {"x": [list(range(40))], "y": [list(range(40))]}
    _, source = windows(data, held_out=False)
    row = source.splits["train"].row(0)
    assert {"x", "y"} <= set(row)
    assert len(source.splits["train"].column("x")) == len(source.splits["train"])


def test_arrays_without_names_are_series():
    rows = [{"series": np.stack([np.arange(40.0), np.zeros(40)], axis=1)} for _ in range(2)]
    found, _ = windows(rows, held_out=False, columns={"series": "series"})
    assert found["train"][-1] == (22, 39)


def test_streams_are_refused():
    source = open_data({"series": [np.arange(9.0)]}, DataConfig(target="nothing"))
    object.__setattr__(source, "streams", {"train": None})
    with pytest.raises(ValueError, match="Leave --stream out"):
        windows_of_series(source, "series", length=4, step=1, fraction=0.1, hold_out=None)


def test_times_are_not_used_where_rows_are_steps():
    with pytest.raises(ValueError, match="need use_times=True"):
        SeriesPreprocessConfig(use_times=False, rate=2.0)
