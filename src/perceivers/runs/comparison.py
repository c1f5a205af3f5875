"""Comparison of runs: metrics, cost, settings that differ, and notes on what is not comparable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from perceivers.escaping import escape_figure
from perceivers.recipes.registry import Recipe
from perceivers.runs.record import LoadedRun, read_run
from perceivers.runs.report import curve_points, figure, save_figure

# Settings of the splits: with the same data, metrics are comparable if these are equal.
_SPLITS = ("label", "target", "split_column", "test", "group", "validation_fraction", "split_seed")
_MISSING = object()
_MARKED = 20  # curves of fewer points have markers


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        runs: The runs that could be read.
        settings: Value of each differing setting in each run; "-" if a run has none.
        notes: Sentences on what is not comparable.
        left_out: Folder and reason of each run that could not be read.
    """

    runs: Sequence[LoadedRun]
    settings: Mapping[str, Sequence[Any]]
    notes: Sequence[str]
    left_out: Sequence[tuple[str, str]]

    @property
    def measures(self) -> list[tuple[str, str]]:
        """Split and name of each metric of any run, main metrics first."""
        found: dict[tuple[str, str], None] = {}
        for split in ("validation", "test", "train"):
            for run in self.runs:
                metrics = run.metrics.get(split, {})
                main = [run.main_metric] if run.main_metric in metrics else []
                found |= {(split, name): None for name in [*main, *metrics]}
        return list(found)


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Compare runs. One that cannot be read is reported, and the others are compared.

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
    to_plain = TypeAdapter(Recipe).dump_python
    recipes = [run.recipe for run in runs]
    plain = [_MISSING if one is None else to_plain(one, mode="json") for one in recipes]
    return Comparison(runs=runs, settings=differences(plain), notes=_notes(runs), left_out=left_out)


def differences(values: Sequence[Any], path: str = "") -> dict[str, list[Any]]:
    """Return the differing values of nested data, by their path in a recipe's file.

    Parts that are missing in some, or of another `kind`, are compared as a whole.
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
    """Return a short form of a value."""
    if value is _MISSING:
        return "-"
    if isinstance(value, dict):
        part = cast("dict[str, Any]", value)
        return part.get("kind") or ", ".join(part) or "none"
    if isinstance(value, list) and len(cast("list[Any]", value)) > 6:
        return f"{len(cast('list[Any]', value))} values"
    return value


def _notes(runs: Sequence[LoadedRun]) -> list[str]:
    """Return sentences on what is not comparable."""
    notes = [f"{run.name} has not ended: {run.state}." for run in runs if run.state != "ended"]
    notes += [
        f"{run.name} is an ensemble of {run.num_members} members; its validation is out of fold, of single members, "
        "and the average of all is usually better."
        for run in runs
        if run.num_members > 1
    ]
    kinds = {run.name: run.task_config.kind for run in runs if run.task_config is not None}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        notes.append(
            f"Other tasks ({each}): their measures are of different things, do not compare them."
        )
    names = {run.main_metric for run in runs if run.main_metric}
    if len(names) > 1 and len(set(kinds.values())) == 1:
        notes.append(f"They are compared by different measures: {', '.join(sorted(names))}.")
    unknown = [run.name for run in runs if run.data is None]
    places = {run.name: run.data for run in runs if run.data is not None}
    if unknown and len(runs) > 1:
        notes.append(
            f"Which data {', '.join(unknown)} learned from is not known: compare only if you know them to be the same."
        )
    if len(set(places.values())) > 1:
        each = ", ".join(f"{name} from {place}" for name, place in places.items())
        notes.append(f"Other data ({each}): measures on different splits are not comparable.")
    elif places:
        notes += _divided(runs)
    return notes


def _divided(runs: Sequence[LoadedRun]) -> list[str]:
    """Return notes if the same data are split differently, or evaluated on other numbers of samples."""
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


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the curves of the runs as PNG.

    Raises:
        OSError: If it cannot be written.
    """
    save_figure(path, comparison_figure(comparison))


def comparison_figure(comparison: Comparison) -> Any:
    """Return a figure of matplotlib with one row for each main metric.

    Panels show the training loss and the metric over steps, the metric over minutes, and its best value against the
    FLOPs of a sample.
    """
    groups: dict[str, list[LoadedRun]] = {}
    for run in comparison.runs:
        groups.setdefault(run.main_metric or "loss", []).append(run)
    made = figure(15, 3.2 * len(groups) + 0.4 + 0.25 * len(comparison.runs))
    panels = made.subplots(len(groups), 4, squeeze=False)
    colors = {id(run): f"C{place % 10}" for place, run in enumerate(comparison.runs)}
    styles = {
        id(run): ("-", "--", ":")[place // 10 % 3] for place, run in enumerate(comparison.runs)
    }
    for row, (metric, runs) in zip(panels, groups.items(), strict=True):
        for axes, (key, over, label) in zip(
            row,
            [
                ("train/loss", "step", "step"),
                (f"validation/{metric}", "step", "step"),
                (f"validation/{metric}", "elapsed", "minutes of training"),
            ],
            strict=False,
        ):
            for run in runs:
                unit = 60 if over == "elapsed" else 1
                points = [(x / unit, y) for x, y in curve_points(run.rows, key, over)]
                if points:
                    marker = "." if len(points) < _MARKED else ""
                    look = {"color": colors[id(run)], "linestyle": styles[id(run)]}
                    axes.plot(*zip(*points, strict=True), marker=marker, **look)
            axes.set(title=key.replace("/", " "), xlabel=label)
            axes.locator_params(axis="x", nbins=5)
            axes.grid(alpha=0.3)
        _against_cost(row[3], runs, metric, colors)
    handles = [
        made.axes[0].plot(
            [], [], color=colors[id(run)], linestyle=styles[id(run)], label=escape_figure(run.name)
        )[0]
        for run in comparison.runs
    ]
    made.legend(handles=handles, loc="outside lower left", ncols=min(4, len(handles)))
    return made


def _against_cost(
    axes: Any, runs: Sequence[LoadedRun], metric: str, colors: dict[int, str]
) -> None:
    """Draw the best metric of each run against the FLOPs of a sample."""
    for run in runs:
        value = run.metrics.get("validation", {}).get(metric)
        if value is not None and run.cost is not None:
            axes.plot([run.cost.flops / 1e9], [value], "o", color=colors[id(run)])
    axes.set(title=f"best {metric}", xlabel="GFLOPs a sample")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(alpha=0.3)
