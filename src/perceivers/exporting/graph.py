"""The module that is exported: raw arrays by name in, the model's outputs and what people read of them out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from perceivers.data.modalities.audio.modality import MelAudio, WaveAudio
from perceivers.data.modalities.image.modality import Pictures
from perceivers.data.modalities.points.modality import PointClouds
from perceivers.data.modalities.registry import build_modality
from perceivers.data.modalities.series.modality import SeriesWindows
from perceivers.data.modalities.text.modality import TextBytes
from perceivers.data.modalities.video.modality import VideoClips
from perceivers.exporting.preprocessing import (
    FilmPort,
    MelPort,
    PicturePort,
    PlainPort,
    PointsPort,
    Port,
    SeriesPort,
    Signature,
    TextPort,
    WavePort,
    mask_name,
)
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.elements import InputAdapter
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, build_task
from perceivers.typing import Tensor

__all__ = ["READABLE", "Graph", "graph_of", "in_windows", "named_outputs"]

READABLE = {
    "classification": "probabilities",
    "multilabel": "probabilities",
    "regression": "values",
    "masked_bytes": "probabilities",
}
"""What people read of a task's outputs, by its kind. Of other tasks the graph gives the model's outputs alone."""

_PORTS: tuple[tuple[type[Any], type[Any]], ...] = (
    (VideoClips, FilmPort),
    (WaveAudio, WavePort),
    (MelAudio, MelPort),
    (PointClouds, PointsPort),
    (TextBytes, TextPort),
    (SeriesWindows, SeriesPort),
)


class Graph(nn.Module):
    """A model with what stands before it and behind it.

    Args:
        model: In evaluation mode. It is read by its `projected` path, which consists of plain operations alone.
        ports: What each modality enters by.
        task: What its outputs mean. None: nothing is known of that.
    """

    def __init__(
        self, model: Perceiver, ports: Mapping[str, Port], task: TaskConfig | None
    ) -> None:
        super().__init__()
        self.model = model
        self.ports = nn.ModuleDict(ports)
        self.config = task
        self.task = None if task is None else build_task(task)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Args:
            inputs: By name, as `signatures` says.
        """
        tensors: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, port in self.ports.items():
            values, mask = port(inputs[name], inputs.get(mask_name(name)))
            tensors[name] = values
            if mask is not None:
                masks[name] = mask
        return self.readable(self.model(tensors, masks or None))

    def readable(self, outputs: Any) -> dict[str, Tensor]:
        """Return outputs of the model by name, and beside them what people read of them."""
        found = named_outputs(outputs)
        config = self.config
        if isinstance(config, MultiTaskConfig):
            told = cast("Any", self.task).probabilities(outputs)
            for name, part in config.parts.items():
                found[f"{name}_{READABLE[part.kind]}"] = told[name]
        elif config is not None and config.kind in READABLE:
            found[READABLE[config.kind]] = cast("Any", self.task).probabilities(outputs)
        return dict(sorted(found.items()))

    def signatures(self) -> dict[str, Signature]:
        """Return the inputs by name, in the order in which the graph has them."""
        found: dict[str, Signature] = {}
        for port in self.ports.values():
            found |= cast("Port", port).signatures()
        return dict(sorted(found.items()))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the inputs of one sample, with a batch axis of 1.

        Args:
            values: What was decoded of each modality, as `SampleTransform.decode` returns it. None or absent: missing.
        """
        found: dict[str, Tensor] = {}
        for name, port in self.ports.items():
            arrays = cast("Port", port).arrays(values.get(name))
            found |= {key: torch.from_numpy(array)[None] for key, array in arrays.items()}
        return dict(sorted(found.items()))

    def made(self, count: int = 3, seed: int = 0) -> dict[str, Tensor]:
        """Return made-up inputs of some samples."""
        rng = np.random.default_rng(seed)
        found: dict[str, Tensor] = {}
        for port in self.ports.values():
            made = cast("Port", port).made(count, rng)
            found |= {key: torch.from_numpy(array) for key, array in made.items()}
        return dict(sorted(found.items()))


def graph_of(saved: Saved) -> Graph:
    """Return what is exported of a saved model.

    Its model is read by the `projected` path from now on.

    Raises:
        ValueError: If it was saved without its labels or preprocessing.
    """
    config = saved.config
    if config.task is None or not config.preprocess:
        msg = (
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so that nothing can be "
            "said of its inputs: pv.save(predictor, folder) or `perceivers fit` save both. Or call torch.export on it."
        )
        raise ValueError(msg)
    saved.model.set_attn_implementation("projected")
    ports = {
        name: _port(name, saved.model, config)
        for name in sorted(config.preprocess)
        if name not in config.answers
    }
    return Graph(saved.model, ports, config.task).eval()


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """Return a model's outputs by name: `logits` of one alone, `digit_logits` of several."""
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    return {f"{name}_logits": part for name, part in outputs.items()}


def in_windows(preprocess: Any) -> Any:
    """Return how a modality is prepared in the model's own size, also where prediction puts windows together."""
    return replace(preprocess, whole=False) if getattr(preprocess, "whole", False) else preprocess


def _port(name: str, model: Perceiver, config: SavedConfig) -> Port:
    preprocess: Any = in_windows(config.preprocess[name])
    modality = build_modality(preprocess)
    for reader, port in _PORTS:
        if isinstance(modality, reader):
            return port(name, modality)
    if isinstance(modality, Pictures):
        several = len(config.preprocess) - len(config.answers) > 1
        return PicturePort(name, modality, may_lack=several)
    adapter = cast("InputAdapter", model.inputs[name])
    return PlainPort(name, modality, adapter.example(1), preprocess.kind)
