"""Results as text: a table to read, JSON or CSV to work with."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

from perceivers.escaping import escape_line, json_text
from perceivers.evaluation.evaluate import Evaluation, as_dict
from perceivers.runs.sentences import curves_sentence, few_rows_sentence, measured_calibration
from perceivers.tasks.intervals import Interval
from perceivers.tasks.metric_text import metric_text
from perceivers.tasks.prediction import Prediction
from perceivers.wording import counted

_WIDTH = 80  # of a terminal


def in_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows of cells as aligned text, the columns `right` to the right. The first row is the head."""
    rows = [[escape_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def in_blocks(rows: Sequence[Sequence[str]], *, width: int | None) -> str:
    """Return rows of cells as aligned texts one below the other, each of as many columns as fit.

    Each begins with the first column; the others are to the right.

    Args:
        rows: The first row is the head.
        width: Columns of the terminal. None: no limit.
    """
    widths = [max(len(escape_line(row[column])) for row in rows) for column in range(len(rows[0]))]
    blocks: list[list[int]] = []
    left = 0
    for column in range(1, len(widths)):
        left -= 2 + widths[column]
        if not blocks or (width is not None and left < 0):
            blocks.append([0])
            left = (width or 0) - widths[0] - 2 - widths[column]
        blocks[-1].append(column)
    return "\n\n".join(
        in_columns([[row[column] for column in block] for row in rows], right=range(1, len(block)))
        for block in blocks
    )


def evaluation_text(evaluation: Evaluation, *, form: str = "table") -> str:
    """Return an evaluation as a `table` or as `json`.

    The table's last line is the main metric with its 95 % confidence interval: `test accuracy: 98.6 % (97.4 to 99.2)`.
    """
    if form == "json":
        return json_text(as_dict(evaluation), indent=2, nan_as_null=True)
    parts = [metrics_text(evaluation.metrics, evaluation.intervals), *_each(evaluation)]
    for task, one in evaluation.tasks.items():
        if texts := _each(one):
            parts.append("\n\n".join([f"{task}:\n{texts[0]}", *texts[1:]]))
    parts += evaluation.remarks
    if evaluation.bad:
        bad = len(evaluation.bad)
        lines = [f"{counted(bad, 'sample')} could not be read and {_was(bad)} not measured:"]
        lines += [f"  {name}: {reason}" for name, reason in evaluation.bad[:10]]
        parts.append("\n".join([*lines, f"  and {bad - 10} more"] if bad > 10 else lines))
    if warning := few_rows_sentence(evaluation.split, evaluation.num_samples):
        parts.append(warning)
    name, metrics = evaluation.main_metric, evaluation.metrics
    zero = metrics.get(f"zero_{name}")  # of flow
    beside = "" if zero is None else f" (saying zero: {metric_text(name, zero)})"
    value = metric_text(name, metrics[name], evaluation.intervals.get(name))
    parts.append(f"{evaluation.split} {name}: {value}{beside}")
    return "\n\n".join(parts)


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _each(evaluation: Evaluation) -> list[str]:
    """Return a table of the classes, labels or numbers, if there is one, and sentences on curves and calibration."""
    parts: list[str] = []
    if evaluation.confusion is not None:
        rows = [["class", "recall", "precision", "n"]]
        for one in evaluation.classes():
            cells = [(one.recall, one.recall_interval), (one.precision, one.precision_interval)]
            texts = ["-" if v is None else metric_text("recall", v, ends) for v, ends in cells]
            rows.append([one.name, *texts, str(one.n)])
        parts.append(in_columns(rows, right=(1, 2, 3)))
    elif evaluation.details:
        measures = list(evaluation.details[0])
        table = _details(evaluation, measures)
        if max(map(len, table.splitlines())) > _WIDTH:
            table = _details(evaluation, measures[:1])
        parts.append(table)
    if evaluation.curves and evaluation.confusion is not None:
        parts.append(curves_sentence(evaluation.curves))
    if evaluation.calibration is not None:
        parts.append(measured_calibration(evaluation.calibration))
    return parts


def _details(evaluation: Evaluation, with_interval: Sequence[str]) -> str:
    """Return a table of the metrics of each label or number, some of them with their intervals."""
    measures = list(evaluation.details[0])
    rows = [["label" if "AP" in measures else "number", *measures]]
    intervals = evaluation.detail_intervals or [{}] * len(evaluation.details)
    for name, found, ends in zip(
        evaluation.label_names, evaluation.details, intervals, strict=True
    ):
        cells = [
            "-"
            if value is None
            else metric_text(key, value, ends.get(key) if key in with_interval else None)
            for key, value in found.items()
        ]
        rows.append([name, *cells])
    return in_columns(rows, right=range(1, len(rows[0])))


def metrics_text(
    metrics: Mapping[str, float], intervals: Mapping[str, Interval] | None = None
) -> str:
    """Return metrics by name as a table, with their 95 % confidence intervals if any are known."""
    found = intervals or {}
    rows = [["measure", "value", *(["95 % interval"] if found else [])]]
    for name, value in metrics.items():
        text = metric_text(name, value, found.get(name))
        number, mark, ends = text.partition(" (")
        rows.append([name, number, *([ends.removesuffix(")") if mark else ""] if found else [])])
    return in_columns(rows, right=(1,))


def predictions_text(predictions: Sequence[Prediction], *, form: str = "table") -> str:
    """Return predictions as a `table`, as `json`, as `jsonl` (an answer on each line) or as `csv`.

    Of classes, CSV has every one's probability in a column; of several labels those too, and the predicted ones
    joined by `;`; of numbers, a column for each; of several tasks, all of these behind the task's name, `digit/label`.
    """
    if form == "json":
        return json_text([one.answer() for one in predictions], indent=2)
    if form == "jsonl":
        return "\n".join(json_text(one.answer()) for one in predictions)
    if form == "csv":
        return _csv(predictions)
    if not predictions:
        return "No predictions."
    first = predictions[0]
    if first.tasks:
        return _tasks_text(predictions)
    if first.values or first.reconstructions:
        return _numbers(predictions)
    if first.blanks:
        rows = [["file", "text", "probability"]]
        rows += [
            [one.name, " ".join(one.text.split()), f"{100 * one.probability:.1f} %"]
            for one in predictions
        ]
        return in_columns(rows, right=(2,))
    has_several = first.labels is not None
    rows = [
        ["file", *(["labels"] if has_several else []), *["label", "probability"] * len(first.top)]
    ]
    for one in predictions:
        several = [", ".join(one.labels or ()) or "-"] if has_several else []
        pairs = [cell for label, p in one.top for cell in (label, f"{100 * p:.1f} %")]
        rows.append([one.name, *several, *pairs])
    return in_columns(rows, right=range(3 if has_several else 2, len(rows[0]), 2))


def _tasks_text(predictions: Sequence[Prediction]) -> str:
    """Return a table with the prediction of each task: its label and probability, its labels, or its numbers."""
    rows = [["file"]]
    for task, part in predictions[0].tasks.items():
        rows[0] += list(part.values) or [
            task,
            *([] if part.labels is not None else ["probability"]),
        ]
    for one in predictions:
        row = [one.name]
        for part in one.tasks.values():
            if part.values:
                row += [f"{value:.6g}" for value in part.values.values()]
            elif part.labels is not None:
                row.append(", ".join(part.labels) or "-")
            else:
                row += [part.label, f"{100 * part.probability:.1f} %"]
        rows.append(row)
    return in_columns(rows, right=[i for i, head in enumerate(rows[0]) if head == "probability"])


def _numbers(predictions: Sequence[Prediction]) -> str:
    """Return the numbers of each sample, and its class where there is one, too."""
    names = list(dict.fromkeys(name for one in predictions for name in one.values))
    has_label = any(one.label for one in predictions)
    rows = [["file", *names, *(["label", "probability"] if has_label else [])]]
    for one in predictions:
        cells = [_number(name, one.values.get(name)) for name in names]
        label = [one.label, f"{100 * one.probability:.1f} %"] if has_label else []
        rows.append([one.name, *cells, *label])
    numbers = range(1, 1 + len(names))
    return in_columns(rows, right=[*numbers, *([len(names) + 2] if has_label else [])])


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return metric_text(name, value) if name.endswith("_psnr") else f"{value:.6g}"


def _csv(predictions: Sequence[Prediction]) -> str:
    first = predictions[0] if predictions else Prediction(name="")
    rows: list[list[str]]
    if first.tasks:
        rows = [["name", *first.columns()]]
        rows += [[one.name, *map(_cell, one.columns().values())] for one in predictions]
    elif first.values:
        names = list(dict.fromkeys(name for one in predictions for name in one.values))
        rows = [["name", *names, *(["label", "probability"] if first.label else [])]]
        for one in predictions:
            cells = [f"{one.values[name]:.7g}" if name in one.values else "" for name in names]
            label = [one.label, f"{one.probability:.6f}"] if first.label else []
            rows.append([one.name, *cells, *label])
    elif first.blanks:
        rows = [["name", "text", "probability"]]
        rows += [[one.name, one.text, f"{one.probability:.6f}"] for one in predictions]
    else:
        labels = list(first.probabilities)
        one_or_several = ["label", "probability"] if first.labels is None else ["labels"]
        rows = [["name", *one_or_several, *(f"p({label})" for label in labels)]]
        for one in predictions:
            predicted = [one.label, f"{one.probability:.6f}"]
            if one.labels is not None:
                predicted = [";".join(one.labels)]
            shares = [f"{one.probabilities[label]:.6f}" for label in labels]
            rows.append([one.name, *predicted, *shares])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().rstrip("\n")


def _cell(cell: Any) -> str:
    if isinstance(cell, list):
        return ";".join(cast("list[str]", cell))
    return f"{cell:.7g}" if isinstance(cell, float) else str(cell)
