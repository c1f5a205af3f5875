from contextlib import nullcontext

import pytest
import torch

from perceivers.tasks.classification import ClassificationTask
from perceivers.training import batch_size_finder as probes
from perceivers.training.batch_size_finder import open_memory_probe
from perceivers.training.dataloaders import ProcessInfo
from support.training import small_recipe


def opened(device="cpu", **training):
    recipe = small_recipe(**training)
    task = ClassificationTask(recipe.task)
    return open_memory_probe(recipe, task, device=torch.device(device), process=ProcessInfo())


@pytest.mark.parametrize("options", [{}, {"augment": {}, "grad_checkpointing": True, "ema": None}])
def test_a_step_is_measured_and_leaves_chance_alone(options):
    before = torch.get_rng_state()
    with opened(**options) as probe:
        assert probe.budget > 2**20
        small, large = (probe.peak(n, nullcontext()) for n in (1, 4000))
        assert large > small + 2**22  # 4,000 samples of 64 elements and 16 channels
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_that_share_a_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(probes, "available_memory", lambda: 1000)
    recipe = small_recipe()
    found = []
    for count in (1, 2):
        place = ProcessInfo(local_processes=count, world_size=count)
        task = ClassificationTask(recipe.task)
        with open_memory_probe(recipe, task, device=torch.device("cpu"), process=place) as p:
            found.append(p.budget)
    assert found == [800, 400]


def test_a_system_that_does_not_tell_is_not_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "Path", lambda name: tmp_path / "absent")
    monkeypatch.setattr(probes.sys, "platform", "win32")
    with opened() as probe:
        assert probe.budget is None


def test_a_mac_tells_its_highest_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(probes, "Path", lambda name: tmp_path / "absent")
    monkeypatch.setattr(probes.sys, "platform", "darwin")
    assert probes._resident() == probes._resident(at_peak=True) > 0
    probes._reset_peak()  # which it cannot


def test_a_gpu_that_is_full_is_no_error(monkeypatch):
    """With CUDA's functions replaced: what they are asked for, and what follows from their answers."""
    asked = []
    cuda = {
        "empty_cache": lambda: asked.append("emptied"),
        "reset_peak_memory_stats": lambda device: asked.append("reset"),
        "mem_get_info": lambda device: (900, 1000),
        "memory_reserved": lambda device: 100,
        "max_memory_reserved": lambda device: 640,
    }
    for name, value in cuda.items():
        monkeypatch.setattr(probes.torch.cuda, name, value)
    with opened() as probe:
        probe._device = torch.device("cuda")
        assert probe._free(ProcessInfo()) == 900
        monkeypatch.setattr(probe, "_synthetic_batch", lambda size: None)
        monkeypatch.setattr(probe, "_step", lambda batch, precision: None)
        assert probe.peak(4, nullcontext()) == 640

        def full(batch, precision):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(probe, "_step", full)
        assert probe.peak(8, nullcontext()) is None
    assert asked == ["emptied", "reset"] * 2
