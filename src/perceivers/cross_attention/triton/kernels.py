# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
"""Kernels that read a grid of elements on a GPU: log-sum-exps, what is collected, and gradients of the cells.

A grid is seen as lines of cells: the last axis runs along a line, all others together number the lines. A program
owns a block of rows (queries of all heads) and a block of places along the lines, so that what these places add to
scores and the sums over them stay in registers while it walks from line to line. For each cell it takes content,
computes LayerNorm's mean and scale, and needs one product for each channel of content: `score = scale * (content . p +
line[i] + last[j])`. Nothing is stored for a cell but the gradient of its content, and every sum is added up in one
fixed order, so that results repeat bit by bit.

This file is in Triton's language: types are not checked, and Python runs it only in Triton's interpreter.
"""

from typing import no_type_check

import triton
import triton.language as tl

from perceivers.cross_attention.triton.cells import (
    centred,
    collect,
    no_content,
    read_block,
    read_cells,
    scores,
    store_content,
    store_gradient,
    weigh_rows,
)

NOTHING = tl.constexpr(-1e30)
"""Score of a cell that does not exist."""

CHANGING = ["first_sample", "line_start", "line_stop", "step"]
"""Arguments that differ between launches, for which nothing is compiled anew."""


@triton.jit
@no_type_check
def block(last_stats, num_last, num_rows, CELLS: tl.constexpr, ROWS: tl.constexpr):
    """Return the rows and cells that this program owns, the offset of their tile, and the cells' statistics."""
    row_blocks = tl.cdiv(num_rows, ROWS)
    rows = (tl.program_id(0) % row_blocks) * ROWS + tl.arange(0, ROWS)
    cell_block = tl.program_id(0) // row_blocks
    cells = cell_block * CELLS + tl.arange(0, CELLS)
    real = rows < num_rows
    inside = cells < num_last
    tile = cells[:, None] * num_rows + rows[None, :]
    both = inside[:, None] & real[None, :]
    last_mean = tl.load(last_stats + cells, mask=inside, other=0.0)
    last_spread = tl.load(last_stats + num_last + cells, mask=inside, other=0.0)
    return cell_block, rows, cells, real, inside, tile, both, last_mean, last_spread


@triton.jit(do_not_specialize=CHANGING)
@no_type_check
def log_sums(
    content, mask, line_stats, last_stats, vectors, query_line, query_last, query_sum,
    tops, sums,
    first_sample, line_start, line_stop, step, num_lines, num_last, num_rows, separate, vector_stride,
    sample_stride, content_stride, channel_stride, mask_sample_stride, mask_stride,
    num_channels, line_width, last_width, eps,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr, CENTRED: tl.constexpr,
    VECTORS: tl.constexpr, CELLS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Store, for some cells and all rows, the highest score and the sum of exponentials relative to it.

    Each place along the lines keeps its own maximum, so that one exponential a score is enough and
    nothing is exchanged between threads before the end.
    """
    cell_block, rows, cells, real, inside, tile, both, last_mean, last_spread = block(
        last_stats, num_last, num_rows, CELLS, ROWS
    )
    sample = (tl.program_id(2) + first_sample).to(tl.int64)
    own = sample * separate
    last, positions, p0, p1, p2, p3 = read_block(
        vectors, query_last, query_sum, own, tile, both, rows, real, num_last, num_rows,
        vector_stride, CHANNELS, PADDED, VECTORS,
    )  # fmt: skip
    top = tl.full([CELLS, ROWS], NOTHING, tl.float32)
    total = tl.zeros([CELLS, ROWS], tl.float32)
    start = line_start + tl.program_id(1) * step
    for i in range(start, tl.minimum(start + step, line_stop)):
        line = tl.load(
            query_line + own * num_lines * num_rows + i * num_rows + rows, mask=real, other=0.0
        )
        c0, c1, c2, c3, mean, scale, exists = read_cells(
            content + sample * sample_stride, mask + sample * mask_sample_stride,
            i * num_last + cells, inside, content_stride, channel_stride, mask_stride,
            tl.load(line_stats + i), tl.load(line_stats + num_lines + i), last_mean, last_spread,
            num_channels, line_width, last_width, eps, CHANNELS, PADDED, MASKED, CENTRED, VECTORS,
        )  # fmt: skip
        s = scores(
            c0, c1, c2, c3, p0, p1, p2, p3, mean, scale, line, last, positions,
            CENTRED, VECTORS,
        )  # fmt: skip
        s = tl.where(exists[:, None], s, NOTHING)
        lower = tl.exp(-tl.abs(s - top))
        total = tl.where(s > top, tl.fma(total, lower, 1.0), total + lower)
        top = tl.maximum(top, s)
    highest = tl.max(top, axis=0)
    total = tl.where(top > 0.5 * NOTHING, total * tl.exp(top - highest[None, :]), 0.0)
    piece = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.cdiv(num_last, CELLS)
    out = (piece + cell_block) * num_rows + rows
    tl.store(tops + out, highest, mask=real)
    tl.store(sums + out, tl.sum(total, axis=0), mask=real)


@triton.jit(do_not_specialize=CHANGING)
@no_type_check
def combine(
    content, mask, line_stats, last_stats, vectors, query_line, query_last, query_sum,
    others, other_line, other_last, other_sum, shift, delta,
    dense_out, line_out, last_out, line_weights, last_weights,
    first_sample, line_start, line_stop, step, num_lines, num_last, num_rows, separate, vector_stride,
    sample_stride, content_stride, channel_stride, mask_sample_stride, mask_stride,
    num_channels, line_width, last_width, eps,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr, CENTRED: tl.constexpr,
    VECTORS: tl.constexpr, CELLS: tl.constexpr, ROWS: tl.constexpr,
    BACKWARD: tl.constexpr, WEIGH: tl.constexpr,
):  # fmt: skip
    """Store weighted sums over some cells: of content, of scales at each place, of scales on each line.

    Forward, the weights are exp(score - shift). BACKWARD they are that times (other - delta), the gradient of the
    scores, with `other` the scores of G; then WEIGH asks for the sums of scales under the attention as well.
    """
    cell_block, rows, cells, real, inside, tile, both, last_mean, last_spread = block(
        last_stats, num_last, num_rows, CELLS, ROWS
    )
    sample = (tl.program_id(2) + first_sample).to(tl.int64)
    own = sample * separate
    last, positions, p0, p1, p2, p3 = read_block(
        vectors, query_last, query_sum, own, tile, both, rows, real, num_last, num_rows, vector_stride,
        CHANNELS, PADDED, VECTORS)  # fmt: skip
    shifted = tl.load(shift + sample * num_rows + rows, mask=real, other=0.0)
    if BACKWARD:
        known = tl.load(delta + sample * num_rows + rows, mask=real, other=0.0)
        g_last, g_positions, g0, g1, g2, g3 = read_block(
            others, other_last, other_sum, sample, tile, both, rows, real, num_last, num_rows, vector_stride,
            CHANNELS, PADDED, VECTORS)  # fmt: skip
    along = tl.zeros([CELLS, ROWS], tl.float32)
    weighed = tl.zeros([CELLS, ROWS], tl.float32)
    means = tl.zeros([CELLS, ROWS], tl.float32)
    a0, a1, a2, a3 = no_content(PADDED, ROWS, CELLS, ROWS, VECTORS)
    cell_blocks = tl.cdiv(num_last, CELLS)
    to_line = (tl.program_id(2) * cell_blocks + cell_block) * (line_stop - line_start) - line_start
    start = line_start + tl.program_id(1) * step
    for i in range(start, tl.minimum(start + step, line_stop)):
        at = i * num_rows + rows
        c0, c1, c2, c3, mean, scale, exists = read_cells(
            content + sample * sample_stride, mask + sample * mask_sample_stride,
            i * num_last + cells, inside, content_stride, channel_stride, mask_stride,
            tl.load(line_stats + i), tl.load(line_stats + num_lines + i), last_mean, last_spread,
            num_channels, line_width, last_width, eps, CHANNELS, PADDED, MASKED, CENTRED, VECTORS)  # fmt: skip
        line = tl.load(query_line + own * num_lines * num_rows + at, mask=real, other=0.0)
        s = scores(c0, c1, c2, c3, p0, p1, p2, p3, mean, scale, line, last, positions, CENTRED, VECTORS)  # fmt: skip
        w = tl.exp(tl.where(exists[:, None], s - shifted[None, :], NOTHING))
        if BACKWARD:
            if WEIGH:
                a = w * scale[:, None]
                weighed += a
                tl.store(line_weights + to_line * num_rows + at, tl.sum(a, axis=0), mask=real)
            line = tl.load(other_line + sample * num_lines * num_rows + at, mask=real, other=0.0)
            g = scores(
                c0, c1, c2, c3, g0, g1, g2, g3, mean, scale, line, g_last, g_positions, CENTRED, VECTORS
            )  # fmt: skip
            w = w * (g - known[None, :])
        w = w * scale[:, None]
        along += w
        tl.store(line_out + to_line * num_rows + at, tl.sum(w, axis=0), mask=real)
        a0, a1, a2, a3 = collect(a0, a1, a2, a3, c0, c1, c2, c3, w, VECTORS)
        if CENTRED:
            means = tl.fma(-mean[:, None], w, means)
    piece = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    tl.store(last_out + piece * num_last * num_rows + tile, along, mask=both)
    if WEIGH:
        tl.store(last_weights + piece * num_last * num_rows + tile, weighed, mask=both)
    out = dense_out + (piece * cell_blocks + cell_block) * (CHANNELS + CENTRED) * num_rows
    store_content(out, a0, a1, a2, a3, rows, real, num_rows, CHANNELS, PADDED, VECTORS)
    if CENTRED:
        tl.store(out + CHANNELS * num_rows + rows, tl.sum(means, axis=0), mask=real)


@triton.jit
@no_type_check
def block_scores(
    c0, c1, c2, c3, mean, scale, vectors, by_line, by_last, by_sum,
    own, i, tile, both, rows, real, num_lines, num_last, num_rows, vector_stride,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, CENTRED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Return the scores of cells of one line for a block of rows, and the rows' coefficients of content."""
    last, positions, p0, p1, p2, p3 = read_block(
        vectors, by_last, by_sum, own, tile, both, rows, real, num_last, num_rows, vector_stride,
        CHANNELS, PADDED, VECTORS,
    )  # fmt: skip
    at = own * num_lines * num_rows + i * num_rows + rows
    line = tl.load(by_line + at, mask=real, other=0.0)
    s = scores(c0, c1, c2, c3, p0, p1, p2, p3, mean, scale, line, last, positions, CENTRED, VECTORS)
    return s, p0, p1, p2, p3


@triton.jit
@no_type_check
def attend(
    c0, c1, c2, c3, mean, scale, exists, vectors, query_line, query_last, query_sum,
    others, other_line, other_last, other_sum, shift, delta,
    sample, own, i, cells, inside, rows, num_lines, num_last, num_rows, vector_stride,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, CENTRED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Return attention, the gradient of the scores, r, and the coefficients of both, for a block of rows."""
    real = rows < num_rows
    tile = cells[:, None] * num_rows + rows[None, :]
    both = inside[:, None] & real[None, :]
    s, p0, p1, p2, p3 = block_scores(
        c0, c1, c2, c3, mean, scale, vectors, query_line, query_last, query_sum,
        own, i, tile, both, rows, real, num_lines, num_last, num_rows, vector_stride,
        CHANNELS, PADDED, CENTRED, VECTORS,
    )  # fmt: skip
    g, g0, g1, g2, g3 = block_scores(
        c0, c1, c2, c3, mean, scale, others, other_line, other_last, other_sum,
        sample, i, tile, both, rows, real, num_lines, num_last, num_rows, vector_stride,
        CHANNELS, PADDED, CENTRED, VECTORS,
    )  # fmt: skip
    shifted = tl.load(shift + sample * num_rows + rows, mask=real, other=0.0)
    known = tl.load(delta + sample * num_rows + rows, mask=real, other=0.0)
    a = tl.exp(tl.where(exists[:, None], s - shifted[None, :], NOTHING))
    change = a * (g - known[None, :])
    return a, change, tl.fma(a, g, change * s), p0, p1, p2, p3, g0, g1, g2, g3


@triton.jit(do_not_specialize=CHANGING)
@no_type_check
def spread(
    content, mask, line_stats, last_stats, vectors, query_line, query_last, query_sum,
    others, other_line, other_last, other_sum, shift, delta,
    content_out, line_squares, line_means, last_squares, last_means,
    first_sample, line_start, line_stop, step, num_lines, num_last, num_rows, separate, vector_stride,
    sample_stride, content_stride, channel_stride, mask_sample_stride, mask_stride,
    num_channels, line_width, last_width, eps,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr, CENTRED: tl.constexpr,
    VECTORS: tl.constexpr, CELLS: tl.constexpr, ROWS: tl.constexpr,
    CONTENT: tl.constexpr, PLACES: tl.constexpr,
):  # fmt: skip
    """Store the gradient of content, and what LayerNorm's backward takes from tables: sums over all rows.

    With r = sum over rows of (attention * other + change * score), PLACES asks for the sums of scale^2 r / C, and of
    it times the mean, at each place along the lines and on each line.
    """
    cells = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    inside = cells < num_last
    sample = (tl.program_id(2) + first_sample).to(tl.int64)
    own = sample * separate
    last_mean = tl.load(last_stats + cells, mask=inside, other=0.0)
    last_spread = tl.load(last_stats + num_last + cells, mask=inside, other=0.0)
    squares = tl.zeros([CELLS], tl.float32)
    means = tl.zeros([CELLS], tl.float32)
    lines = line_stop - line_start
    to_line = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * lines - line_start
    start = line_start + tl.program_id(1) * step
    for i in range(start, tl.minimum(start + step, line_stop)):
        c0, c1, c2, c3, mean, scale, exists = read_cells(
            content + sample * sample_stride, mask + sample * mask_sample_stride,
            i * num_last + cells, inside, content_stride, channel_stride, mask_stride,
            tl.load(line_stats + i), tl.load(line_stats + num_lines + i), last_mean, last_spread,
            num_channels, line_width, last_width, eps, CHANNELS, PADDED, MASKED, CENTRED, VECTORS,
        )  # fmt: skip
        t0, t1, t2, t3 = no_content(CELLS, PADDED, CELLS, ROWS, VECTORS)
        r = tl.zeros([CELLS, ROWS], tl.float32)
        for j in range(tl.cdiv(num_rows, ROWS)):
            a, change, more, p0, p1, p2, p3, g0, g1, g2, g3 = attend(
                c0, c1, c2, c3, mean, scale, exists, vectors, query_line, query_last, query_sum,
                others, other_line, other_last, other_sum, shift, delta,
                sample, own, i, cells, inside, j * ROWS + tl.arange(0, ROWS),
                num_lines, num_last, num_rows, vector_stride, CHANNELS, PADDED, CENTRED, VECTORS,
            )  # fmt: skip
            r += more
            if CONTENT:
                t0, t1, t2, t3 = weigh_rows(t0, t1, t2, t3, a, g0, g1, g2, g3, VECTORS)
                t0, t1, t2, t3 = weigh_rows(t0, t1, t2, t3, change, p0, p1, p2, p3, VECTORS)
        weight = tl.sum(r, axis=1) * scale / num_channels
        if CONTENT:
            if not CENTRED:
                c0, c1, c2, c3 = centred(c0, c1, c2, c3, mean, CHANNELS, PADDED, VECTORS)
            out = content_out + (sample * num_lines * num_last + i * num_last + cells) * CHANNELS
            store_gradient(
                out, t0, t1, t2, t3, c0, c1, c2, c3, weight, scale, inside,
                CHANNELS, PADDED, VECTORS,
            )  # fmt: skip
        if PLACES:
            weight *= scale
            squares += weight
            means += weight * mean
            tl.store(line_squares + to_line + i, tl.sum(weight, axis=0))
            tl.store(line_means + to_line + i, tl.sum(weight * mean, axis=0))
    if PLACES:
        piece = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
        tl.store(last_squares + piece * num_last + cells, squares, mask=inside)
        tl.store(last_means + piece * num_last + cells, means, mask=inside)
