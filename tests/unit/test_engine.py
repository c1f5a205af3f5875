import logging
import warnings

import pytest

from perceivers.recipes.registry import TrainingConfig
from perceivers.training.engine import build_trainer, quiet


@pytest.fixture
def _slurm(monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "7",
        "SLURM_NODELIST": "node0",
    }.items():
        monkeypatch.setenv(name, value)


def trainer(tmp_path, **config):
    with quiet():
        return build_trainer(TrainingConfig(device="cpu", **config), folder=tmp_path, loggers=[])


def test_one_device_needs_no_strategy(tmp_path):
    assert trainer(tmp_path).world_size == 1
    assert trainer(tmp_path, strategy="fsdp").world_size == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("auto", "DDPStrategy"), ("fsdp", "ModelParallelStrategy")]
)
def test_several_devices_share_the_work(tmp_path, name, kind):
    found = trainer(tmp_path, devices=2, strategy=name)
    assert type(found.strategy).__name__ == kind
    assert found.world_size == 2


@pytest.mark.usefixtures("_slurm")
def test_under_slurm_its_processes_are_used_and_its_warning_asks_to_stop(tmp_path):
    import signal

    from perceivers.training.build import _signals

    found = trainer(tmp_path, devices=2)
    environment = found.strategy.cluster_environment
    assert type(environment).__name__ == "SLURMEnvironment"
    assert environment.auto_requeue is False
    assert signal.SIGUSR1 in _signals()


def test_levels_of_the_loggers_come_back():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet():
        assert logger.level == logging.ERROR
        warnings.warn_explicit("x", UserWarning, "file.py", 1, module="lightning.pytorch.trainer")
    assert logger.level == before
