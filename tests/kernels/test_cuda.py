"""The kernels on a GPU, at the sizes of the papers' models."""

import importlib.util
import math
import warnings

import pytest
import torch

from perceivers.cross_attention import streaming
from perceivers.cross_attention.operator import attend_elements
from perceivers.cross_attention.tiles import GridFeatures
from perceivers.cross_attention.triton import dispatch as triton_dispatch
from perceivers.inputs.elements import Elements, GridPositions
from support.tolerance import READ_FLOOR, READ_TIMES, relative_error

if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
    pytest.skip("needs a GPU with CUDA, and Triton", allow_module_level=True)


def elements(sizes, content, batch, width):
    """Return a grid on the GPU, with tables of `width` channels each."""
    axes = len(sizes)
    channels = torch.randperm(axes * width).view(axes, width).tolist()
    tables = tuple(torch.randn(n, width, device="cuda") for n in sizes)
    values = torch.randn(batch, math.prod(sizes), content, device="cuda")
    return Elements(values, GridPositions(tables, tuple(map(tuple, channels))))


SIZES = [
    ((224, 224), 3, 1, 129, 512),  # the 2021 ImageNet model
    ((56, 56), 64, 4, 129, 512),  # a convolved stem
    ((16, 112, 112), 3, 1, 64, 128),  # a clip
    ((12_288,), 1, 2, 129, 300),  # a wave
]


@pytest.mark.parametrize(("sizes", "content", "batch", "width", "rows"), SIZES)
def test_kernels_are_as_exact_as_the_streaming_read(
    monkeypatch, sizes, content, batch, width, rows
):
    whole = elements(sizes, content, batch, width)
    vectors = 0.3 * torch.randn(batch, whole.num_channels, rows, device="cuda")
    gradient = torch.randn_like(vectors)
    assert triton_dispatch.available(vectors)

    def results(dtype):
        tables = tuple(table.to(dtype) for table in whole.positions.tables)
        grid = GridPositions(tables, whole.positions.channels)
        part = GridFeatures(Elements(whole.content.to(dtype), grid), 1e-5, dtype)
        p = vectors.to(dtype)
        u, log_sum = triton_dispatch.attention_forward(p, [part])
        needed = [[True] * (1 + len(sizes))]
        delta = (gradient.to(dtype) * u).sum(dim=1)
        dp, found = triton_dispatch.attention_backward(
            gradient.to(dtype), delta, p, log_sum, [part], needed
        )
        return [u, log_sum, dp, *found]

    with monkeypatch.context() as patch:
        patch.setenv(triton_dispatch.SWITCH, "0")
        expected, streamed = results(torch.float64), results(torch.float32)
    with monkeypatch.context() as patch:  # what the streaming read would be called for is an error
        patch.setattr(streaming, "attention_forward", None)
        patch.setattr(streaming, "attention_backward", None)
        found = results(torch.float32)
    for actual, near, exact in zip(found, streamed, expected, strict=True):
        allowed = max(READ_TIMES * relative_error(near, exact), READ_FLOOR)
        assert relative_error(actual, exact) <= allowed


def test_a_read_of_pixels_takes_the_kernels_without_a_warning():
    whole = elements((64, 64), 3, 2, 33)
    vectors = torch.randn(1, whole.num_channels, 32, device="cuda", requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attend_elements(vectors, [whole], eps=1e-5, use_grid=True)[0].sum().backward()
    assert vectors.grad.isfinite().all()
    assert not triton_dispatch.FAILED


def test_memory_does_not_grow_with_elements_beyond_the_input():
    held = []
    for side in (512, 1024):
        whole = elements((side, side), 3, 1, 129)
        vectors = torch.randn(1, whole.num_channels, 512, device="cuda", requires_grad=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend_elements(vectors, [whole], eps=1e-5, use_grid=True)[0].sum().backward()
        held.append(torch.cuda.max_memory_allocated() - before)
    assert held[1] < 200 * 2**20
