"""Fine-tuning: load the weights of another run where they fit, with learned positions resized."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from perceivers.data.base import atomic_write
from perceivers.data.sources.identity import RowIdentity
from perceivers.hub.checkpoint import Saved
from perceivers.hub.convert import load_any
from perceivers.inputs.positions import FourierPositions
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.position import Resizable
from perceivers.runs.splits import count_learned, read_splits
from perceivers.tasks.reconstruction_task import LABEL
from perceivers.tasks.registry import TaskConfig
from perceivers.typing import Tensor

START_FILE = "init.json"
_DEPTH = 3  # parts of a name, such as encoder.blocks.0, by which weights are grouped in messages
_FEWEST = 0.1  # smallest share of the weights
_SHOWN = 8  # groups in a sentence
_OTHER_SHAPE, _NEW, _UNUSED = "another shape", "not in the other model", "not in this model"
_OTHER_OUTPUTS = "for other classes or numbers"

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Initial weights of a model that are loaded from another one.

    Attributes:
        source: Run folder or hub id of the other model.
        weights: The loaded weights by name, in the shapes of this model.
        resized: Names of learned positions that are resized, with their shape in the other model.
        fresh: Names of weights that are initialized, and why.
        left: Names of weights of the other model that are not used, and why.
        shapes: Shapes of this model's parameters.
        theirs: Shapes of the other model's parameters.
        settings: Settings by which the weights compute another function than in the other model: here, and there.
        member: Number of the member of an ensemble. None: the other run is a single model.
    """

    source: str
    weights: Mapping[str, Tensor]
    resized: Mapping[str, Shape]
    fresh: Mapping[str, str]
    left: Mapping[str, str]
    shapes: Mapping[str, Shape]
    theirs: Mapping[str, Shape]
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict[str, tuple[Any, Any]])
    member: int | None = None

    @property
    def total(self) -> int:
        """Number of weights of this model."""
        return sum(map(_count, self.shapes.values()))

    @property
    def taken(self) -> int:
        """Number of weights that are loaded."""
        return sum(_count(self.shapes.get(name)) for name in self.weights)

    def apply(self, model: nn.Module) -> None:
        """Load the weights into a model of the planned configuration."""
        model.load_state_dict(dict(self.weights), strict=False)

    def sentences(self) -> list[str]:
        """Return the loaded, resized, unused and initialized weights as sentences, grouped by module."""
        member = "" if self.member is None else f"member {self.member} of "
        first = f"Began from the weights of {member}{self.source}: "
        if self.taken == self.total and not self.resized and not self.left:
            return [f"{first}all {self.total:,} of them.", *self._warnings()]
        lines = [f"{first}{self.taken:,} of this model's {self.total:,}."]
        groups = {
            "Taken over": _grouped(
                [name for name in self.weights if name not in self.resized], self.shapes
            ),
            "Resized": [
                f"{name} ({was[0]:,} places to {self.weights[name].shape[0]:,})"
                for name, was in self.resized.items()
            ],
            "Fresh": [
                group
                for why in (_NEW, _OTHER_SHAPE, _OTHER_OUTPUTS)
                for group in _grouped(
                    [n for n, w in self.fresh.items() if w == why], self.shapes, why
                )
            ],
            "Not used": _grouped(self.left, self.theirs, _UNUSED),
        }
        lines += [f"{word}: {'; '.join(found)}." for word, found in groups.items() if found]
        return lines + self._warnings()

    def _warnings(self) -> list[str]:
        """Return a warning that names the settings that differ, or nothing."""
        found = [
            f"{name} is {_value(here)}, there {_value(there)}"
            for name, (here, there) in self.settings.items()
        ]
        if not found:
            return []
        rest = f"; {len(found) - _SHOWN} more, see {START_FILE}" if len(found) > _SHOWN else ""
        return [
            f"Warning: with the settings of this run the same weights compute another function than in {self.source}: "
            f"{'; '.join(found[:_SHOWN])}{rest}. Set them to the values there, unless the difference is intended."
        ]

    def write(self, folder: Path) -> None:
        """Write the source of every weight into a run folder."""
        content = {
            "from": self.source,
            "taken": {name: list(w.shape) for name, w in self.weights.items()},
            "resized_from": {name: list(shape) for name, shape in self.resized.items()},
            "fresh": {
                name: f"{why}: {_text(self.theirs[name])} in the other model, {_text(self.shapes[name])} in this one"
                if why == _OTHER_SHAPE
                else why
                for name, why in self.fresh.items()
            },
            "not_used": dict(self.left),
            "other_settings": {
                name: {"here": repr(here), "there": repr(there)}
                for name, (here, there) in self.settings.items()
            },
        }
        with atomic_write(folder / START_FILE) as new:
            new.write_bytes(json.dumps(content, indent=2).encode())


def plan_warm_start(
    config: PerceiverConfig,
    run: str | Path,
    *,
    preprocess: Mapping[str, Any] | None = None,
    task: TaskConfig | None = None,
    member: int = 0,
    saved: Saved | None = None,
) -> WarmStart:
    """Plan the weights that a model of this configuration loads from a run.

    A weight is loaded if name and shape are the same, unless it is that of a head for other classes or numbers. Learned
    positions (`nn.position.Resizable`) are resized if their number differs. Fourier positions are computed, not loaded.

    Args:
        config: Configuration of the new model.
        run: A run folder, a folder that `save_pretrained` of Hugging Face's Perceivers has written, or a hub id of
            either.
        preprocess: Preprocessing of each modality of the new model, compared with that of the other.
        task: Task of the new model, whose output names are compared with those of the other. None: heads are loaded.
        member: Number of the member whose weights are loaded, if the run is an ensemble; above the last one, counted
            from the first again.
        saved: The model of `run`, if it is loaded already.

    Raises:
        OSError: If no model is saved there, or it cannot be read.
        ValueError: If less than a tenth of the weights fits, as between models of different kinds, or one is not
            finite.
    """
    other = load_any(run) if saved is None else saved
    members = other.model.members
    theirs = members[member % len(members)]
    with torch.device("meta"):
        mine = build(config)
    found = theirs.state_dict()
    expected = {name: tuple(t.shape) for name, t in mine.state_dict().items()}
    heads = _other_heads(task, other.config.task)
    same = {
        name: weight
        for name, weight in found.items()
        if expected.get(name) == tuple(weight.shape) and not name.startswith(heads)
    }
    others = dict(theirs.named_modules())
    places = {  # learned positions of the other model, resized to this one
        f"{name}.{parameter}": vectors.clone()
        for name, module in mine.named_modules()
        if isinstance(module, Resizable) and name in others
        for parameter, vectors in module.resized_from(others[name]).items()
    }
    weights = {**same, **places}
    # Grids of 4 x 6 and 6 x 4 cells have equally many vectors.
    resized = [n for n, w in places.items() if n not in same or not torch.equal(w, found[n])]
    plan = WarmStart(
        source=str(run),
        member=member % len(members) if len(members) > 1 else None,
        weights=weights,
        resized={name: tuple(found[name].shape) for name in resized},
        fresh={n: _why_fresh(found.get(n), expected[n]) for n in expected if n not in weights},
        left={name: _UNUSED for name in found if name not in expected},
        shapes={name: tuple(p.shape) for name, p in mine.named_parameters()},
        theirs={name: tuple(p.shape) for name, p in theirs.named_parameters()},
        settings=_differing_settings(
            _settings(config, mine, preprocess or {}),
            _settings(other.config.model, theirs, other.config.preprocess),
        ),
    )
    _check_weights(plan)
    return plan


def _check_weights(plan: WarmStart) -> None:
    """Check that enough weights fit, and that they are finite.

    Raises:
        ValueError: If not.
    """
    if plan.taken < _FEWEST * plan.total:
        raise ValueError(_misfit(plan))
    broken = [name for name, weight in plan.weights.items() if not torch.isfinite(weight).all()]
    if broken:
        raise ValueError(
            f"The weights of {plan.source} are not finite: {broken[0]} holds NaN or infinity. Expected a model whose "
            "training did not diverge; give another --init-from."
        )


def _why_fresh(other: Tensor | None, shape: Shape) -> str:
    """Return the reason for which a weight is initialized."""
    if other is None:
        return _NEW
    return _OTHER_SHAPE if tuple(other.shape) != shape else _OTHER_OUTPUTS


def _other_heads(task: TaskConfig | None, other: TaskConfig | None) -> tuple[str, ...]:
    """Return beginnings of the names of head weights whose outputs are other classes or numbers in the other model."""
    if task is None or other is None:
        return ()
    if task.subtasks:
        theirs = other.subtasks
        names = [n for n, part in task.subtasks.items() if n in theirs and _differ(part, theirs[n])]
        return tuple(f"output.heads.{name}." for name in names)
    if not _differ(task, other):
        return ()
    parts = task.output_parts()
    names = [LABEL] if LABEL in parts else [*parts]
    return (
        *(f"output.heads.{name}." for name in names),
        "output.to_logits.",
        "output.element_pools.",
    )


def _differ(task: Any, other: Any) -> bool:
    """Return whether the outputs of two tasks have names, and others."""
    mine, theirs = task.output_names, other.output_names
    return bool(mine and theirs and mine != theirs)


def known_start(folder: Path) -> str | None:
    """Return the run from whose weights a run in a folder started, if any."""
    path = folder / START_FILE
    return json.loads(path.read_bytes())["from"] if path.is_file() else None


def leak_sentence(
    source: str | Path | None, rows: Sequence[RowIdentity], *, folds: int, streamed: bool
) -> str:
    """Return a warning if the other run was trained on validation rows of this run, or if that is unknown, else "".

    Args:
        source: Run folder or hub id of the other run. None: there is none.
        rows: Rows of this run.
        folds: Number of its folds. 0: a single validation split.
        streamed: Whether the data are streamed, so that rows are not known.
    """
    if source is None:
        return ""
    try:
        saved = None if streamed else read_splits(Path(source))
    except ValueError:  # a damaged file
        saved = None
    if saved is None:
        return (
            f"If {source}, whose weights this run starts from, was trained on rows that are validation rows here, the "
            "validation metrics are too good."
        )
    learned, held = count_learned(saved, rows, folds=folds)
    if not learned:
        return ""
    what = "validation rows" if not folds else "rows, each held out by its fold,"
    return (
        f"Warning: {learned:,} of the {held:,} {what} were training rows of {source}, whose weights this run starts "
        "from: the validation metrics are too good."
    )


def _misfit(plan: WarmStart) -> str:
    """Return the message on weights of which too few fit."""
    differing = [name for name, why in plan.fresh.items() if why == _OTHER_SHAPE]
    example = ""
    if differing:
        name = max(differing, key=lambda n: _count(plan.shapes.get(n)))
        example = (
            f", such as {name}: {_text(plan.theirs[name])} there, {_text(plan.shapes[name])} here"
        )
    return (
        f"The weights of {plan.source} do not fit the model of this recipe: {plan.taken:,} of its {plan.total:,} could "
        f"be taken over, {len(plan.left)} arrays are not in this model and {len(differing)} have another shape"
        f"{example}. Expected a run whose encoder has the same widths (`perceivers info RUN` prints them); or leave "
        "--init-from out."
    )


# Settings that change initial weights, speed or the number of outputs, but not the function of the weights. Pools over
# elements have weights of their own, which begin at zero.
# `latents` selects blocks of a Hierarchical Perceiver.
# Instead of the configured resolution, that which a module computes with is compared.
_IRRELEVANT = frozenset(
    [
        "attn_implementation",
        "latent_init_scale",
        "latents",
        "init_scale",
        "chunk",
        "element_pools",
        "num_outputs",
        "max_side",
        "normalization",
        "size",
        "max_length",
        "max_resolution",
    ]
)


def _settings(config: PerceiverConfig, model: nn.Module, preprocess: Mapping[str, Any]) -> Any:
    """Return the settings on which the function of a model's weights depends, by their names."""
    found = {name: getattr(config, name) for name in ("inputs", "encoder", "output", "permute")}
    resolutions = {
        f"{name}.max_resolution": module.max_resolution
        for name, module in model.named_modules()
        if isinstance(module, FourierPositions)
    }
    return found | resolutions | {"preprocess": preprocess}


def _differing_settings(here: Any, there: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the settings of both that differ, by their dotted names: here, and there.

    Modalities of one model only are skipped, and outputs of another kind, whose weights are initialized.
    """
    if is_dataclass(here) and type(here) is type(there):
        parts = [f.name for f in fields(here) if f.name not in _IRRELEVANT]
        pairs = [(part, getattr(here, part), getattr(there, part)) for part in parts]
    elif isinstance(here, Mapping) and isinstance(there, Mapping):
        ours, others = cast("Mapping[str, Any]", here), cast("Mapping[str, Any]", there)
        pairs = [(part, ours[part], others[part]) for part in ours if part in others]
    else:
        is_other_output = name == "output" and type(here) is not type(there)
        return {} if here == there or is_other_output else {name: (here, there)}
    found = [_differing_settings(a, b, f"{name}.{part}".strip(".")) for part, a, b in pairs]
    return {key: value for one in found for key, value in one.items()}


def _value(value: Any) -> str:
    return str(getattr(value, "kind", value)) if is_dataclass(value) else str(value)


def _grouped(names: Collection[str], shapes: Mapping[str, Shape], why: str = "") -> list[str]:
    """Group names into the largest modules without other names, with their number of weights: `encoder (1,234)`."""
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
    groups_shown = [f"{name} ({count:,}{reason})" for name, count in largest[:_SHOWN]]
    return [*groups_shown, f"{rest} more"] if rest > 0 else groups_shown


def _count(shape: Shape | None) -> int:
    return 0 if shape is None else math.prod(shape)


def _text(shape: Shape) -> str:
    return " x ".join(map(str, shape))
