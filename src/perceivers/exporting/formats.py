"""A graph as ONNX and as an archive of torch.export: written, read again, and run as other programs run it."""

import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import require
from perceivers.exporting.graph import Graph
from perceivers.exporting.verify import Run
from perceivers.typing import Tensor

__all__ = ["OPSET", "open_onnx", "open_program", "trace", "write_onnx", "write_program"]

OPSET = 20
_LARGEST_BATCH = 65_536
_BATCH = "batch"


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """Return the graph as torch.export sees it: any batch, and any number of points.

    Raises:
        ValueError: If the model cannot be traced.
    """
    inputs = graph.made(2)
    batch = torch.export.Dim(_BATCH, min=1, max=_LARGEST_BATCH)
    shapes: dict[str, Any] = {}
    for name, told in graph.signatures().items():
        shapes[name] = {0: batch, 1: torch.export.Dim.DYNAMIC} if told.free else {0: batch}
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(graph, (inputs,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # what tracing raises is the exporter's choice
        raise ValueError(_why("torch.export", error)) from error


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write an archive that `torch.export.load` reads."""
    with _quiet():
        torch.export.save(program, path)


def open_program(path: Path) -> Run:
    """Return an archive, read anew, as a function of inputs by name."""
    with _quiet():
        module: Run = torch.export.load(path).module()
    return lambda inputs: module(dict(inputs))


def write_onnx(program: torch.export.ExportedProgram, graph: Graph, path: Path) -> None:
    """Write a model that onnxruntime runs.

    Args:
        program: Of `trace`.
        graph: Of which it is, for the names.
        path: The file. Weights beyond 2 GB lie beside it.

    Raises:
        ImportError: If a library of the extra `export` is missing.
        ValueError: If an operation has no form in ONNX.
    """
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
    except Exception as error:  # what the exporter raises is its choice
        raise ValueError(_why("ONNX", error)) from error


def open_onnx(path: Path) -> Run:
    """Return a model in onnxruntime, on the CPU, as a function of inputs by name.

    Raises:
        ImportError: If onnxruntime is missing.
    """
    runtime = require("onnxruntime", "export")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


def _name_axes(model: Any, graph: Graph) -> None:
    """Call the free axes of inputs and outputs by what they are, in place of the tracer's numbers."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        names.setdefault(str(value.shape[0]), _BATCH)
        if graph.signatures()[value.name].free:
            names.setdefault(str(value.shape[1]), value.name.removesuffix("_mask"))
    for value in [*model.graph.inputs, *(o for node in model.graph for o in node.outputs)]:
        for place, length in enumerate(value.shape or ()):
            if str(length) in names:
                value.shape[place] = names[str(length)]


def _why(what: str, error: Exception) -> str:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"This model could not be expressed in {what}: {words}. Its weights can be taken elsewhere with --format "
        "safetensors."
    )


@contextmanager
def _quiet() -> Generator[None]:
    """Keep from the user what the exporters say of libraries that are not needed and of their own ways."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
