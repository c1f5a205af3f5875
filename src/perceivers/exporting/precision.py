"""Reduced precision of ONNX models: float16, and int8 weights, by the converters of onnxruntime."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from perceivers.hub.quantize import int8_layers
from perceivers.optional import require

_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules of a node
_LARGEST_COMPARED = 2**40  # bytes: weights of every size are compared
_INPUT = re.compile(r"model(\.members\.\d+)?\.inputs\b")

# Sums and functions whose error or range in float16 is too large; the runtimes sum LayerNorm in float32 anyway.
_FLOAT32_OPERATORS = (
    *("Softmax", "Sigmoid", "Exp", "Log", "Pow", "Sqrt", "Reciprocal"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare"),
)

# Input adapters compute positions and statistics, in float32. Their large weights are worth converting.
_WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul", "Einsum", "Gather", "GatherND")
_LARGE = 2**16  # numbers


def compact(model: Any) -> dict[str, str]:
    """Make a model of `onnx_ir` smaller in place, and return the module that each node comes from, by its name.

    Weights that several layers share are stored once; the exporter's notes, with paths of source files, are removed.
    """
    optimizer: Any = require("onnxscript.optimizer", "export")
    passes: Any = require("onnx_ir.passes.common", "export")
    # The exporter leaves the transposition of large weights that are used several times to the runtime.
    optimizer.fold_constants(model, onnx_shape_inference=False, should_fold=_is_transposition)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    passes.DeduplicateInitializersPass(size_limit=_LARGEST_COMPARED)(model)
    modules: dict[str, str] = {}
    origin: dict[str, str] = {}  # module of each value
    for node in model.graph:
        if _SCOPES in node.metadata_props:
            scopes = json.loads(node.metadata_props[_SCOPES].replace("'", '"'))
            module = scopes[-2] if len(scopes) > 1 else ""
        else:  # made by an optimization: as the node before it
            given = (origin.get(one.name) for one in node.inputs if one is not None)
            module = next((one for one in given if one is not None), "")
        modules[node.name] = module
        origin |= {one.name: module for one in node.outputs}
    passes.ClearMetadataAndDocStringPass()(model)
    return modules


def _is_transposition(node: Any) -> bool | None:
    """Return whether a node of constants is folded in any case; None: as by default."""
    return True if node.op_type == "Transpose" else None


def convert_precision(
    path: Path, precision: str, modules: Mapping[str, str], model: nn.Module
) -> None:
    """Convert an ONNX file to another precision, in place.

    Args:
        path: The file, in float32.
        precision: `float16` or `int8`.
        modules: Module of each node, as `compact` returns it.
        model: The model, in float32.

    Raises:
        ValueError: If the model has no weights that int8 is for.
    """
    _CONVERTERS[precision](path, modules, model)


def _to_float16(path: Path, modules: Mapping[str, str], model: nn.Module) -> None:  # noqa: ARG001
    onnx = require("onnx", "export")
    converter: Any = require("onnxruntime.transformers.float16", "export")
    tools: Any = require("onnxruntime.transformers.onnx_model", "export")
    whole = onnx.load(str(path))
    large = _large_weights(whole)
    kept = [one.name for one in whole.graph.node if _stays_float32(one, modules, large)]
    half = converter.convert_float_to_float16(
        whole,
        keep_io_types=True,
        disable_shape_infer=True,  # the exporter has written all shapes, and inference stops at 2 GB
        op_block_list=[*converter.DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS],
        node_block_list=kept,
    )
    # The converter lets values between two nodes in float32 pass through float16, too.
    tools.OnnxModel(half).remove_cascaded_cast_nodes()
    _replace(path, half)


def _to_int8(path: Path, modules: Mapping[str, str], model: nn.Module) -> None:
    onnx = require("onnx", "export")
    quantization = require("onnxruntime.quantization", "export")
    whole = onnx.load(str(path))
    _simplify_lookups(whole)
    layers = {f"model.{name}" for name in int8_layers(model)}
    large = _large_weights(whole)
    weights = {one.name for one in whole.graph.initializer}
    names = [
        node.name
        for node in whole.graph.node
        if (
            node.op_type == "MatMul"
            and modules.get(node.name) in layers
            and node.input[1] in weights
        )
        or (node.op_type == "Gather" and node.input[0] in large)
    ]
    if not names:
        raise ValueError(
            "Expected linear layers of latents or large embedding tables to store in int8, and this model has none. "
            "Choose --precision float16 or float32."
        )
    # Scales of activations at run time need no samples, and lose less than scales from a few samples.
    quantization.quantize_dynamic(
        whole,
        str(path),
        op_types_to_quantize=["MatMul", "Gather"],
        per_channel=True,
        nodes_to_quantize=names,
        use_external_data_format=path.with_name(f"{path.name}.data").exists(),
    )


def _simplify_lookups(model: Any) -> None:
    """Replace lookups of rows of a table by GatherND with Gather, which can be quantized, in place."""
    onnx = require("onnx", "export")
    made = {name: node for node in model.graph.node for name in node.output}
    shapes = {one.name: one.type.tensor_type.shape.dim for one in model.graph.value_info}
    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "GatherND" or any(one.i for one in node.attribute):
            continue
        indices = made.get(node.input[1])
        if indices is None or indices.op_type != "Unsqueeze" or indices.input[1] not in constants:
            continue
        axes = onnx.numpy_helper.to_array(constants[indices.input[1]]).tolist()
        if axes in ([-1], [len(shapes.get(node.input[1], ())) - 1]):  # one number for each row
            node.op_type = "Gather"
            del node.attribute[:]
            node.input[1] = indices.input[0]


_CONVERTERS = {"float16": _to_float16, "int8": _to_int8}


def _stays_float32(node: Any, modules: Mapping[str, str], large: Collection[str]) -> bool:
    """Return whether a node is computed in float32: preprocessing, positions, statistics and readable outputs."""
    module = modules.get(node.name, "")
    if not module.startswith("model"):
        return True
    if not _INPUT.match(module):
        return False
    has_weights = any(name in large for name in node.input)
    return not (has_weights and node.op_type in _WEIGHTED_OPERATORS)


def _large_weights(model: Any) -> set[str]:
    return {one.name for one in model.graph.initializer if np.prod(one.dims) >= _LARGE}


def _replace(path: Path, model: Any) -> None:
    """Write a converted model in the place of the original, with weights beside the file if they were before."""
    onnx = require("onnx", "export")
    data = path.with_name(f"{path.name}.data")
    is_split = data.exists()
    data.unlink(missing_ok=True)
    how: dict[str, Any] = {"save_as_external_data": True, "location": data.name} if is_split else {}
    onnx.save(model, str(path), **how)
