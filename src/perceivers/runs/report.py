"""`report.md`: results, settings and curves of a finished run."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.runs.metrics import METRICS_FILE, read_metrics
from perceivers.runs.summary import RunSummary, TaskSummary, write_summary
from perceivers.tasks.base import is_share
from perceivers.typing import Int, Tensor
from perceivers.wording import readable_duration

_SHOWN_BAD = 50
_SHOWN_CLASSES = 30  # in the table and as labels of the image


def write_report(folder: Path, summary: RunSummary) -> None:
    """Write `report.md`, `report.json`, `curves.png` and `confusion.png` into a run folder.

    Earlier evaluations (`evaluation-test.json`) are removed: they are of other weights. The images need matplotlib.
    """
    write_summary(folder, summary)
    for measured in folder.glob("evaluation-*.json"):
        measured.unlink()
    images: list[str] = []
    missing = 'The curves are not drawn: `pip install "perceivers[viz]"`.'
    if importlib.util.find_spec("matplotlib"):
        missing = ""
        if log := read_metrics(folder / METRICS_FILE):
            save_figure(folder / "curves.png", curves_figure(log, summary.main_metric))
            images.append("![Loss, metric and learning rate](curves.png)")
        for place, (task, part) in enumerate([("", summary), *summary.tasks.items()]):
            if part.confusion is not None:
                name = f"confusion-{place}.png" if task else "confusion.png"
                _draw_confusion(folder / name, part.confusion, part.label_names)
                of_task = f" of {task}" if task else ""
                images.append(f"![Confusion matrix{of_task} of the validation split]({name})")
    rows = [(f"validation {name}", _number(name, v)) for name, v in summary.metrics.items()]
    lines = [f"| {name} | {value} |" for name, value in [*rows, *table_rows(summary)]]
    table = "\n".join(["| | |", "|---|---|", *lines])
    sections = [f"# {folder.name}", table, *images, missing]
    for task, part in [("", summary), *summary.tasks.items()]:
        sections += [_classes(part, task), _details(part, task)]
    if summary.notes:
        sections.append("\n".join(["## Notes", "", *(f"- {note}" for note in summary.notes)]))
    if bad := summary.bad:
        lines = [f"- `{name}`: {reason}" for name, reason in bad[:_SHOWN_BAD]]
        lines += [f"- and {len(bad) - _SHOWN_BAD} more"] if len(bad) > _SHOWN_BAD else []
        head = ["## Rows that could not be read", "", f"{len(bad)} rows were left out.", ""]
        sections.append("\n".join([*head, *lines]))
    text = "\n\n".join(section for section in sections if section) + "\n"
    with atomic_write(folder / "report.md") as new:
        new.write_bytes(text.encode())


def table_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Return the known properties of a run, with their names."""
    rows = [
        ("weights saved", f"those of step {summary.best_step:,}, best by {summary.main_metric}"),
        ("recipe", summary.name),
        ("parameters", f"{summary.num_parameters:,}"),
        ("trained", f"{summary.steps:,} steps, {summary.epochs:.4g} epochs"),
        ("time", readable_duration(summary.seconds)),
        ("device", summary.device),
        ("step", summary.batch),
        ("waiting for data", summary.waiting),
        ("command", f"`{summary.command}`" if summary.command else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _number(name: str, value: float) -> str:
    if is_share(name):
        return f"{value:.2%}"
    return f"{value:,.0f}" if name.rpartition("/")[2] in ("samples", "n") else f"{value:.4g}"


def _classes(summary: TaskSummary, task: str = "") -> str:
    """Return the share found of each class, the hardest first."""
    if summary.confusion is None:
        return ""
    rows = [
        f"| {name} | {total} | {recall:.1%} | {mistaken} |"
        for name, total, recall, mistaken in summary.recalls()
    ]
    lines = rows[:_SHOWN_CLASSES]
    more = f"\n\nand {len(rows) - _SHOWN_CLASSES} more." if len(rows) > _SHOWN_CLASSES else ""
    head = [
        f"## Classes of {task}" if task else "## Classes",
        "",
        "| class | samples | found | most often taken for |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + more


def _details(summary: TaskSummary, task: str = "") -> str:
    """Return the measures of each label or number, the worst first."""
    if not summary.details:
        return ""
    measures = list(summary.details[0])
    rows = list(zip(summary.label_names, summary.details, strict=True))
    if "AP" in measures:  # labels without samples have none
        rows = [row for row in rows if row[1]["AP"] is not None]
        rows.sort(key=lambda row: row[1]["AP"] or 0.0)
    lines = ["| | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for name, found in rows[:_SHOWN_CLASSES]:
        cells = ["" if value is None else _number(key, value) for key, value in found.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    more = f"\n\nand {len(rows) - _SHOWN_CLASSES} more." if len(rows) > _SHOWN_CLASSES else ""
    title = "## Labels" if "AP" in measures else "## Numbers"
    title += f" of {task}" if task else ""
    return "\n".join([title, "", *lines]) + more


def figure(width: float, height: float) -> Any:
    """Return a figure without a display and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def curves_figure(rows: Sequence[Mapping[str, float]], metric: str) -> Any:
    """Return a figure of loss, metric and learning rate over the steps."""
    made = figure(10, 3)
    panels = {"loss": "loss", metric: metric, "lr": "learning rate"}
    for axes, (name, title) in zip(made.subplots(1, 3), panels.items(), strict=True):
        for key in (f"train/{name}", f"validation/{name}", name):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                marker = "." if len(points) < 20 else ""
                axes.plot(*zip(*points, strict=True), label=key.partition("/")[0], marker=marker)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if name != "lr" and axes.lines:
            axes.legend()
    return made


def _draw_confusion(path: Path, confusion: Int[Tensor, "K K"], names: Sequence[str]) -> None:
    counts = confusion.double()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(4 + 0.3 * len(names), 14)
    made = figure(side, side)
    axes = made.subplots()
    image = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set(title="share of each true class", xlabel="predicted", ylabel="true")
    if len(names) <= _SHOWN_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        for row, column in (confusion > 0).nonzero().tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(int(confusion[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    made.colorbar(image, shrink=0.8)
    save_figure(path, made)


def save_figure(path: Path, made: Any) -> None:
    """Write a figure of matplotlib as PNG."""
    with atomic_write(path) as new:
        made.savefig(new, format="png", dpi=110)
