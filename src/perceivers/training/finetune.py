"""What a run takes over from another: the weights that fit, learned places for another size, and what begins anew."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from perceivers.data.base import atomic_write
from perceivers.hub import checkpoint as hub
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.nn.position import Resizable
from perceivers.typing import Tensor

START_FILE = "init.json"
_DEPTH = 3  # parts of a name, such as encoder.blocks.0, below which weights are told together
_FEWEST = 0.1  # of the weights
_SHOWN = 8  # groups of a sentence
_ANOTHER_SHAPE, _NOT_THERE, _NOT_HERE = "another shape", "not in the other", "not in this model"

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a model begins with that takes over from another.

    Attributes:
        source: The other: a run folder or hub id.
        weights: What is taken over, by name, as this model needs it.
        resized: Of these, the learned vectors of another number of places, with their shape in the other model.
        fresh: What begins as in any new model, and why.
        left: What the other has and this model does not, and why.
        shapes: Of all of this model's weights; none for buffers.
        theirs: Shapes of all of the other's.
    """

    source: str
    weights: Mapping[str, Tensor]
    resized: Mapping[str, Shape]
    fresh: Mapping[str, str]
    left: Mapping[str, str]
    shapes: Mapping[str, Shape]
    theirs: Mapping[str, Shape]

    @property
    def total(self) -> int:
        """Number of this model's weights."""
        return sum(map(_count, self.shapes.values()))

    @property
    def taken(self) -> int:
        """Number of those that are taken over."""
        return sum(_count(self.shapes.get(name)) for name in self.weights)

    def apply(self, model: nn.Module) -> None:
        """Give the weights to a model of the configuration that was planned for."""
        model.load_state_dict(dict(self.weights), strict=False)

    def sentences(self) -> list[str]:
        """Return what was taken over, resized, left and begun anew, grouped by module."""
        first = f"Began from the weights of {self.source}: "
        if self.taken == self.total and not self.resized and not self.left:
            return [f"{first}all {self.total:,} of them."]
        told = [f"{first}{self.taken:,} of this model's {self.total:,}."]
        same = [name for name in self.weights if name not in self.resized]
        told += _told("Taken over", _grouped(same, self.shapes))
        resized = [
            f"{name} ({was[0]:,} places to {self.weights[name].shape[0]:,})"
            for name, was in self.resized.items()
        ]
        told += _told("Resized", resized)
        fresh = [
            group
            for why in (_NOT_THERE, _ANOTHER_SHAPE)
            for group in _grouped([n for n, w in self.fresh.items() if w == why], self.shapes, why)
        ]
        told += _told("Fresh", fresh)
        told += _told("Not used", _grouped(self.left, self.theirs, _NOT_HERE))
        return told

    def write(self, folder: Path) -> None:
        """Write every weight with what became of it into a run folder."""
        told = {
            "from": self.source,
            "taken": {name: list(w.shape) for name, w in self.weights.items()},
            "resized_from": {name: list(shape) for name, shape in self.resized.items()},
            "fresh": {name: self._why(name, why) for name, why in self.fresh.items()},
            "not_used": dict(self.left),
        }
        with atomic_write(folder / START_FILE) as new:
            new.write_bytes(json.dumps(told, indent=2).encode())

    def _why(self, name: str, why: str) -> str:
        if why != _ANOTHER_SHAPE:
            return why
        return f"{why}: {_text(self.theirs[name])} there, {_text(self.shapes[name])} here"


def plan_warm_start(config: PerceiverConfig, run: str | Path) -> WarmStart:
    """Return what a model of this configuration takes over from a run.

    A weight is taken over where name and shape are the same. Learned vectors of places (`nn.position.Resizable`) are
    resized where their number differs. Fourier positions are computed and need nothing.

    Args:
        config: Of the model that is to begin.
        run: A run folder, or the id of a model on the Hugging Face hub.

    Raises:
        OSError: If no model is saved there, or it cannot be read.
        ValueError: If less than a tenth of the weights fits, which between other kinds of models happens by chance.
    """
    theirs = hub.load(run).model
    with torch.device("meta"):
        mine = build(config)
    found = theirs.state_dict()
    expected = {name: tuple(t.shape) for name, t in mine.state_dict().items()}
    same = {n: w for n, w in found.items() if expected.get(n) == tuple(w.shape)}
    places = _places(mine, theirs)
    weights = {**same, **places}
    # Grids of 4 x 6 and 6 x 4 cells have equally many vectors.
    resized = [n for n, w in places.items() if n not in same or not torch.equal(w, found[n])]
    plan = WarmStart(
        source=str(run),
        weights=weights,
        resized={name: tuple(found[name].shape) for name in resized},
        fresh={
            n: _ANOTHER_SHAPE if n in found else _NOT_THERE for n in expected if n not in weights
        },
        left={name: _NOT_HERE for name in found if name not in expected},
        shapes={name: tuple(p.shape) for name, p in mine.named_parameters()},
        theirs={name: tuple(p.shape) for name, p in theirs.named_parameters()},
    )
    if plan.taken < _FEWEST * plan.total:
        raise ValueError(_too_little(plan))
    return plan


def _places(mine: Perceiver, theirs: Perceiver) -> dict[str, Tensor]:
    """Return the other model's learned vectors of places in the numbers that this one has."""
    others = dict(theirs.named_modules())
    return {
        f"{name}.{parameter}": vectors.clone()
        for name, module in mine.named_modules()
        if isinstance(module, Resizable) and name in others
        for parameter, vectors in module.resized_from(others[name]).items()
    }


def _too_little(plan: WarmStart) -> str:
    differing = [name for name, why in plan.fresh.items() if why == _ANOTHER_SHAPE]
    example = ""
    if differing:
        name = max(differing, key=lambda n: _count(plan.shapes.get(n)))
        example = (
            f", such as {name}: {_text(plan.theirs[name])} there, {_text(plan.shapes[name])} here"
        )
    return (
        f"The weights of {plan.source} do not fit the model of this recipe: {plan.taken:,} of its {plan.total:,} could "
        f"be taken over, {len(plan.left)} arrays are not in this model and {len(differing)} have another shape"
        f"{example}. Expected a run whose encoder has the same widths (`perceivers info RUN` tells them); or leave "
        "--init-from out."
    )


def _grouped(names: Collection[str], shapes: Mapping[str, Shape], why: str = "") -> list[str]:
    """Return names as the largest modules that hold nothing else, with their weights: `encoder (1,234)`."""
    wanted, groups = set(names), dict[str, int]()
    for name in names:
        if name not in shapes:  # a buffer, which goes with its module
            continue
        parts = name.split(".")
        prefixes = [".".join(parts[:depth]) for depth in range(1, min(len(parts), _DEPTH) + 1)]
        inside = {p: [n for n in shapes if f"{n}.".startswith(f"{p}.")] for p in prefixes}
        whole = [p for p in prefixes if wanted.issuperset(inside[p])]
        group = whole[0] if whole else f"parts of {prefixes[-1]}"
        groups[group] = groups.get(group, 0) + _count(shapes[name])
    reason = f", {why}" if why else ""
    largest = sorted(groups.items(), key=lambda item: -item[1])
    rest = len(largest) - _SHOWN
    told = [f"{name} ({count:,}{reason})" for name, count in largest[:_SHOWN]]
    return [*told, f"{rest} more"] if rest > 0 else told


def _told(word: str, groups: list[str]) -> list[str]:
    return [f"{word}: {'; '.join(groups)}."] if groups else []


def _count(shape: Shape | None) -> int:
    count = 0 if shape is None else 1
    for size in shape or ():
        count *= size
    return count


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))
