"""File formats of exported models, each written and opened again: ONNX, OpenVINO, torch.export and safetensors."""

import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perceivers.exporting.graph import ExportGraph, build_graph
from perceivers.exporting.precision import compact, convert_precision
from perceivers.exporting.triton import TRITON_FILES, Deployment, write_triton_files
from perceivers.exporting.verify import PRECISIONS, Run
from perceivers.hub.checkpoint import Saved, load, save
from perceivers.optional import require
from perceivers.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A model to export.

    Attributes:
        saved: The saved model.
        graph: Its graph.
        precision: Precision of the written model.
        program: The traced graph, if it is known: tracing takes long.
    """

    saved: Saved
    graph: ExportGraph
    precision: str = "float32"
    program: torch.export.ExportedProgram | None = None

    def traced(self) -> torch.export.ExportedProgram:
        """Return the traced graph."""
        return trace(self.graph) if self.program is None else self.program


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format of exported models.

    Attributes:
        name: Its name.
        file: Path of the model's file in the folder.
        write: Writes a model to a path.
        open: Opens the written model, for a number of threads; 0: as many as its runtime uses by default.
        precisions: Precisions that it can be written in.
        runtime: Runtime of predict.py. None: no script is written.
        also: Other files of the model, next to `file`.
        write_beside: Writes further files into the folder, for its deployment.
        files_beside: Names of these.
    """

    name: str
    file: str
    write: Callable[[ExportSource, Path], None]
    open: Callable[[Path, int], Run]
    precisions: tuple[str, ...] = ("float32",)
    runtime: str | None = None
    also: tuple[str, ...] = ()
    write_beside: Callable[[Deployment], None] | None = None
    files_beside: tuple[str, ...] = ()

    def num_bytes(self, folder: Path) -> int:
        """Return the size of the model's files in a folder."""
        path = folder / self.file
        files = [path, *(path.parent / name for name in self.also)]
        return sum(one.stat().st_size for one in files if one.exists())


OPSET = 20
_LARGEST_BATCH = 65_536
_BATCH = "batch"

# Prefixes of the names of weights, for KEYS.md.
_PARTS = {
    "inputs": "input adapter of a modality",
    "encoder.latents": "latent array, N x D",
    "encoder.cross_attends": "cross-attention of the latents to the elements; the number counts those with weights of "
    "their own",
    "encoder.blocks": "self-attention of the latents: number of the block, then of the layer in it",
    "encoder": "encoder",
    "output": "predictions from the latents",
    "fusion.modality_embeddings": "modality embedding",
    "fusion": "projection of modalities to one width",
}
_LAYERS = {
    "to_query": "queries",
    "to_key": "keys",
    "to_value": "values",
    "to_output": "output projection",
    "to_logits": "predictions from the mean of the latents",
    "embedding": "embedding of each byte",
    "places": "embedding of each position",
    "convolutions": "convolution of the stem",
}


def trace(graph: ExportGraph) -> torch.export.ExportedProgram:
    """Return the graph traced by torch.export, for any batch size and number of points."""
    inputs = graph.made(2)
    batch = torch.export.Dim(_BATCH, min=1, max=_LARGEST_BATCH)
    shapes: dict[str, Any] = {
        name: {0: batch, 1: torch.export.Dim.DYNAMIC} if one.free else {0: batch}
        for name, one in graph.signatures().items()
    }
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(graph, (inputs,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # the exporter raises many kinds
        raise ValueError(_reason("torch.export", error)) from error


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write an archive for `torch.export.load`."""
    with _quiet():
        torch.export.save(program, path)


def open_program(path: Path, threads: int = 0) -> Run:  # noqa: ARG001
    """Return an archive of torch.export as a function of inputs by name. Its threads are those of PyTorch."""
    with _quiet():
        module: Run = torch.export.load(path).module()
    return lambda inputs: module(dict(inputs))


def write_onnx(
    program: torch.export.ExportedProgram, source: ExportSource | ExportGraph, path: Path
) -> None:
    """Write a traced graph for onnxruntime. Weights beyond 2 GB lie beside the file."""
    require("onnx", "export")
    require("onnxscript", "export")
    graph = source.graph if isinstance(source, ExportSource) else source
    inputs = graph.made(2)
    with torch.inference_mode():
        outputs = list(graph(inputs))
    try:
        with _quiet():
            found = torch.onnx.export(
                program,
                (inputs,),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                verbose=False,
            )
            assert found is not None
            _name_axes(found.model, graph)
            modules = compact(found.model)
            found.save(str(path))
    except Exception as error:  # the exporter raises many kinds
        raise ValueError(_reason("ONNX", error)) from error
    if isinstance(source, ExportSource) and source.precision != "float32":
        with _quiet():
            convert_precision(path, source.precision, modules, source.saved.model)


def open_onnx(path: Path, threads: int = 0) -> Run:
    """Return a model of onnxruntime, on the CPU, as a function of inputs by name."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # float16 constants that it does not fold are worth no warning
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


def write_openvino(source: ExportSource, path: Path) -> None:
    """Write model.xml and model.bin for OpenVINO, with weights in float32 or float16."""
    openvino = require("openvino", "openvino")
    whole = path.with_suffix(".onnx")
    # Its own compression also rounds constants of preprocessing and indices, whose range float16 does not have.
    write_onnx(source.traced(), source, whole)
    # Not convert_model, which reports its use to the vendor.
    model = openvino.Core().read_model(str(whole))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    for one in path.parent.glob(f"{whole.name}*"):
        one.unlink()


def open_openvino(path: Path, threads: int = 0) -> Run:
    """Return a model of OpenVINO, on the CPU and computed in float32, as a function of inputs by name."""
    openvino = require("openvino", "openvino")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        found = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: found[port] for port in compiled.outputs for name in port.names}

    return run


def write_weights(saved: Saved, folder: Path) -> None:
    """Write `model.safetensors`, `config.json` and `KEYS.md` into a folder, which `perceivers.load` reads, too."""
    config = saved.config
    save(
        folder,
        saved.model,
        preprocess=config.preprocess,
        task=config.task,
        columns=config.columns,
        mirrored=config.mirrored,
    )
    weights = saved.model.state_dict()
    total = sum(tensor.numel() for tensor in weights.values())
    lines = [
        "# Keys of model.safetensors",
        "",
        f"{total:,} numbers in {len(weights)} tensors, as in PyTorch: a linear layer's is outputs x inputs.",
        "`model` in `config.json` defines how often layers are used, and in which order.",
        "",
        "| key | shape | meaning |",
        "|---|---|---|",
    ]
    for name, tensor in weights.items():
        shape = " x ".join(map(str, tensor.shape)) or "1"
        lines.append(f"| `{name}` | {shape} | {_meaning(name)} |")
    (folder / "KEYS.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def open_weights(path: Path, threads: int = 0) -> Run:  # noqa: ARG001
    """Return a model loaded from its weights as a function of inputs by name. Its threads are those of PyTorch."""
    graph = build_graph(load(path.parent))
    return lambda inputs: graph(dict(inputs))


def _meaning(name: str) -> str:
    if name.startswith("members."):
        _, number, inner = name.split(".", 2)
        return f"member {number}, {_meaning(inner)}"
    part = next((text for prefix, text in _PARTS.items() if name.startswith(prefix)), "a weight")
    layer = next((text for key, text in _LAYERS.items() if key in name.split(".")), None)
    if layer is None and "norm" in name:
        layer = "LayerNorm"
    elif layer is None and "mlp" in name:
        layer = "MLP"
    return part if layer is None else f"{part}: {layer}"


def _name_axes(model: Any, graph: ExportGraph) -> None:
    """Name the free axes of inputs and outputs, in place of the tracer's symbols."""
    names: dict[str, str] = {}
    signatures = graph.signatures()
    for value in model.graph.inputs:
        names.setdefault(str(value.shape[0]), _BATCH)
        if signatures[value.name].free:
            names.setdefault(str(value.shape[1]), value.name.removesuffix("_mask"))
    for value in [*model.graph.inputs, *(o for node in model.graph for o in node.outputs)]:
        for axis, length in enumerate(value.shape or ()):
            if str(length) in names:
                value.shape[axis] = names[str(length)]


def _reason(target: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"This model could not be expressed in {target}: {reason}. Its weights can be exported with --format "
        "safetensors."
    )


@contextmanager
def _quiet() -> Generator[None]:
    """Hide the exporters' warnings and log messages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_onnx(source: ExportSource, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    write_onnx(source.traced(), source, path)


_FORMATS = (
    ExportFormat(
        name="onnx",
        file="model.onnx",
        write=_write_onnx,
        open=open_onnx,
        precisions=PRECISIONS,
        runtime="onnx",
        also=("model.onnx.data",),
    ),
    ExportFormat(
        name="openvino",
        file="model.xml",
        write=write_openvino,
        open=open_openvino,
        precisions=("float32", "float16"),
        runtime="openvino",
        also=("model.bin",),
    ),
    ExportFormat(
        name="triton",
        file="1/model.onnx",
        write=_write_onnx,
        open=open_onnx,
        precisions=PRECISIONS,
        runtime="onnx",
        also=("model.onnx.data",),
        write_beside=write_triton_files,
        files_beside=TRITON_FILES,
    ),
    ExportFormat(
        name="torch",
        file="model.pt2",
        write=lambda source, path: write_program(source.traced(), path),
        open=open_program,
        runtime="torch",
    ),
    ExportFormat(
        name="safetensors",
        file="model.safetensors",
        write=lambda source, path: write_weights(source.saved, path.parent),
        open=open_weights,
    ),
)

EXPORT_FORMATS = {form.name: form for form in _FORMATS}
"""Formats with a manifest, by name. `huggingface` has another layout."""
