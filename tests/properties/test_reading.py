"""Every way to read gives the numbers of the papers' formulas: forward, and all gradients."""

import math
from contextlib import contextmanager
from statistics import geometric_mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.cross_attention import streaming
from perceivers.cross_attention.source import ElementSource
from perceivers.inputs.elements import Elements, GridPositions, MaskedElements
from perceivers.nn.blocks import CrossAttend
from support.tolerance import EXACT, READ_FLOOR, READ_TIMES, relative_error

WIDTH = 14
PATHS = ("structured", "absorbed")
several = settings(max_examples=60)


@st.composite
def segments(draw, batch):
    """One modality: what it has, how long it is, and how its numbers are spread."""
    kind = draw(st.sampled_from(["grid", "grid", "shared", "own", "none"]))
    axes = draw(st.integers(1, 3)) if kind == "grid" else 1
    sizes = tuple(draw(st.integers(1, 40 if axes == 1 else 9)) for _ in range(axes))
    tag = draw(st.integers(0, 3))
    positions = 0 if kind == "none" else draw(st.integers(1, 3)) * axes
    return {
        "kind": kind,
        "sizes": sizes,
        "tag": tag,
        "positions": positions,
        "content": WIDTH - tag - positions,
        "masked": draw(st.sampled_from([None, 0.3, 1.0])),
        "hidden": draw(st.booleans()) and kind != "grid",
        "offset": draw(st.sampled_from([0.0, 0.0, 1e3])),
        "spread": draw(st.sampled_from([1.0, 1.0, 0.0])),
    }


@st.composite
def problems(draw):
    """Some modalities and the cross-attend that reads them."""
    batch = draw(st.integers(1, 3))
    return {
        "batch": batch,
        "segments": [draw(segments(batch)) for _ in range(draw(st.integers(1, 3)))],
        "latents": draw(st.integers(1, 5)),
        "heads": draw(st.sampled_from([1, 2])),
        "logits": draw(st.sampled_from([1.0, 1.0, 1e4])),
        "alike": draw(st.booleans()),  # one query for all samples, as in the first read
        "chunk": draw(st.sampled_from([1, 1000, 1_000_000])),
        "seed": draw(st.integers(0, 2**16)),
    }


def make_segment(spec, batch, generator):
    """Return the elements of a modality in float64, all of whose tensors want gradients."""

    def normal(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.float().double()  # so that float32 starts from the same numbers

    count = math.prod(spec["sizes"])
    content = normal(batch, count, spec["content"]) * spec["spread"] + spec["offset"]
    positions = None
    if spec["kind"] == "grid":
        width = spec["positions"] // len(spec["sizes"])
        channels = torch.randperm(spec["positions"], generator=generator).view(-1, width).tolist()
        tables = tuple(normal(n, width).requires_grad_() for n in spec["sizes"])
        positions = GridPositions(tables, tuple(map(tuple, channels)))
    elif spec["kind"] == "shared":
        positions = normal(count, spec["positions"]).requires_grad_()
    elif spec["kind"] == "own":
        positions = normal(batch, count, spec["positions"]).requires_grad_()
    mask = None
    if spec["masked"] is not None:
        mask = torch.rand(batch, count, generator=generator) >= spec["masked"]
        content = content.masked_fill(~mask[..., None], float("nan"))
    replaced = None
    if spec["hidden"]:
        where = torch.rand(batch, count, generator=generator) < 0.4
        replaced = MaskedElements(where, normal(WIDTH).requires_grad_())
    tag = normal(spec["tag"]).requires_grad_() if spec["tag"] else None
    return Elements(content.requires_grad_(), positions, tag, mask, replaced)


def leaves(segment):
    found = [segment.content]
    if isinstance(segment.positions, GridPositions):
        found += segment.positions.tables
    elif segment.positions is not None:
        found.append(segment.positions)
    found += [] if segment.modality_embedding is None else [segment.modality_embedding]
    return found + ([] if segment.masked is None else [segment.masked.token])


def converted(segment, dtype):
    """Return the same elements in another precision, as leaves of their own."""

    def own(tensor):
        return tensor.detach().to(dtype).requires_grad_()

    positions = segment.positions
    if isinstance(positions, GridPositions):
        positions = GridPositions(tuple(own(t) for t in positions.tables), positions.channels)
    elif positions is not None:
        positions = own(positions)
    replaced = segment.masked
    if replaced is not None:
        replaced = MaskedElements(replaced.where, own(replaced.token))
    tag = None if segment.modality_embedding is None else own(segment.modality_embedding)
    return Elements(own(segment.content), positions, tag, segment.mask, replaced)


def run(problem, path, dtype):
    """Return what was read and the gradients of everything, by name."""
    generator = torch.Generator().manual_seed(problem["seed"])
    made = [make_segment(spec, problem["batch"], generator) for spec in problem["segments"]]
    torch.manual_seed(problem["seed"])
    layer = CrossAttend(8, WIDTH, num_heads=problem["heads"], qk_channels=6, v_channels=4)
    with torch.no_grad():
        layer.attention.to_key.bias.normal_()
        layer.source_norm.weight.normal_(1.0, 0.3)
        layer.source_norm.bias.normal_()
        layer.attention.to_query.weight.mul_(problem["logits"])
    layer = layer.to(dtype)
    batch = 1 if problem["alike"] else problem["batch"]
    latents = torch.randn(batch, problem["latents"], 8, generator=generator).to(dtype)
    latents = latents.requires_grad_()
    weights = torch.randn(problem["batch"], problem["latents"], 8, generator=generator)
    made = [converted(segment, dtype) for segment in made]
    read = layer(latents, ElementSource(made, implementation=path, dtype=dtype))
    (read * weights.to(dtype)).sum().backward()
    found = {"read": read.detach(), "latents": latents.grad}
    for number, segment in enumerate(made):
        for part, tensor in enumerate(leaves(segment)):
            found[f"segment {number}, tensor {part}"] = tensor.grad
    found |= {name: p.grad for name, p in layer.named_parameters()}
    return found


def scales(expected, logits=1.0):
    """Return, for each result, the norm by which its error is judged.

    A gradient through the scores is a difference, attention x (G . x - G . u), times the queries' or the
    elements' weights. Where attention is on one element the difference is zero but for rounding,
    whatever the weights: so it is judged by the values' gradient times the size of the logits.
    """
    value = expected["attention.to_value.weight"].norm() * logits
    beside_scores = ("read", "to_value", "to_output", "source_norm.bias", "mlp")
    return {
        name: max(tensor.norm(), 0.0 if any(s in name for s in beside_scores) else value)
        for name, tensor in expected.items()
    }


@contextmanager
def chunks(numbers):
    """Cut what is read into smaller pieces than usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "CHUNK_NUMBERS", numbers)
        patch.setattr(streaming, "GROUP_NUMBERS", numbers)
        yield


@several
@given(problem=problems())
def test_in_float64_all_ways_are_one(problem):
    expected = run(problem, "projected", torch.float64)
    norms = scales(expected)
    for path in PATHS:
        with chunks(problem["chunk"]):
            found = run(problem, path, torch.float64)
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            error = (tensor - expected[name]).norm()
            allowed = EXACT * max(1.0, problem["logits"] / 10) * max(norms[name], 1e-3)
            assert error <= allowed, (path, name, error, allowed)


@several
@given(problem=problems())
def test_in_float32_no_way_is_much_less_exact_than_the_formulas(problem):
    expected = run(problem, "projected", torch.float64)
    plain = run(problem, "projected", torch.float32)
    norms = scales(expected, problem["logits"])
    for path in PATHS:
        with chunks(problem["chunk"]):
            found = run(problem, path, torch.float32)
        for name, tensor in found.items():
            allowed = READ_TIMES * (plain[name] - expected[name]).norm()
            allowed += READ_FLOOR * max(1.0, problem["logits"] / 10) * norms[name]
            error = (tensor - expected[name]).norm()
            assert error <= allowed, (path, name, error, allowed, norms[name])


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("logits", [1.0, 1e4])
@pytest.mark.parametrize("sizes", [(400,), (20, 20), (6, 8, 9)])
def test_over_many_elements_the_error_is_that_of_the_formulas(sizes, logits, offset):
    """Without any allowance for luck, over enough numbers.

    The geometric mean of several draws: large logits make a near tie now and then, where one rounding decides a
    gradient, and such a draw may count as one of seven but not drown the others.
    """
    spec = {"kind": "grid", "sizes": sizes, "tag": 4, "positions": 6, "content": 4}
    spec |= {"masked": 0.3, "hidden": False, "offset": offset, "spread": 1.0}
    problem = {"batch": 3, "segments": [spec], "latents": 40, "heads": 2, "logits": logits}
    ours: dict[tuple[str, str], list[float]] = {}
    theirs: dict[str, list[float]] = {}
    for seed in range(7):
        problem |= {"alike": False, "seed": seed}
        expected = run(problem, "projected", torch.float64)
        # What comes after the read only passes its rounding on, and the keys' bias has no gradient.
        names = [n for n in expected if not n.startswith(("mlp", "attention.to_output"))]
        names.remove("attention.to_key.bias")
        plain = run(problem, "projected", torch.float32)
        for name in names:
            theirs.setdefault(name, []).append(relative_error(plain[name], expected[name]))
        for path in PATHS:
            found = run(problem, path, torch.float32)
            for name in names:
                error = relative_error(found[name], expected[name])
                ours.setdefault((path, name), []).append(error)
    for (path, name), errors in ours.items():
        mean, other = (geometric_mean([max(e, 1e-12) for e in x]) for x in (errors, theirs[name]))
        assert mean <= READ_TIMES * other, (path, name)
