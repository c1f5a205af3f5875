"""Low-rank updates of attention projections (LoRA): few parameters are trained, and merged into the weights at the end.

Reference: LoRA (arXiv:2106.09685), section 4.1: W + B A with A random and B zero, so that the first outputs are
unchanged.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from perceivers.typing import Float, Tensor

_PROJECTIONS = ("to_query", "to_key", "to_value", "to_output")
_ORIGINAL, _DOWN, _UP = (
    f".parametrizations.weight.{end}" for end in ("original", "0.down", "0.up")
)


class LowRankUpdate(nn.Module):
    """Adds the product of two narrow matrices to a weight.

    Args:
        weight: The weight, out x in.
        rank: Width of the narrow matrices.
    """

    def __init__(self, weight: Float[Tensor, "O I"], rank: int) -> None:
        super().__init__()
        out, channels = weight.shape
        self.down = nn.Parameter(torch.randn(rank, channels) * channels**-0.5)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def forward(self, weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
        """Return the updated weight."""
        return weight + (self.up @ self.down).to(weight.dtype)


def add_low_rank(model: nn.Module, rank: int) -> int:
    """Add updates to all attention projections; afterwards only these and the output's heads are trained.

    Returns:
        The number of parameters that are trained.
    """
    for module in list(model.modules()):
        if not all(hasattr(module, name) for name in _PROJECTIONS):
            continue
        for name in _PROJECTIONS:
            layer: nn.Linear = getattr(module, name)
            most = min(rank, *layer.weight.shape)
            parametrize.register_parametrization(layer, "weight", LowRankUpdate(layer.weight, most))
    for name, parameter in model.named_parameters():
        is_head = name.startswith(("output.heads.", "output.to_logits.", "output.element_pools."))
        is_update = name.endswith((_DOWN, _UP))
        parameter.requires_grad = is_head or is_update
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def merged_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model with updates under the names of one without, updates added."""
    found = {name: w for name, w in weights.items() if ".parametrizations." not in name}
    for name, weight in weights.items():
        if name.endswith(_ORIGINAL):
            layer = name.removesuffix(_ORIGINAL)
            update = weights[f"{layer}{_UP}"] @ weights[f"{layer}{_DOWN}"]
            found[f"{layer}.weight"] = weight + update.to(weight.dtype)
    return found


def merge_low_rank(model: nn.Module) -> None:
    """Add the updates to the weights of a model in place, and remove them."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
