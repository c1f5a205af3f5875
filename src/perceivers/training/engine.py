"""Set up Lightning: trainer, loggers, and no messages."""

import importlib.util
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO

from perceivers.hub.device import pick_device
from perceivers.recipes.registry import TrainingConfig
from perceivers.training.checkpoint import read_payload, save_payload
from perceivers.training.distributed import num_devices, pick_precision

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "torch.distributed")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that writes checkpoints atomically: the previous one is kept until the new one is complete."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint atomically."""
        assert storage_options is None
        save_payload(Path(path), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU, without running code from it."""
        assert map_location is None
        assert weights_only is not False
        return read_payload(Path(path))


def build_trainer(
    config: TrainingConfig, *, folder: Path, loggers: Sequence[Any]
) -> lightning.Trainer:
    """Return a trainer that runs the optimizer steps and leaves everything else to a callback.

    It sees a single endless epoch, see `perceivers.training.batches`.

    Raises:
        ValueError: If this machine does not have the devices or the precision.
    """
    accelerator = pick_device(config.device).type
    precision = pick_precision(config.precision, accelerator)
    devices, nodes = num_devices(config)
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():
        # Saving and requeueing in a signal handler is not exact; the callback saves between two steps.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    strategy: Any = "auto" if devices * nodes == 1 else "ddp"
    if strategy == "ddp" and config.strategy == "fsdp":
        from lightning.pytorch.strategies import ModelParallelStrategy

        strategy = ModelParallelStrategy(
            data_parallel_size=devices * nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    return lightning.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,
        accumulate_grad_batches=config.accumulate,
        max_epochs=-1,
        limit_val_batches=0,
        logger=list(loggers),
        plugins=plugins,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def build_loggers(names: Sequence[str], folder: Path, *, step: int | None = None) -> list[Any]:
    """Return the TensorBoard logger and those named: `wandb`, `mlflow`.

    Of a run resumed from `step`, later events of TensorBoard are dropped.

    Raises:
        ImportError: If the package of a logger is not installed.
    """
    loggers: list[Any] = []
    if importlib.util.find_spec("tensorboard"):
        from lightning.pytorch.loggers import TensorBoardLogger

        purge = None if step is None else step + 1
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", purge_step=purge))
    for name in names:
        packages = ("mlflow", "mlflow_skinny") if name == "mlflow" else (name,)
        if not any(map(importlib.util.find_spec, packages)):
            raise ImportError(
                f"--logger {name} needs a package that is not installed: pip install {name}"
            )
        from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "wandb":
                new: Any = WandbLogger(name=folder.name, project="perceivers", save_dir=folder)
            else:
                new = MLFlowLogger(experiment_name="perceivers", run_name=folder.name)
        loggers.append(new)
    return loggers


@contextmanager
def quiet() -> Generator[None]:
    """Suppress Lightning's tips and harmless warnings in the context."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"lightning", r"torch", r"tensorboard"):
                warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
