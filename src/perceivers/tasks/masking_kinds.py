"""Masking of point clouds, tables and texts."""

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from perceivers.registry import configclass
from perceivers.tasks.byte_tokens import FIRST_BYTE
from perceivers.tasks.masked import MASK, mask_bytes
from perceivers.tasks.masking import (
    MASKINGS,
    GridMaskingConfig,
    HiddenPart,
    check_share,
    draw_hidden,
    rows_of,
)
from perceivers.tasks.prediction import Reconstruction
from perceivers.tasks.reconstruction import Measures, map_cells, reconstruction_cells, to_grid
from perceivers.typing import Bool, Float, Int, Tensor


@configclass
class PointsMaskingConfig(GridMaskingConfig):
    """Blocks of space are hidden with all points in them; queries predict which cells of a grid hold a point.

    The grid lies over the cube [-1, 1], and points outside count to its outermost cells. Further channels of the points
    (normals, colors) are predicted as their mean in each cell that holds a point. Blocks with and without points are
    hidden at the same share, so that hidden space gives no hint of where points are.

    Attributes:
        cells: Cells of the grid along each axis.
    """

    has_mean: ClassVar[bool] = True

    kind: Literal["points"] = "points"  # pyright: ignore[reportIncompatibleVariableOverride]
    cells: int = 16
    blocks: tuple[int, ...] = (4, 4, 4)
    most: tuple[int, ...] = (4, 4, 4)

    def extent(self, config: Any) -> dict[str, Any]:
        """Return size and channels of the grid."""
        channels = config.num_channels
        return {
            "size": (self.cells,) * 3,
            "num_channels": 1 + channels,
            "has_missing": channels > 0,
        }

    def grid_index(self, x: Float[Tensor, "B M C"]) -> Int[Tensor, "B M 3"]:
        """Return the cell of each point."""
        cells = ((x[..., :3].nan_to_num() + 1) * (self.cells / 2)).floor().long()
        return cells.clamp(0, self.cells - 1)

    def volume(
        self, x: Float[Tensor, "B M C"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B S V S S"]:
        """Return the grid of each sample: 1 where a cell holds a point, the mean of further channels, and flags."""
        side, batch = self.cells, x.shape[0]
        index = (self.grid_index(x) * _index_weights(side, x.device)).sum(dim=-1)
        real = rows_of(x, mask)
        further = x[..., 3:].masked_fill(~real[..., None], 0.0)
        ones = torch.cat([real[..., None].to(x.dtype), further], dim=-1)
        sums = x.new_zeros(batch, side**3, ones.shape[2])
        sums.scatter_add_(1, index[..., None].expand_as(ones), ones)
        count, there = sums[..., :1], (sums[..., :1] > 0).to(x.dtype)
        parts = [there]
        if further.shape[2]:
            flags = there.expand(-1, -1, further.shape[2])
            parts += [sums[..., 1:] / count.clamp_min(1), torch.ones_like(there), flags]
        grid = torch.cat(parts, dim=-1).unflatten(1, (side, side, side))
        return grid.movedim(-1, 2)

    def draw(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, scores: Float[Tensor, "B n"]
    ) -> Bool[Tensor, "B n"]:
        """Return a mask of the hidden blocks: the same share of those with points and of the empty ones."""
        there = self.volume(x, mask)[:, :, :1]
        whole = replace(self, patch=self.block, num_channels=1, has_missing=False)
        full = (reconstruction_cells(whole, there, None)[0] > 0).any(dim=2)
        return draw_hidden(scores, full, self.hidden) | draw_hidden(scores, ~full, self.hidden)

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the points outside of the hidden blocks."""
        grid = self.volume(x, mask)
        values, real = reconstruction_cells(self, grid, None)
        places = self.places(units)
        hidden = map_cells(self, places)
        hidden = hidden.expand_as(values) if real is None else hidden & real
        visible = rows_of(x, mask) & ~self.points_in(x, places)
        return HiddenPart(x.masked_fill(~visible[..., None], 0.0), visible, values, hidden)

    def points_in(
        self, x: Float[Tensor, "B M C"], places: Bool[Tensor, "B S S S"]
    ) -> Bool[Tensor, "B M"]:
        """Return a mask of the points in marked cells."""
        index = (self.grid_index(x) * _index_weights(self.cells, x.device)).sum(dim=-1)
        return places.flatten(1).gather(1, index)

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O V"],
    ) -> list[Reconstruction]:
        """Return each point cloud, and its visible points with the centers of the cells that are likeliest full."""
        real = rows_of(x, mask)
        found = to_grid(self, torch.where(target.hidden, outputs.float(), 0.0))
        shares = found[..., 0].flatten(1).clamp(0, 1)
        # As many cells as are expected to hold a point: few of them are certain.
        rank = shares.argsort(dim=1, descending=True).argsort(dim=1)
        full = rank < shares.sum(dim=1, keepdim=True).round()
        axis = (torch.arange(self.cells, device=x.device) + 0.5) * (2 / self.cells) - 1
        centers = torch.cartesian_prod(axis, axis, axis)
        visible = real if target.mask is None else target.mask
        made: list[Reconstruction] = []
        for row in range(x.shape[0]):
            points = x[row, real[row], :3]
            seen = visible[row, real[row]]
            both = torch.cat([points[seen], centers[full[row]]])
            made.append(
                Reconstruction(
                    kind="points",
                    original=points.cpu().numpy(),
                    restored=both.cpu().numpy(),
                    hidden=(~seen).cpu().numpy(),
                )
            )
        return made


@configclass
class FieldsMaskingConfig:
    """Fields of a row of a table are hidden: they are missing to the model.

    The loss is the squared error of numbers, in deviations, and the cross-entropy of categories relative to that of
    equal probabilities, so that a field of many categories counts as much as one of few.

    Attributes:
        weight: Weight of its mean error in the loss.
        hidden: Share of the known fields of each row that are hidden.
        num_numbers: Fields that hold numbers. None: taken from the data.
        category_sizes: Values of each field that holds a category. None: taken from the data.
    """

    keeps_elements: ClassVar[bool] = False
    has_mean: ClassVar[bool] = False

    kind: Literal["fields"] = "fields"
    weight: float = 1.0
    hidden: float = 0.3
    num_numbers: int | None = None
    category_sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_share(self.hidden)

    def fit_to_input(self, name: str, config: Any, preprocess: Any) -> "FieldsMaskingConfig":
        """Return the configuration with the fields of a table.

        Raises:
            ValueError: If it has a single field.
        """
        made = replace(self, num_numbers=config.num_numbers, category_sizes=config.category_sizes)
        if made.num_units < 2:
            raise ValueError(
                f"'{name}' has a single field, so that nothing is left to predict it from. Name more columns with "
                "--columns."
            )
        return made

    @property
    def num_units(self) -> int:
        """Fields of a row."""
        return (self.num_numbers or 0) + len(self.category_sizes or ())

    @property
    def num_values(self) -> int:
        """Values of a row."""
        return self.num_units

    @property
    def num_outputs(self) -> int:
        """Numbers that each query predicts: that of a field of numbers, then one for each category."""
        return 1 + max(self.category_sizes or (), default=0)

    @property
    def grid(self) -> tuple[int, ...]:
        """One query for each field."""
        return (self.num_units,)

    @property
    def num_train_queries(self) -> None:
        """All queries of a training step are decoded."""
        return

    @property
    def measure_names(self) -> tuple[str, ...]:
        """Mean squared error of numbers in deviations; share of the categories that are right."""
        return ("mse",) * bool(self.num_numbers) + ("accuracy",) * bool(self.category_sizes)

    def draw(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, scores: Float[Tensor, "B n"]
    ) -> Bool[Tensor, "B n"]:
        """Return a mask of the hidden fields."""
        return draw_hidden(scores, rows_of(x[..., None], mask), self.hidden)

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the rows without the hidden fields."""
        real = rows_of(x[..., None], mask)
        visible = real & ~units
        values = x.masked_fill(~real, 0.0)[..., None]
        return HiddenPart(x.masked_fill(~visible, 0.0), visible, values, (units & real)[..., None])

    def readable(self, outputs: Float[Tensor, "B O V"]) -> Float[Tensor, "B O V"]:
        """Return the outputs: numbers in deviations, and logits."""
        return outputs

    def mean_error(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Float[Tensor, "B O 1"],
        real: Bool[Tensor, "B O 1"] | None,
    ) -> Float[Tensor, ""]:
        """Return the mean error of the hidden fields."""
        there = _counted(values, real)
        total = outputs.new_zeros(())
        for field, (errors, _) in enumerate(self._errors(outputs, values)):
            total = total + (errors * there[:, field, 0]).sum()
        return total / there.sum().clamp_min(1)

    def measures(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Float[Tensor, "B O 1"],
        real: Bool[Tensor, "B O 1"] | None,
    ) -> Measures:
        """Return `mse` of hidden numbers and `accuracy` of hidden categories of each row."""
        there = _counted(values, real)[..., 0]
        scores = torch.stack(
            [
                errors if is_right is None else is_right
                for errors, is_right in self._errors(outputs, values)
            ],
            dim=1,
        )
        first = self.num_numbers or 0
        parts = {"mse": slice(0, first), "accuracy": slice(first, None)}
        found: Measures = {}
        for name in self.measure_names:
            part = parts[name]
            count = there[:, part].sum(dim=1)
            total = (scores[:, part] * there[:, part]).sum(dim=1)
            found[name] = (total / count.clamp_min(1), count > 0)
        return found

    def _errors(
        self, outputs: Float[Tensor, "B O V"], values: Float[Tensor, "B O 1"]
    ) -> list[tuple[Float[Tensor, " B"], Float[Tensor, " B"] | None]]:
        """Return the error of each field, and for categories 1 where they are right."""
        first = self.num_numbers or 0
        found: list[tuple[Tensor, Tensor | None]] = [
            ((outputs[:, field, 0] - values[:, field, 0]).square(), None) for field in range(first)
        ]
        for field, size in enumerate(self.category_sizes or (), start=first):
            logits, right = outputs[:, field, 1 : 1 + size], values[:, field, 0].round().long()
            nats = cross_entropy(logits, right.clamp(0, size - 1), reduction="none")
            is_right = (logits.argmax(dim=1) == right).to(nats.dtype)
            found.append((nats / math.log(max(size, 2)), is_right))
        return found

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O V"],
    ) -> list[Reconstruction]:
        """Return the cells of each row as texts, and the same with hidden ones replaced by predictions."""
        first, found = self.num_numbers or 0, x.detach().float().cpu().clone()
        answers, hidden = outputs.float().cpu(), target.hidden[..., 0].cpu()
        for field in range(self.num_units):
            size = 0 if field < first else (self.category_sizes or ())[field - first]
            guess = answers[:, field, 0]
            if size:
                guess = answers[:, field, 1 : 1 + size].argmax(dim=1).to(guess.dtype)
            found[:, field] = torch.where(hidden[:, field], guess, found[:, field])
        real = rows_of(x[..., None], mask).cpu()
        names = list(preprocess.categories.values())

        def texts(row: Tensor, known: Tensor) -> Any:
            cells: list[str] = []
            for field, column in enumerate(preprocess.columns):
                value = row[field].item()
                if not known[field]:
                    text = "missing"
                elif field < first:
                    mean, std = (
                        (preprocess.means or (0.0,) * first)[field],
                        (preprocess.stds or (1.0,) * first)[field],
                    )
                    text = f"{value * std + mean:.4g}"
                else:
                    text = str(names[field - first][round(value)])
                cells.append(f"{column}: {text}")
            return np.array(cells)

        return [
            Reconstruction(
                kind="table",
                original=texts(x[row].float().cpu(), real[row]),
                restored=texts(found[row], real[row]),
                hidden=hidden[row].numpy(),
            )
            for row in range(x.shape[0])
        ]


@configclass
class BytesMaskingConfig:
    """Words of a text are hidden: each of their bytes is replaced by the mask token, and predicted.

    Attributes:
        weight: Weight of its cross-entropy in the loss.
        hidden: Share of the words that are hidden, independently.
        unit: Whole words between blanks, or single bytes.
        num_train_queries: Bytes that are decoded in a training step, the same places in all texts. None: all.
        length: Bytes of a text at most. None: taken from the data.
        vocab_size: Different tokens. None: taken from the input.
    """

    keeps_elements: ClassVar[bool] = False
    has_mean: ClassVar[bool] = False
    measure_names: ClassVar[tuple[str, ...]] = ("accuracy", "nats")

    kind: Literal["bytes"] = "bytes"
    weight: float = 1.0
    hidden: float = 0.3
    unit: Literal["word", "byte"] = "word"
    num_train_queries: int | None = 256
    length: int | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        check_share(self.hidden)

    def fit_to_input(self, name: str, config: Any, preprocess: Any) -> "BytesMaskingConfig":
        """Return the configuration with the length of the texts."""
        return replace(self, length=config.max_length, vocab_size=config.vocab_size)

    @property
    def num_units(self) -> int:
        """Bytes of a text."""
        return self.length or 0

    @property
    def num_values(self) -> int:
        """Bytes of a text."""
        return self.num_units

    @property
    def num_outputs(self) -> int:
        """Logits of each query."""
        return self.vocab_size or 0

    @property
    def grid(self) -> tuple[int, ...]:
        """One query for each byte."""
        return (self.num_units,)

    def draw(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, scores: Float[Tensor, "B n"]
    ) -> Bool[Tensor, "B n"]:
        """Return a mask of the hidden bytes."""
        real = rows_of(x[..., None], mask)
        length = x.shape[1]
        chosen = mask_bytes(x, real, scores[:, :length] < self.hidden, unit=self.unit)
        units = torch.zeros_like(scores, dtype=torch.bool)
        units[:, :length] = chosen
        return units

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the texts with hidden bytes replaced by the mask token."""
        hidden = units[:, : x.shape[1]] & rows_of(x[..., None], mask)
        behind = (0, 0, 0, units.shape[1] - x.shape[1])
        values = pad(x[..., None], behind)
        there = pad(hidden[..., None], behind)
        return HiddenPart(x.masked_fill(hidden, MASK), mask, values, there)

    def readable(self, outputs: Float[Tensor, "B O V"]) -> Float[Tensor, "B O V"]:
        """Return the probability of each token."""
        return outputs.softmax(dim=-1)

    def mean_error(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Int[Tensor, "B O 1"],
        real: Bool[Tensor, "B O 1"] | None,
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the hidden bytes, in nats."""
        there = _counted(values, real)[..., 0]
        nats = cross_entropy(outputs[there], values[..., 0][there].long(), reduction="sum")
        return nats / there.sum().clamp_min(1)

    def measures(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Int[Tensor, "B O 1"],
        real: Bool[Tensor, "B O 1"] | None,
    ) -> Measures:
        """Return `accuracy`, the share of the hidden bytes that are right, and `nats` for each, of each text."""
        there = _counted(values, real)[..., 0]
        right = values[..., 0].long()
        nats = cross_entropy(outputs.flatten(0, 1), right.flatten(), reduction="none")
        count = there.sum(dim=1)
        each = count.clamp_min(1)
        hits = ((outputs.argmax(dim=-1) == right) & there).sum(dim=1) / each
        return {
            "accuracy": (hits, count > 0),
            "nats": ((nats.view_as(right) * there).sum(dim=1) / each, count > 0),
        }

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O V"],
    ) -> list[Reconstruction]:
        """Return the bytes of each text, and the same with hidden ones replaced by the most probable bytes."""
        best = outputs[:, : x.shape[1], FIRST_BYTE:].argmax(dim=-1) + FIRST_BYTE
        hidden = target.hidden[:, : x.shape[1], 0]
        filled = torch.where(hidden, best, x)
        real = rows_of(x[..., None], mask) & (x >= FIRST_BYTE)

        def bytes_of(ids: Tensor) -> Any:
            return (ids - FIRST_BYTE).cpu().numpy().astype(np.uint8)

        return [
            Reconstruction(
                kind="text",
                original=bytes_of(x[row, real[row]]),
                restored=bytes_of(filled[row, real[row]]),
                hidden=hidden[row, real[row]].cpu().numpy(),
            )
            for row in range(x.shape[0])
        ]


def _counted(values: Tensor, real: Bool[Tensor, "B O 1"] | None) -> Bool[Tensor, "B O 1"]:
    """Return a mask of the targets that count. `real` of None: all of them."""
    return torch.ones_like(values, dtype=torch.bool) if real is None else real


def _index_weights(side: int, device: torch.device) -> Int[Tensor, " 3"]:
    """Return the factors of the three indices of a cell in the row-major order of a cube."""
    return torch.tensor([side**2, side, 1], device=device)


for _config in (PointsMaskingConfig, FieldsMaskingConfig, BytesMaskingConfig):
    MASKINGS.register(_config, _config)
