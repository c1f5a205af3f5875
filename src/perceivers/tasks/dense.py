"""An answer for every pixel: a second picture (colors, depth, less noise), or a map of classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import ConfigDict
from torch.nn.functional import cross_entropy, pad

from perceivers.tasks.base import Details, Question, SummedMeter, take_answer
from perceivers.typing import Float, Int, Tensor

__all__ = [
    "PIXELS",
    "DenseConfig",
    "ImageToImageConfig",
    "ImageToImageMeter",
    "ImageToImageTask",
    "SegmentationConfig",
    "SegmentationMeter",
    "SegmentationTask",
]

PIXELS = "pixels"
"""What the output of the model is called."""

NO_CLASS = 255  # of a pixel whose class nobody knows, and that is not asked for
_LEAST = 1e-10  # mean squared error below which a picture counts as met: 100 dB


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What is asked of a picture.

    Attributes:
        answer: The modality that is learned, a picture of the same aspect.
        modality: The picture that is read, whose elements are the queries.
        size: Height and width of both. Taken from the data when 0.
        patch: Height and width of the pixels for which a query answers: those of its element.
        asked: Queries that are drawn for a step of training. None: all of them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    answer: str = "target"
    modality: str = "image"
    size: tuple[int, int] = (0, 0)
    patch: tuple[int, int] = (1, 1)
    asked: int | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.asked is not None and self.asked < 1:
            msg = f"Expected at least one query to be asked in a step, got asked={self.asked}."
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(DenseConfig):
    """How the class of every pixel is learned. Pixels of class 255 are left out.

    Attributes:
        answer: The modality that is learned, a picture of the same aspect.
        modality: The picture that is read, whose elements are the queries.
        size: Height and width of both. Taken from the data when 0.
        patch: Height and width of the pixels for which a query answers: those of its element.
        asked: Queries that are drawn for a step of training. None: all of them.
        label_names: Name of each class, in the order of the indices. Numbers when empty.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["segmentation"] = "segmentation"
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageToImageConfig(DenseConfig):
    """How a second picture is learned, of values in [0, 1].

    Attributes:
        answer: The modality that is learned, a picture of the same aspect.
        modality: The picture that is read, whose elements are the queries.
        size: Height and width of both. Taken from the data when 0.
        patch: Height and width of the pixels for which a query answers: those of its element.
        asked: Queries that are drawn for a step of training. None: all of them.
        num_channels: Of the second picture.
        loss: Absolute or squared error.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["image_to_image"] = "image_to_image"
    num_channels: int = 3
    loss: Literal["l1", "mse"] = "l1"


class _Dense:
    """What both tasks share: pixels are put under the queries that answer for them, and back.

    Args:
        config: Of the task.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Any,  # noqa: ARG002
        *,
        training: bool,
    ) -> Question:
        """Return the picture, and what is to be said of its pixels; in training of some of them, drawn anew.

        Raises:
            ValueError: If the answer is not there.
        """
        answer, shown, masks = take_answer(self.config.answer, inputs, masks)
        cells = self.cells(answer)
        index: dict[str, Tensor] = {}
        count = cells.shape[1]
        if training and self.config.asked is not None and self.config.asked < count:
            chosen = torch.randperm(count, device=cells.device)[: self.config.asked].sort().values
            cells, index = cells[:, chosen], {PIXELS: chosen}
        return Question(inputs=shown, masks=masks, targets=cells, index=index)

    def cells(self, answer: Tensor) -> Tensor:
        """Return B x O x P or B x O x P x C of a picture: for each query, in reading order, the pixels of its patch."""
        p, q = self.config.patch
        height, width = answer.shape[-2:]
        missing = (0, -width % q, 0, -height % p)
        if answer.is_floating_point():
            answer = pad(answer, missing, value=torch.nan)
            return rearrange(answer, "B C (h p) (w q) -> B (h w) (p q) C", p=p, q=q)
        answer = pad(answer, missing, value=NO_CLASS)
        return rearrange(answer, "B (h p) (w q) -> B (h w) (p q)", p=p, q=q)

    def picture(self, cells: Float[Tensor, "B O P C"]) -> Float[Tensor, "B C Y X"]:
        """Return what queries say as a picture: what `cells` undoes."""
        p, q = self.config.patch
        height, width = self.config.size
        rows = -(-height // p)
        whole = rearrange(cells, "B (h w) (p q) C -> B C (h p) (w q)", h=rows, p=p, q=q)
        return whole[..., :height, :width]

    def combine(self, outputs: Float[Tensor, "B S O K"]) -> Float[Tensor, "B O K"]:
        """Return the mean over clips. Pictures have one."""
        return outputs.float().mean(dim=1)

    def _of_pixels(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # float64 stays
        return precise.unflatten(-1, (self.config.patch[0] * self.config.patch[1], -1))


class SegmentationTask(_Dense):
    """The class of every pixel.

    Args:
        config: Names of the classes and how queries are asked.

    Source: Dense outputs by queries as in Perceiver IO (arXiv:2107.14795), section 4.2; the task is ours.
    """

    main_metric = "mIoU"
    higher_is_better = True
    score_name = "accuracy"

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.config.label_names

    @property
    def num_outputs(self) -> int:
        """Numbers of a query: the classes of all of its pixels."""
        return len(self.names) * self.config.patch[0] * self.config.patch[1]

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over pixels whose class is known, in nats. Zero where none is."""
        logits = self._of_pixels(outputs).flatten(0, 2)
        losses = cross_entropy(logits, targets.flatten(), ignore_index=NO_CLASS, reduction="sum")
        return losses / (targets != NO_CLASS).sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        """Return the probability of each class at each pixel of each query."""
        return self._of_pixels(outputs).softmax(dim=-1)

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]
    ) -> Float[Tensor, ""]:
        """Return the share of pixels that are right, times the samples."""
        known = targets != NO_CLASS
        right = (self._of_pixels(outputs).argmax(dim=-1) == targets) & known
        return right.sum() / known.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "SegmentationMeter":
        """Return a fresh meter."""
        return SegmentationMeter(self)


class SegmentationMeter:
    """Counts of a confusion matrix of pixels, and the sum of losses.

    Args:
        task: Which knows the classes.
    """

    def __init__(self, task: SegmentationTask) -> None:
        self._task = task
        count = len(task.names)
        self.confusion: Int[Tensor, "K K"] = torch.zeros(count, count, dtype=torch.long)
        self.sums = torch.zeros(2, dtype=torch.float64)  # nats, pictures

    def update(self, outputs: Float[Tensor, "B O K"], targets: Int[Tensor, "B O P"]) -> None:
        """Take in one batch: logits, and the true classes of the pixels."""
        known = targets != NO_CLASS
        nats = self._task.loss(outputs, targets).double() * known.sum()
        self.sums += torch.stack([nats.cpu(), torch.tensor(float(outputs.shape[0]))])
        said = self._task.probabilities(outputs).argmax(dim=-1)
        count = self.confusion.shape[0]
        cells = (targets * count + said)[known].cpu()
        self.confusion += cells.bincount(minlength=count**2).view(count, count)

    def state(self) -> dict[str, Any]:
        """Return all sums."""
        return {"confusion": self.confusion, "sums": self.sums}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the sums of these meters added up."""
        self.confusion = torch.stack([state["confusion"] for state in states]).sum(dim=0)
        self.sums = torch.stack([state["sums"] for state in states]).sum(dim=0)

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `mIoU`: the mean, over classes that occur in truth or answer, of the pixels that are of the class in both as a
        share of those that are in either; `accuracy`: share of the pixels that are right; `mean_recall`: the mean over
        classes of the share found; `loss`: nats for each pixel; `samples`: pictures.
        """
        nats, pictures = self.sums.tolist()
        hits, rows = self.confusion.diagonal().double(), self.confusion.sum(dim=1)
        either = rows + self.confusion.sum(dim=0) - self.confusion.diagonal()
        pixels = max(int(rows.sum()), 1)
        return {
            "mIoU": _mean_share(hits, either),
            "accuracy": hits.sum().item() / pixels,
            "mean_recall": _mean_share(hits, rows),
            "loss": nats / pixels,
            "samples": pictures,
        }

    def details(self) -> Details:
        """Return nothing: the confusion matrix tells all about each class."""
        return []


class ImageToImageTask(_Dense):
    """The values of a second picture at every pixel.

    Args:
        config: Channels, loss and how queries are asked.

    Source: Dense outputs by queries as in Perceiver IO (arXiv:2107.14795), section 4.2; the task is ours.
    """

    main_metric = "psnr"
    higher_is_better = True
    score_name = "mae"

    @property
    def names(self) -> tuple[str, ...]:
        """Nothing has a name of its own: outputs are channels of pixels."""
        return ()

    @property
    def num_outputs(self) -> int:
        """Numbers of a query: the channels of all of its pixels."""
        return self.config.num_channels * self.config.patch[0] * self.config.patch[1]

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, ""]:
        """Return the mean error over pixels and channels, absolute or squared. NaN is outside of the picture."""
        errors = self._errors(outputs, targets)
        errors = errors.abs() if self.config.loss == "l1" else errors.square()
        return errors.sum() / (~targets.isnan()).sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P C"]:
        """Return values in [0, 1]."""
        return self._of_pixels(outputs).clamp(0.0, 1.0)

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, ""]:
        """Return the mean absolute error, times the samples."""
        errors = self._errors(outputs, targets).abs().sum()
        return errors / (~targets.isnan()).sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "ImageToImageMeter":
        """Return a fresh meter."""
        return ImageToImageMeter(self)

    def _errors(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]
    ) -> Float[Tensor, "B O P C"]:
        """Return how far each value is off; 0 outside of the picture."""
        return torch.where(targets.isnan(), 0.0, self._of_pixels(outputs) - targets.nan_to_num())


class ImageToImageMeter(SummedMeter):
    """Sums over pictures of their errors.

    Args:
        task: Which knows the loss.
    """

    def __init__(self, task: ImageToImageTask) -> None:
        super().__init__(4)  # dB, |error|, loss, pictures
        self._task = task

    def update(self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P C"]) -> None:
        """Take in one batch: what the queries say, and the values."""
        said = self._task.probabilities(outputs)
        there = ~targets.isnan()
        errors = torch.where(there, said - targets.nan_to_num(), 0.0).double().flatten(1)
        count = there.flatten(1).sum(dim=1)
        squared = (errors.square().sum(dim=1) / count).clamp_min(_LEAST)
        pictures = float(outputs.shape[0])
        sums = [
            (-10 * squared.log10()).sum().item(),
            (errors.abs().sum(dim=1) / count).sum().item(),
            self._task.loss(outputs, targets).item() * pictures,
            pictures,
        ]
        self.sums += torch.tensor(sums, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Return the metrics, means over pictures.

        `psnr`: peak signal-to-noise ratio in dB, -10 log10 of the mean squared error of values in [0, 1], at most 100;
        `mae`: mean absolute error; `rmse`: root of the mean squared error that the mean `psnr` stands for; `loss`;
        `samples`: pictures.
        """
        decibels, absolute, loss, pictures = self.sums.tolist()
        each = max(pictures, 1.0)
        return {
            "psnr": decibels / each,
            "mae": absolute / each,
            "rmse": math.pow(10.0, -decibels / each / 20),
            "loss": loss / each,
            "samples": pictures,
        }


def _mean_share(part: Tensor, whole: Tensor) -> float:
    """Return the mean of the shares where there is a whole."""
    present = whole > 0
    if not bool(present.any()):
        return 0.0
    return (part[present].double() / whole[present]).mean().item()
