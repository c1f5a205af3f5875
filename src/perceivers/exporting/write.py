"""export: a run as a folder that other programs read, compared with the model before it appears."""

import copy
import json
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from perceivers.exporting.formats import (
    open_onnx,
    open_program,
    trace,
    write_onnx,
    write_program,
)
from perceivers.exporting.graph import Graph, graph_of
from perceivers.exporting.manifest import MADE_BY, describe
from perceivers.exporting.script import script_of, unscripted
from perceivers.exporting.verify import Difference, Reference, compare, make_reference
from perceivers.exporting.verify_transformers import compare_theirs
from perceivers.exporting.weights import open_weights, write_weights
from perceivers.hub.checkpoint import Saved, SavedConfig, load
from perceivers.hub.convert import export_huggingface
from perceivers.hub.quantize import is_quantized
from perceivers.models.perceiver import Perceiver

__all__ = ["FORMATS", "Export", "HasModel", "export"]

FORMATS = ("onnx", "torch", "safetensors", "huggingface")

DESCRIPTION_FILE = "preprocess.json"
SCRIPT_FILE = "predict.py"
_FILES = {"onnx": "model.onnx", "torch": "model.pt2", "safetensors": "model.safetensors"}
_OURS = (
    DESCRIPTION_FILE,
    SCRIPT_FILE,
    *_FILES.values(),
    "model.onnx.data",
    "config.json",
    "KEYS.md",
)


@runtime_checkable
class HasModel(Protocol):
    """A model with what it was saved with: a `Predictor`, or what `perceivers.hub.checkpoint.load` returned."""

    @property
    def model(self) -> Perceiver:
        """The model."""
        ...

    @property
    def config(self) -> SavedConfig:
        """All that prediction needs beside the weights."""
        ...

    @property
    def folder(self) -> Path:
        """Where it was read from."""
        ...


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written.

    Attributes:
        folder: Where.
        files: Names of the files in it.
        difference: How far the export is from the model. None: not compared, for want of `transformers`.
        notes: Sentences on what is not there.
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

    Before the folder appears, what was written is read again and compared with the model: on samples of the run's own
    data, on those given, or else on made-up ones.

    Args:
        run: A run folder, a model on the Hugging Face hub, or a predictor.
        path: The folder to write. One that an earlier export wrote is replaced.
        format: `onnx`, `torch` (an archive of torch.export) and `safetensors` come with a description of inputs and
            outputs, the first two with a script that predicts; `huggingface` is what `transformers` loads.
        samples: What is compared: paths, or dicts of a path for each modality.

    Raises:
        ImportError: If a library is missing. The message says how to install it.
        OSError: If `path` exists and is not of an earlier export, or the run cannot be read.
        RuntimeError: If the export is farther than 1e-4 from the model. Nothing is left of it.
        ValueError: If the model cannot be exported to this format, or a sample cannot be read.
    """
    if format not in FORMATS:
        msg = f"Expected format to be one of {', '.join(FORMATS)}; got {format!r}."
        raise ValueError(msg)
    folder = Path(path)
    _refuse_what_is_there(folder)
    if format == "huggingface":
        return _for_transformers(run, folder)
    saved = _own_copy(run)
    graph = graph_of(saved)
    with _usual_reads(saved.model):
        reference = make_reference(saved, graph, samples)
    with _appears_whole(folder) as new:
        difference = _WRITERS[format](saved, graph, reference, new / _FILES[format])
        _refuse_what_differs(difference, folder)
        notes = _describe(saved, graph, reference, difference, new, format)
        files = tuple(sorted(one.name for one in new.iterdir()))
    return Export(folder=folder, files=files, difference=difference, notes=notes)


def _describe(
    saved: Saved,
    graph: Graph,
    reference: Reference,
    difference: Difference,
    folder: Path,
    form: str,
) -> tuple[str, ...]:
    """Write preprocess.json and, where there can be one, predict.py. Return sentences on what is not there."""
    task = saved.config.task
    assert task is not None
    told = describe(saved.config, graph, reference.outputs, difference, model=_FILES[form])
    text = json.dumps(told, indent=2, ensure_ascii=False)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    if form == "safetensors":
        return ()
    missing = unscripted(task.kind, [how["kind"] for how in told["modalities"].values()])
    if missing is not None:
        return (missing,)
    script = script_of(told, runtime=form, task=task.kind)
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")
    return ()


def _as_onnx(saved: Saved, graph: Graph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_onnx(trace(graph), graph, path)
    return compare(reference, open_onnx(path))


def _as_program(saved: Saved, graph: Graph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_program(trace(graph), path)
    return compare(reference, open_program(path))


def _as_weights(saved: Saved, graph: Graph, reference: Reference, path: Path) -> Difference:  # noqa: ARG001
    write_weights(saved, path.parent)
    return compare(reference, open_weights(path.parent))


_WRITERS = {"onnx": _as_onnx, "torch": _as_program, "safetensors": _as_weights}


def _for_transformers(run: str | Path | HasModel, folder: Path) -> Export:
    source = run.folder if isinstance(run, HasModel) and not isinstance(run, Path) else run
    with _appears_whole(folder) as new:
        name = export_huggingface(source, new)
        difference = compare_theirs(name, new, load(source).model)
        if difference is not None:
            _refuse_what_differs(difference, folder)
        files = tuple(sorted(one.name for one in new.iterdir()))
    return Export(folder=folder, files=files, difference=difference, notes=(name,))


def _refuse_what_differs(difference: Difference, folder: Path) -> None:
    """Refuse an export that says something else.

    Raises:
        RuntimeError: If it does.
    """
    if not difference.fits:
        msg = (
            f"The exported model differs from the model by up to {difference.largest:.1e} on {difference.told}; "
            f"at most 1e-4 is allowed. Nothing was written to {folder}. Try another --format."
        )
        raise RuntimeError(msg)


def _own_copy(run: str | Path | HasModel) -> Saved:
    """Return the model on the CPU, so that nothing changes for who uses it.

    Raises:
        ValueError: If it has int8 weights.
    """
    if isinstance(run, str | Path):
        return load(run)
    if is_quantized(run.model):
        msg = (
            "Expected a model in float32 to export, got one with int8 weights, whose layers other programs do not "
            "have. Load it again without quantize, and export that."
        )
        raise ValueError(msg)
    model = copy.deepcopy(run.model).cpu().eval()
    return Saved(model=model, config=run.config, folder=Path(run.folder))


@contextmanager
def _usual_reads(model: Perceiver) -> Generator[None]:
    """Let a model read its inputs as it does in prediction."""
    own = getattr(model.config.encoder, "attn_implementation", "projected")
    model.set_attn_implementation(own)
    try:
        yield
    finally:
        model.set_attn_implementation("projected")


def _refuse_what_is_there(folder: Path) -> None:
    """Refuse to write over what is not ours.

    Raises:
        OSError: If something else is there.
    """
    if folder.suffix in (".onnx", ".pt2", ".safetensors"):
        msg = f"Expected a folder for --out, got the name of a file: {folder}. Try --out {folder.with_suffix('')}."
        raise OSError(msg)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        told = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        is_ours = str(told["made_by"]).startswith(MADE_BY)
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        msg = f"{folder} exists, and no earlier export wrote it. Choose another folder for --out."
        raise OSError(msg)


@contextmanager
def _appears_whole(folder: Path) -> Generator[Path]:
    """Give a new folder to be filled, which takes its place when that went well; else nothing is left of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            for name in _OURS:
                (folder / name).unlink(missing_ok=True)
            for one in list(new.iterdir()):
                one.replace(folder / one.name)
        else:
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
