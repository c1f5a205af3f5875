"""Prediction of a model for one sample, for every task."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.tasks.flow_colors import flow_colors
from perceivers.typing import Float, Tensor

Schema = dict[str, Any]
"""A JSON schema."""


class NonFiniteOutputError(ValueError):
    """The model has no finite output for a sample: a number of it is NaN or infinite.

    Args:
        name: Name of the sample.
        in_weights: Whether the weights of the model themselves are not finite.
    """

    def __init__(self, name: str, in_weights: bool = False) -> None:
        super().__init__(name, in_weights)
        self.name = name
        self.in_weights = in_weights

    def __str__(self) -> str:
        """Return the message, with the name of the sample and what to do."""
        cause = (
            "The weights of the model are not finite, so it has no output for any sample: train it again, or use an "
            "earlier checkpoint."
            if self.in_weights
            else "Its values are probably far outside of those in training: check their range and units."
        )
        return (
            f"{self.name}: the model has no finite output for this sample (expected numbers, got NaN or infinity). "
            f"{cause}"
        )


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One modality of a sample and its reconstruction, in the units of the data, channels last.

    Attributes:
        kind: Kind of its preprocessing: `image`, `video`, `wave`, ...
        original: Input of the model: bytes of images and videos, audio samples in [-1, 1], other values.
        restored: Reconstruction from the latents, likewise.
        rate: Frames or samples a second. None: the modality has no rate.
        hidden: True where a value was hidden from the model, without the axis of the channels; the others are original
            in `restored`. None: nothing was hidden.
    """

    kind: str
    original: npt.NDArray[Any]
    restored: npt.NDArray[Any]
    rate: float | None = None
    hidden: npt.NDArray[np.bool_] | None = None


ANSWER_VERSION = 1
"""Version of the answers that `Prediction.answer` returns. Another version has other fields."""

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_RANKED: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"label": {"type": "string"}, "probability": _SHARE},
        "required": ["label", "probability"],
        "additionalProperties": False,
    },
}
_IMAGE = {"type": "string", "pattern": "^data:image/png;base64,"}
_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}

ANSWER_FIELDS: Mapping[str, Schema] = {
    "label": {"type": "string", "description": "The most probable class or label."},
    "probability": {
        **_SHARE,
        "description": "Probability of `label`; of filled blanks, the mean over the blanks.",
    },
    "labels": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The labels whose probability reaches the threshold of the run, best first; may be empty.",
    },
    "top": {
        **_RANKED,
        "description": "The most probable classes or labels, best first, as many as requested.",
    },
    "probabilities": {
        "type": "object",
        "additionalProperties": _SHARE,
        "description": "Probability of every class or label.",
    },
    "values": {
        **_NUMBERS,
        "description": "Predicted numbers in their own units; of images the share of each class or the mean, of flow "
        "the mean and largest motion in pixels, of reconstructions the PSNR in dB.",
    },
    "text": {"type": "string", "description": "The text with its blanks filled."},
    "blanks": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"label": {"type": "string"}, "probability": _SHARE, "top": _RANKED},
            "required": ["label", "probability", "top"],
            "additionalProperties": False,
        },
        "description": "For each blank the byte in `text`, its probability, and the most probable bytes.",
    },
    "image": {
        **_IMAGE,
        "description": "Predicted image, classes in colors, or flow in colors: PNG.",
    },
    "images": {
        "type": "object",
        "additionalProperties": _IMAGE,
        "description": "Reconstruction of each image, by the name of its modality: PNG.",
    },
}
"""JSON schema of each field of an answer but `version`, `name`, `task` and `tasks`."""


def answer_example(fields: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return an example of these fields of an answer, with the classes, labels or numbers of a run."""
    first, *others = names or ("mean",)
    shares = {first: 0.9, **dict.fromkeys(others, 0.1 / max(len(others), 1))}
    top = [{"label": label, "probability": p} for label, p in list(shares.items())[:2]]
    byte = {"label": "c", "probability": 0.9}
    image = "data:image/png;base64,iVBORw0KGgo="
    examples: dict[str, Any] = {
        "label": first,
        "probability": 0.9,
        "labels": [first],
        "top": top,
        "probabilities": shares,
        "values": dict.fromkeys((first, *others), 1.5),
        "text": "the cat sat",
        "blanks": [{**byte, "top": [byte]}],
        "image": image,
        "images": {"image": image},
    }
    return {field: examples[field] for field in fields}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one sample.

    Attributes:
        name: File, or position of the sample in the input.
        task: Kind of the task.
        label: Most probable label. "" where numbers are predicted.
        probability: Its probability, in [0, 1]. 0 where numbers are predicted.
        top: Most probable labels and their probabilities, best first.
        probabilities: Probability of every label. Those of several labels do not sum to one.
        labels: For a sample with several labels, the predicted ones, best first; there may be none. None: a sample has
            one label.
        values: Predicted numbers by name, in their own units. For reconstructions, the PSNR in dB: `video_psnr`.
        text: For texts with blanks, the filled text. `probability` is then the mean over its blanks.
        blanks: Most probable bytes of each blank and their probabilities, best first.
        filled: The byte of each blank in `text` and its probability.
        flow: Optical flow of every pixel of the first frame: Y x X x 2, to the right and down, in pixels. `values` then
            holds its length.
        image: For dense outputs, a PIL image of values, or of classes with a palette. `values` then holds the share
            of each class, or the mean.
        tasks: For several tasks, the prediction of each, by name. The fields above are then those of the first.
        reconstructions: Reconstruction of each modality, of an autoencoder.
    """

    name: str
    task: str = ""
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    labels: tuple[str, ...] | None = None
    values: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    blanks: tuple[tuple[tuple[str, float], ...], ...] = ()
    filled: tuple[tuple[str, float], ...] = ()
    flow: npt.NDArray[np.float32] | None = None
    image: Any = None
    tasks: dict[str, "Prediction"] = field(default_factory=dict[str, "Prediction"])
    reconstructions: dict[str, Reconstruction] = field(
        default_factory=dict[str, Reconstruction], repr=False, compare=False
    )

    @property
    def is_finite(self) -> bool:
        """Whether every number is finite. The PSNR of a perfect reconstruction is infinite and does not count."""
        numbers = [self.probability, *self.probabilities.values()]
        numbers += [value for name, value in self.values.items() if not name.endswith("psnr")]
        numbers += [share for blank in self.blanks for _, share in blank]
        return (
            all(map(math.isfinite, numbers))
            and (self.flow is None or bool(np.isfinite(self.flow).all()))
            and all(one.is_finite for one in self.tasks.values())
        )

    def answer(self, *, top: int | None = None) -> dict[str, Any]:
        """Return the prediction as JSON, the form of the command line, of HTTP and of exported scripts.

        `version`, `name`, and the fields of its task (`ANSWER_FIELDS`); of several tasks, those of each in `tasks`.
        `top` limits the lists of most probable labels, and nothing else.
        """
        return {"version": ANSWER_VERSION, "name": self.name, **self._answer_fields(top)}

    def _answer_fields(self, top: int | None) -> dict[str, Any]:
        if self.tasks:
            parts = {name: part._answer_fields(top) for name, part in self.tasks.items()}
            return {"task": self.task, "tasks": parts}
        found: dict[str, Any] = {"task": self.task}
        if self.label or self.probabilities:
            found |= {"label": self.label, "probability": self.probability}
            found |= {} if self.labels is None else {"labels": list(self.labels)}
            found |= {"top": _ranked(self.top, top), "probabilities": dict(self.probabilities)}
        if self.values:
            found["values"] = dict(self.values)
        if self.blanks:
            found |= {"text": self.text, "probability": self.probability}
            found["blanks"] = [
                {"label": label, "probability": p, "top": _ranked(listed, top)}
                for (label, p), listed in zip(self.filled, self.blanks, strict=True)
            ]
        if self.image is not None or self.flow is not None:
            drawn = self.image if self.flow is None else Image.fromarray(flow_colors(self.flow))
            found["image"] = _png(drawn)
        images = {
            name: _png(Image.fromarray(pair.restored.squeeze()))
            for name, pair in self.reconstructions.items()
            if pair.kind == "image"
        }
        return found | ({"images": images} if images else {})

    def columns(self) -> dict[str, Any]:
        """Return the cells of this prediction in a table, by column; several tasks prefixed by name, `digit/label`.

        For classes `label`, `probability` and `p(...)` of each; for several labels also `labels`; for numbers only
        these, by name; for reconstructions their PSNR, and the class if there is one; for filled blanks `text` and
        `probability`.
        """
        if self.tasks:
            found: dict[str, Any] = {}
            for task, one in self.tasks.items():
                # A number has the name of its column, which is the name of its task.
                cells = one.columns()
                prefix = "" if one.values else f"{task}/"
                found |= {f"{prefix}{name}": cell for name, cell in cells.items()}
            return found
        if self.values:
            label = {"label": self.label, "probability": self.probability}
            return {**self.values, **(label if self.label else {})}
        if self.blanks:
            return {"text": self.text, "probability": self.probability}
        several = {} if self.labels is None else {"labels": list(self.labels)}
        return {
            "label": self.label,
            "probability": self.probability,
            **several,
            **{f"p({name})": value for name, value in self.probabilities.items()},
        }


def class_predictions(
    names: Sequence[str],
    labels: Sequence[str],
    probabilities: Float[Tensor, "B K"],
    *,
    threshold: float | None = None,
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield the predictions of classes, or of labels, which are predicted from the probability `threshold` on.

    Each prediction lists the `top` best, at least one.
    """
    rows: list[list[float]] = probabilities.tolist()
    orders: list[list[int]] = probabilities.argsort(dim=-1, descending=True, stable=True).tolist()
    for name, row, order in zip(names, rows, orders, strict=True):
        several = None
        if threshold is not None:
            several = tuple(labels[index] for index in order if row[index] >= threshold)
        yield Prediction(
            name=name,
            label=labels[order[0]],
            probability=row[order[0]],
            top=tuple((labels[index], row[index]) for index in order[: max(top, 1)]),
            probabilities=dict(zip(labels, row, strict=True)),
            labels=several,
        )


def finite_rows(outputs: Any, num_rows: int) -> list[bool]:
    """Return for each sample of a batch whether all outputs of a model are finite.

    Args:
        outputs: A tensor whose first axis is the batch, or a mapping of these.
        num_rows: Number of samples.
    """
    found = torch.ones(num_rows, dtype=torch.bool)
    parts = cast("Mapping[str, Any]", outputs) if isinstance(outputs, Mapping) else {"": outputs}
    for part in parts.values():
        found &= part.isfinite().reshape(num_rows, -1).all(dim=1).cpu()
    return cast("list[bool]", found.tolist())


def _ranked(labels: Sequence[tuple[str, float]], top: int | None) -> list[dict[str, Any]]:
    listed = labels if top is None else labels[: max(top, 1)]
    return [{"label": label, "probability": p} for label, p in listed]


def _png(image: Any) -> str:
    """Return an image as a data address."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
