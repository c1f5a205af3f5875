"""Optical flow: the motion of every pixel of the first frame, measured by its end-point error."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from einops import rearrange
from torch.nn.functional import pad

from perceivers.tasks.base import PredictionRequest, Task, TaskBatch, split_target, to_float
from perceivers.tasks.config import BaseTaskConfig
from perceivers.tasks.meters import SummedMeter
from perceivers.tasks.prediction import Prediction
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Tensor, Tensors

OVERLAP = 20  # pixels that neighboring tiles share at least, where they are large enough for it

# Pixels, and share of the true motion, beyond which KITTI counts a pixel as wrong.
_FAR, _FAR_SHARE = 3.0, 0.05
_NEAR = (1.0, 3.0, 5.0)
_SMALLEST = 1e-6  # squared pixels: keeps the slope of the root finite where the error is zero
_SOFT, _POWER = 0.01, 0.4  # of the robust loss


@dataclass(frozen=True, kw_only=True)
class FlowConfig(BaseTaskConfig):
    """Loss and queries of optical flow.

    Attributes:
        target: The modality that is learned: the flow of the first frame.
        modality: The input: pairs of frames. The model has one query for each of its cells.
        loss: `epe`, the distance between the end points (L2); `l1`, the sum of both distances along the axes; `robust`,
            (l1 + 0.01)^0.4, in which large errors count less. The paper does not state its loss.
        scale: Factor from the model's outputs to pixels. 20, as in DeepMind's release, whose head divides by 100.
        cell: Side in pixels of the square that a query predicts. 1: a query for each pixel, as published. 4 behind a
            stem that makes one element of 4 x 4 pixels.
        tiles: Tiles of frames larger than the model's window: as few as cover the frame, `even`ly spaced; or at `fixed`
            steps of the window less the overlap, the last one moved to the border, as in DeepMind's release.
        num_train_queries: Queries that are drawn for a step of training, the same in all samples of a batch. None: all.
    """

    kind: Literal["flow"] = "flow"
    target: str = "flow"
    modality: str = "frame_pair"
    loss: Literal["epe", "l1", "robust"] = "epe"
    scale: float = 20.0
    cell: int = 1
    tiles: Literal["even", "fixed"] = "even"
    num_train_queries: int | None = None

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(
                f"scale, the factor from outputs to pixels, must be larger than 0, got {self.scale}."
            )
        if self.cell < 1:
            raise ValueError(f"Expected a cell of at least one pixel, got {self.cell}.")
        if self.num_train_queries is not None and self.num_train_queries < 1:
            raise ValueError(
                f"Expected num_train_queries of at least 1, or None for all, got {self.num_train_queries}."
            )

    @property
    def target_modalities(self) -> tuple[str, ...]:
        """The flow is no input."""
        return (self.target,)


class FlowTask(Task):
    """Optical flow of pairs of frames.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H; the scale from DeepMind's release.
    """

    config: FlowConfig
    main_metric = "epe"
    higher_is_better = False
    score_name = "epe"
    answer_fields = ("values", "image")
    optional_answer_fields = ()

    @property
    def num_outputs(self) -> int:
        """Numbers for each query: the motion to the right and down of each pixel of its cell."""
        return 2 * self.config.cell**2

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the frames, and the flow of the P pixels of each cell: B x O x P x 3, right, down, known (0 or 1).

        Beyond the border nothing is known. In training some cells are drawn at random.
        """
        name, drawn = self.config.target, self.config.num_train_queries
        flow, inputs, masks = split_target(name, inputs, masks)
        cells = flow_cells(flow.movedim(1, -1), self.config.cell)
        index: dict[str, Tensor] = {}
        if training and drawn is not None and drawn < cells.shape[1]:
            index[name] = torch.randperm(cells.shape[1], device=flow.device)[:drawn]
            cells = cells[:, index[name]]
        return TaskBatch(inputs=inputs, masks=masks, targets=cells, index=index)

    def infer(self, model: Any, batch: TaskBatch) -> Float[Tensor, "B O K"]:
        """Return the outputs for frames of any size, blended from tiles where they exceed the model's window."""
        name = self.config.modality
        size = model.config.inputs[name].size

        def predict(tile: Tensor) -> Tensor:
            return self.field(
                model({**batch.inputs, name: tile}, batch.masks or None).float(), size
            )

        field = predict_tiles(predict, batch.inputs[name], size, spacing=self.config.tiles)
        # In float64, so that dividing by the scale and multiplying again gives the same flow.
        wide = field if field.device.type == "mps" else field.double()
        return flow_cells(wide / self.config.scale, self.config.cell).flatten(2)

    def loss(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over pixels whose flow is known. Zero if none is."""
        errors, known = self._errors(outputs, targets), targets[..., 2] > 0
        if self.config.loss == "epe":
            each = (errors.square().sum(dim=-1) + _SMALLEST).sqrt()
        else:
            each = errors.abs().sum(dim=-1)
        if self.config.loss == "robust":
            each = (each + _SOFT) ** _POWER
        return (each * known).sum() / known.sum().clamp_min(1)

    def probabilities(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O P 2"]:
        """Return the motion of each pixel, in pixels to the right and down."""
        return (to_float(outputs) * self.config.scale).unflatten(-1, (-1, 2))

    def field(
        self, outputs: Float[Tensor, "B O K"], extent: tuple[int, int]
    ) -> Float[Tensor, "B Y X 2"]:
        """Return the motion of each pixel of a frame of this height and width, from the outputs of all queries."""
        side = self.config.cell
        rows, columns = (-(-n // side) for n in extent)
        cells, sizes = self.probabilities(outputs), {"Y": rows, "X": columns, "y": side}
        padded = rearrange(cells, "B (Y X) (y x) D -> B (Y y) (X x) D", **sizes)
        return padded[:, : extent[0], : extent[1]]

    def training_score(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, ""]:
        """Return the mean end-point error in pixels, times the samples."""
        known = targets[..., 2] > 0
        errors = self._errors(outputs, targets).norm(dim=-1)
        return (errors * known).sum() / known.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "FlowMeter":
        """Return a new meter."""
        return FlowMeter(self)

    def predictions(
        self, outputs: Float[Tensor, "B O K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield the flow of each pair, and its mean and largest length."""
        height, width = request.batch.inputs[self.config.modality].shape[-2:]
        field = self.field(outputs, (height, width)).float().cpu()
        for name, one in zip(request.names, field, strict=True):
            length = one.norm(dim=-1)
            values = {"mean motion": length.mean().item(), "largest motion": length.max().item()}
            yield Prediction(name=name, values=values, flow=one.numpy())

    def mistake_sizes(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, " B"]:
        """Return the mean end-point error of each pair in pixels."""
        known = (targets[..., 2] > 0).flatten(1).sum(dim=1).clamp_min(1)
        return self._errors(outputs, targets).norm(dim=-1).flatten(1).sum(dim=1) / known

    def describe_mistake(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> str:
        """Return the end-point error of one pair as text."""
        return f"end-point error {self.mistake_sizes(outputs, targets)[0].item():.3g} pixels"

    def explained_output(
        self, inputs: Tensors, masks: Tensors, outputs: Float[Tensor, "B O K"], query: int | None
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return the mean and largest length of the flow, and its mean along each axis."""
        motion = self.probabilities(outputs)[0]
        length, means = motion.norm(dim=-1), motion.mean(dim=(0, 1))
        values = torch.stack([length.mean(), length.max(), means[0], means[1]])
        return ("mean motion", "largest motion", "mean to the right", "mean down"), values

    def _errors(
        self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]
    ) -> Float[Tensor, "B O P 2"]:
        """Return the error of each pixel's end point; 0 where its flow is not known."""
        known = targets[..., 2:] > 0
        return (self.probabilities(outputs) - targets[..., :2]).masked_fill(~known, 0.0)


class FlowMeter(SummedMeter):
    """Sums over all pixels whose flow is known: those of `compute`, then the pixels and the samples."""

    def __init__(self, task: FlowTask) -> None:
        # Of each pair: end-point error, that of zero flow, near and wrong pixels, pixels.
        super().__init__(3 + len(_NEAR) + 3, per_sample=len(_NEAR) + 4)
        self._task = task

    def update(self, outputs: Float[Tensor, "B O K"], targets: Float[Tensor, "B O P 3"]) -> None:
        """Add one batch."""
        outputs = outputs.detach().float()
        known: Bool[Tensor, "B O P"] = targets[..., 2] > 0
        pixels = int(known.sum())
        motion = targets[..., :2][known].double().norm(dim=-1)
        predicted = self._task.probabilities(outputs)[known].double()
        errors = (predicted - targets[..., :2][known]).norm(dim=-1)
        wrong = (errors > _FAR) & (errors > _FAR_SHARE * motion)
        loss = self._task.loss(outputs, targets).double() * pixels
        counts = [(errors < near).sum() for near in _NEAR]
        sums = [loss, errors.sum(), motion.sum(), *counts, wrong.sum()]
        sums += [known.sum(), torch.tensor(outputs.shape[0])]
        self.sums += torch.stack([part.double().cpu() for part in sums])
        each = [errors, motion, *(errors < near for near in _NEAR), wrong, torch.ones_like(errors)]
        values = torch.stack([part.double() for part in each], dim=1).cpu()
        of_pair = torch.zeros(len(outputs), len(each), dtype=torch.float64)
        self.samples.add(of_pair.index_add_(0, known.nonzero()[:, 0].cpu(), values))

    def compute(self) -> dict[str, float]:
        """Return the metrics, means over all known pixels of all samples.

        `epe`, the end-point error in pixels; `zero_epe`, that of zero flow; `within_1px`, `within_3px`, `within_5px`,
        shares of pixels off by less; `fl`, the share off by more than 3 pixels and 5 % of the motion.
        """
        *sums, pixels, samples = self.sums.tolist()
        loss, epe, zero, *near, wrong = (part / max(pixels, 1.0) for part in sums)
        return {
            "epe": epe,
            "zero_epe": zero,
            **{f"within_{far:g}px": share for far, share in zip(_NEAR, near, strict=True)},
            "fl": wrong,
            "loss": loss,
            "samples": samples,
        }

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the pairs, whose pixels depend on each other."""
        names = ("epe", "zero_epe", *(f"within_{far:g}px" for far in _NEAR), "fl")
        *sums, pixels = rows.unbind(dim=1)
        return {name: part / pixels for name, part in zip(names, sums, strict=True)}


def flow_cells(field: Float[Tensor, "B Y X C"], side: int) -> Float[Tensor, "B O P C"]:
    """Return the pixels of each square cell of a field, cells in row-major order; zeros beyond the border."""
    missing = [-n % side for n in field.shape[1:3]]
    padded = pad(field, (0, 0, 0, missing[1], 0, missing[0]))
    return rearrange(padded, "B (Y y) (X x) C -> B (Y X) (y x) C", y=side, x=side)


def tile_starts(
    extent: int, size: int, overlap: int = OVERLAP, spacing: Literal["even", "fixed"] = "even"
) -> tuple[int, ...]:
    """Return the starts of tiles of a size along an axis.

    Neighbors overlap by at least `overlap`; small tiles by a quarter. Evenly spaced, they are as few as cover the axis.
    At fixed steps of `size - overlap`, the last tile is moved back to the border.
    """
    shared = min(overlap, size // 4)
    if extent <= size:
        return (0,)
    if spacing == "fixed":
        steps = range(0, extent, size - shared)
        return tuple(dict.fromkeys(min(start, extent - size) for start in steps))
    count = -(-(extent - shared) // (size - shared))
    return tuple((extent - size) * number // (count - 1) for number in range(count))


def tile_weights(size: tuple[int, int]) -> Float[Tensor, "Y X"]:
    """Return the weight of each pixel of a tile: its distance to the nearest edge, plus one.

    Reference: Perceiver IO (arXiv:2107.14795), appendix H; DeepMind's release adds the one.
    """
    rows, columns = (torch.minimum(torch.arange(n), torch.arange(n).flip(0)) for n in size)
    return torch.minimum(rows[:, None], columns[None, :]).float() + 1.0


def blend_tiles(
    fields: dict[tuple[int, int], Float[Tensor, "B Yt Xt C"]], extent: tuple[int, int]
) -> Float[Tensor, "B Y X C"]:
    """Return the mean of overlapping tiles, weighted by `tile_weights`, for a frame of this height and width.

    Tiles are named by their first row and column, have one size and together cover the frame.
    """
    one = next(iter(fields.values()))
    size = (one.shape[1], one.shape[2])
    weights = tile_weights(size).to(one.device)[..., None]
    sums = one.new_zeros(one.shape[0], *extent, one.shape[3])
    total = one.new_zeros(*extent, 1)
    for (row, column), field in fields.items():
        window = (slice(row, row + size[0]), slice(column, column + size[1]))
        sums[:, *window] += weights * field
        total[window] += weights
    return sums / total


def predict_tiles(
    predict: Callable[[Float[Tensor, "B T Ci Yt Xt"]], Float[Tensor, "B Yt Xt C"]],
    frames: Float[Tensor, "B T Ci Y X"],
    size: tuple[int, int],
    *,
    spacing: Literal["even", "fixed"] = "even",
) -> Float[Tensor, "B Y X C"]:
    """Return the predictions of a model with a fixed window for frames of any size, from the tiles of `tile_starts`.

    Frames smaller than the window are padded with zeros below and on the right, as in training.
    """
    height, width = frames.shape[-2:]
    missing = (max(size[0] - height, 0), max(size[1] - width, 0))
    if any(missing):
        frames = pad(frames, (0, missing[1], 0, missing[0]))
    extent = (height + missing[0], width + missing[1])
    sides = zip(extent, size, strict=True)
    starts = product(*(tile_starts(n, tile, spacing=spacing) for n, tile in sides))
    fields = {
        (row, column): predict(frames[..., row : row + size[0], column : column + size[1]])
        for row, column in starts
    }
    field = next(iter(fields.values())) if len(fields) == 1 else blend_tiles(fields, extent)
    return field[:, :height, :width]


register_task(FlowConfig, FlowTask)
