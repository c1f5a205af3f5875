"""File formats of exported models: ONNX, torch.export and safetensors, each written and opened again."""

import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import require
from perceivers.exporting.graph import ExportGraph, build_graph
from perceivers.exporting.verify import Run
from perceivers.hub.checkpoint import Saved, load, save
from perceivers.typing import Tensor

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


def open_program(path: Path) -> Run:
    """Return an archive of torch.export as a function of inputs by name."""
    with _quiet():
        module: Run = torch.export.load(path).module()
    return lambda inputs: module(dict(inputs))


def write_onnx(program: torch.export.ExportedProgram, graph: ExportGraph, path: Path) -> None:
    """Write a traced graph for onnxruntime. Weights beyond 2 GB lie beside the file."""
    require("onnx", "export")
    require("onnxscript", "export")
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
            found.save(str(path))
    except Exception as error:  # the exporter raises many kinds
        raise ValueError(_reason("ONNX", error)) from error


def open_onnx(path: Path) -> Run:
    """Return a model of onnxruntime, on the CPU, as a function of inputs by name."""
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

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


def open_weights(folder: Path) -> Run:
    """Return a model loaded from its weights as a function of inputs by name."""
    graph = build_graph(load(folder))
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
