import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.builtin import digits
from perceivers.data.sources.open import open_data
from support.runs import make_image_folder


def test_builtin_digits():
    assert open_data("builtin:digits", DataConfig()).form == digits().form
    names = list("0123456789")
    assert open_data("builtin:digits", DataConfig(), label_names=names).label_names[3] == "3"
    message = r"builtin:digits has the labels 0, 1, .*; the model was trained on cat, dog"
    with pytest.raises(ValueError, match=message):
        open_data("builtin:digits", DataConfig(), label_names=["cat", "dog"])


def test_a_folder_named_like_builtin_data_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_image_folder(tmp_path / "digits")
    assert open_data("digits", DataConfig()).label_names == ("dark", "light")
    assert open_data("builtin:digits", DataConfig()).form == digits().form


def test_an_unknown_name_suggests_the_nearest():
    message = r"no built-in data 'builtin:digit'\. Did you mean 'builtin:digits'\? .* builtin:flow"
    with pytest.raises(ValueError, match=message):
        open_data("builtin:digit", DataConfig())


def test_opened_data_are_returned_unchanged():
    source = digits()
    assert open_data(source, DataConfig()) is source
