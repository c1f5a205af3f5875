"""Lightning, set up: the trainer, quiet, with checkpoints that are written whole."""

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
from perceivers.training.distributed import num_devices, pick_precision
from perceivers.training.files import read_payload, save_payload

__all__ = ["build_trainer", "quiet"]

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "torch.distributed")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one from before and moves it over, so that one of them is always whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint whole or not at all."""
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
    """Return a trainer that does the steps and leaves the rest to a callback.

    It sees one epoch without end, see `perceivers.training.batches`.

    Raises:
        ValueError: If this machine cannot do what the configuration asks for.
    """
    accelerator = pick_device(config.device).type
    precision = pick_precision(config.precision, accelerator)
    devices, nodes = num_devices(config)
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():
        # Saving and requeueing inside of a signal handler is not exact; we save between two steps.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return lightning.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config.strategy, devices * nodes),
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


def _strategy(name: str, world_size: int) -> Any:
    if world_size == 1:
        return "auto"
    if name != "fsdp":
        return "ddp"
    from lightning.pytorch.strategies import ModelParallelStrategy

    return ModelParallelStrategy(
        data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


@contextmanager
def quiet() -> Generator[None]:
    """Keep Lightning's adverts, tips and harmless warnings from the user inside of the `with`."""
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
