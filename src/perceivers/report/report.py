"""A run as one page of HTML that can be sent around: what was trained on what, how well, at which cost."""

import importlib.util
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.hub.checkpoint import WEIGHTS_FILE
from perceivers.recipes.files import dump_recipe
from perceivers.report.examples import Example, examples_of
from perceivers.report.page import page, picture, section, share_table, svg, table
from perceivers.runs.record import LoadedRun, read_run
from perceivers.runs.report import curves_figure, table_rows
from perceivers.runs.summary import TaskSummary
from perceivers.tasks.base import metric_text

__all__ = ["limits_of", "write_html_report"]

_SHOWN_CLASSES = 30


def write_html_report(run: str | Path, out: str | Path, *, examples: int = 3) -> list[str]:
    """Write the page of a run, and return sentences on what it lacks and why.

    Args:
        run: Its folder, ended or not.
        out: The file to write.
        examples: How many samples are shown with what the model attended to, where the run's data are at hand.

    Raises:
        OSError: If the folder is not a run's, or the file cannot be written.
        ValueError: If a file of the run is something else than it should be.
    """
    past = read_run(run)
    shown, lacks = examples_of(past, examples) if examples > 0 else ([], [])
    if not importlib.util.find_spec("matplotlib"):
        lacks.append('Curves are not drawn without matplotlib: pip install "perceivers[viz]".')
    text = page(f"{past.name}: report", _sections(past, shown, lacks))
    with atomic_write(Path(out)) as new:
        new.write_bytes(text.encode())
    return lacks


def _sections(past: LoadedRun, shown: Sequence[Example], lacks: Sequence[str]) -> list[str]:
    facts = past.facts
    notes = [] if facts is None else list(facts.notes)
    versions = [] if facts is None else [[*pair] for pair in facts.versions.items()]
    bad = [] if facts is None else [f"{name}: {reason}" for name, reason in facts.bad]
    return [
        _head(past),
        section("Measures", _measures(past)),
        section("Curves", _curves(past)),
        *_classes(past),
        section("Examples", *(_example(one) for one in shown)),
        section("The run", _made(past)),
        section("Size and cost", _cost(past)),
        section("Data", _items(notes)),
        section("Rows that could not be read", _items(bad[:50]) if bad else ""),
        section("Limits", _items([*limits_of(past), *lacks])),
        section("Settings", _settings(past)),
        section("Versions", table([], versions) if versions else ""),
    ]


def _head(past: LoadedRun) -> str:
    split = next(
        (one for one in ("test", "validation") if past.main_metric in past.metrics.get(one, {})), ""
    )
    lines = [f"<header><h1>{escape(past.name)}</h1>"]
    what = past.task_config.kind.replace("_", " ") if past.task_config else "a model"
    reads = ", ".join(past.model.inputs) if past.model else "unknown inputs"
    where = f", learned from <code>{escape(past.data)}</code>" if past.data else ""
    lines.append(f"<p>{escape(what.capitalize())} of {escape(reads)}{where}.</p>")
    if split:
        value = metric_text(past.main_metric, past.metrics[split][past.main_metric])
        lines.append(f'<p><span class="big">{value}</span> {split} {escape(past.main_metric)}</p>')
    if past.state != "ended":
        lines.append(f"<p><strong>This run has not ended: {escape(past.state)}.</strong></p>")
    return "\n".join([*lines, "</header>"])


def _measures(past: LoadedRun) -> str:
    splits = [one for one in ("validation", "test", "train") if one in past.metrics]
    names = dict.fromkeys(name for split in splits for name in past.metrics[split])
    rows = [
        [
            name,
            *(
                metric_text(name, v) if (v := past.metrics[s].get(name)) is not None else "-"
                for s in splits
            ),
        ]
        for name in names
    ]
    return table(["", *splits], rows) if rows else ""


def _curves(past: LoadedRun) -> str:
    if not past.rows or not importlib.util.find_spec("matplotlib"):
        return ""
    words = f"Loss, {past.main_metric} and learning rate over the steps of training"
    return svg(curves_figure(past.rows, past.main_metric), words)


def _classes(past: LoadedRun) -> list[str]:
    """Return the confusion matrix and the recall of each class of every task, or the measures of each output."""
    if past.facts is None:
        return []
    found: list[str] = []
    for name, task in [("", past.facts), *past.facts.tasks.items()]:
        of_task = f" of {name}" if name else ""
        if task.confusion is not None:
            counts: list[list[int]] = task.confusion.tolist()
            few = len(counts) <= _SHOWN_CLASSES
            found.append(
                section(
                    f"Confusion{of_task} on validation",
                    share_table(task.label_names, counts) if few else _drawn_confusion(past, name),
                )
            )
            found.append(section(f"Recall of each class{of_task}", _recall(task, counts)))
        elif task.details:
            measures = list(task.details[0])
            rows = [
                [label, *("-" if v is None else metric_text(m, v) for m, v in one.items())]
                for label, one in zip(task.label_names, task.details, strict=True)
            ]
            found.append(
                section(f"Each output{of_task} on validation", table(["", *measures], rows))
            )
    return found


def _drawn_confusion(past: LoadedRun, task: str) -> str:
    place = 0 if past.facts is None or not task else 1 + list(past.facts.tasks).index(task)
    words = "Share of each true class that was predicted as each class"
    path = past.folder / (f"confusion-{place}.png" if task else "confusion.png")
    return picture(path.read_bytes(), words) if path.is_file() else ""


def _recall(task: TaskSummary, counts: list[list[int]]) -> str:
    rows: list[tuple[float, list[str]]] = []
    for index, row in enumerate(counts):
        if total := sum(row):
            others = [0 if place == index else count for place, count in enumerate(row)]
            worst = max(range(len(row)), key=others.__getitem__)
            mistaken = f"{task.label_names[worst]} ({others[worst]})" if others[worst] else ""
            share = row[index] / total
            rows.append((share, [task.label_names[index], f"{share:.1%}", f"{total}", mistaken]))
    rows.sort(key=lambda one: one[0])
    return table(["class", "recall", "samples", "most often taken for"], [row for _, row in rows])


def _example(one: Example) -> str:
    return picture(one.picture, f"{one.name} ({one.words})")


def _made(past: LoadedRun) -> str:
    if past.facts is None:
        return ""
    rows = [row for row in table_rows(past.facts) if row[0] != "command"]
    command = past.facts.command
    told = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return told + table([], rows, numbers=False)


def _cost(past: LoadedRun) -> str:
    rows: list[list[str]] = []
    if past.cost is not None:
        rows += [
            ["parameters", f"{past.cost.num_parameters:,}"],
            [
                "input",
                f"{past.cost.num_elements:,} elements of {past.cost.input_channels} channels",
            ],
            ["FLOPs a sample, really done", f"{past.cost.flops / 1e9:,.3g} G"],
            ["FLOPs a sample, by the papers", f"{past.cost.paper_flops / 1e9:,.3g} G"],
        ]
    weights = past.folder / WEIGHTS_FILE
    if weights.is_file():
        rows.append(["weights on the disk", f"{weights.stat().st_size / 2**20:,.1f} MiB"])
    if past.samples_per_second:
        rows.append(["samples a second in training", f"{past.samples_per_second:,.3g}"])
    return table([], rows) if rows else ""


def _items(sentences: Sequence[str]) -> str:
    return (
        f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in sentences)}</ul>" if sentences else ""
    )


def _settings(past: LoadedRun) -> str:
    if past.recipe is None:
        return ""
    return (
        "<details><summary>Everything that was set</summary>"
        f"<pre><code>{escape(dump_recipe(past.recipe))}</code></pre></details>"
    )


def limits_of(past: LoadedRun) -> list[str]:
    """Return sentences on what the numbers of a run do not say."""
    told: list[str] = []
    if "test" not in past.metrics:
        told.append(
            "No test split was measured. The weights were chosen by the validation split, so its numbers are a little "
            "too good."
        )
    count = past.metrics.get("validation", {}).get("samples")
    if count and count < 1000:
        told.append(f"Validation has only {count:,.0f} samples: small differences are chance.")
    task: Any = past.task_config
    names: Sequence[str] = getattr(task, "label_names", ())
    if names and task.kind == "classification":
        told.append(
            f"It always answers with one of {len(names)} classes, also for what is none of them."
        )
    told.append(
        "It was measured on data that were gathered as those it learned from; elsewhere it may be worse."
    )
    return told
