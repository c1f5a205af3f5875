"""Made pairs: their flow is exact, they are the same every time, and they are written as FlyingChairs."""

import numpy as np
import pytest
from PIL import Image

from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.data.modalities.flow.synthetic import (
    synthetic_flow,
    synthetic_pair,
    synthetic_texture,
)
from perceivers.data.sources import synthetic_flow as moving
from perceivers.data.sources.open import open_data


def numbers(seed=0):
    return np.random.default_rng(seed)


def smooth(size=(40, 44)):
    """Return a picture of slow waves, between whose pixels an interpolation errs by little."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [128 + 100 * np.sin(y / 3 + k) * np.cos(x / 4 - k) for k in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def bilinear(pixels, y, x):
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    rows = [pixels[top + k, left] * (1 - dx) + pixels[top + k, left + 1] * dx for k in (0, 1)]
    return rows[0] * (1 - dy) + rows[1] * dy


def test_the_first_frame_is_the_second_looked_up_where_its_pixels_go():
    for seed in range(5):
        pair = synthetic_pair(numbers(seed), size=(20, 24), largest=3.0, image=smooth())
        y, x = np.mgrid[:20, :24]
        to_x, to_y = x + pair.flow[..., 0], y + pair.flow[..., 1]
        inside = (to_x >= 0) & (to_x < 23) & (to_y >= 0) & (to_y < 19)
        found = bilinear(pair.second.astype(float), to_y[inside], to_x[inside])
        assert np.abs(found - pair.first[inside]).max() < 6
        still = np.abs(pair.second.astype(float) - pair.first)[inside]
        assert still.mean() > 4 * np.abs(found - pair.first[inside]).mean()


def test_whole_pixels_are_moved_exactly(monkeypatch):
    flow = np.broadcast_to(np.float32([2, -1]), (10, 12, 2))
    monkeypatch.setattr("perceivers.data.modalities.flow.synthetic.synthetic_flow", lambda *_: flow)
    pair = synthetic_pair(numbers(), size=(10, 12), largest=3.0)
    assert (pair.first[1:, :-2] == pair.second[:-1, 2:]).all()


def test_no_pixel_moves_farther_than_allowed():
    lengths = [np.linalg.norm(synthetic_flow(numbers(s), (9, 7), 2.0), axis=-1) for s in range(50)]
    highest = np.array([length.max() for length in lengths])
    assert highest.max() <= 2.0 + 1e-5
    assert highest.min() >= 2.0 / 3 - 1e-5


def test_textures_are_colored_and_differ():
    one, other = synthetic_texture(numbers(1), (16, 20)), synthetic_texture(numbers(2), (16, 20))
    assert one.shape == (16, 20, 3)
    assert one.dtype == np.uint8
    assert one.std() > 5
    assert (one != other).any()


def test_a_picture_that_is_too_small_says_how_large_it_must_be():
    with pytest.raises(ValueError, match=r"at least 30 x 34 pixels for frames of 20 x 24 .* got 8"):
        synthetic_pair(numbers(), size=(20, 24), largest=3.0, image=smooth((8, 40)))


def test_moving_is_the_same_every_time_and_other_in_each_split():
    source = open_data("builtin:flow", DataConfig())
    assert list(source.splits) == ["train", "validation", "test"]
    rows = [source.splits[split].row(3) for split in ("train", "train", "test")]
    assert (rows[0]["flow"].value == rows[1]["flow"].value).all()
    assert (rows[0]["first"].array == rows[1]["first"].array).all()
    assert (rows[0]["first"].array != rows[2]["first"].array).any()
    assert source.target is None
    assert {name: part.kind for name, part in source.inputs.items()} == {
        "frame_pair": "frame_pair",
        "flow": "flow",
    }
    table = source.splits["train"]
    assert len(table.column("flow")) == len(table)
    assert table.column("label") == []
    assert table.num_bytes == 0
    assert list(table.keep({"flow": table.fields["flow"]}).row(0)) == ["flow"]


def test_a_folder_named_like_builtin_data_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moving.write_pairs(tmp_path / "flow", count=3, size=(8, 8), largest=1.0)
    assert len(open_data("flow", DataConfig()).splits["train"]) == 2


def pictures(folder, count=4, size=(40, 40)):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", size, (60 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_pictures_of_validation_are_others_than_those_of_train(tmp_path, capsys):
    photos = pictures(tmp_path / "photos")
    flags = ["--count", "20", "--size", "12", "16", "--largest", "2", "--validation", "0.25"]
    assert (
        main(["make-flow-data", "--out", str(tmp_path / "out"), "--images", str(photos), *flags])
        == 0
    )
    assert "20 pairs in" in capsys.readouterr().out
    source = open_data(tmp_path / "out", DataConfig())
    assert [len(part) for part in source.splits.values()] == [15, 5]
    colors = [
        {np.asarray(Image.open(table.row(i)["first"].path)).max() for i in range(len(table))}
        for table in source.splits.values()
    ]
    assert colors[0].isdisjoint(colors[1])


def test_what_has_no_meaning_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="at least two pairs of frames of at least 2 x 2"):
        moving.write_pairs(tmp_path / "a", count=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert main(["make-flow-data", "--out", str(tmp_path / "full")]) == 1
    assert "is not empty. Give a new folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"Expected images in the folder .* found 1"):
        moving.write_pairs(tmp_path / "b", count=3, images=pictures(tmp_path / "one", count=1))
    small = pictures(tmp_path / "small", size=(9, 9))
    with pytest.raises(ValueError, match=r"made pairs, row 0: Expected an image of at least"):
        moving.write_pairs(tmp_path / "c", count=3, images=small)
