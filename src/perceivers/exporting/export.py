"""Export of a run as a folder that other programs read, verified against the model before it appears."""

import copy
import json
import shutil
import tempfile
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import TypeAdapter

from perceivers.data.base import DataConfig
from perceivers.data.modalities.base import clip_positions
from perceivers.data.modalities.registry import build_modality
from perceivers.data.registry import PreprocessConfig
from perceivers.exporting.formats import EXPORT_FORMATS, ExportFormat, ExportSource
from perceivers.exporting.graph import ExportGraph, build_graph
from perceivers.exporting.preprocessing import GraphPreprocessor, script_template
from perceivers.exporting.script import script_of
from perceivers.exporting.script_template import ScriptTemplate
from perceivers.exporting.triton import Deployment, check_model_name
from perceivers.exporting.verify import (
    COUNT,
    PRECISIONS,
    REDUCED_COUNT,
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
from perceivers.typing import Tensor

FORMATS = (*EXPORT_FORMATS, "huggingface")

MANIFEST_FILE = "preprocess.json"
SCRIPT_FILE = "predict.py"
_MADE_BY = "perceivers export"
_NOTEWORTHY = (
    0.8  # of the weights in float32: a smaller precision that saves less than the rest is mentioned
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
        model_file: Path of the model in the folder. Empty for `huggingface`.
        num_bytes: Size of the model's files.
        weight_bytes: Size of the weights in float32.
    """

    folder: Path
    files: tuple[str, ...]
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    model_file: str = ""
    num_bytes: int = 0
    weight_bytes: int = 0


def export(
    run: str | Path | HasModel,
    path: str | Path,
    *,
    format: str = "onnx",
    precision: str = "float32",
    samples: Sequence[Any] | None = None,
) -> Export:
    """Write a run as a folder that other programs read.

    Before the folder appears, the written model is read again and compared with the original: on given samples, on
    samples of the run's own data, or else on random ones.

    Args:
        run: A run folder, a model on the Hugging Face hub, or a predictor.
        path: The folder to write. That of an earlier export is replaced.
        format: `onnx`, `openvino`, `triton` (a model of Triton Inference Server), `torch` (an archive of torch.export)
            and `safetensors` have a manifest of inputs and outputs, all but the last also a script that predicts;
            `huggingface` is for `transformers`.
        precision: `float32`; `float16` of ONNX, OpenVINO and Triton; `int8` of ONNX and Triton.
        samples: Samples to compare on, as for `Predictor.predict`: paths, or dicts of a path for each modality.

    Raises:
        ImportError: If a library is missing. The message has the command to install it.
        OSError: If `path` exists and is not of an earlier export, or the run cannot be read.
        RuntimeError: If the outputs differ by more than the precision's tolerance. Nothing is written.
        ValueError: If the model cannot be exported to this format, or a sample cannot be read.
    """
    check_format(format, precision)
    folder = Path(path)
    _check_folder(folder)
    if format == "huggingface":
        return _export_huggingface(run, folder)
    form = EXPORT_FORMATS[format]
    if form.write_beside is not None:
        check_model_name(folder.resolve().name)
    saved = _copy_to_cpu(run)
    # The reference is computed as in prediction, the graph with plain operations.
    implementation = getattr(saved.model.config.encoder, "attn_implementation", "projected")
    graph = build_graph(saved)
    with _attention(saved.model, implementation):
        count = COUNT if precision == "float32" else REDUCED_COUNT
        reference = make_reference(saved, graph, samples, count)
    source = ExportSource(saved=saved, graph=graph, precision=precision)
    return _export(source, form, reference, folder)


def _export(source: ExportSource, form: ExportFormat, reference: Reference, folder: Path) -> Export:
    """Write a model in a format with a manifest, after comparing it with the reference."""
    saved, precision = source.saved, source.precision
    with _atomic_folder(folder) as new:
        model = new / form.file
        form.write(source, model)
        opened = form.open(model, 0)
        difference = compare(reference, opened, precision)
        _check_difference(difference, folder)
        manifest = _manifest(saved.config, source.graph, reference.outputs, difference)
        manifest |= {"model": form.file, "format": form.name, "precision": precision}
        notes = _write_manifest(saved.config, source.graph, manifest, new, form)
        if form.write_beside is not None:
            name = folder.resolve().name
            form.write_beside(
                Deployment(
                    name=name, folder=new, manifest=manifest, reference=reference, run=opened
                )
            )
        files = tuple(sorted(_files_in(new)))
        num_bytes = form.num_bytes(new)
    weight_bytes = sum(4 * one.numel() for one in saved.model.parameters())
    if precision != "float32" and num_bytes > _NOTEWORTHY * weight_bytes:
        notes = (*notes, _size_note(precision))
    return Export(
        folder=folder,
        files=files,
        difference=difference,
        notes=notes,
        model_file=form.file,
        num_bytes=num_bytes,
        weight_bytes=weight_bytes,
    )


@contextmanager
def _attention(model: Perceiver | Ensemble, implementation: str) -> Generator[None]:
    """Compute cross-attention by another implementation for a while, and then by the `projected` one."""
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation("projected")


def check_format(format: str, precision: str = "float32") -> None:
    """Raise ValueError if a format is unknown, or is not written in a precision."""
    if format not in FORMATS:
        raise ValueError(f"Expected format to be one of {', '.join(FORMATS)}; got {format!r}.")
    if precision not in PRECISIONS:
        raise ValueError(
            f"Expected precision to be one of {', '.join(PRECISIONS)}; got {precision!r}."
        )
    known = {name: one.precisions for name, one in EXPORT_FORMATS.items()}
    if precision not in known.get(format, ("float32",)):
        able = " or ".join(name for name, found in known.items() if precision in found)
        raise ValueError(
            f"The format {format} is not written in {precision}. Choose the format {able}, or the precision "
            f"{' or '.join(known.get(format, ('float32',)))}."
        )


def _size_note(precision: str) -> str:
    if precision == "int8":
        return (
            "int8 saves little for this model: it is for linear layers of latents and for large embedding tables, and "
            "most weights are in other layers. --precision float16 halves all of them"
        )
    return f"{precision} saves little for this model: most of its file is the graph, not weights"


def _export_huggingface(run: str | Path | HasModel, folder: Path) -> Export:
    source = run.folder if isinstance(run, HasModel) and not isinstance(run, Path) else run
    with _atomic_folder(folder) as new:
        name = export_huggingface(source, new)
        difference = compare_transformers(name, new, load(source).model.members[0])
        if difference is not None:
            _check_difference(difference, folder)
        files = tuple(sorted(_files_in(new)))
    return Export(folder=folder, files=files, difference=difference, notes=(name,))


def _check_difference(difference: Difference, folder: Path) -> None:
    """Raise RuntimeError if the export differs from the model."""
    if not difference.fits:
        smaller = difference.precision != "float32"
        advice = "--precision float32" if smaller else "another --format"
        raise RuntimeError(
            f"The exported model differs from the model by up to {difference.sentence()}; at most "
            f"{difference.tolerance:g} is allowed{' in ' + difference.precision if smaller else ''}. Nothing was "
            f"written to {folder}. Try {advice}."
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
    if folder.suffix in (".onnx", ".xml", ".pt2", ".safetensors"):
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
            made = sorted(_files_in(new), key=lambda name: name == MANIFEST_FILE)
            for name in made:
                (folder / name).parent.mkdir(exist_ok=True)
                (new / name).replace(folder / name)
            _remove_earlier(folder, made)
        else:
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _files_in(folder: Path) -> list[str]:
    """Return the files below a folder, as paths relative to it."""
    return [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]


def _remove_earlier(folder: Path, made: Collection[str]) -> None:
    """Remove the files of an earlier export, but for those just made."""
    known = {MANIFEST_FILE, SCRIPT_FILE, "config.json", "KEYS.md"}
    for form in EXPORT_FORMATS.values():
        path = Path(form.file)
        known |= {form.file, *(path.with_name(name).as_posix() for name in form.also)}
        known |= set(form.files_beside)
    labels = {one.name for one in folder.glob("*probabilities_labels.txt")}
    for name in (known | labels).difference(made):
        (folder / name).unlink(missing_ok=True)
    for form in EXPORT_FORMATS.values():
        with suppress(OSError):  # not empty, or missing
            if (parent := (folder / form.file).parent) != folder:
                parent.rmdir()


def _write_manifest(
    config: SavedConfig,
    graph: ExportGraph,
    manifest: Mapping[str, Any],
    folder: Path,
    form: ExportFormat,
) -> tuple[str, ...]:
    """Write preprocess.json and, where possible, predict.py. Return sentences on what is missing."""
    task = config.task
    assert task is not None
    text = json.dumps(manifest, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    if form.runtime is None:
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
    script = script_of(manifest, templates, runtime=form.runtime, masked_text=task.chunked_modality)
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")
    return ()


def _manifest(
    config: SavedConfig,
    graph: ExportGraph,
    outputs: Mapping[str, Tensor],
    difference: Difference,
) -> dict[str, Any]:
    """Return the content of preprocess.json but for the model's file, format and precision."""
    task = config.task
    assert task is not None
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
    has_clips = any(build_modality(config.preprocess[name]).has_clips for name in modalities)
    clips = DataConfig(**config.columns.get("config", {})).clips if has_clips else 1
    return {
        "made_by": f"{_MADE_BY} {version('perceivers')}",
        "model": "",
        "format": "",
        "precision": "",
        "members": config.num_members,
        "mirrored": list(config.mirrored),
        "task": task.kind,
        "inputs": inputs,
        "modalities": modalities,
        "clip_positions": list(clip_positions(clips)),
        "outputs": _described_outputs(graph, outputs),
        "checked": {
            "samples": difference.samples,
            "largest_difference": difference.largest,
            "tolerance": difference.tolerance,
            "same_top": difference.same_top,
            "answers": difference.answers,
        },
    }


def _described_outputs(graph: ExportGraph, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return shape and meaning of each output, and the names of its classes, labels or numbers."""
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
    return described
