"""Frozen parts and learning rates of parts: names, training steps, bad input."""

import pytest
import torch

import perceivers as pv
from perceivers.hub.checkpoint import load
from perceivers.models.decoder import DecoderConfig
from perceivers.models.hip_config import HiPConfig, hip_blocks
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.training.freezing import frozen_parts, learning_rate_scales
from perceivers.training.optim import build_optimizer


def model(output=None):
    torch.manual_seed(0)
    config = PerceiverConfig(
        inputs={"image": pv.PixelInputConfig(size=(8, 8), num_channels=1)},
        encoder=pv.PerceiverEncoderConfig(
            num_latents=4,
            latent_channels=16,
            num_cross_attends=1,
            num_blocks=2,
            num_self_attends_per_block=2,
            num_self_attend_heads=2,
            share_blocks=False,
        ),
        output=output or DecoderConfig.classifier(3),
    )
    return build(config)


def held(freeze, built):
    parts = frozen_parts(freeze, built)
    return {n for n, _ in built.named_parameters() if any(part.holds(n) for part in parts)}


def test_names_of_parts():
    built = model()
    names = {name for name, _ in built.named_parameters()}
    assert held(["encoder"], built) == {n for n in names if not n.startswith("output.")}
    assert held(["head"], built) == {n for n in names if n.startswith("output.heads.")}
    assert held(["all-but", "head"], built) == names - held(["head"], built)
    assert held(["encoder.blocks.1"], built) == {n for n in names if ".blocks.1." in n}
    pooled = model(pv.MeanPoolConfig(num_outputs=3))
    assert held(["head"], pooled) == {"output.to_logits.weight", "output.to_logits.bias"}
    assert [part.epochs for part in frozen_parts(["encoder:2", "head"], built)] == [2, None]


@pytest.mark.parametrize(
    ("freeze", "told"),
    [
        (["encodr"], "no part 'encodr'. Did you mean 'encoder'"),
        (["encoder:0"], "number of epochs in --freeze encoder:EPOCHS, got 0"),
        (["all-but"], "name of a part after all-but"),
        (["encoder", "output"], "nothing is left to train"),
    ],
)
def test_wrong_names_are_errors(freeze, told):
    with pytest.raises(ValueError, match=told):
        frozen_parts(freeze, model())


def test_rates_fall_from_the_output_to_the_input():
    built = model()
    scales = learning_rate_scales(built, {"encoder.blocks.1": 10.0}, layer_decay=0.5)
    assert scales["output.heads.label.to_logits.weight"] == 1.0
    assert scales["encoder.blocks.1.1.mlp.0.weight"] == 10 * 0.5
    assert scales["encoder.blocks.1.0.mlp.0.weight"] == 10 * 0.25
    assert scales["encoder.blocks.0.1.mlp.0.weight"] == 0.125
    assert scales["encoder.latents"] == 2.0**-5
    groups = build_optimizer(built, pv.OptimConfig(name="adamw"), scales).param_groups
    assert {group["lr_scale"] for group in groups} == set(scales.values())


def test_rates_of_a_hierarchical_perceiver_fall_with_its_blocks():
    blocks = hip_blocks(
        num_groups=(2, 1, 2),
        num_latents=(4, 4, 4),
        channels=(8, 16, 8),
        num_self_attends=(2, 1, 1),
    )
    config = PerceiverConfig(
        inputs={"image": pv.PixelInputConfig(size=(4, 4), positions=None)},
        encoder=HiPConfig(blocks=blocks, embed_channels=8),
        output=pv.MeanPoolConfig(num_outputs=2),
    )
    scales = learning_rate_scales(build(config), {}, layer_decay=0.5)
    trunk = "encoder.trunk"
    found = [
        scales[name]
        for name in (
            f"{trunk}.positions.image",
            f"{trunk}.embed.image.weight",
            f"{trunk}.blocks.0.latents",
            f"{trunk}.blocks.0.cross_attend.mlp.0.weight",
            f"{trunk}.blocks.0.self_attends.0.mlp.0.weight",
            f"{trunk}.blocks.0.self_attends.1.mlp.0.weight",
            f"{trunk}.blocks.1.cross_attend.attention.to_query.weight",
            f"{trunk}.blocks.1.self_attends.0.mlp.0.weight",
            "output.to_logits.weight",
        )
    ]
    assert found == [2.0**-n for n in (6, 6, 5, 5, 4, 3, 2, 1, 0)]


def digits(count=60):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 8, 8), generator=generator, dtype=torch.uint8).numpy()
    return [{"image": one, "label": "ab"[n % 2]} for n, one in enumerate(images)]


def fitted(tmp_path, name, **changes):
    settings = {"max_epochs": 2, "batch_size": 16, "seed": 1, "folds": 1, "baseline": False}
    return pv.fit(
        digits(), "images", out=tmp_path / name, on_message=str, **settings | changes
    ).folder


def differing(one, other):
    ours, theirs = (load(folder).model.state_dict() for folder in (one, other))
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


@pytest.mark.slow
def test_frozen_parts_keep_weights_and_statistics(tmp_path):
    source = fitted(tmp_path, "source")
    frozen = fitted(tmp_path, "frozen", init_from=source, freeze=("encoder",))
    changed = differing(source, frozen)
    assert changed
    assert all(name.startswith("output.") for name in changed)
    later = fitted(tmp_path, "later", init_from=source, freeze=("encoder:1",))
    assert any(name.startswith("encoder.") for name in differing(source, later))
    only = fitted(tmp_path, "only", init_from=source, freeze=("encoder:1",), max_epochs=1)
    assert all(name.startswith("output.") for name in differing(source, only))
