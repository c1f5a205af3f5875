import pytest
from runs import make_pictures

from perceivers.data.base import DataConfig
from perceivers.data.sources.builtin import open_named
from perceivers.data.sources.digits import digits


def test_digits_are_the_embedded_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_named("digits", DataConfig()).form == digits().form
    assert open_named("digits", DataConfig(), label_names=list("0123456789")).label_names[3] == "3"
    with pytest.raises(ValueError, match=r"have the labels 0, 1, .*; the run learned cat, dog"):
        open_named("digits", DataConfig(), label_names=["cat", "dog"])


def test_a_path_of_this_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "digits")
    assert open_named("digits", DataConfig()).label_names == ("dark", "light")


def test_what_is_open_stays_open():
    source = digits()
    assert open_named(source, DataConfig()) is source
