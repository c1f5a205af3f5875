"""Self-contained HTML report of a run: data, metrics, cost, settings and explained samples."""

import base64
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.samples import Sample
from perceivers.escaping import encode_text
from perceivers.escaping import escape_html as escape
from perceivers.evaluation.evaluate import choose_split, open_for_run
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.explain.positions import (
    neighbor_rank,
    position_tables,
    rank_sentence,
    similarity_figure,
)
from perceivers.explain.render.write import explain_file
from perceivers.hub.checkpoint import WEIGHTS_FILE, Saved, load
from perceivers.recipes.files import dump_recipe
from perceivers.report.mistakes import SHOWN, cards, mistake_cards, row_name
from perceivers.report.reconstructions import reconstruction_cards
from perceivers.runs.record import LoadedRun, read_run
from perceivers.runs.report import (
    CLASS_HEAD,
    MEMBER_HEAD,
    class_cells,
    curves_figure,
    detail_cells,
    member_cells,
    reliability_figure,
    roc_figure,
    table_rows,
)
from perceivers.runs.sentences import (
    FEW_ROWS,
    calibration_sentence,
    curves_sentence,
    few_rows_sentence,
    measured_calibration,
)
from perceivers.runs.summary import TaskSummary
from perceivers.tasks.metric_text import metric_text
from perceivers.wording import counted

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
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
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
figure.reconstruction img { width: auto; min-width: 0; max-width: 100%; display: block; margin-bottom: .4rem; }
.narrow { max-width: 30rem; } .narrow figure svg { min-width: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10rem, 100%), 1fr)); gap: .8rem; }
.cards figure { margin: 0; padding: .6rem; border: 1px solid var(--line); border-radius: .4rem; }
.cards figure img { width: auto; min-width: 0; max-width: 100%; display: block; margin: 0 auto .4rem; }
.cards blockquote { margin: 0 0 .4rem; font-size: .9rem; }
"""


def write_html_report(
    run: str | Path, out: str | Path, *, examples: int = 3, mistakes: int = SHOWN
) -> list[str]:
    """Write the report of a run, and return sentences on missing parts and their reasons.

    Args:
        run: Run folder, ended or not.
        out: The file to write.
        examples: Number of explained samples, where the run's data are available.
        mistakes: Number of the worst mistakes that are shown of each task, at most 12, likewise. They are those of
            `perceivers evaluate`; without it, a split of at most 2,000 rows is measured.

    Raises:
        OSError: If the folder is not a run's, or the file cannot be written.
        ValueError: If a file of the run is invalid.
    """
    loaded = read_run(run)
    worst, figures, missing = _samples(loaded, examples, mistakes)
    if not importlib.util.find_spec("matplotlib"):
        missing.append('Curves are not drawn without matplotlib: pip install "perceivers[viz]".')
    sections = "\n".join(part for part in _sections(loaded, worst, figures, missing) if part)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(loaded.name)}: report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{sections}\n</main>\n</body>\n</html>\n"
    )
    with atomic_write(Path(out)) as new:
        new.write_bytes(encode_text(text))
    return missing


def limits_of(run: LoadedRun) -> list[str]:
    """Return sentences on the limits of a run's metrics."""
    limits: list[str] = []
    if "test" not in run.metrics:
        limits.append(
            "No test split was measured. The weights were chosen by the validation split, so its numbers are a little "
            "too good."
            if run.num_members == 1
            else "No test split was measured. Validation is out of fold: of single members, not of their average."
        )
    limits += _warnings(run)
    count = run.rows_of("validation")
    if FEW_ROWS <= count < 1000:
        limits.append(f"Validation has only {count:,} rows: small differences are chance.")
    task = run.task_config
    if task is not None and task.target_kind == "class" and task.output_names:
        limits.append(
            f"It always predicts one of its {len(task.output_names)} classes, also for samples of none of them."
        )
    limits.append(
        "It was measured on data that were collected like its training data; on other data it may be worse."
    )
    return limits


def _warnings(run: LoadedRun) -> list[str]:
    """Return a sentence on each measured split that has few rows."""
    found = (
        few_rows_sentence(split, run.rows_of(split) or FEW_ROWS, members=run.num_members)
        for split in run.metrics
    )
    return [sentence for sentence in found if sentence]


def metric_rows(run: LoadedRun, order: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows of a table: each measured split with its number of rows, each metric with its interval."""
    splits = [one for one in order if one in run.metrics]
    names = dict.fromkeys(name for split in splits for name in run.metrics[split])
    rows = [
        [
            name,
            *(
                "-" if value is None else metric_text(name, value, run.interval(split, name))
                for split in splits
                for value in [run.metrics[split].get(name)]
            ),
        ]
        for name in names
    ]
    counts = [run.rows_of(split) for split in splits]
    titles = [
        f"{split} ({counted(count, 'row')})" if count else split
        for split, count in zip(splits, counts, strict=True)
    ]
    return titles, rows


def _sections(
    run: LoadedRun, mistakes: Sequence[str], examples: Sequence[str], missing: Sequence[str]
) -> list[str]:
    summary = run.summary
    notes = [] if summary is None else list(summary.notes)
    versions = [] if summary is None else [[*pair] for pair in summary.versions.items()]
    bad = [] if summary is None else [f"{name}: {reason}" for name, reason in summary.bad]
    titles, metrics = metric_rows(run, ("validation", "test", "train"))
    curves = ""
    if run.rows and importlib.util.find_spec("matplotlib"):
        label = f"Loss, {run.main_metric} and learning rate over the steps of training"
        curves = _svg(curves_figure(run.rows, run.main_metric), label)
    members = ""
    if summary is not None and summary.members:
        about = (
            f"<p>The outputs of {len(summary.members)} members are averaged. Validation is out of fold: each row is "
            f"predicted by the member that has not learned it. Metric of each: {escape(summary.main_metric)}.</p>"
        )
        members = about + _table(MEMBER_HEAD, member_cells(summary))
    setup = [] if summary is None else [row for row in table_rows(summary) if row[0] != "command"]
    command = "" if summary is None else summary.command
    recipe = "" if run.recipe is None else _code(dump_recipe(run.recipe))
    details = f"<details><summary>All settings</summary>{recipe}</details>" if recipe else ""
    return [
        _header(run),
        _section("Metrics", _table(["", *titles], metrics)),
        _section("Members", members),
        _section("Curves", curves),
        *_tasks(run),
        *mistakes,
        _section("Examples", *examples),
        _section("Learned positions", *learned_positions(run)),
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
        about = [counted(run.rows_of(split), "row")] if run.rows_of(split) else []
        if (ends := run.interval(split, metric)) is not None:
            low, high = (metric_text(metric, end) for end in ends)
            about.insert(0, f"95 % interval {low} to {high}")
        beside = f' <span class="quiet">({escape(", ".join(about))})</span>' if about else ""
        lines.append(f'<p><span class="big">{value}</span> {split} {escape(metric)}{beside}</p>')
    lines += [f"<p><strong>{escape(warning)}</strong></p>" for warning in _warnings(run)]
    if run.state != "ended":
        lines.append(f"<p><strong>This run has not ended: {escape(run.state)}.</strong></p>")
    return "\n".join([*lines, "</header>"])


def _svg(figure: Any, label: str) -> str:
    """Return a figure of matplotlib as SVG in the page's text color, with a description (text)."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": label}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # a character that the font lacks
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace("#000000", "currentColor").replace("#ffffff", "none")
    text = text.replace('<text style="', '<text style="fill: currentColor; ')
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return f'<figure><div class="wide" tabindex="0">{text}</div></figure>'


def _tasks(run: LoadedRun) -> list[str]:
    """Return the results of every task: those of test where it was measured, then those of validation, folded."""
    known = [split for split in ("test", "validation", "train") if split in run.results]
    shown = [(split, sections) for split in known if (sections := _results(run, split))]
    found = shown[0][1] if shown else []
    for split, sections in shown[1:]:
        title = f"<summary>Classes, calibration and curves on {split}</summary>"
        found.append("\n".join([f"<details>{title}", *sections, "</details>"]))
    return found


def learned_positions(run: LoadedRun) -> list[str]:
    """Return for each modality with learned positions a sentence on its neighbors, and maps of their similarity."""
    if not (run.folder / WEIGHTS_FILE).is_file():
        return []
    try:
        member = load(run.folder).model.members[0]
    except (OSError, ValueError):  # stated where the samples are missing
        return []
    found: list[str] = []
    for name, table in position_tables(member).items():
        found.append(f"<p>{escape(rank_sentence(name, neighbor_rank(table)))}</p>")
        if importlib.util.find_spec("matplotlib"):
            label = f"Cosine similarity of the learned positions of a few places of {name} with all others"
            buffer = io.BytesIO()
            similarity_figure(name, table).savefig(buffer, format="png", dpi=100)
            found.append(_image(buffer.getvalue(), label))
    return found


def _results(run: LoadedRun, split: str) -> list[str]:
    """Return confusion, classes or outputs, calibration and curves of every task on a split."""
    found: list[str] = []
    for place, (name, task) in enumerate(run.results[split].items()):
        of_task = f" of {name}" if name else ""
        if task.confusion is not None:
            image = run.folder / (f"confusion-{place}.png" if name else "confusion.png")
            counts: list[list[int]] = task.confusion.tolist()
            matrix = ""
            if len(counts) <= _MAX_CLASSES:
                matrix = _confusion_table(task.label_names, counts)
            elif image.is_file() and split == "validation":
                label = "Share of each true class that was predicted as each class"
                matrix = _image(image.read_bytes(), label)
            table = _table(CLASS_HEAD, class_cells(task))
            found.append(_section(f"Confusion{of_task} on {split}", matrix))
            found.append(_section(f"Classes{of_task} on {split}", table))
        elif task.details:
            table = _table(["", *task.details[0]], detail_cells(task))
            found.append(_section(f"Each output{of_task} on {split}", table))
        found.append(_section(f"Calibration{of_task} on {split}", *_calibration(task, split)))
        if task.curves:
            has_drawing = importlib.util.find_spec("matplotlib")
            label = f"ROC and precision-recall curves{of_task} on {split}"
            drawn = _svg(roc_figure(task.curves), label) if has_drawing else ""
            sentence = f"<p>{escape(curves_sentence(task.curves))}</p>"
            found.append(_section(f"ROC and precision-recall{of_task} on {split}", sentence, drawn))
    return [section for section in found if section]


def _calibration(task: TaskSummary, split: str) -> list[str]:
    """Return a sentence on the calibration of probabilities and the reliability curve."""
    calibration = task.calibration
    if calibration is None:
        return []
    sentence = measured_calibration(calibration)
    if split == "validation":
        sentence = calibration_sentence(calibration)
    parts = [f"<p>{escape(sentence)}</p>"]
    if importlib.util.find_spec("matplotlib"):
        label = "Reliability curve: share that is right over predicted probability"
        parts.append(f'<div class="narrow">{_svg(reliability_figure(calibration), label)}</div>')
    return parts


def _cost(run: LoadedRun) -> str:
    rows: list[list[str]] = []
    if run.cost is not None:
        elements = (
            f"{run.cost.num_elements:,} elements of {counted(run.cost.input_channels, 'channel')}"
        )
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


@dataclass(frozen=True, kw_only=True)
class _RunData:
    """A run with its predictor, its data and the split of which samples are shown."""

    predictor: Predictor
    source: DatasetBundle
    split: str


def _open(run: LoadedRun) -> _RunData | str:
    """Return the predictor and data of a run, or the reason why samples cannot be shown."""
    if run.state != "ended" or run.data is None:
        return "the run has not ended, or the location of its data is unknown."
    try:
        predictor = load_predictor(run.folder)
        source = open_for_run(predictor)
        split = choose_split(source, None, own=True)
    except (OSError, ValueError, ImportError) as error:
        return " ".join(str(error).split())
    if split not in source.splits:
        return "the run's data are a stream, whose rows have no numbers."
    return _RunData(predictor=predictor, source=source, split=split)


def _examples(data: _RunData, count: int) -> tuple[list[str], list[str]]:
    """Return figures of samples evenly spaced over the split, and reasons for missing ones."""
    source, split, predictor = data.source, data.split, data.predictor
    saved = Saved(model=predictor.model, config=predictor.config, folder=predictor.folder)
    try:
        predictor.task.check_explainable()
    except ValueError as error:
        return [], [f"No samples are shown: {error}"]
    found: list[str] = []
    missing: list[str] = []
    records = source.splits[split]
    with tempfile.TemporaryDirectory(prefix="perceivers-report-") as folder:
        for index in range(0, len(records), max(1, len(records) // count))[:count]:
            row = dict(records.row(index))
            name = row_name(row, index)
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


def _samples(
    run: LoadedRun, examples: int, mistakes: int
) -> tuple[list[str], list[str], list[str]]:
    """Return sections of the worst mistakes, figures of examples, and reasons for missing ones."""
    if examples <= 0 and mistakes <= 0:
        return [], [], []
    data = _open(run)
    if isinstance(data, str):
        what = [("examples", examples), ("mistakes", mistakes)]
        return [], [], [f"No {name} are shown: {data}" for name, count in what if count > 0]
    sections: list[str] = []
    figures: list[str] = []
    missing: list[str] = []
    if mistakes > 0:
        found, missing = mistake_cards(run, data.predictor, data.source, data.split, mistakes)
        for task, shown in found.items():
            of_task = f" of {task}" if task else ""
            title = f"Worst mistakes{of_task} on {data.split}"
            sections.append(_section(title, cards(shown)))
    if examples > 0:
        shown, more = reconstruction_cards(data.predictor, data.source, data.split, examples)
        title = f"Reconstructions of samples of {data.split}"
        sections += [_section(title, *shown)] if shown else []
        figures, others = _examples(data, examples)
        missing += [*more, *others]
    return sections, figures, missing


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
