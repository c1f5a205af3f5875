"""Norms of many tensors at once, also of tensors that are spread over several processes."""

# The foreach kernels are what torch.optim itself is made of; they are "private" by their underscore only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from collections.abc import Iterable, Sequence

import torch

from perceivers.typing import Float, Tensor

__all__ = ["clip_gradients", "local", "tensor_norms"]


def local(tensor: Tensor) -> Tensor:
    """Return this process' part of a sharded tensor (its memory, not a copy), or the tensor itself.

    Everything that acts on each element alone (moments, averages) may work on the parts.
    """
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def tensor_norms(
    tensors: Sequence[Tensor], *, like: Sequence[Tensor] | None = None
) -> Float[Tensor, " P"]:
    """Return the L2 norm of each whole tensor, in the order given.

    Sharded tensors cost one message for all of them together.

    Args:
        tensors: Whole tensors, sharded tensors, or parts of sharded tensors.
        like: Where `tensors` are parts: the tensors that are sharded in the same way.

    Raises:
        ValueError: If tensors are sharded over different groups of processes.
    """
    norms = torch.stack(torch._foreach_norm([local(t) for t in tensors]))
    meshes = [getattr(t, "device_mesh", None) for t in (tensors if like is None else like)]
    sharded = {mesh for mesh in meshes if mesh is not None}
    if not sharded:
        return norms
    if len(sharded) > 1 or next(iter(sharded)).ndim > 1:
        msg = f"Norms need all parameters sharded over one line of devices; got {sharded}."
        raise ValueError(msg)
    squares = norms.square()
    torch.distributed.all_reduce(squares, group=next(iter(sharded)).get_group())
    is_sharded = torch.tensor([mesh is not None for mesh in meshes], device=norms.device)
    return torch.where(is_sharded, squares.sqrt(), norms)


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients together so that their global norm is at most `max_norm`; return the norm before.

    A gradient below the limit is not touched, not even by an epsilon in the quotient.

    Args:
        parameters: Those without a gradient are passed over.
        max_norm: None measures only.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(tensor_norms(gradients))
    if max_norm is not None:
        scale = max_norm / norm.clamp(min=max_norm)
        torch._foreach_mul_([local(g) for g in gradients], scale)
    return norm
