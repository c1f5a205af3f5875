"""Upload of a run to the Hugging Face Hub, with a model card and without paths of the machine that trained it."""

import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast
from urllib.parse import urlsplit

from perceivers.data.base import DataConfig, atomic_write, atomic_write_text
from perceivers.escaping import escape_line, escape_markdown, markdown_code
from perceivers.hub.checkpoint import CONFIG_FILE, WEIGHTS_FILE, config_json
from perceivers.recipes.files import RECIPE_FILE, write_recipe
from perceivers.report.html_report import limits_of, metric_rows
from perceivers.runs.record import LoadedRun, read_run
from perceivers.runs.report import table_rows
from perceivers.wording import counted

# File patterns of the images that are uploaded, and their labels in the card.
_IMAGES = {"curves.png": "Curves of training", "confusion*.png": "Confusion on validation"}
# The hub's names of tasks, by input modality and task.
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
# Absolute paths, and those that begin at home or further up.
_PATH = re.compile(
    r"(?<![\w/:.])(?:~|\.{1,2})?(?:/[^\s/'\"`,;:()]+)+/?|(?<!\w)[A-Za-z]:\\[^\s'\"`,;()]+"
)


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Upload a run to the Hugging Face Hub and return its address.

    Uploaded are `config.json`, `model.safetensors`, `recipe.yaml`, the images of the report, and a model card
    (`README.md`). Checkpoints, the optimizer's state, data, logs and paths of the machine that trained are not. The
    token is huggingface_hub's: `hf auth login`, or HF_TOKEN.

    Args:
        folder: A run folder, ended.
        repo_id: `user/name` on the hub. Created if it does not exist.
        private: Whether only you can see a new repository.

    Raises:
        OSError: If the folder is no run that has ended, or the hub cannot be reached or refuses.
        ValueError: If `repo_id` is no name of the hub, or a file of the run is invalid.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    if repo_id.count("/") != 1:
        raise ValueError(
            f"Expected USER/NAME, where the model goes on the Hugging Face hub; got '{repo_id}'."
        )
    validate_repo_id(repo_id)
    with tempfile.TemporaryDirectory(prefix="perceivers-push-") as temporary:
        made = prepare_push(folder, Path(temporary) / "model", repo_id=repo_id)
        try:
            api = HfApi()
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(
                api.upload_folder(
                    repo_id=repo_id, folder_path=made, commit_message="Upload by perceivers"
                )
            )
        except Exception as error:  # the hub's errors share no base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(
                f"{folder} could not be pushed to {repo_id} on the Hugging Face hub: {reason} Log in with "
                "`hf auth login` (or set HF_TOKEN to a token that may write), and look whether the hub can be reached "
                "from here. `--dry-run FOLDER` writes what would be pushed."
            ) from error


def prepare_push(folder: str | Path, out: str | Path, *, repo_id: str | None = None) -> Path:
    """Write the files that `push_to_hub` uploads into a folder, and return it.

    Args:
        folder: A run folder, ended.
        out: The folder to write, new or empty.
        repo_id: `user/name` on the hub, for the model card.

    Raises:
        OSError: If the folder is no run that has ended, or `out` is not empty or cannot be written.
        ValueError: If a file of the run is invalid.
    """
    run, out = read_run(folder), Path(out)
    if run.saved is None or run.state != "ended":
        raise OSError(
            f"{folder} is {run.state}. Only what has ended can be pushed: go on with `perceivers fit --resume`."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OSError(f"{out} is not empty. Expected a new folder for what would be pushed.")
    out.mkdir(parents=True, exist_ok=True)
    columns = {**run.saved.columns, "data": None}
    if isinstance(columns.get("config"), dict):
        known = DataConfig(**cast("dict[str, Any]", columns["config"]))
        columns["config"] = asdict(_without_paths(known))
    atomic_write_text(out / CONFIG_FILE, config_json(replace(run.saved, columns=columns)))
    with atomic_write(out / WEIGHTS_FILE) as new:
        shutil.copyfile(run.folder / WEIGHTS_FILE, new)
    card = model_card(run, repo_id)
    if run.recipe is not None:
        recipe = replace(run.recipe, data=_without_paths(run.recipe.data))
        write_recipe(recipe, out / RECIPE_FILE)
        for pattern, label in _IMAGES.items():
            for image in sorted(run.folder.glob(pattern)):
                with atomic_write(out / image.name) as new:
                    shutil.copyfile(image, new)
                card += f"\n![{label}]({image.name})\n"
    atomic_write_text(out / "README.md", card)
    return out


def model_card(run: LoadedRun, repo_id: str | None = None) -> str:
    """Return the model card of an ended run: metadata for the hub's search, then Markdown.

    Paths of the machine that trained are left out, as are the names of rows that could not be read.
    """
    from huggingface_hub import ModelCard, ModelCardData

    name = repo_id.rpartition("/")[2] if repo_id else run.name
    inputs = list(run.model.inputs) if run.model else []
    kind = run.task_config.kind if run.task_config else ""
    pipeline = _PIPELINES.get((inputs[0], kind)) if len(inputs) == 1 else None
    results = _results(run, pipeline or "other")
    data = ModelCardData(
        library_name="perceivers",
        tags=list(dict.fromkeys(["perceivers", "perceiver", *inputs, *([kind] if kind else [])])),
        pipeline_tag=pipeline,
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        eval_results=results or None,
        model_name=name if results else None,
    )
    source = _data_name(run)
    learned = f" It was trained on {markdown_code(source)}." if source else ""
    task = kind.replace("_", " ") or "a model"
    use = f'import perceivers as pv\n\npredictor = pv.load("{repo_id or "USER/NAME"}")\npredictor.predict("FILE")'
    parts = [
        f"# {escape_markdown(name)}",
        f"A Perceiver for {task} of {escape_markdown(', '.join(inputs)) or 'unknown inputs'}.{learned}",
        f'## Use\n\n```bash\npip install "perceivers[all]"\n```\n\n```python\n{use}\n```',
        *_metrics(run),
        *_data(run),
        *_setup(run),
        *_cost(run),
        "## Limits\n\n" + "\n".join(f"- {escape_markdown(one)}" for one in limits_of(run)),
    ]
    body = "\n\n".join(parts)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def file_name_only(word: str) -> str:
    """Return the last part of a path, an address without its query and credentials, or any other word unchanged."""
    if "://" in word:
        parts = urlsplit(word)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    if re.match(r"[A-Za-z]:[\\/]", word):
        return PureWindowsPath(word).name
    return PurePosixPath(word).name if word.startswith(("/", "./", "../", "~")) else word


def file_names_only(text: str) -> str:
    """Return a text with every path in it reduced to its last part."""

    def last_part(found: re.Match[str]) -> str:
        path = found[0].rstrip(".")
        return file_name_only(path.rstrip("/")) + "." * (len(found[0]) - len(path))

    return _PATH.sub(last_part, text)


def _without_paths(data: DataConfig) -> DataConfig:
    """Return the configuration without paths."""
    changed = {
        name: file_name_only(value)
        for name, value in asdict(data).items()
        if isinstance(value, str) and file_name_only(value) != value
    }
    return replace(data, **{**changed, "cache": None})


def _results(run: LoadedRun, task: str) -> list[Any]:
    """Return each metric of each split for the card's metadata."""
    from huggingface_hub import EvalResult

    source = _data_name(run) or "own data"
    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w-]+", "-", source.lower()).strip("-"),
            dataset_name=source,
            dataset_split=split,
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for split, found in run.metrics.items()
        for metric, value in found.items()
        if metric.rpartition("/")[2] != "samples"
    ]


def _data_name(run: LoadedRun) -> str:
    return "" if run.data is None else file_name_only(run.data.rstrip("/"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _metrics(run: LoadedRun) -> list[str]:
    splits, rows = metric_rows(run, ("test", "validation", "train"))
    best = f"The weights are those with the best {run.main_metric} on validation."
    if run.num_members > 1:
        best = (
            f"An ensemble of {run.num_members} members, whose outputs are averaged. Validation is out of fold: each "
            "row is predicted by the member that has not learned it."
        )
    return ["## Metrics", _table(["", *splits], rows), best] if splits else []


def _data(run: LoadedRun) -> list[str]:
    if run.summary is None or not run.summary.notes:
        return []
    # The whole path first: in a sentence, a path with spaces has no visible end.
    path = run.data or "\0"
    lines = [
        f"- {escape_markdown(file_names_only(note.replace(path, _data_name(run))))}"
        for note in run.summary.notes
    ]
    if run.summary.bad:
        lines.append(
            f"- {counted(len(run.summary.bad), 'row')} could not be read; left out of training and metrics."
        )
    return ["## Data", "\n".join(lines)]


def _setup(run: LoadedRun) -> list[str]:
    """Return command, duration, device and versions of the training."""
    if run.summary is None:
        return []
    rows = [list(row) for row in table_rows(run.summary) if row[0] != "command"]
    parts = ["## Training"]
    if run.summary.command:
        try:
            words = shlex.split(run.summary.command)
        except ValueError:
            words = run.summary.command.split()
        words = [
            f"{flag}={file_name_only(value)}" if sign else file_name_only(flag)
            for flag, sign, value in (word.partition("=") for word in words)
        ]
        command = escape_line(shlex.join(words)).replace("```", "\\`\\`\\`")
        parts.append(f"```bash\n{command}\n```")
    versions: Mapping[str, str] = run.summary.versions
    if versions:
        rows.append(["versions", ", ".join(f"{key} {value}" for key, value in versions.items())])
    return [*parts, _table(["", ""], rows)]


def _cost(run: LoadedRun) -> list[str]:
    if run.cost is None:
        return []
    text = (
        f"{run.cost.num_parameters:,} parameters; {run.cost.flops / 1e9:,.3g} GFLOPs per sample, "
        f"{run.cost.paper_flops / 1e9:,.3g} by the papers' formulas; {run.cost.num_elements:,} elements of "
        f"{counted(run.cost.input_channels, 'channel')} are read."
    )
    return ["## Size and cost", text]
