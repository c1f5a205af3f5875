import signal

import pytest
import torch

from perceivers.data.loading import workers
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.workers import divide_cores, iterate, start_workers
from support.loaders import ImageRows, loader_of


@pytest.mark.parametrize(
    ("cores", "wanted", "expected"),
    [(1, None, (1, 0)), (2, None, (2, 0)), (8, None, (6, 2)), (2, 2, (1, 2)), (4, 0, (4, 0))],
)
def test_cores_are_divided_between_threads_and_workers(cores, wanted, expected):
    assert divide_cores(cores, wanted) == expected


def test_more_workers_than_cores_warn_nobody():
    loader = loader_of(ImageRows(4), batch_size=1, num_workers=9)
    assert len(list(loader)) == 4
    loader.close()


def test_pinned_memory_without_a_gpu_warns_nobody():
    assert len(list(loader_of(ImageRows(2), batch_size=1, pin_memory=True))) == 2


def test_a_worker_has_one_thread_and_leaves_signals_to_the_main_process(monkeypatch):
    done = []
    monkeypatch.setattr(workers.os, "setpgrp", lambda: done.append("group"))
    monkeypatch.setattr(torch, "set_num_threads", done.append)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        workers._init_worker(0)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == [1, "group"]


def test_items_come_as_the_dataset_made_them():
    dataset = [{"a": 1}, {"a": 2}]
    batches = start_workers(dataset, LoaderSettings(), sampler=[1, 0])
    assert list(iterate(batches, LoaderSettings())) == [{"a": 2}, {"a": 1}]
