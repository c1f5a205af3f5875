"""preprocess.json beside an exported model: all that another program must know to run it."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter

from perceivers.data.base import DataConfig
from perceivers.data.modalities.base import clip_positions
from perceivers.data.modalities.registry import PreprocessConfig, build_modality
from perceivers.exporting.graph import READABLE, Graph
from perceivers.exporting.verify import TOLERANCE, Difference
from perceivers.hub.checkpoint import SavedConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, names_of
from perceivers.typing import Tensor

__all__ = ["MADE_BY", "describe"]

MADE_BY = "perceivers export"

_MEANINGS = {
    "classification": "probability of each class (softmax of the logits); they sum to one",
    "multilabel": "probability of each label (sigmoid of the logits); they do not sum to one",
    "regression": "numbers in their own units (the logits times their deviation, plus their mean)",
    "masked_bytes": "probability of each byte's number at each place (softmax of the logits)",
}


def describe(
    config: SavedConfig,
    graph: Graph,
    outputs: Mapping[str, Tensor],
    difference: Difference,
    *,
    model: str,
) -> dict[str, Any]:
    """Return what stands in preprocess.json, as plain data.

    Args:
        config: Of the saved model.
        graph: What was exported.
        outputs: Of the graph, for some samples.
        difference: How far the export is from the model.
        model: Name of the file beside it.
    """
    assert config.task is not None
    batch = "batch"
    inputs = {
        name: {
            "shape": [
                batch,
                *("any" if told.free and not n else s for n, s in enumerate(told.shape)),
            ],
            "dtype": told.dtype,
            "meaning": told.meaning,
        }
        for name, told in graph.signatures().items()
    }
    return {
        "made_by": f"{MADE_BY} {version('perceivers')}",
        "model": model,
        "task": config.task.kind,
        "inputs": inputs,
        "modalities": _modalities(config, graph),
        "moments": list(_moments(config)),
        "outputs": _outputs(config.task, outputs),
        "threshold": getattr(config.task, "threshold", None),
        "checked": {
            "samples": difference.told,
            "largest_difference": difference.largest,
            "tolerance": TOLERANCE,
        },
    }


def _modalities(config: SavedConfig, graph: Graph) -> dict[str, Any]:
    """Return how a file becomes each input: the configuration of its preprocessing, and shapes without the batch."""
    adapter: TypeAdapter[Any] = TypeAdapter(PreprocessConfig)
    found: dict[str, Any] = {}
    for name, port in graph.ports.items():
        one: Any = port
        told = adapter.dump_python(config.preprocess[name], mode="json")
        shape = {"shape": list(one.shape), "dtype": one.dtype}
        found[name] = {**told, **shape, "mask": None if one.length is None else [one.length]}
    return found


def _moments(config: SavedConfig) -> tuple[float, ...]:
    """Return where the clips lie whose outputs are averaged: 0 the first possible clip, 1 the last."""
    timed = any(
        build_modality(part).has_clips
        for name, part in config.preprocess.items()
        if name not in config.answers
    )
    clips = DataConfig(**config.columns.get("config", {})).clips
    return clip_positions(clips if timed else 1)


def _outputs(config: TaskConfig, outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    parts = config.parts if isinstance(config, MultiTaskConfig) else {"": config}
    found: dict[str, Any] = {
        name: {
            "shape": ["batch", *tensor.shape[1:]],
            "meaning": "as the model gives it",
            "names": None,
        }
        for name, tensor in outputs.items()
    }
    for task, part in parts.items():
        if part.kind not in READABLE:
            continue
        name = f"{task}_{READABLE[part.kind]}" if task else READABLE[part.kind]
        is_row = outputs[name].ndim == 2
        found[name] |= {
            "meaning": _MEANINGS[part.kind],
            "names": list(names_of(part)) if is_row else None,
        }
    return found
