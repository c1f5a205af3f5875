"""The kernels against the streaming read in float64: on a GPU, or in Triton's interpreter on the CPU.

Without a GPU this file runs in a process that starts with TRITON_INTERPRET=1, which Triton reads when it is
imported; tests/unit/test_triton.py starts one.
"""

import math
import os

import pytest
import torch

from perceivers.cross_attention import streaming
from perceivers.cross_attention.tiles import GridFeatures
from perceivers.inputs.elements import Elements, GridPositions
from support.tolerance import READ_FLOOR, READ_TIMES, relative_error

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
pytest.importorskip("triton", reason="needs Triton: pip install 'perceivers[kernels]'")
if DEVICE == "cpu" and not INTERPRETED:
    reason = "needs a GPU, or Triton's interpreter: TRITON_INTERPRET=1 pytest tests/kernels"
    pytest.skip(reason, allow_module_level=True)

from perceivers.cross_attention.operator import attend_elements  # noqa: E402
from perceivers.cross_attention.triton import cross_attention as triton_launch  # noqa: E402
from perceivers.cross_attention.triton import cross_attention as triton_read  # noqa: E402
from perceivers.cross_attention.triton import dispatch as triton_dispatch  # noqa: E402

POSITIONS = 4  # channels of each table


def grid(sizes, *, content=3, batch=2, tag=0, masked=None, offset=0.0, spread=1.0, dtype=None):
    """Return elements on a grid; where they are masked their content is nan."""
    count, axes = math.prod(sizes), len(sizes)
    channels = torch.randperm(axes * POSITIONS).view(axes, POSITIONS).tolist()
    tables = tuple(torch.randn(n, POSITIONS) for n in sizes)
    values = torch.randn(batch, count, content) * spread + offset
    mask = None
    if masked is not None:
        mask = torch.rand(batch, count) >= masked
        mask[0] = mask[0] & (batch == 1)  # of several samples the first has nothing
        values = values.masked_fill(~mask[..., None], float("nan"))
    return Elements(
        values.to(dtype or torch.float32).to(DEVICE),
        GridPositions(tuple(t.to(DEVICE) for t in tables), tuple(map(tuple, channels))),
        torch.randn(tag).to(DEVICE) if tag else None,
        None if mask is None else mask.to(DEVICE),
    )


def features(elements, dtype):
    """Return the same elements as features, everything in one precision."""
    positions = elements.positions
    tables = tuple(table.to(dtype) for table in positions.tables)
    tag = None if elements.modality_embedding is None else elements.modality_embedding.to(dtype)
    content = elements.content.to(dtype) if dtype == torch.float64 else elements.content
    whole = Elements(content, GridPositions(tables, positions.channels), tag, elements.mask)
    return GridFeatures(whole, 1e-5, dtype)


def results(module, segments, vectors, dtype, needed=None):
    """Return what a module's read gives, forward and backward."""
    parts = [features(segment, dtype) for segment in segments]
    vectors = vectors.to(dtype)
    u, log_sum = module.attention_forward(vectors, parts)
    gradient = torch.randn(u.shape, generator=torch.Generator().manual_seed(1)).to(u)
    if needed is None:
        needed = []
        for part in parts:
            floats = 1 + len(part.sizes) + (part.modality_embedding is not None)
            needed.append([True] * floats + [False] * (part.mask is not None))
    delta = (gradient * u).sum(dim=1) - torch.linspace(-1, 1, log_sum.numel()).view_as(log_sum).to(
        u
    )
    dp, found = module.attention_backward(gradient, delta, vectors, log_sum, parts, needed)
    return {"u": u, "log_sum": log_sum, "dp": dp} | {
        f"tensor {number}": own for number, own in enumerate(found) if own is not None
    }


def assert_as_good(segments, rows, *, shared=False, size=0.4, needed=None):
    """Assert that the kernels are as near to float64 as the streaming read in float32 is."""
    batch = 1 if shared else segments[0].content.shape[0]
    vectors = size * torch.randn(batch, segments[0].num_channels, rows).to(DEVICE)
    expected = results(streaming, segments, vectors, torch.float64, needed)
    streamed = results(streaming, segments, vectors, torch.float32, needed)
    found = results(triton_read, segments, vectors, torch.float32, needed)
    assert found.keys() == expected.keys()
    for name, actual in found.items():
        assert actual.dtype == streamed[name].dtype
        assert actual.shape == expected[name].shape, name
        assert actual.isfinite().all(), name
        allowed = READ_TIMES * relative_error(streamed[name], expected[name])
        assert relative_error(actual, expected[name]) <= max(allowed, READ_FLOOR), name


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Let even small grids need several blocks, programs and launches."""
    monkeypatch.setattr(triton_launch, "ROWS", 16)
    monkeypatch.setattr(triton_launch, "WIDE_ROWS", 16)
    monkeypatch.setattr(triton_launch, "LEAST_LINES", 2)


@pytest.mark.parametrize("content", [1, 2, 3, 4, 5, 20])
def test_any_content_on_two_axes(content):
    assert_as_good([grid((5, 19), content=content)], 19)


@pytest.mark.parametrize("sizes", [(37,), (3, 2, 17), (1, 16), (4, 8)])
def test_any_number_of_axes(sizes):
    assert_as_good([grid(sizes, tag=2)], 5)


@pytest.mark.parametrize("content", [3, 20])
def test_masks_hide_nan_and_may_hide_a_whole_sample(content):
    segments = [grid((4, 18), content=content, batch=3, tag=1, masked=0.4)]
    assert_as_good(segments, 17)
    vectors = torch.randn(3, segments[0].num_channels, 17).to(DEVICE)
    u, log_sum = triton_read.attention_forward(vectors, [features(segments[0], torch.float32)])
    assert not u[0].any()
    assert not log_sum[0].any()


@pytest.mark.parametrize("content", [3, 20])
def test_one_query_for_all_samples(content):
    assert_as_good([grid((3, 20), content=content, batch=3, masked=0.2)], 6, shared=True)


def test_grids_of_several_modalities_share_one_softmax():
    first = grid((4, 17), content=3, tag=5, masked=0.3)
    second = grid((21,), content=9, tag=3)
    assert_as_good([first, second], 18)


def test_constant_content_with_a_large_offset():
    assert_as_good([grid((4, 17), content=9, offset=1e3, spread=0.0)], 5)


def test_content_that_varies_around_a_large_offset():
    assert_as_good([grid((4, 17), content=9, offset=1e3)], 5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_logits(sign):
    segments = [grid((4, 17), masked=0.2)]
    vectors = sign * 1e4 * torch.randn(2, segments[0].num_channels, 5).to(DEVICE)
    expected = results(streaming, segments, vectors, torch.float64)
    streamed = results(streaming, segments, vectors, torch.float32)
    found = results(triton_read, segments, vectors, torch.float32)
    for name, actual in found.items():
        assert actual.isfinite().all(), name
        # Attention is on one element, so gradients through the scores are rounding, times the queries.
        floor = READ_FLOOR * (expected[name].norm() + (name.startswith("tensor")) * vectors.norm())
        allowed = READ_TIMES * (streamed[name] - expected[name]).norm() + floor
        assert (actual - expected[name]).norm() <= allowed, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_content_of_half_precision_is_computed_in_float32(dtype):
    segments = [grid((4, 17), dtype=dtype) for _ in range(2)]
    assert_as_good(segments, 5, needed=[[False, True, True]] * 2)
    vectors = torch.randn(2, segments[0].num_channels, 5).to(DEVICE)
    streamed = results(streaming, segments, vectors, torch.float32)
    found = results(triton_read, segments, vectors, torch.float32)
    for name in ("tensor 0", "tensor 3"):  # content, rounded at the end
        assert found[name].dtype == dtype
        assert relative_error(found[name], streamed[name]) <= torch.finfo(dtype).eps


@pytest.mark.parametrize(
    "needed", [[True, False, False], [False, True, False], [False, False, True], [False] * 3]
)
def test_only_the_gradients_that_are_needed(needed):
    assert_as_good([grid((4, 17))], 5, needed=[needed])


def test_slabs_of_samples_and_of_lines_give_the_same(monkeypatch):
    segments = [grid((6, 17), batch=3, masked=0.2)]
    vectors = torch.randn(3, segments[0].num_channels, 5).to(DEVICE)
    whole = results(triton_read, segments, vectors, torch.float32)
    for numbers in (1, 400):
        monkeypatch.setattr(triton_launch, "PARTIAL_NUMBERS", numbers)
        for name, actual in results(triton_read, segments, vectors, torch.float32).items():
            assert relative_error(actual, whole[name]) <= READ_FLOOR, name


def test_results_repeat_bit_by_bit():
    segments = [grid((6, 17), batch=2)]
    vectors = torch.randn(2, segments[0].num_channels, 5).to(DEVICE)
    first = results(triton_read, segments, vectors, torch.float32)
    for name, actual in results(triton_read, segments, vectors, torch.float32).items():
        assert torch.equal(actual, first[name])


def test_content_is_read_where_it_lies():
    """A picture's channels come first in memory; nothing is copied to read it."""
    elements = grid((4, 17))
    apart = elements.content.transpose(1, 2).contiguous().transpose(1, 2)
    assert not apart.is_contiguous()
    vectors = torch.randn(2, elements.num_channels, 5).to(DEVICE)
    moved = Elements(apart, elements.positions)
    first = results(triton_read, [elements], vectors, torch.float32)
    for name, actual in results(triton_read, [moved], vectors, torch.float32).items():
        assert torch.equal(actual, first[name])


def test_the_operator_takes_the_kernels_and_autograd_runs_through_them(monkeypatch):
    used = []

    def watched(name):
        own = getattr(triton_read, name)
        monkeypatch.setattr(triton_read, name, lambda *args: (used.append(name), own(*args))[1])

    watched("attention_forward")
    watched("attention_backward")
    elements = grid((4, 17), tag=2, masked=0.3)
    leaves = [elements.content, *elements.positions.tables, elements.modality_embedding]
    vectors = torch.randn(2, elements.num_channels, 5).to(DEVICE)
    weights = torch.randn_like(vectors)
    found = {}
    for way in (False, True):
        monkeypatch.setattr(triton_dispatch, "available", lambda _, way=way: way)
        own = [x.detach().clone().requires_grad_() for x in (vectors, *leaves)]
        grids = GridPositions(tuple(own[2:4]), elements.positions.channels)
        whole = Elements(own[1], grids, own[4], elements.mask)
        u, _ = attend_elements(own[0], [whole], eps=1e-5, use_grid=True)
        (u * weights).sum().backward()
        found[way] = [u.detach(), *(x.grad for x in own)]
    assert used == ["attention_forward", "attention_backward"]
    for actual, expected in zip(found[True], found[False], strict=True):
        assert relative_error(actual, expected) <= READ_TIMES * READ_FLOOR
