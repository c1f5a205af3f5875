"""Recordings as loggers and spreadsheets write them."""

import numpy as np
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.decode import read_series
from perceivers.recipes.resolve import resolve


def read(text):
    data = text if isinstance(text, bytes) else text.encode()
    return read_series(EncodedItem("a.csv", data=data))


@pytest.mark.parametrize(
    ("cells", "times"),
    [
        (("12:30:01.250", "12:30:01.750", "12:30:02"), [0, 0.5, 0.75]),
        (("23:59:59.5", "00:00:00.5", "00:00:01"), [0, 1, 1.5]),
        (("5/31/2024 11:59 AM", "5/31/2024 12:00 PM", "6/1/2024 12:00 PM"), [0, 60, 86_460]),
        (("31.05.2024 12:00:00", "01.06.2024 12:00:00,5"), [0, 86_400.5]),
        (("31/05/2024 12:00:00", "01/06/2024 12:00:00"), [0, 86_400]),
        (("2024-05-31T12:00:00.000", "2024-05-31T12:00:00.250"), [0, 0.25]),
    ],
)
def test_time_stamps(cells, times):
    rows = "".join(f"{cell};{n}\n" for n, cell in enumerate(cells))
    series, _ = read(f"time;x\n{rows}")
    assert series.times.tolist() == pytest.approx(times)
    assert series.values[:, 0].tolist() == list(range(len(cells)))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("t,x,y\ns,m/s^2,g\n0,1,2\n1,3,4\n", "a row of units left out"),
        ("t,x,y\n[s],[m],\n0,1,2\n1,3,4\n", "a row of units left out"),
        ("# logger 3\n# made today\nt,x,y\n0,1,2\n1,3,4\n", "comments left out"),
        ("# t,x,y\n0,1,2\n1,3,4\n", "comments left out"),
        ("t, x, y\n 0, 1, 2\n 1, 3, 4\n", None),
        ("t  x   y\n0  1   2\n1  3   4\n", None),
        ("t|x|y\n0|1|2\n1|3|4\n", None),
        ("t;x;y\n0;1,0;2,0\n1;3,0;4,0\n", None),
        ("t,x,y\n0,1,2\n1,3,4\n".encode("utf-16"), "read as UTF-16"),
    ],
)
def test_headers_comments_and_separators(text, note):
    series, notes = read(text)
    assert series.names == ("x", "y")
    assert series.values.tolist() == [[1, 2], [3, 4]]
    assert notes == ((note,) if note else ())


def test_a_name_that_is_not_utf8_is_read():
    series, notes = read("t,temp_°C\n0,1\n1,2\n".encode("latin-1"))
    assert series.names == ("temp_°C",)
    assert notes == ("read as Windows-1252",)


def test_a_date_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"'time': expected numbers or dates .* got '40/40/2024'"):
        read("time,x\n40/40/2024,1\n1/1/2024,2\n")


def folder_of_recordings(folder, leak):
    rng = np.random.default_rng(0)
    for n in range(12):
        place = folder / "ab"[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{x:.4f},{n % 2 if leak else 7}\n" for x in rng.normal(size=20))
        (place / f"{n}.csv").write_text(f"acc,code\n{rows}")
    return folder


@pytest.mark.parametrize("leak", [True, False])
def test_channels_are_stated_and_one_that_equals_the_label_is_flagged(tmp_path, leak):
    folder_of_recordings(tmp_path, leak)
    run = resolve(tmp_path, overrides={"max_steps": 1})
    assert "Channels of series: acc, code." in run.data.notes
    warnings = [note for note in run.data.notes if note.startswith("Warning: 'code' of series")]
    assert bool(warnings) == leak


def test_a_column_of_a_table_that_equals_the_label_is_flagged(tmp_path):
    rows = "".join(f"{n % 7},{'xy'[n % 2]},{'ab'[n % 2]}\n" for n in range(40))
    (tmp_path / "a.csv").write_text(f"age,code,label\n{rows}")
    run = resolve(tmp_path / "a.csv", overrides={"max_steps": 1})
    assert any(note.startswith("Warning: 'code' of table") for note in run.data.notes)
    assert not any("'age' of table" in note for note in run.data.notes)
    assert DataConfig().files is None
