"""When the kernels of a GPU are taken; what they compute is tested by tests/kernels."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

import perceivers.cross_attention
from perceivers.cross_attention.dense import DenseFeatures
from perceivers.cross_attention.operator import attend_elements
from perceivers.cross_attention.tiles import GridFeatures
from perceivers.cross_attention.triton import dispatch as triton_dispatch
from perceivers.inputs.elements import Elements, GridPositions

KERNELS = Path(__file__).parent.parent / "kernels"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton: pip install 'perceivers[kernels]'",
)


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = True
    device = torch.device("cuda:7")


@pytest.fixture
def gpu(monkeypatch):
    """Return a tensor on a GPU for which there are kernels."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(triton_dispatch, "find_spec", lambda _: "found")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(triton_dispatch, "FAILED", set())
    triton_dispatch._capable.cache_clear()
    yield torch.zeros(1).as_subclass(OnGpu)
    triton_dispatch._capable.cache_clear()


def elements(*, sizes=(3, 8), content=3, dtype=torch.float32):
    tables = tuple(torch.randn(n, 2) for n in sizes)
    channels = tuple((2 * axis, 2 * axis + 1) for axis in range(len(sizes)))
    count = sizes[0] * sizes[1]
    return Elements(torch.randn(1, count, content).to(dtype), GridPositions(tables, channels))


def test_a_gpu_with_triton_has_kernels(gpu):
    assert triton_dispatch.available(gpu)


def test_a_cpu_has_none():
    assert not triton_dispatch.available(torch.zeros(1))


def test_the_environment_turns_them_off(gpu, monkeypatch):
    monkeypatch.setenv("PERCEIVERS_KERNELS", "0")
    assert not triton_dispatch.available(gpu)


@pytest.mark.parametrize("missing", ["triton", "cuda", "capability"])
def test_there_are_none_without(gpu, monkeypatch, missing):
    if missing == "triton":
        monkeypatch.setattr(triton_dispatch, "find_spec", lambda _: None)
    elif missing == "cuda":  # other makers' GPUs call themselves cuda, too
        monkeypatch.setattr(torch.version, "cuda", None)
    else:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    assert not triton_dispatch.available(gpu)


def test_which_segments_suit():
    def suits(kind=GridFeatures, dtype=torch.float32, rows=4, **what):
        return triton_dispatch.suits(kind(elements(**what), 1e-5, dtype), rows)

    assert suits()
    assert suits(content=64)
    assert not suits(kind=DenseFeatures)
    assert not suits(content=65)
    assert not suits(sizes=(8, 7))
    assert not suits(rows=2**30)
    assert not triton_dispatch.suits(
        GridFeatures(elements(dtype=torch.float64), 1e-5, torch.float64), 4
    )
    assert not triton_dispatch.suits(
        GridFeatures(elements(dtype=torch.float64), 1e-5, torch.float32), 4
    )


def read(segments, rows=4):
    """Return what is read, and the gradient of the queries."""
    torch.manual_seed(3)
    vectors = torch.randn(1, segments[0].num_channels, rows, requires_grad=True)
    u, _ = attend_elements(vectors, segments, eps=1e-5, use_grid=True)
    u.square().sum().backward()
    return u.detach(), vectors.grad


@pytest.fixture
def kernels(monkeypatch):
    """Put a module in the place of the kernels' read, and let the CPU have kernels."""
    module = types.ModuleType("perceivers.cross_attention.triton.cross_attention")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(perceivers.cross_attention, "triton_read", module, raising=False)
    monkeypatch.setattr(triton_dispatch, "FAILED", set())
    monkeypatch.setattr(
        triton_dispatch, "available", lambda t: t.device not in triton_dispatch.FAILED
    )
    return module


def test_kernels_read_where_all_segments_suit(kernels):
    kernels.attention_forward = lambda vectors, parts: (
        torch.ones(1, 7, 4),
        torch.zeros(1, 4),
    )
    kernels.attention_backward = lambda gradient, delta, vectors, log_sum, parts, needed: (
        gradient * 3,
        [None] * len(needed[0]),
    )
    u, gradient = read([elements()])
    assert u.eq(1.0).all()
    assert gradient.eq(6.0).all()


def test_one_segment_that_does_not_suit_keeps_all_from_the_kernels(kernels):
    segments = [elements(), elements(sizes=(2, 3))]
    u, gradient = read(segments)  # the empty module would raise
    assert u.isfinite().all()
    assert gradient.isfinite().all()


def failing(*_):
    msg = "no such instruction"
    raise RuntimeError(msg)


@pytest.mark.parametrize("first", ["attention_forward", "attention_backward"])
def test_where_kernels_fail_one_warning_says_why_and_numbers_stay(kernels, monkeypatch, first):
    segments = [elements()]
    with monkeypatch.context() as patch:
        patch.setattr(triton_dispatch, "available", lambda _: False)
        expected = read(segments)
    kernels.attention_forward = kernels.attention_backward = failing
    if first == "attention_backward":
        from perceivers.cross_attention import streaming

        kernels.attention_forward = streaming.attention_forward
    with pytest.warns(RuntimeWarning, match="no such instruction") as caught:
        found = read(segments)
    assert [warning.category for warning in caught] == [RuntimeWarning]
    for actual, same in zip(found, expected, strict=True):
        assert torch.equal(actual, same)
    read(segments)  # and no second warning
    assert {torch.device("cpu")} == triton_dispatch.FAILED


def test_memory_that_runs_out_is_no_failure_of_the_kernels(kernels):
    def full(*_):
        raise torch.OutOfMemoryError

    kernels.attention_forward = full
    with pytest.raises(torch.OutOfMemoryError):
        read([elements()])
    assert not triton_dispatch.FAILED


def run(*command, **environment):
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@needs_triton
@pytest.mark.timeout(900)
def test_kernels_compute_what_the_streaming_read_does_in_the_interpreter():
    """The same tests run on a GPU, where there is one, without this."""
    without = (
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
    )  # the latter warns about xdist, if there
    out = run("-m", "pytest", "-q", *without, str(KERNELS), TRITON_INTERPRET="1")
    assert " passed" in out


@needs_triton
@pytest.mark.timeout(900)
def test_kernels_compile_for_gpus_that_are_not_there(tmp_path):
    out = run(
        str(KERNELS / "compile_for_gpus.py"), "75", "80", "90", TRITON_CACHE_DIR=str(tmp_path)
    )
    assert {line.split()[1] for line in out.splitlines()} == {"75", "80", "90"}
