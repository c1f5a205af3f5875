import numpy as np
import pytest
from PIL import Image
from runs import make_pictures

from perceivers.evaluation.items import samples_of


def names(items, modalities=("image",), **kwargs):
    return [sample.name for sample in samples_of(items, modalities, **kwargs)]


@pytest.fixture
def pictures(tmp_path):
    return make_pictures(tmp_path / "pictures", count=2)


def test_a_file_a_folder_and_a_glob_are_samples(pictures):
    every = [
        str(pictures / place)
        for place in ("dark/0.png", "dark/1.png", "light/0.png", "light/1.png")
    ]
    assert names(pictures / "dark" / "0.png") == every[:1]
    assert names(str(pictures)) == every
    assert names(str(pictures / "*" / "1.png")) == every[1::2]
    assert names([pictures / "light", str(pictures / "dark" / "0.png")]) == [*every[2:], every[0]]


def test_a_folder_leaves_out_what_is_no_picture(pictures):
    (pictures / "notes.txt").write_text("no picture")
    assert len(names(pictures)) == 4


def test_a_file_named_by_hand_is_never_left_out(tmp_path):
    path = tmp_path / "picture.dat"
    path.write_bytes(b"")
    assert names(path) == [str(path)]


def test_arrays_and_pictures_are_samples():
    array = np.zeros((4, 5, 3), dtype=np.uint8)
    assert names([array, Image.fromarray(array)]) == ["item 0", "item 1"]
    sample = next(samples_of(array, ["image"]))
    assert sample.media["image"].array.shape == (4, 5, 3)


def test_a_dict_holds_one_of_each_modality(pictures):
    left, right = pictures / "dark" / "0.png", pictures / "light" / "0.png"
    assert names({"left": left, "right": right}, ["left", "right"]) == [f"{left} + {right}"]
    array = np.zeros((4, 5), dtype=np.uint8)
    assert names([{"left": array, "right": array}], ["left", "right"]) == ["item 0"]


def test_a_dict_without_a_modality_is_refused():
    with pytest.raises(KeyError, match="with left, right; 'right' is missing in item 0"):
        names({"left": np.zeros((4, 5), dtype=np.uint8)}, ["left", "right"])


def test_one_thing_for_several_modalities_is_refused(pictures):
    with pytest.raises(TypeError, match="reads left, right together: give a dict"):
        names(pictures, ["left", "right"])


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file, folder or match for '.*nowhere\.png'"):
        names(tmp_path / "nowhere.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected pictures in the folder '.*empty'; found none"):
        names(tmp_path / "empty")


def test_errors_can_be_collected(pictures):
    failed = []
    items = ["nowhere.png", pictures / "dark"]
    found = names(items, on_error=lambda name, error: failed.append((name, str(error))))
    assert len(found) == 2
    assert failed == [("nowhere.png", "There is no file, folder or match for 'nowhere.png'.")]
