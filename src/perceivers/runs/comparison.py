"""Runs side by side: what was measured, what it cost, which settings differ, and what may not be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from perceivers.recipes.registry import Recipe
from perceivers.runs.record import LoadedRun, read_run

# What decides which rows are held out. Beside where the data are, it makes measures comparable.
_SPLITS = ("label", "target", "split_column", "test", "group", "validation_fraction", "split_seed")
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: Those that could be read.
        settings: For each setting that differs, its value in each run; "-" where a run has none.
        notes: What must be known to compare them.
        left_out: Folder and reason of those that could not be read.
    """

    runs: Sequence[LoadedRun]
    settings: Mapping[str, Sequence[Any]]
    notes: Sequence[str]
    left_out: Sequence[tuple[str, str]]

    @property
    def measures(self) -> list[tuple[str, str]]:
        """Split and name of everything that was measured in some run, main metrics first."""
        found: dict[tuple[str, str], None] = {}
        for split in ("validation", "test", "train"):
            for run in self.runs:
                there = run.metrics.get(split, {})
                main = [run.main_metric] if run.main_metric in there else []
                found |= {(split, name): None for name in [*main, *there]}
        return list(found)


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Return runs side by side. One that cannot be read is told, and the others are kept.

    Args:
        folders: Of the runs.

    Raises:
        ValueError: If none of them can be read.
    """
    runs: list[LoadedRun] = []
    left_out: list[tuple[str, str]] = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError) as error:
            left_out.append((str(folder), " ".join(str(error).split())))
    if not runs:
        raise ValueError(
            "None of these can be compared. " + " ".join(reason for _, reason in left_out)
        )
    recipes = [run.recipe for run in runs]
    plain = [_MISSING if one is None else _plain(one) for one in recipes]
    return Comparison(runs=runs, settings=differences(plain), notes=_notes(runs), left_out=left_out)


def _plain(recipe: Recipe) -> dict[str, Any]:
    return cast("dict[str, Any]", TypeAdapter(Recipe).dump_python(recipe, mode="json"))


def differences(values: Sequence[Any], path: str = "") -> dict[str, list[Any]]:
    """Return the places at which plain data differ, with the value of each there.

    Parts that some lack, or that are of another `kind`, are one place: their fields are of different things.

    Args:
        values: Of each: dicts, lists, numbers, texts.
        path: Where they stand, as in a recipe's file.
    """
    if all(isinstance(value, dict) for value in values):
        parts = cast("Sequence[dict[str, Any]]", values)
        if len({part.get("kind") for part in parts}) == 1:
            found: dict[str, list[Any]] = {}
            for key in dict.fromkeys(key for part in parts for key in part):
                below = [part.get(key, _MISSING) for part in parts]
                found |= differences(below, f"{path}.{key}" if path else key)
            return found
    if all(value == values[0] for value in values):
        return {}
    return {path or "recipe": [_summary(value) for value in values]}


def _summary(value: Any) -> Any:
    """Return a value as it is told beside others."""
    if value is _MISSING:
        return "-"
    if isinstance(value, dict):
        part = cast("dict[str, Any]", value)
        return part.get("kind") or ", ".join(part) or "none"
    if isinstance(value, list) and len(cast("list[Any]", value)) > 6:
        return f"{len(cast('list[Any]', value))} values"
    return value


def _notes(runs: Sequence[LoadedRun]) -> list[str]:
    """Return what must be known to compare runs."""
    told = [f"{run.name} has not ended: {run.state}." for run in runs if run.state != "ended"]
    kinds = {run.name: run.task_config.kind for run in runs if run.task_config is not None}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        told.append(
            f"Other tasks ({each}): their measures are of different things, do not compare them."
        )
    names = {run.main_metric for run in runs if run.main_metric}
    if len(names) > 1 and len(set(kinds.values())) == 1:
        told.append(f"Their weights were chosen by different measures: {', '.join(sorted(names))}.")
    unknown = [run.name for run in runs if run.data is None]
    places = {run.name: run.data for run in runs if run.data is not None}
    if unknown and len(runs) > 1:
        told.append(
            f"Which data {', '.join(unknown)} learned from is not known: compare only if you know them to be the same."
        )
    if len(set(places.values())) > 1:
        each = ", ".join(f"{name} from {place}" for name, place in places.items())
        told.append(f"Other data ({each}): measures on different splits are not comparable.")
    elif places:
        told += _divided(runs)
    return told


def _divided(runs: Sequence[LoadedRun]) -> list[str]:
    """Return a note if the same data were divided in other ways, or measured on other numbers of samples."""
    recipes = [run.recipe for run in runs if run.recipe is not None]
    other = [name for name in _SPLITS if len({str(getattr(one.data, name)) for one in recipes}) > 1]
    if other:
        return [
            f"The same data, divided or labeled in other ways ({', '.join(f'data.{name}' for name in other)}): "
            "measures on different splits are not comparable."
        ]
    notes: list[str] = []
    for split in ("validation", "test"):
        counts = {
            run.name: run.metrics[split]["samples"]
            for run in runs
            if "samples" in run.metrics.get(split, {})
        }
        if len(set(counts.values())) > 1:
            each = ", ".join(f"{name} on {count:,.0f}" for name, count in counts.items())
            notes.append(f"{split} was measured on different numbers of samples: {each}.")
    return notes
