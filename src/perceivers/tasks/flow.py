"""Optical flow: where every pixel of the first frame goes; measured by the distance to where it really went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from pydantic import ConfigDict
from torch.nn.functional import pad

from perceivers.tasks.base import Details, Question, take_answer
from perceivers.typing import Bool, Float, Tensor

__all__ = ["FlowConfig", "FlowMeter", "FlowTask", "cells_of"]

_FAR, _FAR_SHARE = (
    3.0,
    0.05,
)  # pixels, and share of the true motion, beyond which KITTI calls a pixel wrong
_NEAR = (1.0, 3.0, 5.0)
_SMALLEST = 1e-6  # squared pixels: keeps the root's slope finite where a vector is met exactly
_SOFT, _POWER = 0.01, 0.4  # of the robust loss


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """How flow is learned.

    Attributes:
        answer: The modality that is learned: the flow of the first frame.
        modality: The input: pairs of frames. The model asks one query for each of its pixels.
        loss: `epe`, the distance between the end points (L2); `l1`, the sum of both distances along the axes; `robust`,
            (l1 + 0.01)^0.4, under which far misses count less. The paper does not say which it takes.
        scale: The model's outputs times this are pixels. 20, as in DeepMind's release, whose head divides by 100.
        cell: Side in pixels of the square that a query answers for. 1: a query for each pixel, as published. 4 behind a
            stem that makes one element of 4 x 4 pixels.
        queries_per_step: Queries that are asked in a training step, others each time, the same in all samples of a
            batch. None: all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["flow"] = "flow"
    answer: str = "flow"
    modality: str = "frame_pair"
    loss: Literal["epe", "l1", "robust"] = "epe"
    scale: float = 20.0
    cell: int = 1
    queries_per_step: int | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not self.scale > 0:
            msg = f"scale, by which outputs become pixels, must be larger than 0, got {self.scale}."
            raise ValueError(msg)
        if self.cell < 1:
            msg = f"Expected a cell of at least one pixel, got {self.cell}."
            raise ValueError(msg)
        if self.queries_per_step is not None and self.queries_per_step < 1:
            msg = f"Expected queries_per_step of at least 1, or None for all, got {self.queries_per_step}."
            raise ValueError(msg)


class FlowTask:
    """Optical flow of pairs of frames.

    Args:
        config: Names, loss, scale, and how many pixels are asked.

    Source: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H; the scale from DeepMind's release.
    """

    main_metric = "epe"
    higher_is_better = False
    score_name = "epe"

    def __init__(self, config: FlowConfig) -> None:
        self.config = config

    @property
    def names(self) -> tuple[str, ...]:
        """Nothing has a name of its own: outputs are pixels' motions."""
        return ()

    @property
    def num_outputs(self) -> int:
        """Numbers of each query: of each pixel of its cell, to the right and down."""
        return 2 * self.config.cell**2

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Tensor | None,  # noqa: ARG002
        *,
        training: bool,
    ) -> Question:
        """Return the frames, and the flow of the pixels that are asked: B x O x P x 3, right, down, known (0 or 1).

        P are the pixels of a cell. Beyond the border nothing is known.

        Raises:
            ValueError: If there is no flow.
        """
        name, most = self.config.answer, self.config.queries_per_step
        flow, shown, masks = take_answer(name, inputs, masks)
        wanted = cells_of(flow.movedim(1, -1), self.config.cell)
        index: dict[str, Tensor] = {}
        if training and most is not None and most < wanted.shape[1]:
            index[name] = torch.randperm(wanted.shape[1], device=flow.device)[:most]
            wanted = wanted[:, index[name]]
        return Question(inputs=shown, masks=masks, targets=wanted, index=index)

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over pixels whose flow is known. Zero where none is."""
        missed, known = self._missed(outputs, targets), targets[..., 2] > 0
        each = {"epe": _distance, "l1": _along_axes, "robust": _robust}[self.config.loss](missed)
        return (each * known).sum() / known.sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P 2"]:
        """Return the motion of each pixel, in pixels to the right and down."""
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # float64 stays
        return (precise * self.config.scale).unflatten(-1, (-1, 2))

    def field(
        self, outputs: Float[Tensor, "B O K"], extent: tuple[int, int]
    ) -> Float[Tensor, "B Y X 2"]:
        """Return the motion of each pixel of a frame.

        Args:
            outputs: For all queries of the frame.
            extent: Its height and width.
        """
        side = self.config.cell
        rows, columns = (-(-n // side) for n in extent)
        whole = rearrange(
            self.probabilities(outputs),
            "B (Y X) (y x) D -> B (Y y) (X x) D",
            Y=rows,
            X=columns,
            y=side,
        )
        return whole[:, : extent[0], : extent[1]]

    def outputs_of(self, field: Float[Tensor, "B Y X 2"]) -> Float[Tensor, "B O K"]:
        """Return the outputs that say a field, beyond whose border they say nothing moves."""
        return cells_of(field / self.config.scale, self.config.cell).flatten(2)

    def combine(self, outputs: Float[Tensor, "B S O K"]) -> Float[Tensor, "B O K"]:
        """Return the mean over clips, of which a pair of frames has one."""
        return outputs.float().mean(dim=1)

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, ""]:
        """Return the mean end-point error in pixels, times the samples."""
        known = targets[..., 2] > 0
        missed = self._missed(outputs, targets).norm(dim=-1)
        return (missed * known).sum() / known.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "FlowMeter":
        """Return a fresh meter."""
        return FlowMeter(self)

    def _missed(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, "B O P 2"]:
        """Return by how much each pixel's end point is missed; 0 where its flow is not known."""
        known = targets[..., 2:] > 0
        return (self.probabilities(outputs) - targets[..., :2]).masked_fill(~known, 0.0)


class FlowMeter:
    """Sums over all pixels whose flow is known.

    Args:
        task: Which knows the loss and the scale.
    """

    def __init__(self, task: FlowTask) -> None:
        self._task = task
        self._samples = 0
        # Loss, error, length of the true motion, pixels off by less than each of `_NEAR`, pixels wrong as KITTI counts.
        self._sums = torch.zeros(3 + len(_NEAR) + 1, dtype=torch.float64)
        self._pixels = 0

    def update(self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]) -> None:
        """Take in one batch."""
        known: Bool[Tensor, "B O P"] = targets[..., 2] > 0
        pixels = int(known.sum())
        motion = targets[..., :2][known].double().norm(dim=-1)
        found = self._task.probabilities(outputs.detach())[known].double()
        missed = (found - targets[..., :2][known]).norm(dim=-1)
        wrong = (missed > _FAR) & (missed > _FAR_SHARE * motion)
        loss = self._task.loss(outputs.detach(), targets).double() * pixels
        counts = [(missed < near).sum() for near in _NEAR]
        sums = [loss, missed.sum(), motion.sum(), *counts, wrong.sum()]
        self._sums += torch.stack([part.double().cpu() for part in sums])
        self._pixels += pixels
        self._samples += outputs.shape[0]

    def state(self) -> dict[str, Any]:
        """Return all sums."""
        return {"samples": self._samples, "pixels": self._pixels, "sums": self._sums}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the sums of these meters added up."""
        self._samples = sum(state["samples"] for state in states)
        self._pixels = sum(state["pixels"] for state in states)
        self._sums = torch.stack([state["sums"] for state in states]).sum(dim=0)

    def compute(self) -> dict[str, float]:
        """Return the metrics, means over all known pixels of all samples.

        `epe`, the end-point error in pixels; `zero_epe`, that of saying that nothing moves; `within_1px`, `within_3px`,
        `within_5px`, shares of pixels off by less; `fl`, the share off by more than 3 pixels and 5 % of the motion.
        """
        means: list[float] = (self._sums / max(self._pixels, 1)).tolist()
        loss, epe, zero, *near, wrong = means
        return {
            "epe": epe,
            "zero_epe": zero,
            **{f"within_{far:g}px": share for far, share in zip(_NEAR, near, strict=True)},
            "fl": wrong,
            "loss": loss,
            "samples": float(self._samples),
        }

    def details(self) -> Details:
        """Return nothing: outputs have no names."""
        return []


def cells_of(field: Float[Tensor, "B Y X C"], side: int) -> Float[Tensor, "B O P C"]:
    """Return the pixels of each square cell of a field, cells in reading order; zeros lie beyond the border.

    Args:
        field: Values of each pixel.
        side: Of a cell, in pixels.
    """
    missing = [-n % side for n in field.shape[1:3]]
    padded = pad(field, (0, 0, 0, missing[1], 0, missing[0]))
    return rearrange(padded, "B (Y y) (X x) C -> B (Y X) (y x) C", y=side, x=side)


def _distance(missed: Float[Tensor, "B O P 2"]) -> Float[Tensor, "B O P"]:
    return (missed.square().sum(dim=-1) + _SMALLEST).sqrt()


def _along_axes(missed: Float[Tensor, "B O P 2"]) -> Float[Tensor, "B O P"]:
    return missed.abs().sum(dim=-1)


def _robust(missed: Float[Tensor, "B O P 2"]) -> Float[Tensor, "B O P"]:
    return (_along_axes(missed) + _SOFT) ** _POWER
