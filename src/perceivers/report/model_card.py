"""A run's card on the Hugging Face hub: what was learned of what, how well, at which cost, and within which limits."""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from perceivers.report.report import limits_of
from perceivers.runs.record import LoadedRun
from perceivers.runs.report import table_rows
from perceivers.runs.summary import RunSummary
from perceivers.tasks.base import metric_text

__all__ = ["model_card", "without_place", "without_places"]

# What the hub calls a task, by what a model reads and learns.
_PIPELINES = {
    ("image", "classification"): "image-classification",
    ("audio", "classification"): "audio-classification",
    ("video", "classification"): "video-classification",
    ("text", "classification"): "text-classification",
    ("table", "classification"): "tabular-classification",
    ("table", "regression"): "tabular-regression",
    ("text", "masked_bytes"): "fill-mask",
    ("image", "segmentation"): "image-segmentation",
}
# Where something lay on the machine that trained: absolute paths, and those that begin at home or further up.
_PLACE = re.compile(
    r"(?<![\w/:.])(?:~|\.{1,2})?(?:/[^\s/'\"`,;:()]+)+/?|(?<!\w)[A-Za-z]:\\[^\s'\"`,;()]+"
)


def without_place(word: str) -> str:
    """Return the name alone of what a path or address leads to; other words as they are. Keys in addresses go, too."""
    if "://" in word:
        parts = urlsplit(word)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    if re.match(r"[A-Za-z]:[\\/]", word):
        return PureWindowsPath(word).name
    return PurePosixPath(word).name if word.startswith(("/", "./", "../", "~")) else word


def without_places(text: str) -> str:
    """Return a sentence in which every path is the name alone of what it leads to."""

    def named(found: re.Match[str]) -> str:
        path = found[0].rstrip(".")
        return without_place(path.rstrip("/")) + "." * (len(found[0]) - len(path))

    return _PLACE.sub(named, text)


def model_card(past: LoadedRun, repo_id: str | None = None) -> str:
    """Return the card as Markdown behind its metadata, for people and for the hub's search.

    Paths of the machine that trained are left out of it, as are the names of rows that could not be read.

    Args:
        past: The run, ended.
        repo_id: Where it is going to be: `user/name`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = repo_id.rpartition("/")[2] if repo_id else past.name
    reads = list(past.model.inputs) if past.model else []
    kind = past.task_config.kind if past.task_config else ""
    results = _results(past, kind, reads)
    data = ModelCardData(
        library_name="perceivers",
        tags=list(dict.fromkeys(["perceivers", "perceiver", *reads, *([kind] if kind else [])])),
        pipeline_tag=_PIPELINES.get((reads[0], kind)) if len(reads) == 1 else None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        eval_results=results or None,
        model_name=name if results else None,
    )
    body = "\n\n".join(part for part in _body(past, name, repo_id, kind, reads) if part)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")
    return str(card)


def _results(past: LoadedRun, kind: str, reads: Sequence[str]) -> list[Any]:
    """Return each measure of each split as the hub writes it down."""
    from huggingface_hub import EvalResult

    source = _data_name(past) or "own data"
    task = _PIPELINES.get((reads[0], kind), "other") if len(reads) == 1 else "other"
    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w-]+", "-", source.lower()).strip("-"),
            dataset_name=source,
            dataset_split=split,
            metric_type=measure,
            metric_value=round(value, 6),
        )
        for split, found in past.metrics.items()
        for measure, value in found.items()
        if measure.rpartition("/")[2] != "samples"
    ]


def _data_name(past: LoadedRun) -> str:
    return "" if past.data is None else without_place(past.data.rstrip("/"))


def _body(
    past: LoadedRun, name: str, repo_id: str | None, kind: str, reads: Sequence[str]
) -> list[str]:
    facts = past.facts
    source = _data_name(past)
    learned = f" It learned from `{source}`." if source else ""
    told = kind.replace("_", " ") or "a model"
    use = f'import perceivers as pv\n\npredictor = pv.load("{repo_id or "USER/NAME"}")\npredictor.predict("FILE")'
    return [
        f"# {name}",
        f"A Perceiver for {told} of {', '.join(reads) or 'unknown inputs'}.{learned}",
        f'## Use\n\n```bash\npip install "perceivers[all]"\n```\n\n```python\n{use}\n```',
        _measures(past),
        _data(past),
        _made(facts),
        _cost(past),
        "## Limits\n\n" + "\n".join(f"- {one}" for one in limits_of(past)),
    ]


def _measures(past: LoadedRun) -> str:
    splits = [one for one in ("test", "validation", "train") if one in past.metrics]
    if not splits:
        return ""
    lines = [f"| | {' | '.join(splits)} |", f"|---|{'---|' * len(splits)}"]
    for measure in dict.fromkeys(m for split in splits for m in past.metrics[split]):
        found = [past.metrics[split].get(measure) for split in splits]
        cells = ["-" if v is None else metric_text(measure, v) for v in found]
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    main = f"\n\nThe weights are those with the best {past.main_metric} on validation."
    return "## Measures\n\n" + "\n".join(lines) + main


def _data(past: LoadedRun) -> str:
    facts = past.facts
    if facts is None or not facts.notes:
        return ""
    place = (
        past.data or "\0"
    )  # as a whole first: a sentence does not say where a path with spaces ends
    lines = [f"- {without_places(note.replace(place, _data_name(past)))}" for note in facts.notes]
    if facts.bad:
        lines.append(f"- {len(facts.bad):,} rows could not be read and were left out.")
    return "## Data\n\n" + "\n".join(lines)


def _made(facts: RunSummary | None) -> str:
    """Return the command that made a run, and how it went."""
    if facts is None:
        return ""
    rows = [f"| {key} | {value} |" for key, value in table_rows(facts) if key != "command"]
    parts = ["## How it was made"]
    if facts.command:
        try:
            words = shlex.split(facts.command)
        except ValueError:
            words = facts.command.split()
        command = shlex.join(_pairs_without_place(word) for word in words)
        parts.append(f"```bash\n{command}\n```")
    if facts.versions:
        rows.append(f"| versions | {', '.join(f'{k} {v}' for k, v in facts.versions.items())} |")
    return "\n\n".join([*parts, "\n".join(["| | |", "|---|---|", *rows])])


def _pairs_without_place(word: str) -> str:
    """Return a word of a command without paths, also behind `--flag=`."""
    flag, sign, value = word.partition("=")
    return f"{flag}={without_place(value)}" if sign else without_place(word)


def _cost(past: LoadedRun) -> str:
    if past.cost is None:
        return ""
    cost = past.cost
    return (
        f"## Size and cost\n\n{cost.num_parameters:,} parameters; {cost.flops / 1e9:,.3g} GFLOPs a sample, "
        f"{cost.paper_flops / 1e9:,.3g} by the papers' formulas; {cost.num_elements:,} elements of "
        f"{cost.input_channels} channels are read."
    )
