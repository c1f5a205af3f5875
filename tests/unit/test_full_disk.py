"""Outputs of commands on a full disk. tests/long/test_full_disk.py fills it at every file operation."""

import errno
import os

import pytest

from perceivers.data import base
from support.cli import run_command
from support.runs import make_finished_run, make_image_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    make_finished_run(folder / "run", data=make_image_folder(folder / "data", count=3))
    return folder


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("predict", "RUN", "IMAGE", "--format", "csv"), "p.csv"),
        (("evaluate", "RUN", "--format", "json"), "e.json"),
        (("explain", "RUN", "IMAGE"), "a.html"),
        (("explain", "RUN", "IMAGE"), "a.npz"),
        (("report", "RUN"), "r.html"),
    ],
)
def test_a_full_disk_leaves_the_earlier_output(folder, tmp_path, monkeypatch, command, name):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / name
    out.write_bytes(b"earlier")
    monkeypatch.setattr(base.os, "fsync", full)
    known = {"RUN": folder / "run", "IMAGE": folder / "data" / "dark" / "0.png"}
    status, _, err = run_command(*(known.get(word, word) for word in command), "--out", out)
    assert status == 1
    assert f"Could not write {out}: No space left on device. The previous file is unchanged." in err
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == [name]
