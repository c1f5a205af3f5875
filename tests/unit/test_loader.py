import io
import itertools
import os

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.modalities.image.modality import ImageAugmentConfig
from perceivers.data.tables.columns import InputColumn
from support.loaders import AUGMENT, MIXING, PREPROCESS, ImageRows, loader_of
from support.timing import wait_until


def content(batches):
    """Return pixels and targets, to be compared bit for bit."""
    return [(batch.inputs["image"], batch.targets) for batch in batches]


def same(first, second):
    first, second = content(first), content(second)
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_evaluation_yields_every_row_in_order_with_its_name():
    loader = loader_of(ImageRows(7), batch_size=3)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [name for batch in batches for name in batch.names] == [f"p{n}.png" for n in range(7)]
    assert torch.cat([batch.targets for batch in batches]).tolist() == [0, 1, 2, 3, 0, 1, 2]
    first_values = torch.cat([batch.inputs["image"][:, 0, 0, 0] for batch in batches]) * 255
    assert first_values.round().tolist() == list(range(7))


def test_files_without_labels_have_no_targets():
    (batch,) = loader_of(ImageRows(2), targets=False)
    assert batch.targets is None


def test_training_sees_every_row_once_in_another_order_each_epoch():
    loader = loader_of(ImageRows(12), batch_size=4, training=True)
    epochs = [
        [int(v) for b in loader for v in b.inputs["image"][:, 0, 0, 0] * 255 + 0.5] for _ in "ab"
    ]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))


@pytest.mark.parametrize("augment", [AUGMENT, MIXING], ids=["augmented", "mixed"])
def test_workers_change_nothing(augment):
    # Workers are forked, so no thread may be reading in this process meanwhile.
    plain = loader_of(
        ImageRows(16), augment=augment, batch_size=4, training=True, prefetch_batches=0
    )
    workers = loader_of(ImageRows(16), augment=augment, batch_size=4, training=True, num_workers=2)
    for _ in range(2):
        assert same(plain, workers)
    workers.close()


def test_seed_and_epoch_change_the_augmentation():
    def first_batch(**settings):
        return next(
            iter(loader_of(ImageRows(4), augment=AUGMENT, batch_size=4, training=True, **settings))
        )

    assert same([first_batch()], [first_batch()])
    assert not same([first_batch()], [first_batch(seed=1)])
    loader = loader_of(ImageRows(4), augment=AUGMENT, batch_size=4, training=True)
    first, second = (next(iter(loader)) for _ in "ab")
    assert same([first], [second])  # an epoch that was left begins again
    loader.set_epoch(1)
    assert not same([first], list(loader))


@pytest.mark.parametrize(
    ("workers", "seen"), [*((0, seen) for seen in (0, 1, 3, 4)), (2, 1), (2, 4)]
)
def test_an_interrupted_epoch_goes_on_bit_for_bit(workers, seen):
    options = {"augment": MIXING, "batch_size": 4, "training": True, "num_workers": workers}
    uninterrupted = loader_of(ImageRows(16), **options)
    expected = [*uninterrupted, *uninterrupted]

    interrupted = loader_of(ImageRows(16), **options)
    before = list(itertools.islice(interrupted, seen))
    state = interrupted.state_dict()
    for loader in (uninterrupted, interrupted):
        loader.close()  # workers are forked, so no thread may be reading in this process meanwhile
    resumed = loader_of(ImageRows(16), **{**options, "num_workers": 2 - workers})
    resumed.load_state_dict(state)
    after = list(resumed) if seen < 4 else []
    assert same([*before, *after, *resumed], expected)


def test_the_end_of_an_epoch_is_the_beginning_of_the_next():
    loader = loader_of(ImageRows(8), batch_size=4, training=True)
    list(loader)
    assert loader.state_dict()["epoch"] == 1
    resumed = loader_of(ImageRows(8), batch_size=4, training=True)
    resumed.load_state_dict(loader.state_dict())
    assert same(loader, resumed)


def test_another_epoch_forgets_the_place_in_the_old_one():
    loader = loader_of(ImageRows(8), batch_size=2, training=True)
    state = {"epoch": 0, "samples": 4, "bad": {}, "notes": {}, "num_read": 4}
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert len(list(loader)) == 2
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert len(list(loader)) == 4


def test_mixing_reads_two_rows_for_each_sample_and_keeps_the_number_of_batches():
    loader = loader_of(ImageRows(8), augment=MIXING, batch_size=4, training=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 2
    assert [tuple(batch.targets.shape) for batch in batches] == [(4, 4), (4, 4)]
    assert all(" + " in name for batch in batches for name in batch.names)


def test_mixing_without_the_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="number of classes; got num_classes=None"):
        loader_of(ImageRows(4), augment=MIXING, training=True, num_classes=None)


def test_mixing_leaves_evaluation_alone():
    (batch,) = loader_of(ImageRows(4), augment=MIXING, num_classes=None)
    assert batch.targets.tolist() == [0, 1, 2, 3]


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="at least 1 row, one for each device, got 0"):
        loader_of(ImageRows(0))
    with pytest.raises(ValueError, match="at least 2 rows, one for each device, got 1"):
        loader_of(ImageRows(1), training=True, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_skipped_and_counted_once(workers):
    loader = loader_of(
        ImageRows(8, damaged=(2, 5)),
        batch_size=4,
        training=True,
        max_bad=0.25,
        num_workers=workers,
    )
    for _ in range(2):
        assert sum(len(batch) for batch in loader) == 6
    assert sorted(name for name, _ in loader.bad) == ["p2.png", "p5.png"]
    assert "it holds text that begins with 'no picture at al'" in loader.bad[0][1]
    loader.close()


def test_rows_that_cannot_be_read_are_bad_rows():
    loader = loader_of(ImageRows(4, raises={1: OSError("disk gone")}), max_bad=0.5)
    assert [len(batch) for batch in loader] == [3]
    assert loader.bad == [("row 1", "Row 1: disk gone")]


def test_one_bad_row_of_twenty_is_too_many_by_default():
    expected = (
        r"1 of 20 rows \(5\.0%\) cannot be read, more than the 1\.0% allowed, so far: Cannot read 'p7\.png' .*"
        r"Repair the data, or go on without such rows with --max-bad 0\.1\."
    )
    with pytest.raises(ValueError, match=expected):
        list(loader_of(ImageRows(20, damaged=(7,))))


def test_the_first_bad_rows_are_named_and_the_others_counted():
    with pytest.raises(
        ValueError, match=r"'p0.png'.*'p1.png'.*'p2.png'.* And 2 more\. .*--max-bad 1\."
    ):
        list(loader_of(ImageRows(5, damaged=range(5))))


def test_a_batch_without_a_readable_row_is_left_out():
    loader = loader_of(ImageRows(6, damaged=(0, 1)), batch_size=2, max_bad=1.0)
    assert [batch.names for batch in loader] == [("p2.png", "p3.png"), ("p4.png", "p5.png")]
    mixed = loader_of(
        ImageRows(2, damaged=(0,)), augment=MIXING, batch_size=1, training=True, max_bad=1.0
    )
    assert all(len(batch) == 1 for batch in mixed)


def test_bad_rows_survive_resuming():
    loader = loader_of(ImageRows(4, damaged=(0,)), max_bad=0.5)
    list(loader)
    resumed = loader_of(ImageRows(4), max_bad=0.5)
    resumed.load_state_dict(loader.state_dict())
    assert resumed.bad == loader.bad


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(KeyError("picture"), KeyError), (ImportError("a package"), ImportError)],
)
def test_other_errors_end_the_reading_without_a_workers_traceback(workers, error, kind):
    loader = loader_of(ImageRows(4, raises={1: error}), num_workers=workers)
    with pytest.raises(kind, match=r"picture|a package") as caught:
        list(loader)
    assert "Traceback" not in str(caught.value)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_setting_is_told_as_it_is(workers):
    augment = {"image": ImageAugmentConfig(crop_scale=(2.0, 3.0))}
    with pytest.raises(ValueError, match=r"^Expected crop_scale"):
        loader_of(ImageRows(4), augment=augment, training=True, num_workers=workers)


def test_notes_are_counted_in_the_first_epoch():
    records = ImageRows(4)
    gray = np.array([[0, 65535]], dtype=np.uint16)
    records.row = lambda index: {"picture": sixteen_bit(index, gray)}
    loader = loader_of(records)
    for _ in range(2):
        list(loader)
    assert loader.notes == {"scaled to 8 bit": 4}


def sixteen_bit(index, values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return EncodedItem(f"{index}.png", data=file.getvalue())


def test_ranks_share_the_rows():
    parts = [loader_of(ImageRows(5), batch_size=2, world_size=2, rank=rank) for rank in range(2)]
    names = [[name for batch in part for name in batch.names] for part in parts]
    assert names == [["p0.png", "p2.png", "p4.png"], ["p1.png", "p3.png"]]


def test_two_inputs_are_read_side_by_side():
    inputs = {name: InputColumn("picture", "image") for name in ("left", "right")}
    loader = make_loader(
        ImageRows(4),
        inputs,
        [0, 1, 0, 1],
        preprocess=dict.fromkeys(inputs, PREPROCESS["image"]),
        augment=dict.fromkeys(inputs, AUGMENT["image"]),
        settings=LoaderSettings(batch_size=4, training=True),
    )
    (batch,) = loader
    assert set(batch.inputs) == {"left", "right"}
    assert not torch.equal(batch.inputs["left"], batch.inputs["right"])  # each draws its own crop


def test_the_cache_changes_nothing_but_names():
    cached = loader_of(ImageRows(8), augment=AUGMENT, batch_size=4, training=True)
    plain = loader_of(
        ImageRows(8), augment=AUGMENT, batch_size=4, training=True, image_cache_bytes=0
    )
    for _ in range(3):
        first, second = list(cached), list(plain)
        assert same(first, second)
    assert first[0].names[0].startswith("row ")
    assert second[0].names[0].endswith(".png")


def test_the_cache_saves_reading():
    records = ImageRows(8)
    loader = loader_of(records, batch_size=4, training=True)
    list(loader)
    records.cells = [b""] * 8
    assert sum(len(batch) for batch in loader) == 8
    assert loader.bad == []


def test_the_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    loader = loader_of(ImageRows(4), augment=MIXING, batch_size=4, training=True, num_workers=1)
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)
    loader.close()


def test_workers_outlive_a_signal_to_the_group_of_the_main_process():
    loader = loader_of(ImageRows(8), batch_size=1, num_workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = loader._workers._iterator._workers
    assert os.getpgid(worker.pid) != os.getpgid(0)
    del batches
    loader.close()
    try:
        wait_until(lambda: not worker.is_alive())
    finally:
        worker.kill()


@pytest.mark.parametrize("prefetch_batches", [0, 1, 3])
@pytest.mark.parametrize("augment", [AUGMENT, MIXING], ids=["augmented", "mixed"])
def test_reading_ahead_changes_nothing(augment, prefetch_batches):
    options = {"augment": augment, "batch_size": 4, "training": True}
    loader = loader_of(ImageRows(16), prefetch_batches=prefetch_batches, **options)
    plain = loader_of(ImageRows(16), prefetch_batches=0, **options)
    for seen in (
        4,
        2,
        4,
    ):  # an epoch that is left begins again, and so does what was read ahead of it
        assert same(itertools.islice(loader, seen), itertools.islice(plain, seen))
        assert loader.state_dict() == plain.state_dict()
    loader.close()


def test_the_next_epoch_is_begun_when_one_has_ended():
    records, asked = ImageRows(8), []
    read = records.row
    records.row = lambda index: asked.append(index) or read(index)
    loader = loader_of(records, batch_size=4, training=True)
    loader._dataset.images = None
    asked.clear()
    list(loader)
    wait_until(lambda: len(asked) >= 16)
    assert sorted(asked[8:16]) == list(range(8))  # nobody has asked for them yet
    expected = loader_of(ImageRows(8), batch_size=4, training=True)
    expected.set_epoch(1)
    assert same(loader, expected)
    loader.set_epoch(5)  # and is forgotten where another was meant
    expected.set_epoch(5)
    assert same(loader, expected)
    loader.close()
