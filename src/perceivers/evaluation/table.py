"""Results as text: a table to read, JSON or CSV to work with."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from perceivers.evaluation.predict import Prediction
from perceivers.evaluation.protocols import Evaluation, as_dict

__all__ = ["evaluation_text", "in_columns", "metrics_text", "predictions_text"]

# Percentages read better than shares; a loss is neither.
_SHARES = ("accuracy", "top5", "mean_recall")


def in_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows of cells as aligned text. The first row is the head.

    Args:
        rows: Cells; all rows are of one length.
        right: Columns that are aligned to the right.
    """
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


def evaluation_text(evaluation: Evaluation, *, form: str = "table") -> str:
    """Return an evaluation as a `table` or as `json`.

    The table's last line is the main metric: `test accuracy: 98.6 %`.
    """
    if form == "json":
        return json.dumps(as_dict(evaluation), indent=2, ensure_ascii=False)
    support = [sum(row) for row in evaluation.confusion]
    classes = [["class", "recall", "n"]]
    for (name, recall), count in zip(evaluation.recall().items(), support, strict=True):
        classes.append([name, "-" if recall is None else f"{100 * recall:.1f} %", str(count)])
    parts = [metrics_text(evaluation.metrics), in_columns(classes, right=(1, 2))]
    if evaluation.bad:
        bad = len(evaluation.bad)
        lines = [f"{bad} samples could not be read and were not measured:"]
        lines += [f"  {name}: {reason}" for name, reason in evaluation.bad[:10]]
        parts.append("\n".join([*lines, f"  and {bad - 10} more"] if bad > 10 else lines))
    return "\n\n".join([*parts, headline(evaluation)])


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return metrics by name as a table."""
    rows = [["measure", "value"]]
    rows += [[name, _value(name, value)] for name, value in metrics.items()]
    return in_columns(rows, right=(1,))


def headline(evaluation: Evaluation) -> str:
    """Return the main result in one line."""
    name = evaluation.main_metric
    return f"{evaluation.split} {name}: {_value(name, evaluation.metrics[name])}"


def predictions_text(predictions: Sequence[Prediction], *, form: str = "table") -> str:
    """Return predictions as a `table`, as `json` or as `csv` (every label's probability in a column)."""
    if form == "json":
        rows = [
            {
                "name": one.name,
                "label": one.label,
                "probability": one.probability,
                "top": [{"label": label, "probability": p} for label, p in one.top],
            }
            for one in predictions
        ]
        return json.dumps(rows, indent=2, ensure_ascii=False)
    if form == "csv":
        return _csv(predictions)
    if not predictions:
        return "No predictions."
    cells = [["file", *(["label", "probability"] * len(predictions[0].top))]]
    for one in predictions:
        pairs = [cell for label, p in one.top for cell in (label, f"{100 * p:.1f} %")]
        cells.append([one.name, *pairs])
    return in_columns(cells, right=range(2, len(cells[0]), 2))


def _csv(predictions: Sequence[Prediction]) -> str:
    labels = list(predictions[0].probabilities) if predictions else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "label", "probability", *(f"p({label})" for label in labels)])
    for one in predictions:
        shares = [f"{one.probabilities[label]:.6f}" for label in labels]
        writer.writerow([one.name, one.label, f"{one.probability:.6f}", *shares])
    return buffer.getvalue().rstrip("\n")


def _value(name: str, value: float) -> str:
    if name == "samples":
        return f"{value:,.0f}"
    return f"{100 * value:.1f} %" if name in _SHARES else f"{value:.4f}"
