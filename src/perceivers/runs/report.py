"""`report.md`: results, settings and curves of a finished run."""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.escaping import encode_text, escape_figure, escape_markdown, markdown_code
from perceivers.runs.metrics import METRICS_FILE, read_metrics
from perceivers.runs.sentences import calibration_sentence, curves_sentence, few_rows_sentence
from perceivers.runs.summary import RunSummary, TaskSummary, write_summary
from perceivers.tasks.calibration import Calibration
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import Interval, wilson_interval
from perceivers.tasks.metric_text import metric_text
from perceivers.typing import Int, Tensor
from perceivers.wording import counted, readable_duration

_SHOWN_BAD = 50
_SHOWN_CLASSES = 30  # in the table and as labels of the image


def write_report(folder: Path, summary: RunSummary) -> None:
    """Write `report.md`, `report.json` and images of curves, confusion and calibration into a run folder.

    Earlier evaluations (`evaluation-test.json`) are removed: they are of other weights. The images need matplotlib.
    """
    write_summary(folder, summary)
    for measured in folder.glob("evaluation-*.json"):
        measured.unlink()
    rows = [
        (f"validation {name}", metric_text(name, value, summary.intervals.get(name)))
        for name, value in summary.metrics.items()
    ]
    rows += [
        (name, markdown_code(value) if name == "command" else escape_markdown(value))
        for name, value in table_rows(summary)
    ]
    lines = [f"| {escape_markdown(name)} | {value} |" for name, value in rows]
    count = int(summary.metrics.get("samples", 0))
    about = f"Metrics of the validation split ({counted(count, 'row')}), with 95 % confidence intervals."
    if summary.members:
        about = (
            f"An ensemble of {len(summary.members)} members, whose outputs are averaged. Metrics out of fold: each of "
            f"{counted(count, 'row')} is predicted by the member that has not learned it, with 95 % confidence "
            "intervals."
        )
    sections = [
        f"# {escape_markdown(folder.name)}",
        f"{about} {few_rows_sentence('validation', count, members=len(summary.members))}".rstrip(),
        "\n".join(["| | |", "|---|---|", *lines]),
        _members(summary),
        *_images(folder, summary),
    ]
    for place, (task, part) in enumerate([("", summary), *summary.tasks.items()]):
        sections += [_classes(part, task), _details(part, task)]
        sections.append(_trust(part, task, place, folder))
    if summary.notes:
        notes = (f"- {escape_markdown(note)}" for note in summary.notes)
        sections.append("\n".join(["## Notes", "", *notes]))
    if bad := summary.bad:
        lines = [
            f"- {escape_markdown(name)}: {escape_markdown(why)}" for name, why in bad[:_SHOWN_BAD]
        ]
        lines += [f"- and {len(bad) - _SHOWN_BAD} more"] if len(bad) > _SHOWN_BAD else []
        were = f"{counted(len(bad), 'row')} {'was' if len(bad) == 1 else 'were'} left out."
        sections.append("\n".join(["## Rows that could not be read", "", were, "", *lines]))
    text = "\n\n".join(section for section in sections if section) + "\n"
    with atomic_write(folder / "report.md") as new:
        new.write_bytes(encode_text(text))


def _images(folder: Path, summary: RunSummary) -> list[str]:
    """Draw curves and confusion matrices into a run folder, and return the lines that show them."""
    if not importlib.util.find_spec("matplotlib"):
        return ['The curves are not drawn: `pip install "perceivers[viz]"`.']
    images: list[str] = []
    if log := read_metrics(folder / METRICS_FILE):
        save_figure(folder / "curves.png", curves_figure(log, summary.main_metric))
        images.append("![Loss, metric and learning rate](curves.png)")
    for place, (task, part) in enumerate([("", summary), *summary.tasks.items()]):
        if part.confusion is not None:
            name = f"confusion-{place}.png" if task else "confusion.png"
            _draw_confusion(folder / name, part.confusion, part.label_names)
            of_task = f" of {escape_markdown(task)}" if task else ""
            images.append(f"![Confusion matrix{of_task} of the validation split]({name})")
    return images


def table_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Return the known properties of a run, with their names."""
    found = summary.baseline
    beside = (
        "" if found is None else f"{metric_text(found.metric, found.value)}, {found.describe()}"
    )
    plural = "" if summary.epochs == 1 else "s"
    rows = [
        (f"simple baseline {summary.main_metric}", beside),
        ("weights saved", _saved_weights(summary)),
        ("recipe", summary.name),
        ("parameters", f"{summary.num_parameters:,}"),
        ("trained", f"{counted(summary.steps, 'step')}, {summary.epochs:.4g} epoch{plural}"),
        ("time", readable_duration(summary.seconds)),
        ("device", summary.device),
        ("step", summary.batch),
        ("waiting for data", summary.waiting),
        ("command", summary.command),
    ]
    return [(name, value) for name, value in rows if value]


def _saved_weights(summary: RunSummary) -> str:
    if not summary.members:
        return f"those of step {summary.best_step:,}"
    steps = ", ".join(f"{one.step:,}" for one in summary.members)
    return f"{len(summary.members)} members: those of steps {steps}"


MEMBER_HEAD = ("fold", "rows", "metric", "loss", "weights of step", "steps", "time")
"""Titles of the columns of `member_cells`."""


def member_cells(summary: RunSummary) -> list[list[str]]:
    """Return rows, result and length of training of each member of an ensemble."""
    name = summary.main_metric
    return [
        [
            str(index),
            f"{one.rows:,}",
            "-" if one.value is None else metric_text(name, one.value),
            "-" if one.loss is None else metric_text("loss", one.loss),
            f"{one.step:,}",
            f"{one.steps:,}",
            readable_duration(one.seconds),
        ]
        for index, one in enumerate(summary.members, start=1)
    ]


def _members(summary: RunSummary) -> str:
    """Return the table of the members of an ensemble."""
    if not summary.members:
        return ""
    about = (
        f"Each on the rows of its fold, which it has not learned (metric: {summary.main_metric})."
    )
    rows = [f"| {' | '.join(cells)} |" for cells in member_cells(summary)]
    head = f"| {' | '.join(MEMBER_HEAD)} |"
    return "\n".join(["## Members", "", about, "", head, "|---" * len(MEMBER_HEAD) + "|", *rows])


def _classes(summary: TaskSummary, task: str = "") -> str:
    """Return recall and precision of each class, the lowest recall first."""
    if summary.confusion is None:
        return ""
    rows = [
        f"| {' | '.join([escape_markdown(name), *cells, escape_markdown(wrong)])} |"
        for name, *cells, wrong in class_cells(summary)
    ]
    lines = rows[:_SHOWN_CLASSES]
    more = f"\n\nand {len(rows) - _SHOWN_CLASSES} more." if len(rows) > _SHOWN_CLASSES else ""
    head = [
        f"## Classes of {escape_markdown(task)}" if task else "## Classes",
        "",
        f"| {' | '.join(CLASS_HEAD)} |",
        "|---" * len(CLASS_HEAD) + "|",
    ]
    return "\n".join([*head, *lines]) + more


CLASS_HEAD = ("class", "rows", "recall", "precision", "most often taken for")
"""Titles of the columns of `class_cells`."""


def class_cells(summary: TaskSummary) -> list[list[str]]:
    """Return name, rows, recall and precision with intervals, and the most frequent wrong class of each class."""
    return [
        [
            one.name,
            f"{one.n:,}",
            share_text(one.recall, one.recall_interval),
            share_text(one.precision, one.precision_interval),
            "" if one.taken_for is None else f"{one.taken_for[0]} ({one.taken_for[1]:,})",
        ]
        for one in summary.classes()
    ]


def share_text(value: float | None, interval: Interval | None) -> str:
    """Return a share with its interval, or - if it is undefined."""
    return "-" if value is None else metric_text("recall", value, interval)


def detail_cells(summary: TaskSummary) -> list[list[str]]:
    """Return the name of each label or number and its metrics with intervals, the lowest average precision first."""
    intervals = summary.detail_intervals or [{}] * len(summary.details)
    rows = list(zip(summary.label_names, summary.details, intervals, strict=True))
    if rows and "AP" in rows[0][1]:  # labels without samples have none
        rows = [row for row in rows if row[1]["AP"] is not None]
        rows.sort(key=lambda row: row[1]["AP"] or 0.0)
    return [
        [
            name,
            *(
                "-" if value is None else metric_text(key, value, ends.get(key))
                for key, value in found.items()
            ),
        ]
        for name, found, ends in rows
    ]


def _details(summary: TaskSummary, task: str = "") -> str:
    """Return the measures of each label or number, the worst first."""
    if not summary.details:
        return ""
    measures = list(summary.details[0])
    rows = detail_cells(summary)
    lines = ["| | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    lines += [
        f"| {' | '.join([escape_markdown(name), *cells])} |"
        for name, *cells in rows[:_SHOWN_CLASSES]
    ]
    more = f"\n\nand {len(rows) - _SHOWN_CLASSES} more." if len(rows) > _SHOWN_CLASSES else ""
    title = "## Labels" if "AP" in measures else "## Numbers"
    title += f" of {escape_markdown(task)}" if task else ""
    return "\n".join([title, "", *lines]) + more


def _trust(summary: TaskSummary, task: str, place: int, folder: Path) -> str:
    """Return sentences on calibration and curves, and draw both."""
    parts: list[str] = []
    has_drawing = importlib.util.find_spec("matplotlib") is not None
    number = f"-{place}" if task else ""
    if summary.calibration is not None:
        parts.append(calibration_sentence(summary.calibration))
        if has_drawing:
            name = f"reliability{number}.png"
            save_figure(folder / name, reliability_figure(summary.calibration))
            parts.append(f"![Reliability of the probabilities]({name})")
    if summary.curves:
        parts.append(escape_markdown(curves_sentence(summary.curves)))
        if has_drawing:
            name = f"roc{number}.png"
            save_figure(folder / name, roc_figure(summary.curves))
            parts.append(f"![ROC and precision-recall curves]({name})")
    title = (
        f"## Calibration and curves of {escape_markdown(task)}"
        if task
        else "## Calibration and curves"
    )
    return "\n\n".join([title, *parts]) if parts else ""


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
            points = curve_points(rows, key)
            if points:
                marker = "." if len(points) < 20 else ""
                axes.plot(*zip(*points, strict=True), label=key.partition("/")[0], marker=marker)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if name != "lr" and axes.lines:
            axes.legend()
    return made


def curve_points(
    rows: Sequence[Mapping[str, Any]], key: str, over: str = "step"
) -> list[tuple[float, float]]:
    """Return the points of a curve. Values of training that average few steps are averaged with those before.

    A line is written every 50 steps and at the end of each epoch, so that a line may average a single step, whose value
    scatters much more than those beside it.

    Args:
        rows: Lines of `metrics.jsonl`.
        key: Name of the value.
        over: Name of the value of the horizontal axis.
    """
    known = [row for row in rows if key in row and over in row]
    if not key.startswith("train/"):
        return [(row[over], row[key]) for row in known]
    steps = [row["step"] for row in known]
    counts = [step - before for step, before in zip(steps, [0, *steps], strict=False)]
    enough = max(counts, default=0) / 2
    points: list[tuple[float, float]] = []
    weights: list[int] = []
    for row, count in zip(known, counts, strict=True):
        point, weight = (row[over], row[key]), max(count, 1)
        if weights and min(weight, weights[-1]) < enough:
            total = weights[-1] + weight
            mean = (points[-1][1] * weights[-1] + point[1] * weight) / total
            points[-1], weights[-1] = (point[0], mean), total
        else:
            points.append(point)
            weights.append(weight)
    return points


def reliability_figure(calibration: Calibration) -> Any:
    """Return a figure of accuracy over confidence, before and after temperature scaling."""
    made = figure(4.6, 4.2)
    axes = made.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":", label="perfect")
    curves = [("C0", "o", calibration.bins, f"temperature {calibration.temperature:.3g}")]
    if calibration.temperature != 1.0:
        curves.insert(0, ("C1", "s", calibration.bins_before, "temperature 1"))
    errors = {"temperature 1": calibration.ece_before}
    for color, marker, bins, label in curves:
        x, y = [one.confidence for one in bins], [one.accuracy for one in bins]
        ends = [wilson_interval(one.accuracy * one.n, one.n) for one in bins]
        low = [max(0.0, value - end[0]) for value, end in zip(y, ends, strict=True)]
        high = [max(0.0, end[1] - value) for value, end in zip(y, ends, strict=True)]
        error = errors.get(label, calibration.ece)
        text = f"{label}: error {100 * error:.1f} %"
        axes.errorbar(x, y, yerr=[low, high], color=color, elinewidth=0.6, linewidth=0.5, alpha=0.6)
        most = max((one.n for one in bins), default=1)
        sizes = [8 + 52 * one.n / most for one in bins]  # by the number of samples
        axes.scatter(x, y, s=sizes, color=color, marker=marker, linewidth=0, label=text, zorder=3)
    axes.set(xlabel="predicted probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    return made


def roc_figure(curves: Sequence[Curve]) -> Any:
    """Return a figure of ROC and precision-recall curves."""
    made = figure(9, 4.2 + 0.2 * (len(curves) // 3))
    left, right = made.subplots(1, 2)
    for one in curves:
        name = one.name if len(one.name) <= 24 else f"{one.name[:21]}..."
        label = f"{name}: {one.auc:.3f} / {one.average_precision:.3f}"
        left.plot(*zip(*one.roc, strict=True), label=escape_figure(label), linewidth=1.2)
        right.step(*zip(*one.precision_recall, strict=True), where="pre", linewidth=1.2)
    left.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="precision and recall", xlabel="recall", ylabel="precision")
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.03))
        axes.grid(alpha=0.3)
    made.legend(
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        title="area / average precision",
        title_fontsize=8,
    )
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
        shown = [escape_figure(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90)
        axes.set_yticks(range(len(names)), shown)
        for row, column in (confusion > 0).nonzero().tolist():
            color = "white" if shares[row, column] > 0.5 else "black"
            text = str(int(confusion[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    made.colorbar(image, shrink=0.8)
    save_figure(path, made)


def save_figure(path: Path, made: Any) -> None:
    """Write a figure of matplotlib as PNG."""
    with atomic_write(path) as new, warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        made.savefig(new, format="png", dpi=110)
