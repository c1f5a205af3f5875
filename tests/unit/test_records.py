"""Rows are read by index, and what they decode to is kept."""

import os

import numpy as np
import pytest
import torch

from perceivers.data.base import Batch
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import MapDataset, make_loader
from perceivers.data.loading.sample_cache import open_cache
from perceivers.data.loading.sampler import BatchPlan, LoaderSettings
from perceivers.data.loading.transform import SampleRng, SampleTransform
from perceivers.data.modalities.base import DecodedValue, MissingValueError, TooLongError
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from support.loaders import png


class Lines:
    """A modality of numbers over time, which counts how often it decodes and how."""

    has_clips = True

    def __init__(self, longest=100):
        self.moments = []
        self.longest = longest

    def decode(self, media, *, clip_position=None):
        if media.is_missing:
            raise MissingValueError(f"{media.name} is empty")
        if media.value == "bad":
            raise ValueError(f"{media.name} is bad")
        self.moments.append(clip_position)
        if clip_position is None and len(media.value) > self.longest:
            raise TooLongError(f"{media.name} is too long")
        return DecodedValue(np.asarray(media.value, dtype=np.float32), ("read",))

    def transform(self, value, *, clip_position=0.5, rng=None):
        if len(value) < 2:
            raise ValueError("nothing is left")
        start = round(clip_position * (len(value) - 2))
        return value[start : start + 2, None]

    def collate(self, samples):
        there = torch.tensor([sample is not None for sample in samples])
        rows = [np.zeros((2, 1), np.float32) if s is None else s for s in samples]
        return torch.from_numpy(np.stack(rows)), None if there.all() else there[:, None]


def reader_of(*names, lines=None, **settings):
    columns = {name: InputColumn(name, "text") for name in names}
    preprocess = {name: TextPreprocessConfig(max_length=64) for name in names}
    reader = SampleTransform(columns, preprocess, None, LoaderSettings(**settings))
    reader.modalities = {name: lines or Lines() for name in names}
    reader.has_clips = True
    reader.num_clips = 1 if reader.settings.training else reader.settings.num_clips
    return reader


class Rows:
    def __init__(self, *rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def row(self, index):
        if isinstance(self.rows[index], Exception):
            raise self.rows[index]
        return {n: EncodedItem(f"{n}{index}", value=v) for n, v in self.rows[index].items()}

    def column(self, name):
        return [row[name] for row in self.rows]


def plan(*rows, epoch=0):
    return BatchPlan(epoch, 0, np.array(rows))


def test_a_row_lacks_what_is_missing_in_it():
    rows = Rows({"a": [1.0, 2.0], "b": None}, {"a": None, "b": [3.0, 4.0]})
    read = MapDataset(rows, [0, 1], reader_of("a", "b"))[plan(0, 1)]
    assert read.batch.inputs["a"][0, :, 0].tolist() == [1.0, 2.0]
    assert read.batch.masks["a"].tolist() == [[True], [False]]
    assert read.batch.masks["b"].tolist() == [[False], [True]]
    assert read.notes == {"read": 2, "no a": 1, "no b": 1}
    assert read.bad == ()


def test_rows_that_hold_nothing_or_cannot_be_read_are_bad():
    rows = Rows(
        {"a": None, "b": None},
        {"a": "bad", "b": [1.0, 2.0]},
        OSError("gone"),
        {"a": [1.0], "b": None},
    )
    read = MapDataset(rows, None, reader_of("a", "b"))[plan(0, 1, 2, 3)]
    assert read.batch is None
    assert read.num_rows == 4
    assert read.bad == (
        ("a0", "a0 is empty"),
        ("a1", "a1 is bad"),
        ("row 2", "Row 2: gone"),
        ("a3", "'a3' cannot be read: nothing is left."),
    )


def test_clips_lie_evenly_over_the_recording_and_side_by_side_in_the_batch():
    rows = Rows({"a": list(range(10))}, {"a": list(range(100, 110))})
    read = MapDataset(rows, [0, 1], reader_of("a", num_clips=3))[plan(0, 1)]
    batch = read.batch
    assert (len(batch), batch.num_clips) == (2, 3)
    assert batch.inputs["a"][:, 0, 0].tolist() == [0, 4, 8, 100, 104, 108]
    assert batch.targets.tolist() == [0, 1]


def test_a_recording_too_long_for_the_memory_is_decoded_clip_by_clip():
    lines = Lines(longest=5)
    rows = Rows({"a": list(range(10))})
    dataset = MapDataset(rows, [0], reader_of("a", lines=lines, num_clips=3))
    assert dataset[plan(0)].batch.inputs["a"][:, 0, 0].tolist() == [0, 4, 8]
    assert lines.moments == [None, 0.0, 0.5, 1.0]
    kept = MapDataset(rows, [0], reader_of("a", lines=lines), None, open_cache(None, "x", 2**20))
    assert kept[plan(0)].batch.inputs["a"][0, 0, 0] == 4
    assert lines.moments[4:] == [None, 0.5]


def test_a_recording_of_which_not_even_a_clip_fits_is_bad():
    class Never(Lines):
        def decode(self, media, *, clip_position=None):
            raise TooLongError(f"{media.name} is too long")

    read = MapDataset(Rows({"a": [1.0, 2.0]}), [0], reader_of("a", lines=Never()))[plan(0)]
    assert read.bad == (("a0", "a0 is too long"),)


@pytest.mark.parametrize("folder", [False, True], ids=["memory", "folder"])
def test_what_was_decoded_is_kept(tmp_path, folder):
    lines = Lines()
    rows = Rows({"a": [1.0, 2.0, 3.0], "b": None}, {"a": [4.0, 5.0], "b": [6.0, 7.0]})
    kept = open_cache(tmp_path if folder else None, "x", 2**20)
    dataset = MapDataset(rows, [0, 1], reader_of("a", "b", lines=lines), None, kept)
    first, again = dataset[plan(0, 1)].batch, dataset[plan(0, 1, epoch=1)].batch
    assert len(lines.moments) == 3  # three cells, once each
    for name in ("a", "b"):
        assert torch.equal(first.inputs[name], again.inputs[name])
        assert first.masks.get(name, torch.ones(1)).equal(again.masks.get(name, torch.ones(1)))


def test_pictures_beside_others_are_kept_as_pixels():
    columns = {"image": InputColumn("image", "image"), "a": InputColumn("a", "text")}
    picture = ImagePreprocessConfig.imagenet(
        size=(6, 6), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=1.0
    )
    reader = SampleTransform(
        columns,
        {"image": picture, "a": TextPreprocessConfig(max_length=64)},
        None,
        LoaderSettings(),
    )
    reader.modalities["a"] = Lines()

    class Pairs(Rows):
        def row(self, index):
            image = EncodedItem("x.png", data=png(7)) if index else EncodedItem("none")
            return {"image": image, "a": EncodedItem("a", value=[1.0, 2.0])}

    dataset = MapDataset(Pairs({}, {}), [0, 1], reader, None, open_cache(None, "x", 2**20))
    first, again = dataset[plan(0, 1)].batch, dataset[plan(0, 1, epoch=1)].batch
    assert torch.equal(first.inputs["image"], again.inputs["image"])
    assert again.masks["image"].tolist() == [[False], [True]]
    assert round(again.inputs["image"][1, 0, 0, 0].item() * 255) == 7


def test_an_entry_that_is_gone_is_decoded_again():
    lines = Lines()
    kept = open_cache(None, "x", 2**20)
    dataset = MapDataset(Rows({"a": [1.0, 2.0]}), [0], reader_of("a", lines=lines), None, kept)
    dataset[plan(0)]
    get = kept.get
    kept.get = lambda key: None if key == "0-a" else get(key)
    dataset[plan(0)]
    assert len(lines.moments) == 2


def test_training_draws_a_moment_for_each_row_and_pass():
    reader = reader_of("a", training=True)
    moments = [rng.clip_position for rng in reader.rngs([(0, 0, 0), (0, 1, 0), (1, 0, 0)])]
    assert len(set(moments)) == 3
    assert all(0 <= clip_position <= 1 for clip_position in moments)
    assert moments == [c.clip_position for c in reader.rngs([(0, 0, 0), (0, 1, 0), (1, 0, 0)])]
    assert reader_of("a").rngs([(0, 0, 0)]) == [SampleRng()]


def test_vectors_are_targets_too():
    rows = Rows({"a": [1.0, 2.0]}, {"a": [3.0, 4.0]})
    targets = [np.array([0.0, 1.0], np.float32), np.array([1.0, 1.0], np.float32)]
    batch = MapDataset(rows, targets, reader_of("a"))[plan(0, 1)].batch
    assert isinstance(batch, Batch)
    assert batch.targets.tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_texts_of_about_one_length_share_a_batch():
    texts = ["x" * (10 * (n % 8) + 1) for n in range(64)]
    loader = make_loader(
        Rows(*({"text": text} for text in texts)),
        {"text": InputColumn("text", "text")},
        [0] * 64,
        preprocess={"text": TextPreprocessConfig(max_length=128)},
        augment=None,
        settings=LoaderSettings(batch_size=8, training=True, prefetch_batches=0),
    )
    lengths = [set((b.inputs["text"] > 0).sum(dim=1).tolist()) for b in loader]
    assert len(lengths) == 8
    assert all(len(found) == 1 for found in lengths)  # eight texts of each length
    paths = Rows(*({"text": f"{n}.txt"} for n in range(3)))
    assert loader_lengths(paths) is None


def loader_lengths(rows):
    from perceivers.data.loading.loader import _text_lengths

    return _text_lengths(rows, {"text": InputColumn("text", "text")})


def test_what_keeps_decoded_values_follows_from_the_settings(tmp_path):
    from perceivers.data.loading.loader import _open_caches

    rows, text = Rows({"text": "x"}), {"text": TextPreprocessConfig(max_length=64)}

    def kept(**settings):
        columns = {"text": InputColumn("text", "text")}
        reader = SampleTransform(columns, text, None, LoaderSettings(**settings))
        return _open_caches(rows, reader, text)[1]

    assert kept() is None
    assert kept(sample_cache_bytes=100) is not None
    assert kept(sample_cache_bytes=100, num_workers=1) is None
    kept(cache=str(tmp_path), fingerprint="f", num_workers=1).put("0", np.zeros(3))
    assert any(tmp_path.rglob("*"))


def test_a_modality_in_several_columns_is_one_cell():
    from perceivers.data.loading.transform import encoded_item_of

    column = InputColumn("x", "series", ("x", "y"), ("array", "array"))
    media = encoded_item_of(
        {"x": EncodedItem("row 3", value=[1.0]), "y": EncodedItem("row 3")}, column
    )
    assert (media.name, media.value) == ("row 3", {"x": [1.0], "y": None})
    table = InputColumn("age", "table", ("age", "sex"), ("number", "category"))
    assert encoded_item_of({"age": 3, "sex": "f"}, table).name == "age, sex"
    assert encoded_item_of({"age": None, "sex": None}, table).is_missing
    with pytest.raises(KeyError):
        encoded_item_of({"age": 3}, table)
    with pytest.raises(
        ValueError, match=r"'clip' holds '/etc/a.wav', which is no audio and names no"
    ):
        encoded_item_of({"clip": "/etc/a.wav"}, InputColumn("clip", "audio"))


class FileRows(Rows):
    def row(self, index):
        return {n: EncodedItem(str(v), path=v) for n, v in self.rows[index].items()}


class FileLines(Lines):
    def decode(self, media, *, clip_position=None):
        numbers = [float(cell) for cell in media.read().split()]
        return super().decode(EncodedItem(media.name, value=numbers), clip_position=clip_position)


def test_a_file_that_changed_is_decoded_again_with_a_cache_on_disk(tmp_path):
    paths = [tmp_path / f"{number}.txt" for number in range(100)]
    for number, path in enumerate(paths):
        path.write_text(f"1 {number + 100}")
    rows = FileRows(*({"a": path} for path in paths))

    def inputs():
        lines = FileLines()
        cache = open_cache(tmp_path / "cache", "f", 0)
        dataset = MapDataset(rows, None, reader_of("a", lines=lines), None, cache)
        return dataset[plan(*range(100))].batch.inputs["a"][:, 1, 0].tolist(), len(lines.moments)

    assert inputs() == ([number + 100.0 for number in range(100)], 100)
    assert inputs()[1] == 0
    about = paths[41].stat()  # not one of a few evenly spaced rows
    paths[41].write_text("1 999")
    os.utime(paths[41], ns=(about.st_atime_ns, about.st_mtime_ns))
    found, decoded = inputs()
    assert (found[41], decoded) == (999.0, 1)
    paths[0], paths[1] = paths[1], paths[0]
    rows.rows = tuple({"a": path} for path in paths)
    assert inputs()[0][:2] == [101.0, 100.0]


def test_cells_of_a_table_that_changed_are_decoded_again_with_a_cache_on_disk(tmp_path):
    def inputs(*values):
        cache = open_cache(tmp_path, "f", 0)
        rows = Rows(*({"a": value} for value in values))
        dataset = MapDataset(rows, None, reader_of("a"), None, cache)
        return dataset[plan(*range(len(values)))].batch.inputs["a"][:, 1, 0].tolist()

    assert inputs([1.0, 2.0], [3.0, 4.0]) == [2.0, 4.0]
    assert inputs([1.0, 2.0], [3.0, 5.0]) == [2.0, 5.0]


ANY = [
    RuntimeError("r"),
    OverflowError("o"),
    AttributeError("a"),
    MemoryError(),
    RecursionError("x"),
]


@pytest.mark.parametrize("error", [*ANY, TypeError("t"), KeyError("k"), IndexError("i")])
@pytest.mark.parametrize("step", ["decode", "transform"])
def test_any_error_of_one_sample_is_a_bad_row_with_its_name(error, step):
    class Failing(Lines):
        def decode(self, media, *, clip_position=None):
            if step == "decode" and media.value == [7.0, 7.0]:
                raise error
            return super().decode(media, clip_position=clip_position)

        def transform(self, value, *, clip_position=0.5, rng=None):
            if step == "transform" and value[0] == 7:
                raise error
            return super().transform(value, clip_position=clip_position, rng=rng)

    rows = Rows({"a": [1.0, 2.0]}, {"a": [7.0, 7.0]})
    read = MapDataset(rows, None, reader_of("a", lines=Failing()))[plan(0, 1)]
    assert len(read.batch) == 1
    ((name, reason),) = read.bad
    assert name == "a1"
    assert reason.startswith("'a1' cannot be read: ")


def test_a_missing_package_ends_the_run():
    class Missing(Lines):
        def decode(self, media, *, clip_position=None):
            raise ImportError("av is needed for this")

    with pytest.raises(ImportError, match="av is needed"):
        MapDataset(Rows({"a": [1.0]}), None, reader_of("a", lines=Missing()))[plan(0)]
