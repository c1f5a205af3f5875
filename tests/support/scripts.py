"""Runs predict.py of an export without onnxruntime and without perceivers."""

import io
import json
import runpy
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from perceivers.exporting import formats
from perceivers.exporting.graph import ExportGraph

__all__ = ["export_quickly", "run_script"]


def export_quickly(patch: pytest.MonkeyPatch) -> None:
    """Write no real ONNX, which takes seconds: the graph itself takes its place in `run_script`."""
    graphs: list[ExportGraph] = []

    def write(source: formats.ExportSource, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(str(len(graphs)).encode())  # the folder is renamed
        graphs.append(source.graph)

    def opened(path: Path, threads: int = 0) -> ExportGraph:
        return graphs[int(path.read_bytes())]

    for name in ("onnx", "triton"):
        form = replace(formats.EXPORT_FORMATS[name], write=write, open=opened)
        patch.setitem(formats.EXPORT_FORMATS, name, form)


def run_script(folder: Path, graph: ExportGraph, *words: object) -> list[dict[str, Any]]:
    """Return the answers that predict.py prints, with the graph in the place of onnxruntime."""

    class Session:
        def __init__(self, path: str) -> None:
            assert path.endswith("model.onnx")

        def get_outputs(self) -> list[types.SimpleNamespace]:
            return [types.SimpleNamespace(name=name) for name in graph(graph.made())]

        def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
            with torch.inference_mode():
                found = graph({name: torch.from_numpy(array) for name, array in feed.items()})
            return [found[name].numpy() for name in names]

    printed = io.StringIO()
    runtime = types.SimpleNamespace(InferenceSession=Session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", runtime)
        patch.setitem(sys.modules, "perceivers", None)  # so that importing it fails
        patch.setattr(sys, "argv", ["predict.py", *map(str, words)])
        patch.setattr(sys, "stdout", printed)
        runpy.run_path(str(folder / "predict.py"))
    return [json.loads(line) for line in printed.getvalue().splitlines()]
