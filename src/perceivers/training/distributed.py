"""Distributed training: devices, communication between processes, sharding of weights."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from perceivers.recipes.registry import TrainingConfig
from perceivers.typing import Float, Tensor


def pick_precision(name: str, accelerator: str) -> Any:
    """Return Lightning's name of the precision `float32`, `bf16` or `fp16`.

    Raises:
        ValueError: If the device does not support it.
    """
    if name == "fp16" and accelerator == "cpu":
        raise ValueError(
            "--precision fp16 needs a GPU: a CPU has no loss scaling and is slower with it. "
            "Use float32 or bf16."
        )
    return {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[name]


def num_devices(config: TrainingConfig) -> tuple[int, int]:
    """Return the number of devices on each node, and of nodes; those of torchrun win over the recipe."""
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if local is not None and world is not None and "TORCHELASTIC_RUN_ID" in os.environ:
        return int(local), max(1, int(world) // int(local))
    return config.devices, config.nodes


def world_size() -> int:
    """Return the number of training processes."""
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if connected else 1


def _reduced(values: Tensor, operation: Callable[[], Any], device: torch.device) -> Tensor:
    if world_size() == 1:
        return values
    moved = values.to(device, copy=True)
    torch.distributed.all_reduce(moved, op=operation())
    return moved.to(values.device)


def summed(values: Float[Tensor, " V"], device: torch.device) -> Float[Tensor, " V"]:
    """Return the sum over all processes."""
    return _reduced(values, lambda: torch.distributed.ReduceOp.SUM, device)


def largest(values: Float[Tensor, " V"], device: torch.device) -> Float[Tensor, " V"]:
    """Return the element-wise maximum over all processes. Arguments as for `summed`."""
    return _reduced(values, lambda: torch.distributed.ReduceOp.MAX, device)


def all_true(value: bool, device: torch.device) -> bool:
    """Return whether `value` is true in all processes."""
    return not bool(largest(torch.tensor([float(not value)]), device).item())


def whole_step(whole: bool, samples: int, device: torch.device) -> tuple[bool, float]:
    """Return whether all processes have a complete step, and their mean number of samples, in one all-reduce."""
    mine = torch.tensor([float(not whole), samples], dtype=torch.float64)
    lacking, total = summed(mine, device).tolist()
    return not lacking, total / world_size()


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def gather_full_tensor(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor on the CPU, gathered if it is sharded (a collective call)."""
    gathered = tensor.detach()
    if hasattr(gathered, "full_tensor"):
        gathered = gathered.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    return gathered.to("cpu", copy=True)


def shard_blocks(model: nn.Module, mesh: Any) -> None:
    """Shard a model's weights over the processes of `mesh`, block by block (FSDP2).

    The elements of each module list are gathered and freed one by one, everything else with the whole model. FSDP2
    keeps single tensors, whose norms LAMB needs; FSDP1 flattened them.
    """
    from torch.distributed.fsdp import fully_shard

    for parent in model.modules():
        if isinstance(parent, nn.ModuleList):
            for block in parent:
                if not isinstance(block, nn.ModuleList):  # of nested lists, the inner elements
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # The root is resharded after a forward pass, too: validation and averaging expect it sharded.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: nn.Module) -> bool:
    """Return whether a forward pass of the model needs all processes."""
    return any(hasattr(parameter, "to_local") for parameter in model.parameters())
