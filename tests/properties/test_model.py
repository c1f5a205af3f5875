"""What must hold for every Perceiver, whatever its weights."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.inputs.elements import Elements
from perceivers.inputs.image import PatchInputConfig, PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.cost import paper_flops
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.patches import depth_to_space, space_to_depth
from support.models import tiny_encoder
from support.tolerance import assert_close

TINY = tiny_encoder(latent_channels=8, num_cross_attends=2, num_blocks=2)
lengths = st.integers(min_value=1, max_value=40)
seeds = st.integers(min_value=0, max_value=2**16)
several = settings(max_examples=25)


@several
@given(length=lengths, seed=seeds)
def test_order_of_inputs_does_not_matter(length, seed):
    encoder = PerceiverEncoder(TINY, input_channels=6).double()
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(2, length, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(length, generator=generator)
    assert_close(encoder([Elements(content).permuted(order)]), encoder([Elements(content)]))


@several
@given(
    length=lengths, padding=lengths, seed=seeds, garbage=st.sampled_from([0.0, 1e4, float("nan")])
)
def test_padding_changes_nothing_forward_or_backward(length, padding, seed, garbage):
    encoder = PerceiverEncoder(replace(TINY, num_cross_attend_heads=2), input_channels=6).double()
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(2, length, 6, generator=generator, dtype=torch.float64)
    behind = torch.full((2, padding, 6), garbage, dtype=torch.float64)
    order = torch.randperm(length + padding, generator=generator)
    padded = Elements(
        torch.cat([content, behind], dim=1),
        mask=torch.arange(length + padding).expand(2, -1) < length,
    ).permuted(order)

    def both(elements):
        encoder.zero_grad()
        out = encoder([elements])
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in encoder.parameters())]

    for ours, expected in zip(both(padded), both(Elements(content)), strict=True):
        assert_close(ours, expected)


@several
@given(lengths=st.lists(st.integers(0, 6), min_size=2, max_size=4), seed=seeds)
def test_a_sample_does_not_know_its_batch(lengths, seed):
    encoder = PerceiverEncoder(TINY, input_channels=6).double()
    generator = torch.Generator().manual_seed(seed)
    content = torch.randn(len(lengths), 6, 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    together = encoder([Elements(content, mask=mask)])
    for i in range(len(lengths)):
        alone = encoder([Elements(content[i : i + 1], mask=mask[i : i + 1])])
        assert_close(together[i : i + 1], alone)


@several
@given(
    patch=st.tuples(*[st.integers(1, 3)] * 2), grid=st.tuples(*[st.integers(1, 4)] * 2), seed=seeds
)
def test_patches_invert(patch, grid, seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = [p * g for p, g in zip(patch, grid, strict=True)]
    x = torch.randn(2, 3, *sizes, generator=generator)
    assert torch.equal(depth_to_space(space_to_depth(x, patch), patch), x)


@several
@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=seeds, patches=st.booleans())
def test_permuting_a_picture_of_any_size_changes_nothing(height, width, seed, patches):
    positions = FourierPositionsConfig(num_bands=2)
    part = PixelInputConfig(size=(6, 6), positions=positions)
    if patches:
        part = PatchInputConfig(size=(6, 6), patch=(2, 3), positions=positions)
    model = build(PerceiverConfig(inputs={"image": part}, encoder=TINY)).double()
    image = {"image": torch.randn(1, 3, height, width, dtype=torch.float64)}
    plain = model.encode(image)
    model.set_permutation(seed)
    assert_close(model.encode(image), plain)


@several
@given(elements=st.integers(1, 10_000))
def test_cost_is_linear_in_the_number_of_elements(elements):
    config = PerceiverConfig(inputs={"image": PixelInputConfig()}, encoder=TINY)
    step = paper_flops(config, elements + 1, 6) - paper_flops(config, elements, 6)
    assert step == paper_flops(config, 2, 6) - paper_flops(config, 1, 6)


@several
@given(blocks=st.integers(2, 9))
def test_weights_do_not_grow_with_depth(blocks):
    def count(depth):
        with torch.device("meta"):
            config = PerceiverEncoderConfig(num_cross_attends=depth, num_blocks=depth)
            return sum(p.numel() for p in PerceiverEncoder(config, input_channels=9).parameters())

    assert count(blocks) == count(2)
