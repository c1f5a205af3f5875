"""Export of a run as a folder that other programs read, verified against the model before it appears."""

import copy
import json
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import TypeAdapter

from perceivers.data.base import DataConfig
from perceivers.data.modalities.base import clip_positions
from perceivers.data.modalities.registry import build_modality
from perceivers.data.registry import PreprocessConfig
from perceivers.exporting.formats import (
    open_onnx,
    open_program,
    open_weights,
    trace,
    write_onnx,
    write_program,
    write_weights,
)
from perceivers.exporting.graph import ExportGraph, build_graph
from perceivers.exporting.preprocessing import GraphPreprocessor, script_template
from perceivers.exporting.script import script_of
from perceivers.exporting.script_template import ScriptTemplate
from perceivers.exporting.verify import (
    TOLERANCE,
    Difference,
    Reference,
    compare,
    compare_transformers,
    make_reference,
)
from perceivers.hub.checkpoint import Saved, SavedConfig, load
from perceivers.hub.convert import export_huggingface
from perceivers.hub.quantize import is_quantized
from perceivers.models.ensemble import Ensemble
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.config import BaseTaskConfig
from perceivers.typing import Tensor

FORMATS = ("onnx", "torch", "safetensors", "huggingface")

MANIFEST_FILE = "preprocess.json"
SCRIPT_FILE = "predict.py"
_MADE_BY = "perceivers export"
_FILES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
_ALL_FILES = (
    "preprocess.json",
    "predict.py",
    "config.json",
    "KEYS.md",
    "model.onnx.data",
    *_FILES.values(),
)


@runtime_checkable
class HasModel(Protocol):
    """A model with its saved configuration: a `Predictor`, or the result of `perceivers.hub.checkpoint.load`."""

    @property
    def model(self) -> Perceiver | Ensemble:
        """The model."""
        ...

    @property
    def config(self) -> SavedConfig:
        """Everything that prediction needs beside the weights."""
        ...

    @property
    def folder(self) -> Path:
        """Folder that it was loaded from."""
        ...


@dataclass(frozen=True, kw_only=True)
class Export:
    """Result of an export.

    Attributes:
        folder: The written folder.
        files: Names of the files in it.
        difference: Difference to the model. None: not compared, because `transformers` is missing.
        notes: Sentences on missing files; for `huggingface` the name of the class.
    """

    folder: Path
    files: tuple[str, ...]
    difference: Difference | None = None
    notes: tuple[str, ...] = ()


def export(
    run: str | Path | HasModel,
    path: str | Path,
    *,
    format: str = "onnx",
    samples: Sequence[Any] | None = None,
) -> Export:
    """Write a run as a folder that other programs read.

    Before the folder appears, the written model is read again and compared with the original: on given samples, on
    samples of the run's own data, or else on random ones.

    Args:
        run: A run folder, a model on the Hugging Face hub, or a predictor.
        path: The folder to write. That of an earlier export is replaced.
        format: `onnx`, `torch` (an archive of torch.export) and `safetensors` have a manifest of inputs and outputs,
            the first two also a script that predicts; `huggingface` is for `transformers`.
        samples: Samples to compare on, as for `Predictor.predict`: paths, or dicts of a path for each modality.

    Raises:
        ImportError: If a library is missing. The message has the command to install it.
        OSError: If `path` exists and is not of an earlier export, or the run cannot be read.
        RuntimeError: If the outputs differ by more than 1e-4. Nothing is written.
        ValueError: If the model cannot be exported to this format, or a sample cannot be read.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected format to be one of {', '.join(FORMATS)}; got {format!r}.")
    folder = Path(path)
    _check_folder(folder)
    if format == "huggingface":
        return _export_huggingface(run, folder)
    saved = _copy_to_cpu(run)
    # The reference is computed as in prediction, the graph with plain operations.
    implementation = getattr(saved.model.config.encoder, "attn_implementation", "projected")
    graph = build_graph(saved)
    saved.model.set_attn_implementation(implementation)
    try:
        reference = make_reference(saved, graph, samples)
    finally:
        saved.model.set_attn_implementation("projected")
    with _atomic_folder(folder) as new:
        difference = _WRITERS[format](saved, graph, reference, new / _FILES[format])
        _check_difference(difference, folder)
        notes = _write_manifest(saved, graph, reference, difference, new, format)
        files = tuple(sorted(one.name for one in new.iterdir()))
    return Export(folder=folder, files=files, difference=difference, notes=notes)


def _as_onnx(saved: Saved, graph: ExportGraph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_onnx(trace(graph), graph, path)
    return compare(reference, open_onnx(path))


def _as_program(saved: Saved, graph: ExportGraph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_program(trace(graph), path)
    return compare(reference, open_program(path))


def _as_weights(saved: Saved, graph: ExportGraph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_weights(saved, path.parent)
    return compare(reference, open_weights(path.parent))


_WRITERS = {"onnx": _as_onnx, "torch": _as_program, "safetensors": _as_weights}


def _export_huggingface(run: str | Path | HasModel, folder: Path) -> Export:
    source = run.folder if isinstance(run, HasModel) and not isinstance(run, Path) else run
    with _atomic_folder(folder) as new:
        name = export_huggingface(source, new)
        difference = compare_transformers(name, new, load(source).model.members[0])
        if difference is not None:
            _check_difference(difference, folder)
        files = tuple(sorted(one.name for one in new.iterdir()))
    return Export(folder=folder, files=files, difference=difference, notes=(name,))


def _check_difference(difference: Difference, folder: Path) -> None:
    """Raise RuntimeError if the export differs from the model."""
    if not difference.fits:
        raise RuntimeError(
            f"The exported model differs from the model by up to {difference.largest:.1e} on {difference.samples}; "
            f"at most 1e-4 is allowed. Nothing was written to {folder}. Try another --format."
        )


def _copy_to_cpu(run: str | Path | HasModel) -> Saved:
    """Return the model on the CPU. That of a predictor is copied."""
    if isinstance(run, str | Path):
        return load(run)
    if is_quantized(run.model):
        raise ValueError(
            "Expected a model in float32 to export, got one with int8 weights, whose layers other programs do not "
            "have. Load it again without quantize, and export that."
        )
    model = copy.deepcopy(run.model).cpu().eval()
    return Saved(model=model, config=run.config, folder=Path(run.folder))


def _check_folder(folder: Path) -> None:
    """Raise OSError if the folder has other contents than an earlier export."""
    if folder.suffix in (".onnx", ".pt2", ".safetensors"):
        raise OSError(
            f"Expected a folder for --out, got the name of a file: {folder}. Try --out {folder.with_suffix('')}."
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        is_export = str(manifest["made_by"]).startswith(_MADE_BY)
    except (OSError, ValueError, KeyError, TypeError):
        is_export = False
    if not is_export:
        raise OSError(
            f"{folder} exists, and no earlier export wrote it. Choose another folder for --out."
        )


@contextmanager
def _atomic_folder(folder: Path) -> Generator[Path]:
    """Yield a new folder that replaces `folder` at the end, or is removed after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            made = sorted(new.iterdir(), key=lambda one: one.name == MANIFEST_FILE)
            for one in made:
                one.replace(folder / one.name)
            for name in set(_ALL_FILES) - {one.name for one in made}:  # of an earlier export
                (folder / name).unlink(missing_ok=True)
        else:
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_manifest(
    saved: Saved,
    graph: ExportGraph,
    reference: Reference,
    difference: Difference,
    folder: Path,
    form: str,
) -> tuple[str, ...]:
    """Write preprocess.json and, where possible, predict.py. Return sentences on what is missing."""
    task = saved.config.task
    assert task is not None
    manifest = _manifest(saved.config, task, graph, reference.outputs, difference)
    manifest["model"] = _FILES[form]
    text = json.dumps(manifest, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    if form == "safetensors":
        return ()
    if not list(graph.readable_outputs()):
        return (
            f"there is no predict.py for the task '{task.kind}': the graph returns the model's outputs, and "
            "preprocess.json describes its inputs",
        )
    templates: dict[str, ScriptTemplate] = {}
    for how in manifest["modalities"].values():
        template = script_template(how["kind"])
        if template is None:
            return (
                f"there is no predict.py for inputs of kind '{how['kind']}': the graph takes them as perceivers "
                "prepares them, by config.json",
            )
        templates[how["kind"]] = template
    script = script_of(manifest, templates, runtime=form, masked_text=task.chunked_modality)
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")
    return ()


def _manifest(
    config: SavedConfig,
    task: BaseTaskConfig,
    graph: ExportGraph,
    outputs: Mapping[str, Tensor],
    difference: Difference,
) -> dict[str, Any]:
    """Return the content of preprocess.json but for the name of the model's file."""
    inputs = {
        name: {
            "shape": [
                "batch",
                *("any" if one.free and not n else s for n, s in enumerate(one.shape)),
            ],
            "dtype": one.dtype,
            "meaning": one.meaning,
        }
        for name, one in graph.signatures().items()
    }
    adapter: TypeAdapter[Any] = TypeAdapter(PreprocessConfig)
    modalities: dict[str, Any] = {}
    for name in config.input_columns():  # in the order in which a sample's files name it
        one = cast("GraphPreprocessor", graph.preprocessors[name])
        modalities[name] = {
            **adapter.dump_python(config.preprocess[name], mode="json"),
            "shape": list(one.shape),  # without the batch
            "dtype": one.dtype,
            "mask": None if one.length is None else [one.length],
        }
    readable = list(graph.readable_outputs())
    described: dict[str, Any] = {
        name: {
            "shape": ["batch", *outputs[name].shape[1:]],
            "meaning": "output of the model",
            "names": None,
        }
        for name in dict.fromkeys((*(one[0] for one in readable), *outputs))  # tasks in their order
    }
    for name, output, part in readable:
        assert part.export_output is not None
        described[name] |= {
            "meaning": part.export_output.meaning,
            "names": list(part.names) if outputs[name].ndim == 2 else None,
            "output": output,
            "task": part.config.kind,
            "threshold": getattr(part.config, "threshold", None),
            "temperature": getattr(part.config, "temperature", 1.0),
        }
    has_clips = any(build_modality(config.preprocess[name]).has_clips for name in modalities)
    clips = DataConfig(**config.columns.get("config", {})).clips if has_clips else 1
    return {
        "made_by": f"{_MADE_BY} {version('perceivers')}",
        "model": "",
        "members": config.num_members,
        "mirrored": list(config.mirrored),
        "task": task.kind,
        "inputs": inputs,
        "modalities": modalities,
        "clip_positions": list(clip_positions(clips)),
        "outputs": described,
        "checked": {
            "samples": difference.samples,
            "largest_difference": difference.largest,
            "tolerance": TOLERANCE,
        },
    }
