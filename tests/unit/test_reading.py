from types import SimpleNamespace

import pytest
import torch

from perceivers.data.base import Batch
from perceivers.data.loading import transform as reading
from perceivers.data.loading.loader import MapDataset
from perceivers.data.loading.sampler import BatchPlan, LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleTransform, WorkerResult, guarded
from support.loaders import INPUTS, PREPROCESS, ImageRows


def raising(error):
    def read():
        raise error

    return read


def test_in_the_process_itself_errors_stay_as_they_are():
    with pytest.raises(KeyError, match="picture"):
        guarded(raising(KeyError("picture")))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("picture"), KeyError, "picture"),
        (TypeError("a list"), TypeError, "a list"),
        (OSError("disk gone"), ValueError, "disk gone"),
        (UnicodeError("not text"), ValueError, "not text"),
    ],
)
def test_in_a_worker_an_error_becomes_its_type_and_message(monkeypatch, error, kind, message):
    monkeypatch.setattr(reading, "get_worker_info", lambda: SimpleNamespace(id=0))
    assert guarded(raising(error)).failure == (kind, message)
    assert guarded(lambda: WorkerResult(num_rows=3)).num_rows == 3


def test_a_mistake_in_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(reading, "get_worker_info", lambda: SimpleNamespace(id=0))
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 // 0)


def test_a_plan_is_read_in_its_order(monkeypatch):
    reader = SampleTransform(INPUTS, PREPROCESS, None, LoaderSettings())
    dataset = MapDataset(ImageRows(5), [0, 1, 2, 3, 4], reader)
    assert len(dataset) == 5
    read = dataset[BatchPlan(0, 0, torch.tensor([4, 0, 2]).numpy())]
    assert read.batch.names == ("p4.png", "p0.png", "p2.png")
    assert read.batch.targets.tolist() == [4, 0, 2]


def test_a_cell_that_names_nothing_is_a_bad_row():
    reader = SampleTransform(INPUTS, PREPROCESS, None, LoaderSettings())
    with pytest.raises(
        BadRowError, match=r"'/etc/a.png', which is no image and names no file"
    ) as bad:
        reader.decode({"picture": "/etc/a.png"})
    assert bad.value.name == "a row's picture"


def test_all_tensors_are_pinned(monkeypatch):
    pinned = []

    def pin(tensor):
        pinned.append(tensor.shape)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    batch = Batch(
        inputs={"image": torch.zeros(2, 3, 4, 4)},
        targets=torch.zeros(2),
        masks={"image": torch.ones(2, 16, dtype=torch.bool)},
        names=("a", "b"),
    )
    read = WorkerResult(batch=batch, num_rows=3, bad=(("c", "gone"),), notes={"x": 1}).pin_memory()
    assert pinned == [(2, 3, 4, 4), (2,), (2, 16)]
    assert (read.batch.names, read.num_rows, read.bad, read.notes) == (
        ("a", "b"),
        3,
        (("c", "gone"),),
        {"x": 1},
    )
    assert WorkerResult().pin_memory().batch is None
