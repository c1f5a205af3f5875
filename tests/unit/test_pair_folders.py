"""Published layouts of pairs with flow are recognized, and what they lack is said."""

import numpy as np
import pytest
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleTransform
from perceivers.data.modalities.flow.modality import FlowPreprocessConfig, FramePairPreprocessConfig
from perceivers.data.sources.flow_datasets import find_flow_layout, list_frame_pairs
from perceivers.data.sources.open import open_data
from perceivers.data.sources.write_shards import write_shards
from support import flow_data

PREPROCESS = {
    "frame_pair": FramePairPreprocessConfig(size=(12, 16)),
    "flow": FlowPreprocessConfig(size=(12, 16)),
}


def read(source, split="train", index=0):
    reader = SampleTransform(
        source.inputs, PREPROCESS, None, LoaderSettings(target_modalities=("flow",))
    )
    return reader.decode(source.splits[split].row(index))[0]


def names(pairs):
    return [(pair.first.name, pair.second.name, pair.flow and pair.flow.name) for pair in pairs]


def test_flying_chairs(tmp_path):
    source = open_data(flow_data.make_chairs(tmp_path), DataConfig())
    assert "as FlyingChairs keeps them: train 4 rows" in source.notes[0]
    assert source.inputs["frame_pair"].all_columns == ("first", "second")
    assert source.target is None
    values = read(source, index=2)
    made = flow_data.pair(2)
    assert (values["frame_pair"] == np.stack([made.first, made.second])).all()
    assert (values["flow"][..., :2] == made.flow).all()


def test_flying_chairs_list_of_splits_is_kept(tmp_path):
    source = open_data(flow_data.make_chairs(tmp_path, marks="1121"), DataConfig())
    assert {split: len(table) for split, table in source.splits.items()} == {
        "train": 3,
        "validation": 1,
    }
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n3\n")
    with pytest.raises(ValueError, match="a line for each of the 4 pairs, 1 for train and 2 for"):
        open_data(tmp_path, DataConfig())


def test_flying_chairs_as_it_is_unpacked(tmp_path):
    flow_data.make_chairs(tmp_path / "data", count=2)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    (tmp_path / "data" / "00009_img1.ppm").touch()  # without a second frame
    assert len(list_frame_pairs(tmp_path)) == 2
    assert list(open_data(tmp_path, DataConfig()).splits) == ["train", "validation"]


def test_sintel(tmp_path):
    flow_data.make_sintel(tmp_path)
    (tmp_path / "training/clean/alley/cover.png").touch()
    source = open_data(tmp_path, DataConfig())
    assert "as Sintel keeps them: train 8 rows" in source.notes[0]
    assert any("their flow is not there): 2 pairs" in note for note in source.notes)
    assert len(open_data(tmp_path / "training", DataConfig()).splits["train"]) == 8
    one = open_data(tmp_path / "training" / "final", DataConfig())
    assert len(one.splits["train"]) == 4
    pairs = list_frame_pairs(tmp_path / "training" / "final")
    assert names(pairs)[0] == ("frame_0001.png", "frame_0002.png", "frame_0001.flo")
    assert {pair.scene for pair in pairs} == {"alley", "cave"}
    assert names(list_frame_pairs(tmp_path / "test"))[0][2] is None


def test_kitti(tmp_path):
    flow_data.make_kitti(tmp_path)
    source = open_data(tmp_path, DataConfig())
    assert "as KITTI keeps them: train 2 rows" in source.notes[0]
    values = read(source, index=1)
    known = values["flow"][..., 2] > 0
    assert known.sum() == 12 * 16 - 1
    assert np.abs(values["flow"][..., :2] - flow_data.pair(1).flow)[known].max() <= 0.5 / 64
    assert names(list_frame_pairs(tmp_path / "testing")) == [
        ("000000_10.png", "000000_11.png", None)
    ]
    with pytest.raises(ValueError, match="holds 1 pairs of frames and the flow of none of them"):
        open_data(tmp_path / "testing", DataConfig())


def test_other_folders_are_none_of_these(tmp_path):
    small = tmp_path / "birds"
    small.mkdir()
    Image.new("RGB", (4, 4)).save(small / "a.png")
    assert find_flow_layout(tmp_path) is None
    assert list_frame_pairs(small) == []


def rows(folder):
    flow_data.make_chairs(folder, count=3)
    found = [f"{n:05d}" for n in range(3)]
    return {
        "one": [f"{n}_img1.ppm" for n in found],
        "two": [f"{n}_img2.ppm" for n in found],
        "motion": [f"{n}_flow.flo" for n in found],
    }


def test_a_table_of_files_has_pairs_beside_a_flow(tmp_path):
    columns = rows(tmp_path / "files")
    lines = ["one,two,motion,film"] + [
        ",".join(cells) + ",x" for cells in zip(*columns.values(), strict=True)
    ]
    (tmp_path / "files" / "pairs.csv").write_text("\n".join(lines) + "\n")
    source = open_data(tmp_path / "files" / "pairs.csv", DataConfig())
    assert source.inputs["frame_pair"].columns == ("one", "two")
    assert source.inputs["flow"].column == "motion"
    assert source.ignored == ("film",)
    assert read(source)["flow"].shape == (12, 16, 3)
    named = DataConfig(columns={"two": "frame", "one": "frame", "motion": "flow"})
    turned = open_data(tmp_path / "files" / "pairs.csv", named)
    assert (read(turned)["frame_pair"] == read(source)["frame_pair"][::-1]).all()
    alone = DataConfig(columns={"one": "frame", "motion": "flow"})
    with pytest.raises(ValueError, match=r"two columns of frames in .*, the first and the second"):
        open_data(tmp_path / "files" / "pairs.csv", alone)


def test_pairs_go_through_shards(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    flow_data.make_chairs(tmp_path / "files", count=3)
    write_shards(str(tmp_path / "files"), tmp_path / "shards")
    for config in (DataConfig(), DataConfig(stream=True)):
        source = open_data(tmp_path / "shards", config)
        assert source.inputs["frame_pair"].columns == ("first", "second")
        reader = SampleTransform(
            source.inputs, PREPROCESS, None, LoaderSettings(target_modalities=("flow",))
        )
        table = source.streams["train"] if config.stream else source.splits["train"]
        found = list(table) if config.stream else [table.row(index) for index in range(3)]
        made = flow_data.pair(0)
        each = [reader.decode(row)[0] for row in found]
        (same,) = [one for one in each if (one["frame_pair"][0] == made.first).all()]
        assert (same["flow"][..., :2] == made.flow).all()


def test_a_row_whose_sizes_differ_is_bad(tmp_path):
    flow_data.make_chairs(tmp_path, count=1)
    small_flow = flow_data.pair(5, size=(8, 16)).flow
    flow_data.write_flo(tmp_path / "00000_flow.flo", small_flow)
    source = open_data(tmp_path, DataConfig())
    with pytest.raises(BadRowError, match=r"one size, got frame_pair 12 x 16, flow 8 x 16"):
        read(source)
    Image.new("RGB", (9, 9)).save(tmp_path / "00000_img2.ppm")
    with pytest.raises(BadRowError, match=r"must have one size: '.*img1.ppm' is 12 x 16 and"):
        read(source)
    (tmp_path / "00000_flow.flo").write_bytes(b"PIEH")
    Image.new("RGB", (16, 12)).save(tmp_path / "00000_img2.ppm")
    with pytest.raises(BadRowError, match=r"is no .flo file: it has 4 bytes"):
        read(source)
