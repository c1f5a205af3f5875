"""Cross-attention to grids by Triton kernels: `attention_forward` and `attention_backward` of `streaming` on a GPU.

The forward pass iterates over the elements twice: for the log-sum-exp of all grids together, then, with the final
weights, for the outputs. So nothing has to be rescaled. The backward pass iterates over them once for the queries, and
once more if content, tables or modality embedding need a gradient.

Everything that does not grow with the number of elements is prepared here. Partial sums of the kernels are added up in
a fixed order, slab by slab, so that they never take more than a few tens of MB, into the same `GridSums` and
`GridGradients` that the streaming implementation fills.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from perceivers.cross_attention.tiles import GridFeatures, GridGradients, GridQueries, GridSums
from perceivers.cross_attention.triton import kernels
from perceivers.typing import Float, Tensor

NOTHING = -1e30
"""Score of a row that has found nothing yet, as in the kernels."""

CELLS = 16
"""Cells that a program works on at once."""

ROWS, WIDE_ROWS = 64, 32
"""Rows that a program works on at once, and those where content is wide: so many that no register spills."""

PARTIAL_NUMBERS = 1 << 23
"""Numbers in the partial sums of one launch: 32 MB."""

PROGRAMS = 8
"""Programs for each multiprocessor of the device, so that all of them are busy until nearly the end."""

LEAST_LINES = 4
"""Lines of a program, where there are as many: below, its sums along the lines cost as much as what they add up."""


@dataclass(frozen=True)
class Rows:
    """R queries for a grid: for each of P samples (or one for all), with rows fastest.

    Attributes:
        vectors: Over the C channels, of which the kernels take those of content.
        line: Products with all tables but the last, for each line.
        last: Products with the last table, for each place along the lines.
        positions: Sums over the channels that are not content.
    """

    vectors: Float[Tensor, "P C R"]
    line: Float[Tensor, "P i R"]
    last: Float[Tensor, "P j R"]
    positions: Float[Tensor, "P R"]


@dataclass(frozen=True)
class Slab:
    """Samples and lines that one launch reads.

    Attributes:
        samples: Samples of the batch.
        lines: Lines of each sample.
        splits: Number of programs among which the lines are divided.
        step: Lines of each program.
    """

    samples: slice
    lines: slice
    splits: int
    step: int

    @property
    def num_samples(self) -> int:
        """Samples of the slab."""
        return self.samples.stop - self.samples.start

    @property
    def num_lines(self) -> int:
        """Lines of the slab."""
        return self.lines.stop - self.lines.start


class GridAttention:
    """Launches the kernels on one grid. Its last axis runs along the lines, all others number them.

    Args:
        grid: The elements.
        num_rows: Queries of all heads, R.
    """

    def __init__(self, grid: GridFeatures, num_rows: int) -> None:
        self.grid, self.num_rows = grid, num_rows
        self.num_last, self.num_lines = grid.sizes[-1], math.prod(grid.sizes[:-1])
        channels = grid.content_channels
        wide = channels > 4
        self.cells = min(CELLS, _power(self.num_last))
        self.rows = min(WIDE_ROWS if wide else ROWS, _power(num_rows))
        self.cell_blocks = -(-self.num_last // self.cells)
        content = grid.content
        mask = content if grid.mask is None else grid.mask.view(torch.uint8)
        line_stats, line_width = self._line_statistics()
        last_stats = torch.stack([grid.axis_means[-1], grid.axis_spreads[-1]])
        self.common: dict[str, Any] = {
            "content": content,
            "mask": mask,
            "line_stats": line_stats,
            "last_stats": last_stats,
            "num_lines": self.num_lines,
            "num_last": self.num_last,
            "num_rows": num_rows,
            "vector_stride": grid.channels * num_rows,
            "sample_stride": content.stride(0),
            "content_stride": content.stride(1),
            "channel_stride": content.stride(2),
            "mask_sample_stride": 0 if grid.mask is None else mask.stride(0),
            "mask_stride": 0 if grid.mask is None else mask.stride(1),
            "num_channels": float(grid.channels),
            "line_width": float(line_width),
            "last_width": float(grid.tables[-1].shape[1]),
            "eps": grid.eps,
            "CHANNELS": channels,
            "PADDED": _power(channels),
            "MASKED": grid.mask is not None,
            "CENTRED": grid.centred,
            "VECTORS": 0 if wide else channels,
            "CELLS": self.cells,
            "ROWS": self.rows,
        }

    def _line_statistics(self) -> tuple[Float[Tensor, "2 i"], int]:
        """Return mean and spread over the channels that are the same all along a line, and their number."""
        grid = self.grid
        width = sum(table.shape[1] for table in grid.tables[:-1])
        total = grid.tables[0].new_zeros(grid.sizes[:-1])
        for axis, sums in enumerate(grid.axis_sums[:-1]):
            total = total + self._on_lines(axis, sums)
        if grid.modality_embedding is not None:
            width += grid.modality_embedding.shape[0]
            total = total + grid.modality_embedding.sum()
        mean = total / max(1, width)
        spread = torch.zeros_like(mean)
        for axis, (spreads, means) in enumerate(
            zip(grid.axis_spreads[:-1], grid.axis_means[:-1], strict=True)
        ):
            offset = self._on_lines(axis, means) - mean
            spread = spread + self._on_lines(axis, spreads)
            spread = spread + grid.tables[axis].shape[1] * offset.square()
        if grid.modality_embedding is not None:
            spread = spread + (grid.modality_embedding - mean[..., None]).square().sum(dim=-1)
        return torch.stack([mean.flatten(), spread.flatten()]), width

    def _on_lines(self, axis: int, values: Float[Tensor, " n"]) -> Tensor:
        """Return values of one axis so that they broadcast over all axes but the last."""
        shape = [1] * (len(self.grid.sizes) - 1)
        shape[axis] = self.grid.sizes[axis]
        return values.view(shape)

    def scores(self, vectors: Float[Tensor, "P C R"]) -> Rows:
        """Return the operands of the kernels for queries whose mean over the channels is zero."""
        grid = self.grid
        queries = GridQueries(grid, vectors)
        axes = [
            part.flatten(1, 2)[:, :size]
            for part, size in zip(queries.axes, grid.sizes, strict=True)
        ]
        p, _, rows = vectors.shape
        line = vectors.new_zeros(p, *grid.sizes[:-1], rows)
        for axis, part in enumerate(axes[:-1]):
            shape = [p, *[1] * (len(grid.sizes) - 1), rows]
            shape[1 + axis] = grid.sizes[axis]
            line = line + part.reshape(shape)
        return Rows(
            vectors.contiguous(),
            line.reshape(p, self.num_lines, rows),
            axes[-1].contiguous(),
            queries.positions.contiguous(),
        )

    def slabs(self, numbers: int, row_blocks: int, least: int) -> Iterator[Slab]:
        """Yield the parts of the grid to read at once.

        Args:
            numbers: Partial sums for each line and block of cells.
            row_blocks: Programs that read the same cells for different rows.
            least: Lines of a program, where there are as many.
        """
        each = self.cell_blocks * numbers
        lines = min(self.num_lines, max(1, PARTIAL_NUMBERS // each))
        whole = each * (lines + self.grid.content_channels + 1) + self.num_last * numbers
        samples = max(1, PARTIAL_NUMBERS // whole)
        samples = min(self.grid.batch, samples, 1 << 15)
        programs = self.cell_blocks * row_blocks * samples
        wanted = -(-PROGRAMS * _multiprocessors(self.grid.content.device) // programs)
        for first in range(0, self.grid.batch, samples):
            some = slice(first, min(first + samples, self.grid.batch))
            for start in range(0, self.num_lines, lines):
                stop = min(start + lines, self.num_lines)
                step = max(least, -(-(stop - start) // wanted))
                yield Slab(some, slice(start, stop), -(-(stop - start) // step), step)

    def launch(
        self, kernel: Any, row_blocks: int, slab: Slab, rows: Rows, **arguments: Any
    ) -> None:
        """Run a kernel on a slab."""
        grid = (self.cell_blocks * row_blocks, slab.splits, slab.num_samples)
        kernel[grid](
            **self.common,
            vectors=rows.vectors,
            query_line=rows.line,
            query_last=rows.last,
            query_sum=rows.positions,
            separate=int(rows.vectors.shape[0] > 1),
            first_sample=slab.samples.start,
            line_start=slab.lines.start,
            line_stop=slab.lines.stop,
            step=slab.step,
            num_warps=8 if self.common["VECTORS"] == 0 else 4,
            enable_fp_fusion=False,  # or passes round scores differently: see `scores`
            **arguments,
        )

    def log_sums(self, rows: Rows, top: Float[Tensor, "B R"], total: Float[Tensor, "B R"]) -> None:
        """Bring the highest scores and the sums of exponentials relative to them up to date with this grid."""
        blocks = -(-self.num_rows // self.rows)
        for slab in self.slabs(self.num_rows, blocks, LEAST_LINES):
            pieces = slab.splits * self.cell_blocks
            tops = top.new_empty(slab.num_samples, pieces, self.num_rows)
            sums = torch.empty_like(tops)
            self.launch(kernels.log_sums, blocks, slab, rows, tops=tops, sums=sums)
            before = top[slab.samples]
            after = torch.maximum(before, tops.amax(dim=1))
            own = (sums * (tops - after[:, None]).exp()).sum(dim=1)
            total[slab.samples] = total[slab.samples] * (before - after).exp() + own
            top[slab.samples] = after

    def combine(
        self,
        rows: Rows,
        shift: Float[Tensor, "B R"],
        others: Rows | None = None,
        delta: Float[Tensor, "B R"] | None = None,
        *,
        weigh: bool = False,
    ) -> tuple[GridSums, GridSums]:
        """Return sums over the grid, and (if `weigh`) those along its axes under the attention.

        Args:
            rows: The queries.
            shift: The number that is subtracted from their scores.
            others: The gradient of the output, for the backward pass. See `kernels.combine`.
            delta: The number that is subtracted from its scores.
            weigh: Whether the sums under the attention are needed.
        """
        sums, attention = GridSums(self.grid, self.num_rows), GridSums(self.grid, self.num_rows)
        blocks, new = -(-self.num_rows // self.rows), shift.new_empty
        other = rows if others is None else others
        for slab in self.slabs(self.num_rows, blocks, LEAST_LINES):
            samples, pieces = slab.num_samples, slab.splits * self.cell_blocks
            dense = new(samples, pieces, sums.dense.shape[1] - 1, self.num_rows)
            line = new(samples, self.cell_blocks, slab.num_lines, self.num_rows)
            last = new(samples, slab.splits, self.num_last, self.num_rows)
            line_weights = torch.empty_like(line) if weigh else line
            last_weights = torch.empty_like(last) if weigh else last
            self.launch(
                kernels.combine,
                blocks,
                slab,
                rows,
                others=other.vectors,
                other_line=other.line,
                other_last=other.last,
                other_sum=other.positions,
                shift=shift,
                delta=shift if delta is None else delta,
                dense_out=dense,
                line_out=line,
                last_out=last,
                line_weights=line_weights,
                last_weights=last_weights,
                BACKWARD=others is not None,
                WEIGH=weigh,
            )
            sums.dense[slab.samples, 1:] += dense.sum(dim=1)
            self._add(sums.axes, slab, line, last)
            if weigh:
                self._add(attention.axes, slab, line_weights, last_weights)
        return sums, attention

    def _add(
        self,
        axes: Sequence[Float[Tensor, "B _ _ R"]],
        slab: Slab,
        line: Float[Tensor, "b k i R"],
        last: Float[Tensor, "b s j R"],
    ) -> None:
        """Add sums on lines and along them to those of each axis."""
        sizes, own = self.grid.sizes, axes[-1].flatten(1, 2)
        own[slab.samples, : self.num_last] += last.sum(dim=1)
        if len(sizes) == 1:
            return
        lines = line.new_zeros(slab.num_samples, self.num_lines, self.num_rows)
        lines[:, slab.lines] = line.sum(dim=1)
        for axis, target in enumerate(axes[:-1]):
            target.flatten(1, 2)[slab.samples, : sizes[axis]] += self._of_axis(axis, lines)

    def _of_axis(self, axis: int, lines: Float[Tensor, "x i ..."]) -> Float[Tensor, "x n ..."]:
        """Return the values of each line, summed over all axes but one."""
        lines = lines.unflatten(1, self.grid.sizes[:-1])
        others = [1 + other for other in range(len(self.grid.sizes) - 1) if other != axis]
        return lines.sum(dim=others) if others else lines

    def spread(
        self,
        gradients: GridGradients,
        rows: Rows,
        shift: Float[Tensor, "B R"],
        others: Rows,
        delta: Float[Tensor, "B R"],
    ) -> None:
        """Store the gradient of content, and the sums that the gradients of tables and modality embedding need.

        They are stored in `gradients`; see `combine` for the other arguments.
        """
        new = shift.new_empty
        places = any(gradients.for_tables) or gradients.for_embedding
        lines = shift.new_zeros(2, self.num_lines)
        for slab in self.slabs(1, 1, 1):
            line = new(2, slab.num_samples, self.cell_blocks, slab.num_lines)
            last = new(2, slab.num_samples, slab.splits, self.num_last)
            self.launch(
                kernels.spread,
                1,
                slab,
                rows,
                others=others.vectors,
                other_line=others.line,
                other_last=others.last,
                other_sum=others.positions,
                shift=shift,
                delta=delta,
                content_out=line if gradients.content is None else gradients.content,
                line_squares=line[0],
                line_means=line[1],
                last_squares=last[0],
                last_means=last[1],
                CONTENT=gradients.content is not None,
                PLACES=places,
            )
            if places:
                lines[:, slab.lines] += line.sum(dim=(1, 2))
                both = last.sum(dim=(1, 2))
                gradients.squares[-1] += both[0]
                gradients.means[-1] += both[1]
        for axis in range(len(self.grid.sizes) - 1):
            both = self._of_axis(axis, lines)
            gradients.squares[axis] += both[0]
            gradients.means[axis] += both[1]


def _power(number: int) -> int:
    """Return the power of two that is not below `number`, at least the 16 that a matrix product needs."""
    return max(16, 1 << (number - 1).bit_length())


@lru_cache(maxsize=16)
def _multiprocessors(device: torch.device) -> int:
    """Return the number of programs that a device runs side by side, at least."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def attention_forward(
    vectors: Float[Tensor, "P C R"], parts: Sequence[GridFeatures]
) -> tuple[Float[Tensor, "B C R"], Float[Tensor, "B R"]]:
    """Return the attention output of each query over grids, and its log-sum-exp. See `streaming.attention_forward`."""
    batch, num_rows = parts[0].batch, vectors.shape[2]
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    top = vectors.new_full((batch, num_rows), NOTHING)
    total = torch.zeros_like(top)
    readers = [GridAttention(part, num_rows) for part in parts]
    rows = [reader.scores(vectors) for reader in readers]
    for reader, own in zip(readers, rows, strict=True):
        reader.log_sums(own, top, total)
    u = vectors.new_zeros(batch, vectors.shape[1], num_rows)
    for reader, own in zip(readers, rows, strict=True):
        u += reader.combine(own, top)[0].collected()
    found = total > 0
    safe = torch.where(found, total, 1.0)
    return u / safe[:, None], torch.where(found, top + safe.log(), 0.0)


def attention_backward(
    gradient: Float[Tensor, "B C R"],
    delta: Float[Tensor, "B R"],
    vectors: Float[Tensor, "P C R"],
    log_sum: Float[Tensor, "B R"],
    parts: Sequence[GridFeatures],
    needed: Sequence[Sequence[bool]],
) -> tuple[Float[Tensor, "P C R"], list[Tensor | None]]:
    """Return the gradients of the queries and of the grids' tensors. See `streaming.attention_backward`."""
    shared = vectors.shape[0] == 1 and gradient.shape[0] > 1
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    gradient = gradient - gradient.mean(dim=1, keepdim=True)
    delta, log_sum = delta.contiguous(), log_sum.contiguous()
    dp = torch.zeros_like(gradient)
    found: list[Tensor | None] = []
    for part, wanted in zip(parts, needed, strict=True):
        reader = GridAttention(part, vectors.shape[2])
        rows, others = reader.scores(vectors), reader.scores(gradient)
        gradients = GridGradients(part, wanted)
        weigh = any(gradients.for_tables) or gradients.for_embedding
        sums, attention = reader.combine(rows, log_sum, others, delta, weigh=weigh)
        dp += sums.collected()
        own: list[Tensor | None] = []
        if any(wanted):
            reader.spread(gradients, rows, log_sum, others, delta)
            both = vectors.expand(gradient.shape[0], -1, -1)
            own = gradients.finish([(attention, gradient), (sums, both)])
        found += [*own, *[None] * (len(wanted) - len(own))]
    return (dp.sum(dim=0, keepdim=True) if shared else dp), found
