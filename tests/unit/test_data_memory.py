from pathlib import Path
from types import SimpleNamespace

import pytest

from perceivers.data.formats.parquet import ParquetTable
from perceivers.data.tables import memory
from perceivers.data.tables.memory import available_memory, check_memory
from support.files import write_parquet
from support.image_data import cells


def test_there_is_memory():
    free = available_memory()
    assert free is None or free > 0


def test_data_that_do_not_fit_are_to_be_streamed(tmp_path, monkeypatch):
    table = ParquetTable(write_parquet(tmp_path / "a.parquet", cells(range(6))))
    monkeypatch.setattr(memory, "available_memory", lambda: table.num_bytes)
    with pytest.raises(ValueError, match=r"a\.parquet needs .* GiB .*Use --stream, which reads"):
        check_memory([table])
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * table.num_bytes)
    check_memory([table])
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_memory([table])


def files(monkeypatch, contents):
    def read_text(path, encoding):
        if path.name not in contents:
            raise FileNotFoundError(path)
        return contents[path.name]

    monkeypatch.setattr(Path, "read_text", read_text)


def test_what_the_system_says(monkeypatch):
    files(monkeypatch, {"meminfo": "MemTotal: 9 kB\nMemAvailable: 7 kB\n"})
    assert available_memory() == 7 * 1024


def test_a_container_may_have_less(monkeypatch):
    container = {
        "meminfo": "MemAvailable: 7 kB\n",
        "memory.max": "6000\n",
        "memory.current": "5000\n",
        "memory.stat": "anon 1000\ninactive_file 2500\n",
    }
    files(monkeypatch, container)
    assert available_memory() == 3500
    files(monkeypatch, {**container, "memory.stat": ""})
    assert available_memory() == 1000
    files(monkeypatch, {**container, "memory.max": "max\n"})
    assert available_memory() == 7 * 1024


def test_other_systems_say_how_much_there_is_or_nothing(monkeypatch):
    files(monkeypatch, {})
    monkeypatch.setattr(memory, "os", SimpleNamespace(sysconf=lambda name: 100))
    assert available_memory() == 10_000
    monkeypatch.setattr(memory, "os", SimpleNamespace())
    assert available_memory() is None
