"""Which weights decay, and the optimizer that a recipe asks for."""

from torch import nn
from torch.optim import AdamW, Optimizer

from perceivers.recipes.base import OptimConfig
from perceivers.training.lamb import Lamb

__all__ = ["build_optimizer", "parameter_groups"]

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return two groups: what decays, and biases and parameters of norms, which do not.

    Learned arrays (latents, positions, queries) decay, as in DeepMind's release.
    """
    still = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    still |= {id(p) for name, p in named if name.rpartition(".")[2] == "bias"}
    decayed = [p for _, p in named if id(p) not in still]
    kept = [p for _, p in named if id(p) in still]
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Return the optimizer of `model`. Its rate is set before each step, by `learning_rate`."""
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "lamb":
        return Lamb(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
