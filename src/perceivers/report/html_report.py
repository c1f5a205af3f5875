"""Self-contained HTML report of a run: data, metrics, cost, settings and explained samples."""

import base64
import importlib.util
import io
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.samples import Sample
from perceivers.evaluation.evaluate import choose_split, open_for_run
from perceivers.evaluation.predict import load_predictor
from perceivers.explain.render.write import explain_file
from perceivers.hub.checkpoint import WEIGHTS_FILE, load
from perceivers.recipes.files import dump_recipe
from perceivers.runs.record import LoadedRun, read_run
from perceivers.runs.report import (
    CLASS_HEAD,
    class_cells,
    curves_figure,
    detail_cells,
    table_rows,
)
from perceivers.tasks.base import metric_text

_MAX_CLASSES = 30  # of a confusion matrix as a table
_MAX_BAD_ROWS = 50

# Colors follow the reader's choice of light or dark. Wide tables scroll on their own, for phones, and can be reached
# by the keyboard.
_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --quiet: #5c6775; --ground: #fff; --line: #d8dde3; --share: 38, 98, 168; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --quiet: #9aa6b5; --ground: #14181e; --line: #333c48; --share: 98, 160, 232; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.big { font-size: 2.2rem; font-weight: 600; line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.shares td { text-align: center; border: 1px solid var(--line); min-width: 2.2rem; }
table.shares th { font-weight: 400; white-space: nowrap; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .4rem; white-space: pre-wrap; }
code { font: .9em ui-monospace, monospace; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figure svg { width: 100%; height: auto; } figure img, figure svg { min-width: 42rem; }
details summary { cursor: pointer; }
"""


def write_html_report(run: str | Path, out: str | Path, *, examples: int = 3) -> list[str]:
    """Write the report of a run, and return sentences on missing parts and their reasons.

    Args:
        run: Run folder, ended or not.
        out: The file to write.
        examples: Number of explained samples, where the run's data are available.

    Raises:
        OSError: If the folder is not a run's, or the file cannot be written.
        ValueError: If a file of the run is invalid.
    """
    loaded = read_run(run)
    figures, missing = _examples(loaded, examples) if examples > 0 else ([], [])
    if not importlib.util.find_spec("matplotlib"):
        missing.append('Curves are not drawn without matplotlib: pip install "perceivers[viz]".')
    sections = "\n".join(part for part in _sections(loaded, figures, missing) if part)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(loaded.name)}: report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{sections}\n</main>\n</body>\n</html>\n"
    )
    with atomic_write(Path(out)) as new:
        new.write_bytes(text.encode())
    return missing


def limits_of(run: LoadedRun) -> list[str]:
    """Return sentences on the limits of a run's metrics."""
    limits: list[str] = []
    if "test" not in run.metrics:
        limits.append(
            "No test split was measured. The weights were chosen by the validation split, so its numbers are a little "
            "too good."
        )
    count = run.metrics.get("validation", {}).get("samples")
    if count and count < 1000:
        limits.append(f"Validation has only {count:,.0f} samples: small differences are chance.")
    task = run.task_config
    if task is not None and task.target_kind == "class" and task.output_names:
        limits.append(
            f"It always predicts one of its {len(task.output_names)} classes, also for samples of none of them."
        )
    limits.append(
        "It was measured on data that were collected like its training data; on other data it may be worse."
    )
    return limits


def metric_rows(run: LoadedRun, order: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the measured splits in a given order, and for each metric its name and value on each split as text."""
    splits = [one for one in order if one in run.metrics]
    names = dict.fromkeys(name for split in splits for name in run.metrics[split])
    values = {name: [run.metrics[split].get(name) for split in splits] for name in names}
    rows = [
        [name, *("-" if value is None else metric_text(name, value) for value in found)]
        for name, found in values.items()
    ]
    return splits, rows


def _sections(run: LoadedRun, examples: Sequence[str], missing: Sequence[str]) -> list[str]:
    summary = run.summary
    notes = [] if summary is None else list(summary.notes)
    versions = [] if summary is None else [[*pair] for pair in summary.versions.items()]
    bad = [] if summary is None else [f"{name}: {reason}" for name, reason in summary.bad]
    splits, metrics = metric_rows(run, ("validation", "test", "train"))
    has_curves = run.rows and importlib.util.find_spec("matplotlib")
    setup = [] if summary is None else [row for row in table_rows(summary) if row[0] != "command"]
    command = "" if summary is None else summary.command
    recipe = "" if run.recipe is None else _code(dump_recipe(run.recipe))
    details = f"<details><summary>All settings</summary>{recipe}</details>" if recipe else ""
    return [
        _header(run),
        _section("Metrics", _table(["", *splits], metrics)),
        _section("Curves", _curves(run) if has_curves else ""),
        *_tasks(run),
        _section("Examples", *examples),
        _section("The run", _code(command), _table([], setup, numbers=False)),
        _section("Size and cost", _cost(run)),
        _section("Data", _list(notes)),
        _section("Rows that could not be read", _list(bad[:_MAX_BAD_ROWS])),
        _section("Limits", _list([*limits_of(run), *missing])),
        _section("Settings", details),
        _section("Versions", _table([], versions)),
    ]


def _header(run: LoadedRun) -> str:
    task = run.task_config.kind.replace("_", " ") if run.task_config else "a model"
    inputs = ", ".join(run.model.inputs) if run.model else "unknown inputs"
    data = f", trained on <code>{escape(run.data)}</code>" if run.data else ""
    lines = [
        f"<header><h1>{escape(run.name)}</h1>",
        f"<p>{escape(task.capitalize())} of {escape(inputs)}{data}.</p>",
    ]
    metric = run.main_metric
    for split in [one for one in ("test", "validation") if metric in run.metrics.get(one, {})][:1]:
        value = metric_text(metric, run.metrics[split][metric])
        lines.append(f'<p><span class="big">{value}</span> {split} {escape(metric)}</p>')
    if run.state != "ended":
        lines.append(f"<p><strong>This run has not ended: {escape(run.state)}.</strong></p>")
    return "\n".join([*lines, "</header>"])


def _curves(run: LoadedRun) -> str:
    """Return loss, main metric and learning rate as SVG in the page's text color."""
    from matplotlib import rc_context

    figure = curves_figure(run.rows, run.main_metric)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "perceivers"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace("#000000", "currentColor").replace("#ffffff", "none")
    text = text.replace('<text style="', '<text style="fill: currentColor; ')
    label = escape(f"Loss, {run.main_metric} and learning rate over the steps of training")
    text = text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return f'<figure><div class="wide" tabindex="0">{text}</div></figure>'


def _tasks(run: LoadedRun) -> list[str]:
    """Return confusion matrix and recall of each class, or the metrics of each output, for every task."""
    if run.summary is None:
        return []
    found: list[str] = []
    for place, (name, task) in enumerate([("", run.summary), *run.summary.tasks.items()]):
        of_task = f" of {name}" if name else ""
        if task.confusion is not None:
            image = run.folder / (f"confusion-{place}.png" if name else "confusion.png")
            counts: list[list[int]] = task.confusion.tolist()
            matrix = ""
            if len(counts) <= _MAX_CLASSES:
                matrix = _confusion_table(task.label_names, counts)
            elif image.is_file():
                label = "Share of each true class that was predicted as each class"
                matrix = _image(image.read_bytes(), label)
            found.append(_section(f"Confusion{of_task} on validation", matrix))
            found.append(
                _section(f"Classes{of_task} on validation", _table(CLASS_HEAD, class_cells(task)))
            )
        elif task.details:
            table = _table(["", *task.details[0]], detail_cells(task))
            found.append(_section(f"Each output{of_task} on validation", table))
    return found


def _cost(run: LoadedRun) -> str:
    rows: list[list[str]] = []
    if run.cost is not None:
        elements = f"{run.cost.num_elements:,} elements of {run.cost.input_channels} channels"
        rows += [
            ["parameters", f"{run.cost.num_parameters:,}"],
            ["input", elements],
            ["FLOPs per sample", f"{run.cost.flops / 1e9:,.3g} G"],
            ["FLOPs per sample, by the papers' formulas", f"{run.cost.paper_flops / 1e9:,.3g} G"],
        ]
    weights = run.folder / WEIGHTS_FILE
    if weights.is_file():
        rows.append(["weights on the disk", f"{weights.stat().st_size / 2**20:,.1f} MiB"])
    if run.samples_per_second:
        rows.append(["samples per second in training", f"{run.samples_per_second:,.3g}"])
    return _table([], rows)


def _examples(run: LoadedRun, count: int) -> tuple[list[str], list[str]]:
    """Return figures of samples evenly spaced over the test or validation split, and reasons for missing ones."""
    if run.state != "ended" or run.data is None:
        return [], [
            "No examples are shown: the run has not ended, or the location of its data is unknown."
        ]
    try:
        predictor = load_predictor(run.folder)
        source = open_for_run(predictor)
        split = choose_split(source, None, own=True)
    except (OSError, ValueError, ImportError) as error:
        return [], [f"No examples are shown: {' '.join(str(error).split())}"]
    if split not in source.splits:
        return [], [
            "No examples are shown: the run's data are a stream, whose rows have no numbers."
        ]
    saved = load(run.folder)
    found: list[str] = []
    missing: list[str] = []
    records = source.splits[split]
    with tempfile.TemporaryDirectory(prefix="perceivers-report-") as folder:
        for index in range(0, len(records), max(1, len(records) // count))[:count]:
            row = dict(records.row(index))
            paths = [cell.path for cell in row.values() if isinstance(cell, EncodedItem)]
            files = dict.fromkeys(path.name for path in paths if path is not None)
            name = " + ".join(files) or f"Row {index}"
            out = Path(folder) / "explanation.png"
            try:
                explain_file(saved, Sample(name=name, row=row), out, latents=4)
            except (OSError, ValueError, ImportError) as error:
                missing.append(f"{name} is not shown: {' '.join(str(error).split())}")
                continue
            truth = ""
            if source.target is not None and source.target_kind == "class":
                target: Any = source.targets(split)[index]
                known = dict(enumerate(predictor.task.names))
                truth = f", in truth {known[int(target)]}" if int(target) in known else ""
            found.append(_image(out.read_bytes(), f"{name} ({split} split{truth})"))
    return found, list(dict.fromkeys(missing))


def _section(title: str, *parts: str) -> str:
    """Return parts (HTML) under a heading (text), or nothing if all are empty."""
    filled = [part for part in parts if part]
    if not filled:
        return ""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *filled, "</section>"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Return texts as a table, or nothing without rows; with `numbers`, all columns but the first are aligned."""
    if not rows:
        return ""
    kind = ' class="n"' if numbers else ""

    def line(cells: Sequence[str], tag: str) -> str:
        texts = [f"<{tag}{kind if i else ''}>{escape(c)}</{tag}>" for i, c in enumerate(cells)]
        return f"<tr>{''.join(texts)}</tr>"

    top = f"<thead>{line(head, 'th')}</thead>\n" if head else ""
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="wide" tabindex="0"><table>\n{top}<tbody>{body}</tbody>\n</table></div>'


def _confusion_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix (rows: true classes) as a table with cells colored by their share of the row."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [f"<thead><tr><th>true \\ predicted</th>{head}</tr></thead>"]
    for name, row in zip(names, counts, strict=True):
        cells: list[str] = []
        for count in row:
            share = count / max(sum(row), 1)  # at most 0.7 opaque, so that text stays readable
            ground = f' style="background: rgba(var(--share), {0.7 * share:.2f})"' if count else ""
            cells.append(f"<td{ground}>{count or ''}</td>")
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    return f'<div class="wide" tabindex="0"><table class="shares">\n{body}\n</table></div>'


def _image(png: bytes, label: str) -> str:
    """Return a PNG as a figure, with the label (text) as caption and alternative text."""
    data = base64.b64encode(png).decode()
    text = escape(label)
    return (
        f'<figure><div class="wide" tabindex="0"><img alt="{text}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>" if text else ""
