"""Going on: what must be the same as before, and what may differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perceivers.recipes.registry import Recipe
from perceivers.training.files import read_payload

__all__ = ["Before", "check_same_recipe", "differing_fields", "read_place"]

# What a resumed run may have differently: where it computes and what it shows.
_FREE = (
    "training.device",
    "training.devices",
    "training.nodes",
    "training.strategy",
    "training.logger",
    "training.progress",
    "data.workers",
)


def differing_fields(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two recipes differ, by dotted name, with both values."""
    before, after = _flatten(asdict(old)), _flatten(asdict(new))
    names = sorted(before.keys() | after.keys())
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def check_same_recipe(old: Recipe, new: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe than the run began with.

    Raises:
        ValueError: If they differ in more than where to compute and what to show. It names the fields.
    """
    differing = {k: v for k, v in differing_fields(old, new).items() if k not in _FREE}
    if not differing:
        return
    lines = "; ".join(
        f"{name} was {a!r}, now {b!r}" for name, (a, b) in list(differing.items())[:5]
    )
    more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
    msg = (
        f"A resumed run must have the recipe that it began with, and this one differs from "
        f"{folder / 'recipe.yaml'}: {lines}{more}. Leave these flags out, or begin a new run with another "
        f"--out (with --init-from {folder} it starts from the weights of this one)."
    )
    raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class Before:
    """Where an interrupted run was.

    Attributes:
        step: Optimizer steps done.
        world_size: Processes that trained.
    """

    step: int
    world_size: int


def read_place(path: Path) -> Before:
    """Return where the run of a checkpoint was.

    Raises:
        OSError: If it cannot be read, or is none of ours.
    """
    payload = read_payload(path, lazily=True)
    ours = payload.get("perceivers")
    if not isinstance(ours, dict):
        msg = (
            f"{path} is not a checkpoint of perceivers. A run is resumed from its own folder only."
        )
        raise OSError(msg)
    return Before(step=payload["global_step"], world_size=ours["world_size"])


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: list(tree) if isinstance(tree, tuple) else tree}
    parts = (_flatten(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in tree.items())
    return {name: value for part in parts for name, value in part.items()}
