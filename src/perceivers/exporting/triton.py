"""Files of a Triton Inference Server model next to its ONNX file: configuration, labels, v2 protocol messages."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceivers.exporting.verify import Reference, Run

TRITON_FILES = ("config.pbtxt", "metadata.json", "request.json", "response.json")

PLATFORM = "onnxruntime_onnx"
MAX_BATCH_SIZE = 8
_MAX_DELAY = 2000  # microseconds that a request waits for others
_LABELS = "_labels.txt"

# Names of a type in config.pbtxt (with TYPE_ before it) and in the v2 protocol.
_TYPES = {
    "float32": ("FP32", "FP32"),
    "uint8": ("UINT8", "UINT8"),
    "int64": ("INT64", "INT64"),
    "bool": ("BOOL", "BOOL"),
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """An exported model to deploy.

    Attributes:
        name: Name of the model on the server, which is that of its folder.
        folder: Folder to write to.
        manifest: Content of preprocess.json.
        reference: Samples.
        run: The exported model.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    reference: Reference
    run: Run


def check_model_name(name: str) -> None:
    """Raise ValueError if a folder's name cannot be that of a model in the paths of the v2 protocol."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        raise ValueError(
            "The folder's name is the model's name on the server: expected characters of A-Z, a-z, 0-9, '.', '_' and "
            f"'-', got {name!r}. Choose another folder for --out, such as models/birds."
        )


def write_triton_files(deployment: Deployment) -> None:
    """Write config.pbtxt, the labels of each output that has some, and metadata, request and response as JSON.

    The JSON files are as in the v2 protocol (KServe): the answer to GET v2/models/NAME, the body of a POST to
    v2/models/NAME/infer, and its answer.
    """
    folder, manifest = deployment.folder, deployment.manifest
    labels = {
        name: how["names"]
        for name, how in manifest["outputs"].items()
        if how["names"] and name.endswith("probabilities")
    }
    for name, texts in labels.items():
        lines = [" ".join(text.split()) for text in texts]  # a line for each class
        _write(folder / f"{name}{_LABELS}", "\n".join(lines))
    _write(folder / "config.pbtxt", config_text(deployment.name, manifest, labels))
    _write_json(folder / "metadata.json", metadata(deployment.name, manifest), indent=2)
    # Missing values are NaN, which JSON does not have.
    row = {
        name: tensor[:1].nan_to_num() if tensor.is_floating_point() else tensor[:1]
        for name, tensor in deployment.reference.inputs.items()
    }
    with torch.inference_mode():
        answer = deployment.run(row)
    feed = {name: tensor.numpy() for name, tensor in row.items()}
    outputs = [{"name": name} for name in manifest["outputs"]]
    request = {"inputs": _tensors(feed), "outputs": outputs}
    found = {name: np.asarray(answer[name]) for name in manifest["outputs"]}
    response = {
        "model_name": deployment.name,
        "model_version": "1",
        "outputs": _tensors(found),
    }
    _write_json(folder / "request.json", request)
    _write_json(folder / "response.json", response)


def config_text(
    name: str, manifest: Mapping[str, Any], labels: Mapping[str, Any] | None = None
) -> str:
    """Return config.pbtxt of a model: its tensors without the batch axis, and dynamic batching.

    Args:
        name: Name of the model.
        manifest: Content of preprocess.json.
        labels: Outputs that have a file of labels.
    """
    inputs = [_tensor_text(key, how) for key, how in manifest["inputs"].items()]
    outputs = [
        _tensor_text(
            key, {"dtype": "float32", **how}, f"{key}{_LABELS}" if key in (labels or {}) else ""
        )
        for key, how in manifest["outputs"].items()
    ]
    inputs_text, outputs_text = (",\n".join(parts) for parts in (inputs, outputs))
    return f"""\
name: {json.dumps(name)}
platform: "{PLATFORM}"
max_batch_size: {MAX_BATCH_SIZE}
input [
{inputs_text}
]
output [
{outputs_text}
]
dynamic_batching {{
  max_queue_delay_microseconds: {_MAX_DELAY}
}}
"""


def metadata(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model as the v2 protocol has it; an axis of any length is -1."""

    def described(key: str, how: Mapping[str, Any]) -> dict[str, Any]:
        _, datatype = _TYPES[how.get("dtype", "float32")]
        return {"name": key, "datatype": datatype, "shape": [-1, *_sizes(how)]}

    return {
        "name": name,
        "versions": ["1"],
        "platform": PLATFORM,
        "inputs": [described(key, how) for key, how in manifest["inputs"].items()],
        "outputs": [described(key, how) for key, how in manifest["outputs"].items()],
    }


def _tensor_text(name: str, how: Mapping[str, Any], labels: str = "") -> str:
    datatype, _ = _TYPES[how["dtype"]]
    lines = [
        f"    name: {json.dumps(name)}",
        f"    data_type: TYPE_{datatype}",
        f"    dims: [ {', '.join(map(str, _sizes(how)))} ]",
        *([f"    label_filename: {json.dumps(labels)}"] if labels else []),
    ]
    return "\n".join(["  {", *lines, "  }"])


def _sizes(how: Mapping[str, Any]) -> list[int]:
    """Return the shape without the batch axis; -1 for an axis of any length."""
    return [size if isinstance(size, int) else -1 for size in how["shape"][1:]]


def _tensors(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _TYPES[str(array.dtype)][1],
            "data": array.ravel().tolist(),
        }
        for name, array in arrays.items()
    ]


def _write_json(path: Path, content: Any, indent: int | None = None) -> None:
    _write(path, json.dumps(content, indent=indent, allow_nan=False))


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
