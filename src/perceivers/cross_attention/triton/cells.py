# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
"""The parts of which the kernels are made: cells of a grid, their scores for some rows, sums of their content.

Tiles are cells x rows, with rows fastest. Up to four channels of content are four vectors, `c0` to `c3`; more of them
("wide") are one matrix in `c0`, cells x channels padded to a power of two, and go through `tl.dot` in full float32.
The same holds for the rows' coefficients `p0` to `p3`. Arguments in capitals are constants of the compilation; VECTORS
is the number of channels that are vectors, 0 if content is wide.

This file is in Triton's language: types are not checked, and Python runs it only in Triton's interpreter.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def read_cells(
    content, mask, at, inside, content_stride, channel_stride, mask_stride, line_mean, line_spread,
    last_mean, last_spread, num_channels, line_width, last_width, eps, CHANNELS: tl.constexpr,
    PADDED: tl.constexpr, MASKED: tl.constexpr, CENTRED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Return the content of cells, and LayerNorm's mean and scale (0 where no cell is).

    Every term of the variance is a square around the mean, so nothing cancels whatever the offset.
    """
    exists = inside
    if MASKED:
        exists = inside & (tl.load(mask + at * mask_stride, mask=inside, other=0) != 0)
    first = content + at * content_stride
    if VECTORS == 0:
        k = tl.arange(0, PADDED)
        real = exists[:, None] & (k < CHANNELS)[None, :]
        where = first[:, None] + k[None, :] * channel_stride
        c0 = tl.load(where, mask=real, other=0.0).to(tl.float32)
        total = tl.sum(c0, axis=1)
    else:
        c0 = tl.load(first, mask=exists, other=0.0).to(tl.float32)
        total = c0
    c1 = tl.zeros_like(total)
    c2 = tl.zeros_like(total)
    c3 = tl.zeros_like(total)
    if VECTORS > 1:
        c1 = tl.load(first + channel_stride, mask=exists, other=0.0).to(tl.float32)
    if VECTORS > 2:
        c2 = tl.load(first + 2 * channel_stride, mask=exists, other=0.0).to(tl.float32)
    if VECTORS > 3:
        c3 = tl.load(first + 3 * channel_stride, mask=exists, other=0.0).to(tl.float32)
    total = total + c1 + c2 + c3 + line_mean * line_width + last_mean * last_width
    mean = total / num_channels
    d0, d1, d2, d3 = centred(c0, c1, c2, c3, mean, CHANNELS, PADDED, VECTORS)
    if VECTORS == 0:
        squares = tl.sum(d0 * d0, axis=1)
    else:
        squares = d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3
    line_offset = line_mean - mean
    last_offset = last_mean - mean
    squares += line_spread + line_width * line_offset * line_offset
    squares += last_spread + last_width * last_offset * last_offset
    scale = tl.where(exists, tl.rsqrt(squares / num_channels + eps), 0.0)
    if CENTRED:
        c0, c1, c2, c3 = d0, d1, d2, d3
    return c0, c1, c2, c3, mean, scale, exists


@triton.jit
@no_type_check
def centred(
    c0, c1, c2, c3, mean, CHANNELS: tl.constexpr, PADDED: tl.constexpr, VECTORS: tl.constexpr
):
    """Return content without the mean; channels that do not exist stay zero."""
    if VECTORS == 0:
        k = tl.arange(0, PADDED)
        c0 = tl.where((k < CHANNELS)[None, :], c0 - mean[:, None], 0.0)
    else:
        c0 = c0 - mean
    if VECTORS > 1:
        c1 = c1 - mean
    if VECTORS > 2:
        c2 = c2 - mean
    if VECTORS > 3:
        c3 = c3 - mean
    return c0, c1, c2, c3


@triton.jit
@no_type_check
def read_rows(
    vectors,
    rows,
    real,
    num_rows,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    VECTORS: tl.constexpr,
):
    """Return the coefficients of content, for each row: four vectors, or one matrix padded x rows."""
    if VECTORS == 0:
        k = tl.arange(0, PADDED)
        where = vectors + k[:, None] * num_rows + rows[None, :]
        p0 = tl.load(where, mask=(k < CHANNELS)[:, None] & real[None, :], other=0.0)
    else:
        p0 = tl.load(vectors + rows, mask=real, other=0.0)
    p1 = tl.zeros(rows.shape, tl.float32)
    p2 = tl.zeros(rows.shape, tl.float32)
    p3 = tl.zeros(rows.shape, tl.float32)
    if VECTORS > 1:
        p1 = tl.load(vectors + num_rows + rows, mask=real, other=0.0)
    if VECTORS > 2:
        p2 = tl.load(vectors + 2 * num_rows + rows, mask=real, other=0.0)
    if VECTORS > 3:
        p3 = tl.load(vectors + 3 * num_rows + rows, mask=real, other=0.0)
    return p0, p1, p2, p3


@triton.jit
@no_type_check
def read_block(
    vectors, last, positions, own, tile, both, rows, real, num_last, num_rows, vector_stride,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Return the operands of rows for a block of places: its scores, the factors of means, coefficients."""
    p0, p1, p2, p3 = read_rows(
        vectors + own * vector_stride, rows, real, num_rows, CHANNELS, PADDED, VECTORS
    )
    along = tl.load(last + own * num_last * num_rows + tile, mask=both, other=0.0)
    times = tl.load(positions + own * num_rows + rows, mask=real, other=0.0)
    return along, times, p0, p1, p2, p3


@triton.jit
@no_type_check
def scores(
    c0, c1, c2, c3, p0, p1, p2, p3, mean, scale, line, last, positions,
    CENTRED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Return p . x^ of each cell and row, rounded alike in every kernel.

    Passes that disagree in the last bit of a score of 10,000 would disagree by thousandths about its exponential.
    So products are fused with sums where `fma` stands, and launched kernels may not fuse others.
    """
    s = last + line[None, :]
    if VECTORS == 0:
        s += tl.dot(c0, p0, input_precision="ieee")
    else:
        s = tl.fma(c0[:, None], p0[None, :], s)
    if VECTORS > 1:
        s = tl.fma(c1[:, None], p1[None, :], s)
    if VECTORS > 2:
        s = tl.fma(c2[:, None], p2[None, :], s)
    if VECTORS > 3:
        s = tl.fma(c3[:, None], p3[None, :], s)
    if CENTRED:
        s = tl.fma(-mean[:, None], positions[None, :], s)
    return s * scale[:, None]


@triton.jit
@no_type_check
def no_content(
    FIRST: tl.constexpr, SECOND: tl.constexpr, CELLS: tl.constexpr, ROWS: tl.constexpr,
    VECTORS: tl.constexpr,
):  # fmt: skip
    """Return zeros: a tile for each channel, or one matrix FIRST x SECOND."""
    if VECTORS == 0:
        a0 = tl.zeros([FIRST, SECOND], tl.float32)
    else:
        a0 = tl.zeros([CELLS, ROWS], tl.float32)
    a1 = tl.zeros([1, 1], tl.float32)
    a2 = tl.zeros([1, 1], tl.float32)
    a3 = tl.zeros([1, 1], tl.float32)
    if VECTORS > 1:
        a1 = tl.zeros([CELLS, ROWS], tl.float32)
    if VECTORS > 2:
        a2 = tl.zeros([CELLS, ROWS], tl.float32)
    if VECTORS > 3:
        a3 = tl.zeros([CELLS, ROWS], tl.float32)
    return a0, a1, a2, a3


@triton.jit
@no_type_check
def collect(a0, a1, a2, a3, c0, c1, c2, c3, w, VECTORS: tl.constexpr):
    """Add weighted content: to one tile for each channel, or to one matrix padded x rows."""
    if VECTORS == 0:
        a0 = tl.dot(tl.trans(c0), w, a0, input_precision="ieee")
    else:
        a0 = tl.fma(c0[:, None], w, a0)
    if VECTORS > 1:
        a1 = tl.fma(c1[:, None], w, a1)
    if VECTORS > 2:
        a2 = tl.fma(c2[:, None], w, a2)
    if VECTORS > 3:
        a3 = tl.fma(c3[:, None], w, a3)
    return a0, a1, a2, a3


@triton.jit
@no_type_check
def store_content(
    out, a0, a1, a2, a3, rows, real, num_rows,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Store what `collect` has added up, channels x rows."""
    if VECTORS == 0:
        k = tl.arange(0, PADDED)
        where = out + k[:, None] * num_rows + rows[None, :]
        tl.store(where, a0, mask=(k < CHANNELS)[:, None] & real[None, :])
    else:
        tl.store(out + rows, tl.sum(a0, axis=0), mask=real)
    if VECTORS > 1:
        tl.store(out + num_rows + rows, tl.sum(a1, axis=0), mask=real)
    if VECTORS > 2:
        tl.store(out + 2 * num_rows + rows, tl.sum(a2, axis=0), mask=real)
    if VECTORS > 3:
        tl.store(out + 3 * num_rows + rows, tl.sum(a3, axis=0), mask=real)


@triton.jit
@no_type_check
def weigh_rows(t0, t1, t2, t3, a, p0, p1, p2, p3, VECTORS: tl.constexpr):
    """Add the rows' coefficients of content under weights: to a tile for each channel, or cells x padded."""
    if VECTORS == 0:
        t0 = tl.dot(a, tl.trans(p0), t0, input_precision="ieee")
    else:
        t0 = tl.fma(a, p0[None, :], t0)
    if VECTORS > 1:
        t1 = tl.fma(a, p1[None, :], t1)
    if VECTORS > 2:
        t2 = tl.fma(a, p2[None, :], t2)
    if VECTORS > 3:
        t3 = tl.fma(a, p3[None, :], t3)
    return t0, t1, t2, t3


@triton.jit
@no_type_check
def store_gradient(
    out, t0, t1, t2, t3, d0, d1, d2, d3, weight, scale, inside,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """Store the gradient of content, cells x channels: LayerNorm's backward of what `weigh_rows` added up.

    Args: `d` is content without the mean, `weight` what its share is subtracted with.
    """
    if VECTORS == 0:
        k = tl.arange(0, PADDED)
        gradient = (t0 - d0 * weight[:, None]) * scale[:, None]
        where = out[:, None] + k[None, :]
        tl.store(where, gradient, mask=inside[:, None] & (k < CHANNELS)[None, :])
    else:
        tl.store(out, (tl.sum(t0, axis=1) - d0 * weight) * scale, mask=inside)
    if VECTORS > 1:
        tl.store(out + 1, (tl.sum(t1, axis=1) - d1 * weight) * scale, mask=inside)
    if VECTORS > 2:
        tl.store(out + 2, (tl.sum(t2, axis=1) - d2 * weight) * scale, mask=inside)
    if VECTORS > 3:
        tl.store(out + 3, (tl.sum(t3, axis=1) - d3 * weight) * scale, mask=inside)
