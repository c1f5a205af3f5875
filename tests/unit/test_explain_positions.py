"""Similarity of learned positions: ranks of neighbors, order of permuted elements, and figures."""

import math
from dataclasses import replace

import pytest
import torch

from perceivers.explain.positions import (
    PositionTable,
    neighbor_rank,
    position_tables,
    rank_sentence,
    shown_places,
    similarity,
    similarity_figure,
)
from perceivers.inputs.array import ArrayInputConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import LearnedPositionsConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.hip_config import HiPConfig, hip_blocks
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig

HIP = HiPConfig(
    blocks=hip_blocks(num_groups=(2, 1, 2), num_latents=(4, 4, 4), channels=(8, 8, 8)),
    embed_channels=8,
)


def smooth(axes: tuple[int, ...]) -> PositionTable:
    """Return vectors whose similarity falls with the distance of the places: Gaussians around anchors."""
    cells = torch.cartesian_prod(*[torch.arange(n).double() for n in axes]).reshape(-1, len(axes))
    squares = torch.cdist(cells, cells).square()
    return PositionTable(vectors=(-squares / 8).exp(), axes=axes)


@pytest.mark.parametrize(("axes", "best"), [((30,), 1.48), ((12, 10), 2.36), ((4, 5, 6), 2.96)])
def test_neighbors_of_smooth_positions_have_the_best_rank(axes, best):
    found = neighbor_rank(smooth(axes))
    assert found.best == pytest.approx(best, abs=0.01)
    assert found.best <= found.mean + 1e-6 < 1.25 * found.best


def test_neighbors_of_random_positions_have_half_of_all_ranks():
    generator = torch.Generator().manual_seed(0)
    table = PositionTable(vectors=torch.randn(900, 32, generator=generator), axes=(30, 30))
    found = neighbor_rank(table)
    assert found.random == 450
    assert found.mean == pytest.approx(450, rel=0.05)
    same = PositionTable(vectors=torch.ones(900, 4), axes=(30, 30))
    assert neighbor_rank(same).mean == pytest.approx(450, rel=0.01)
    assert "450.0 that of a random order" in rank_sentence("image", found)


def model_of(*, permute=None):
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(6, 8), positions=None)},
        encoder=HIP,
        output=MeanPoolConfig(num_outputs=2),
        permute=permute,
    )
    return build(config)


def test_places_are_in_the_order_of_the_input_although_elements_are_permuted():
    plain, permuted = model_of(), model_of(permute=7)
    vectors = smooth((6, 8)).vectors[:, :8].float()
    with torch.no_grad():
        plain.encoder.trunk.positions["image"].copy_(vectors)
        order = permuted.element_order("image", 48)
        permuted.encoder.trunk.positions["image"].copy_(vectors[order])
    first, second = (position_tables(model)["image"] for model in (plain, permuted))
    assert first.axes == second.axes == (6, 8)
    assert torch.equal(first.vectors, second.vectors)
    assert neighbor_rank(first) == neighbor_rank(second)


def test_positions_of_input_adapters_are_found_and_fourier_features_are_not():
    inputs = {
        "image": PixelInputConfig(size=(6, 8), positions=LearnedPositionsConfig(channels=8)),
        "array": ArrayInputConfig(length=12, num_channels=3, num_coordinates=0),
        "fourier": PixelInputConfig(size=(6, 8)),
    }
    config = PerceiverConfig(
        inputs=inputs,
        encoder=replace(
            PerceiverEncoderConfig(),
            num_latents=2,
            latent_channels=8,
            num_blocks=1,
            num_cross_attends=1,
        ),
        output=MeanPoolConfig(num_outputs=2),
    )
    found = position_tables(build(config))
    assert {name: table.axes for name, table in found.items()} == {"image": (6, 8), "array": (12,)}


@pytest.mark.parametrize("axes", [(30,), (6, 8), (1, 5), (3, 4, 6)])
def test_few_places_are_drawn_with_all_others(axes):
    pytest.importorskip("matplotlib")
    table = smooth(axes)
    places = shown_places(axes)
    assert places.unique().shape == places.shape
    assert int(places.max()) < math.prod(axes)
    values = similarity(table, places)
    assert torch.equal(values.argmax(dim=1), places)
    figure = similarity_figure("x", table)
    drawn = [axis for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    assert len(drawn) == (0 if len(axes) == 1 else places.shape[0])
    for axis, place in zip(drawn, places.tolist(), strict=False):
        grid = axis.images[0].get_array()
        row, column = divmod(place % (axes[-2] * axes[-1]), axes[-1])
        assert grid.argmax() == row * axes[-1] + column
