"""Padding changes nothing, and what is missing is as if it were masked: for every modality, whatever the weights."""

from typing import Any

import numpy as np
import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.registry import build_modality
from support.files import RATE
from support.modality_data import frames, points, sentence, series, tone
from support.models import preprocess_of, untrained
from support.tolerance import assert_close

KINDS = (
    *("audio", "wave", "video", "points", "text", "series", "irregular", "array", "places"),
    "table",
)
SEEDS = (0, 1, 2)
POOLS = ((), ("mean",), ("mean", "max"))


def cell(kind: str, seed: int, share: float) -> EncodedItem:
    """Return a cell of a length that is this share of the longest sample."""
    rng = np.random.default_rng(seed)
    value: Any
    if kind in ("audio", "wave"):
        value = {"array": tone(seed % 2, seed, seconds=0.4 * share), "sampling_rate": RATE}
    elif kind == "video":
        count = max(1, round(8 * share))
        value = {"frames": frames(seed % 2, seed, count=count, width=16), "frame_rate": 10.0}
    elif kind == "points":
        value = points(seed % 2, seed, count=max(2, round(32 * share)))
    elif kind == "text":
        value = (sentence(seed % 2, seed) * 40)[: max(3, round(256 * share))]
    elif kind in ("series", "irregular"):
        value = {k: v.copy() for k, v in series(0, seed, length=max(2, round(32 * share))).items()}
        if kind == "series":
            value["x"][1:3] = np.nan
        else:
            value["time"] = value["time"] * 1.3 + rng.uniform(0, 0.02, value["time"].shape)
    elif kind in ("array", "places"):
        count = max(1, round(24 * share))
        value = {"values": rng.standard_normal((count, 3))}
        if kind == "places":
            value["positions"] = rng.uniform(-1, 1, (count, 2))
    else:
        value = {"age": rng.normal() if share == 1 else None, "color": "blue"}
    return EncodedItem(f"{kind} {seed}", value=value)


def prepared(kind: str, seed: int, share: float) -> Any:
    modality = build_modality(preprocess_of(kind))
    return modality.transform(modality.decode(cell(kind, seed, share)).value)


def collated(kind: str, *samples: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    values, mask = build_modality(preprocess_of(kind)).collate(samples)
    return (values.double() if values.is_floating_point() else values), mask


def masks_of(kind: str, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {} if mask is None else {kind: mask}


def outputs_and_gradients(model, kind, x, mask) -> list[torch.Tensor]:
    """Return what the model says of the first sample, and the gradients of its sum of squares."""
    model.zero_grad()
    out = model({kind: x}, masks_of(kind, mask))[:1]
    out.square().sum().backward()
    grads = [p.grad.clone() for _, p in sorted(model.named_parameters()) if p.grad is not None]
    return [out.detach(), *grads]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_sample_alone_is_as_beside_longer_ones(kind, seed):
    share = np.random.default_rng(seed).uniform(0.2, 0.8)
    short, long = prepared(kind, seed, share), prepared(kind, seed + 10, 1.0)
    model = untrained(kind, element_pools=POOLS[seed])[0].double()
    alone, beside = collated(kind, short), collated(kind, short, long)
    if kind not in ("video", "table", "text"):  # these have one length, or steps of it
        assert alone[0].shape[1] < beside[0].shape[1]
    assert beside[1] is not None
    assert not beside[1][0].all()
    for found, expected in zip(
        outputs_and_gradients(model, kind, *beside),
        outputs_and_gradients(model, kind, *alone),
        strict=True,
    ):
        assert_close(found, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
@pytest.mark.parametrize("garbage", [1e4, float("nan")])
def test_what_stands_in_padding_reaches_nothing(kind, garbage):
    short, long = prepared(kind, 3, 0.4), prepared(kind, 4, 1.0)
    model = untrained(kind, element_pools=POOLS[-1])[0].double()
    x, mask = collated(kind, short, long)
    assert mask is not None
    clean = model({kind: x}, {kind: mask})
    x = x.clone()
    x[~mask.expand(x.shape[:2])] = garbage
    x.requires_grad_()
    out = model({kind: x}, {kind: mask})
    assert_close(out.detach(), clean.detach())
    if kind in ("series", "irregular"):
        return  # the fixed kernels of series pass on no gradient
    out.square().sum().backward()
    assert (x.grad[~mask.expand(x.shape[:2])] == 0).all()
    assert (x.grad[mask.expand(x.shape[:2])] != 0).any()


def test_the_bytes_behind_a_text_reach_nothing():
    model = untrained("text")[0].double()
    x, mask = collated("text", prepared("text", 3, 0.3), prepared("text", 4, 1.0))
    clean = model({"text": x}, {"text": mask})
    other = torch.where(mask, x, torch.full_like(x, 77))
    assert not torch.equal(other, x)
    assert_close(model({"text": other}, {"text": mask}).detach(), clean.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_modality_that_is_left_out_is_as_one_that_is_masked(kind):
    model = untrained("image", kind, element_pools=POOLS[-1])[0].double()
    pictures = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    left_out = model({"image": pictures})
    missing, mask = collated(kind, None, None)
    assert mask is not None
    assert not mask.any()
    assert_close(
        model({"image": pictures, kind: missing}, {kind: mask}).detach(), left_out.detach()
    )
    # One sample lacks it, the other does not: the first is as without, the second as alone.
    sample = prepared(kind, 5, 1.0)
    some, mask = collated(kind, None, sample)
    out = model({"image": pictures, kind: some}, {kind: mask})
    full, whole = collated(kind, sample)
    alone = model({"image": pictures[1:], kind: full}, masks_of(kind, whole))
    assert_close(out[:1].detach(), left_out[:1].detach())
    assert_close(out[1:].detach(), alone.detach())
    assert not torch.allclose(out[1:], left_out[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_that_lacks_the_picture_is_as_one_without_the_column(kind):
    model = untrained("image", kind, element_pools=POOLS[-1])[0].double()
    full, mask = collated(kind, prepared(kind, 6, 1.0))
    alone = model({kind: full}, masks_of(kind, mask))
    garbage = torch.full((1, 3, 8, 8), float("nan"), dtype=torch.float64)
    masks = {"image": torch.zeros(1, 1, dtype=torch.bool), **masks_of(kind, mask)}
    assert_close(model({"image": garbage, kind: full}, masks).detach(), alone.detach())
