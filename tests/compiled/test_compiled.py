"""The whole model under torch.compile and torch.export: one graph, any batch, same numbers."""

from dataclasses import replace

import pytest
import torch

from perceivers.inputs.image import (
    ConvInputConfig,
    PatchInputConfig,
    PixelInputConfig,
    ResidualInputConfig,
)
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_encoder
from support.tolerance import assert_close

FEW = FourierPositionsConfig(num_bands=3)
ENCODER = tiny_encoder(num_cross_attends=2, num_blocks=2)
INPUTS = [
    PixelInputConfig(size=(6, 8), positions=FEW),
    PixelInputConfig(size=(6, 8), positions=LearnedPositionsConfig(channels=5)),
    PatchInputConfig(size=(6, 8), patch=(2, 2), positions=FEW),
    ConvInputConfig(size=(6, 8), stem_channels=8, positions=FEW),
    ResidualInputConfig(size=(6, 8)),
]
CONFIG = PerceiverConfig(
    inputs={"image": INPUTS[0]}, encoder=ENCODER, output=MeanPoolConfig(num_outputs=5)
)


def tiny(**changes):
    model = build(replace(CONFIG, **changes))
    torch.nn.init.normal_(model.output.to_logits.weight)
    return model


# aot_eager captures forward and backward as inductor does, without the minute of generating C++
@pytest.mark.parametrize(
    ("backend", "checkpointing"),
    [
        ("inductor", False),
        pytest.param("aot_eager", False, marks=pytest.mark.quick),
        ("aot_eager", True),
    ],
)
@pytest.mark.parametrize("path", ["auto", "structured"])
def test_a_training_step_compiles_into_one_graph(path, backend, checkpointing):
    torch._dynamo.reset()
    model = tiny(inputs={"image": INPUTS[3]}, encoder=replace(ENCODER, attn_implementation=path))
    model.set_grad_checkpointing(checkpointing)
    image = {"image": torch.randn(4, 3, 6, 8)}
    model(image).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend=backend)(image).square().sum().backward()
    for name, parameter in model.named_parameters():
        largest = expected[name].abs().max()
        if name.endswith("to_key.bias"):  # mathematically zero: both are rounding noise
            largest = expected[name.replace("bias", "weight")].abs().max()
        assert (parameter.grad - expected[name]).abs().max() <= 1e-3 * largest, name


@pytest.mark.parametrize(("path", "permute"), [("auto", None), ("structured", None), ("auto", 7)])
def test_prediction_compiles_with_masks_and_permutation(path, permute):
    torch._dynamo.reset()
    model = tiny(permute=permute, encoder=replace(ENCODER, attn_implementation=path)).eval()
    image, mask = {"image": torch.randn(2, 3, 6, 8)}, {"image": torch.rand(2, 48) < 0.7}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_close(compiled(image, mask), model(image, mask))


@pytest.mark.parametrize(
    ("part", "permute"),
    [
        pytest.param(INPUTS[0], None, marks=pytest.mark.quick),
        *((part, None) for part in INPUTS[1:]),
        (INPUTS[0], 7),
    ],
    ids=lambda p: f"{p.kind}-{p.positions.kind}" if p in INPUTS else str(p),
)
@pytest.mark.parametrize("path", ["auto", "structured"])
def test_exports_with_a_free_batch(path, part, permute):
    encoder = replace(ENCODER, attn_implementation=path)
    model = tiny(inputs={"image": part}, encoder=encoder, permute=permute).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        model, ({"image": torch.randn(2, 3, 6, 8)},), dynamic_shapes=({"image": {0: batch}},)
    )
    image = {"image": torch.randn(5, 3, 6, 8)}
    assert_close(exported.module()(image), model(image))
