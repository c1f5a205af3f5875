"""Frozen parts of a model in fine-tuning, and learning rates of its parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from perceivers.data.base import nearest

_EVERYTHING_BUT = "all-but"
_GROUPS = {
    "encoder": ("inputs", "fusion", "encoder"),
    "head": ("output.heads", "output.to_logits", "output.element_pools"),
}
"""Names of parts that are several modules: `encoder` is all that the latents depend on."""


@dataclass(frozen=True)
class FrozenPart:
    """Parameters that keep their values.

    Attributes:
        prefixes: Beginnings of the names of modules.
        epochs: Epochs after which they are trained. None: never.
        is_rest: All parameters but those with these names are meant.
    """

    prefixes: tuple[str, ...]
    epochs: int | None = None
    is_rest: bool = False

    def holds(self, name: str) -> bool:
        """Return whether a parameter or module of this name belongs to it."""
        is_inside = any(f"{name}.".startswith(f"{prefix}.") for prefix in self.prefixes)
        return is_inside != self.is_rest


def frozen_parts(freeze: Sequence[str], model: nn.Module) -> list[FrozenPart]:
    """Return the parts that `training.freeze` names.

    Args:
        freeze: Names of parts: `encoder` (adapters and encoder), `head`, or a module such as `encoder.blocks`; with
            `:3`, for three epochs; `all-but head`, two words, for all parameters outside of a part.
        model: The model.

    Raises:
        ValueError: If the model has no such part, a number of epochs is none, or nothing is left to train.
    """
    words, parts = list(freeze), list[FrozenPart]()
    while words:
        word = words.pop(0)
        is_rest = word == _EVERYTHING_BUT
        if is_rest and not words:
            raise ValueError("Expected the name of a part after all-but: --freeze all-but head.")
        name, _, epochs = (words.pop(0) if is_rest else word).partition(":")
        if epochs and (not epochs.isdecimal() or int(epochs) < 1):
            raise ValueError(
                f"Expected a number of epochs in --freeze {name}:EPOCHS, got {epochs}."
            )
        parts.append(FrozenPart(_prefixes(name, model), int(epochs) if epochs else None, is_rest))
    never = [part for part in parts if part.epochs is None]
    names = [name for name, _ in model.named_parameters()]
    if never and all(any(part.holds(name) for part in never) for name in names):
        raise ValueError(
            f"With --freeze {' '.join(freeze)} nothing is left to train. Leave a part out, such as the head: --freeze "
            "all-but head."
        )
    return parts


def _prefixes(name: str, model: nn.Module) -> tuple[str, ...]:
    """Return the modules and parameters of a part that the model has."""
    known = [n for n, _ in model.named_modules() if n] + [n for n, _ in model.named_parameters()]
    found = tuple(prefix for prefix in _GROUPS.get(name, (name,)) if prefix in known)
    if not found:
        choices = [*_GROUPS, *dict.fromkeys(n for n in known if n.count(".") < 2)]
        raise ValueError(
            f"The model has no part '{name}'.{nearest(name, choices)} Parts are encoder, head, and modules such as "
            f"{', '.join(choices[2:6])}."
        )
    return found


def freeze(model: nn.Module, parts: Iterable[FrozenPart]) -> None:
    """Exclude the parameters from training that are frozen for the whole run."""
    for name, parameter in model.named_parameters():
        if any(part.epochs is None and part.holds(name) for part in parts):
            parameter.requires_grad = False


def drop_gradients(model: nn.Module, parts: Iterable[FrozenPart], *, epoch: int) -> None:
    """Drop the gradients of parameters that are frozen in an epoch and trained later."""
    now = [part for part in parts if part.epochs is not None and epoch < part.epochs]
    if not now:
        return
    for name, parameter in model.named_parameters():
        if any(part.holds(name) for part in now):
            parameter.grad = None


def set_evaluation(model: nn.Module, parts: Iterable[FrozenPart], *, epoch: int) -> None:
    """Set modules whose parameters are all frozen in an epoch to evaluation mode: no dropout, fixed statistics."""
    now = [part for part in parts if part.epochs is None or epoch < part.epochs]
    if not now:
        return
    for name, module in model.named_modules():
        names = [f"{name}.{own}".lstrip(".") for own, _ in module.named_parameters()]
        if names and all(any(part.holds(one) for part in now) for one in names):
            module.eval()


def learning_rate_scales(
    model: nn.Module, scales: Mapping[str, float], *, layer_decay: float = 1.0
) -> dict[str, float]:
    """Return the factor of the learning rate of each parameter, by name.

    Args:
        model: The model.
        scales: Factors by the name of a part, as in `frozen_parts`. The longest name counts.
        layer_decay: Factor from each layer to the one before it: 1 for the output, the smallest for the adapters. The
            layers are those of the encoder's blocks, with the cross-attentions of a Hierarchical Perceiver. All that
            precedes the blocks, such as learned positions, is one layer.

    Raises:
        ValueError: If the model has no such part.
    """
    named = {prefix: scale for part, scale in scales.items() for prefix in _prefixes(part, model)}
    names = [name for name, _ in model.named_parameters()]
    depths = {name: _layer(name) for name in names}
    order = sorted(set(depths.values()))
    found: dict[str, float] = {}
    for name in names:
        fitting = [prefix for prefix in named if f"{name}.".startswith(f"{prefix}.")]
        decay = layer_decay ** (len(order) - 1 - order.index(depths[name]))
        found[name] = decay * (named[max(fitting, key=len)] if fitting else 1.0)
    return found


def _layer(name: str) -> tuple[int, int, int]:
    """Return the place of a parameter between input and output, to sort by."""
    parts = name.split(".")
    if parts[0] == "output":
        return (3, 0, 0)
    if parts[0] == "encoder" and "blocks" in parts:
        number, kind, *rest = parts[parts.index("blocks") + 1 :]
        if (
            kind == "self_attends"
        ):  # of a block that begins with a cross-attention: a Hierarchical Perceiver's
            return (2, int(number), 1 + int(rest[0]))
        return (2, int(number), int(kind) if kind.isdecimal() else 0)
    if parts[0] == "encoder":
        return (1, 0, 0)
    return (0, 0, 0)
