"""The ways to read: which is taken, what crosses the operator's border, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from perceivers.cross_attention import streaming
from perceivers.cross_attention.choice import choose, operations
from perceivers.cross_attention.features import chunk_samples
from perceivers.cross_attention.grid import choose_tile
from perceivers.cross_attention.operator import (
    attend_elements,
    count_attention,
    describe,
    flatten,
    layouts,
    restore,
)
from perceivers.cross_attention.source import ElementSource
from perceivers.inputs.elements import Elements, GridPositions, MaskedElements
from perceivers.nn.attention import Attention
from perceivers.nn.blocks import CrossAttend
from support.tolerance import assert_close


def grid(*sizes, batch=1, content=3, width=20, **parts):
    """Return elements of a grid, with tables of `width` channels an axis."""
    count = torch.tensor(sizes).prod().item()
    tables = tuple(torch.randn(n, width) for n in sizes)
    channels = tuple(tuple(range(i * width, (i + 1) * width)) for i in range(len(sizes)))
    positions = GridPositions(tables, channels)
    return Elements(torch.randn(batch, count, content), positions, **parts)


PAPER = {"num_queries": 512, "num_heads": 1, "qk_channels": 261, "v_channels": 261}


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = True


class TestChoice:
    def test_single_pixels_are_read_as_a_grid(self):
        found = operations([grid(224, 224, width=129)], **PAPER)
        assert choose("auto", found).implementation == "structured"
        assert found["projected"] > 7 * found["structured"]

    def test_points_without_structure_are_absorbed(self):
        points = Elements(torch.randn(1, 20_000, 3), torch.randn(1, 20_000, 258))
        found = operations([points], **PAPER)
        assert set(found) == {"projected", "absorbed"}
        assert choose("auto", found).implementation == "absorbed"
        assert (
            choose("structured", found).implementation == "absorbed"
        )  # there is no grid to be read

    def test_many_narrow_heads_are_projected(self):
        narrow = PAPER | {"num_heads": 8}
        points = Elements(torch.randn(1, 20_000, 3), torch.randn(1, 20_000, 258))
        assert choose("auto", operations([points], **narrow)).implementation == "projected"

    def test_few_elements_are_projected(self):
        assert choose("auto", operations([grid(8, 8)], **PAPER)).implementation == "projected"

    def test_reads_with_the_same_weights_project_once(self):
        elements = [grid(64, 64)]
        once, seven = (operations(elements, **PAPER, reads=n)["projected"] for n in (1, 7))
        assert seven < once

    def test_hidden_elements_have_no_grid(self):
        hidden = MaskedElements(torch.ones(1, 50_176, dtype=torch.bool), torch.zeros(261))
        found = operations([grid(224, 224, width=129, masked=hidden)], **PAPER)
        assert "structured" not in found

    def test_what_was_chosen_can_be_asked(self):
        layer = CrossAttend(16, 261)
        source = ElementSource([grid(224, 224, width=129)]).normalized(layer.source_norm)
        assert source.choice(512, layer.attention).implementation == "structured"

    @pytest.mark.parametrize(
        ("side", "batch", "path"),
        [(224, 1, "projected"), (224, 8, "structured"), (512, 1, "structured")],
    )
    def test_a_gpu_streams_what_is_worth_its_launches(self, side, batch, path):
        layer, pixels = CrossAttend(16, 261), grid(side, side, width=129)
        content = pixels.content.expand(batch, -1, -1).as_subclass(OnGpu)
        source = ElementSource([replace(pixels, content=content)]).normalized(layer.source_norm)
        assert source.choice(512, layer.attention).implementation == path

    @pytest.mark.parametrize(
        ("sizes", "content"), [((224, 224), 3), ((7, 500), 64), ((32, 224, 224), 3), ((5000,), 1)]
    )
    def test_a_tile_covers_the_grid_with_little_beyond(self, sizes, content):
        tile = choose_tile(sizes, content)
        counts = [-(-n // t) for n, t in zip(sizes, tile, strict=True)]
        for n, t, count in zip(sizes, tile, counts, strict=True):
            assert t * count >= n > t * (count - 1)


class TestBorder:
    def test_segments_come_back_as_they_went(self):
        hidden = MaskedElements(torch.tensor([[True, False]]), torch.zeros(5))
        segments = [
            grid(2, 3, modality_embedding=torch.randn(4), mask=torch.ones(1, 6, dtype=torch.bool)),
            Elements(torch.randn(1, 2, 3), torch.randn(2, 2), masked=hidden),
            Elements(torch.randn(1, 2, 5)),
        ]
        tensors, description = flatten(segments), describe(segments)
        assert len(tensors) == sum(layout.num_tensors for layout in layouts(description))
        for ours, theirs in zip(restore(tensors, description), segments, strict=True):
            if theirs.mask is None or theirs.masked is None:
                assert_close(ours.dense(), theirs.dense())
            assert (ours.mask is None, ours.modality_embedding is None) == (
                theirs.mask is None,
                theirs.modality_embedding is None,
            )

    def test_the_operator_is_one_by_pytorch_s_own_rules(self):
        segments = [grid(3, 4, modality_embedding=torch.randn(2), batch=2)]
        vectors = torch.randn(1, 45, 3, requires_grad=True)
        arguments = (vectors, flatten(segments), describe(segments), 1e-5, True)
        torch.library.opcheck(torch.ops.perceivers.attend_elements.default, arguments)

    @pytest.mark.parametrize("use_grid", [True, False])
    def test_gradients_are_those_of_small_steps(self, use_grid):
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            values = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return values.requires_grad_()

        mask = torch.tensor([[True] * 5 + [False], [True, False] * 3])

        def read(vectors, content, rows, columns, tag):
            positions = GridPositions((rows, columns), ((0, 2), (1,)))
            elements = Elements(content, positions, tag, mask)
            return attend_elements(vectors, [elements], eps=1e-5, use_grid=use_grid)

        inputs = (normal(1, 6, 2), normal(2, 6, 2), normal(2, 2), normal(3, 1), normal(1))
        assert torch.autograd.gradcheck(read, inputs)

    def test_products_are_counted_from_shapes(self):
        segments = [grid(16, 16, batch=2)]
        shapes = [tuple(t.shape) for t in flatten(segments)]
        count = count_attention((1, 43, 10), shapes, describe(segments), 1e-5, True)
        tile = choose_tile((16, 16), 3)
        assert 256 % (tile[0] * tile[1]) == 0
        features = 1 + 3 + sum(tile)
        tables = 2 * 10 * 2 * 16 * 20 * (1 + 2)
        assert count == 2 * 4 * 256 * features * 10 + tables
        dense = count_attention((1, 43, 10), shapes, describe(segments), 1e-5, False)
        assert dense == 2 * 4 * 256 * (1 + 43) * 10

    def test_samples_are_cut_but_never_to_nothing(self):
        assert [s.stop - s.start for s in chunk_samples(5, 10, 25)] == [2, 2, 1]
        assert [s.stop - s.start for s in chunk_samples(2, 10, 5)] == [1, 1]


class TestLargeGrids:
    """Grids of several tiles along each axis, read in pieces of every kind."""

    @pytest.mark.parametrize("pieces", [1, 20_000, 10_000_000])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("sizes", [(150,), (40, 39), (17, 30, 21)])
    def test_pieces_change_nothing(self, monkeypatch, sizes, masked, pieces):
        torch.manual_seed(0)
        elements = grid(*sizes, batch=2, width=3, modality_embedding=torch.randn(2))
        if masked:
            mask = torch.rand(elements.content.shape[:2]) < 0.5
            elements = replace(elements, mask=mask)
        content = elements.content.double().requires_grad_()
        layer = CrossAttend(4, elements.num_channels).double()
        latents = torch.randn(1, 3, 4, dtype=torch.float64)

        def run(path):
            source = ElementSource([replace(elements, content=content)], implementation=path)
            read = layer(latents, source)
            return read, *torch.autograd.grad(
                read.square().sum(), [content, layer.attention.to_key.weight]
            )

        expected = run("projected")
        monkeypatch.setattr(streaming, "CHUNK_NUMBERS", pieces)
        for path in ("structured", "absorbed"):
            for ours, theirs in zip(run(path), expected, strict=True):
                assert_close(ours, theirs)


class TestPrecision:
    @pytest.mark.parametrize("path", ["structured", "absorbed"])
    def test_statistics_and_positions_stay_float32_under_autocast(self, path):
        torch.manual_seed(0)
        layer = CrossAttend(8, 43)
        elements = [grid(9, 9)]
        latents = torch.randn(1, 4, 8)
        exact = layer(latents, ElementSource(elements, implementation="projected"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            read = layer(latents, ElementSource(elements, implementation=path))
        assert (read - exact).abs().max() < 0.05 * exact.abs().max()
        vectors = torch.randn(1, 43, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside, _ = attend_elements(vectors, elements, eps=1e-5, use_grid=path == "structured")
        outside, _ = attend_elements(vectors, elements, eps=1e-5, use_grid=path == "structured")
        assert torch.equal(inside, outside)  # nothing in it is rounded to bfloat16

    def test_a_cast_model_trains(self):
        layer = CrossAttend(8, 43).bfloat16()
        content = torch.randn(1, 81, 3, dtype=torch.bfloat16, requires_grad=True)
        positions = grid(9, 9).positions
        latents = torch.randn(1, 4, 8, dtype=torch.bfloat16)
        read = layer(
            latents, ElementSource([Elements(content, positions)], implementation="structured")
        )
        assert read.dtype == torch.bfloat16
        read.sum().backward()
        assert content.grad.dtype == torch.bfloat16
        assert all(p.grad is not None for p in layer.parameters())


class TestSource:
    def test_keys_and_values_are_kept_for_reads_with_the_same_weights(self, monkeypatch):
        calls = []
        original = Attention.keys_values
        monkeypatch.setattr(
            Attention, "keys_values", lambda self, x: calls.append(x) or original(self, x)
        )
        layer = CrossAttend(8, 43)
        for keep, expected in ((True, 1), (False, 3)):
            calls.clear()
            source = ElementSource([grid(3, 3)], implementation="projected", keep=keep)
            for _ in range(3):
                layer(torch.randn(1, 4, 8), source)
            assert len(calls) == expected

    def test_layers_that_are_no_plain_matrices_project(self):
        layer = CrossAttend(8, 43)
        source = ElementSource([grid(9, 9)], implementation="structured")
        expected = layer(torch.ones(1, 4, 8), source)
        layer.attention.to_key = torch.nn.Sequential(layer.attention.to_key)
        assert_close(layer(torch.ones(1, 4, 8), source), expected)

    def test_an_unknown_way_is_refused(self):
        with pytest.raises(ValueError, match=r"out of auto, structured.*got 'quick'"):
            ElementSource([grid(3, 3)], implementation="quick")

    def test_modalities_of_two_widths_are_refused(self):
        with pytest.raises(ValueError, match=r"one common width C.*\[43, 5\]"):
            ElementSource([grid(3, 3), Elements(torch.randn(1, 2, 5))])


def test_reading_does_not_import_the_compiler():
    script = (
        "import sys, torch, perceivers as pv; model = pv.create_model('digits').eval()\n"
        "model.encoder.attn_implementation = 'structured'\n"
        "with torch.inference_mode(): model({'image': torch.zeros(1, 1, 8, 8)})\n"
        "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
