"""The curves of several runs in one picture: loss and main metric over steps, time and cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.runs.comparison import Comparison
from perceivers.runs.record import LoadedRun
from perceivers.runs.report import figure

_MARKED = 20  # curves of fewer points show each


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG.

    Raises:
        OSError: If it cannot be written.
    """
    drawn = comparison_figure(comparison)
    with atomic_write(path) as new:
        drawn.savefig(new, format="png", dpi=110)


def comparison_figure(comparison: Comparison) -> Any:
    """Return a figure of matplotlib: a row for each main metric, as measures of different things share no axis.

    Panels show the training loss and the metric over steps, the metric over minutes, and the best of it against the
    operations of a sample.
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
                _curve(axes, run, key, over, color=colors[id(run)], style=styles[id(run)])
            axes.set(title=key.replace("/", " "), xlabel=label)
            axes.locator_params(axis="x", nbins=5)
            axes.grid(alpha=0.3)
        _against_cost(row[3], runs, metric, colors)
    handles = [
        made.axes[0].plot([], [], color=colors[id(run)], linestyle=styles[id(run)], label=run.name)[
            0
        ]
        for run in comparison.runs
    ]
    made.legend(handles=handles, loc="outside lower left", ncols=min(4, len(handles)))
    return made


def _curve(axes: Any, run: LoadedRun, key: str, over: str, *, color: str, style: str) -> None:
    points = [
        (row[over] / (60 if over == "elapsed" else 1), row[key])
        for row in run.rows
        if key in row and over in row
    ]
    if points:
        marker = "." if len(points) < _MARKED else ""
        axes.plot(*zip(*points, strict=True), color=color, linestyle=style, marker=marker)


def _against_cost(
    axes: Any, runs: Sequence[LoadedRun], metric: str, colors: dict[int, str]
) -> None:
    """Draw what each run reached against what a sample costs it."""
    for run in runs:
        value = run.metrics.get("validation", {}).get(metric)
        if value is not None and run.cost is not None:
            axes.plot([run.cost.flops / 1e9], [value], "o", color=colors[id(run)])
    axes.set(title=f"best {metric}", xlabel="GFLOPs a sample")
    axes.locator_params(axis="x", nbins=5)
    axes.grid(alpha=0.3)
