"""Prediction of a model for one sample, for every task."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from perceivers.typing import Float, Tensor


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
    """

    kind: str
    original: npt.NDArray[Any]
    restored: npt.NDArray[Any]
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction for one sample.

    Attributes:
        name: File, or position of the sample in the input.
        label: Most probable label. "" where numbers are predicted.
        probability: Its probability, in [0, 1]. 0 where numbers are predicted.
        top: Most probable labels and their probabilities, best first.
        probabilities: Probability of every label. Those of several labels do not sum to one.
        labels: For a sample with several labels, the predicted ones, best first; there may be none. None: a sample has
            one label.
        values: Predicted numbers by name, in their own units. For reconstructions, the PSNR in dB: `video_psnr`.
        text: For texts with blanks, the filled text. `probability` is then the mean over its blanks.
        blanks: Most probable bytes of each blank and their probabilities, best first.
        flow: Optical flow of every pixel of the first frame: Y x X x 2, to the right and down, in pixels. `values` then
            holds its length.
        image: For dense outputs, a PIL image of values, or of classes with a palette. `values` then holds the share
            of each class, or the mean.
        tasks: For several tasks, the prediction of each, by name. The fields above are then those of the first.
        reconstructions: Reconstruction of each modality, of an autoencoder.
    """

    name: str
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    labels: tuple[str, ...] | None = None
    values: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    blanks: tuple[tuple[tuple[str, float], ...], ...] = ()
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
