"""Masked autoencoding: what is hidden reaches nothing, masks are fixed in evaluation, and only hidden values count."""

import dataclasses

import pytest
import torch

from perceivers.inputs.array import ArrayInputConfig
from perceivers.inputs.audio import (
    ConvWaveInputConfig,
    ResidualSpectrogramInputConfig,
    SpectrogramInputConfig,
)
from perceivers.inputs.image import ConvInputConfig, PatchInputConfig, ResidualInputConfig
from perceivers.inputs.points import NeighborPointsInputConfig, PointsInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.series import BankSeriesInputConfig, ConvSeriesInputConfig
from perceivers.inputs.table import TableInputConfig
from perceivers.inputs.text import HashedTextInputConfig, TextInputConfig
from perceivers.inputs.video import ResidualVideoInputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.recipes.hip import hip_for
from perceivers.recipes.mae import masked_autoencoder_for
from perceivers.tasks.base import forward_task
from perceivers.tasks.masked_autoencode import MaskedAutoencodeConfig, MaskedAutoencodeTask
from perceivers.tasks.masking import GridMaskingConfig, draw_hidden
from perceivers.tasks.masking_kinds import FieldsMaskingConfig, PointsMaskingConfig

FEW = FourierPositionsConfig(num_bands=2)
ENCODER = PerceiverEncoderConfig(
    num_latents=4,
    latent_channels=16,
    num_cross_attends=1,
    num_blocks=1,
    num_self_attends_per_block=1,
    num_cross_attend_heads=1,
    num_self_attend_heads=2,
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cloud(batch: int, points: int, channels: int = 3) -> torch.Tensor:
    return drawn(batch, points, channels).clamp(-1, 1)


def rows(batch: int) -> torch.Tensor:
    numbers = drawn(batch, 3)
    return torch.cat([numbers, torch.tensor([[0.0, 2.0], [1.0, 0.0], [1.0, 1.0]])[:batch]], dim=1)


def letters(batch: int, length: int) -> torch.Tensor:
    ids = torch.randint(
        97 + 6, 122 + 6, (batch, length), generator=torch.Generator().manual_seed(2)
    )
    ids[:, 4::5] = 32 + 6  # words of four letters
    return ids


INPUTS = {
    "residual image": ("image", ResidualInputConfig(size=(16, 16)), drawn(3, 3, 16, 16)),
    "convolved image": (
        "image",
        ConvInputConfig(size=(18, 17), stem_channels=4, positions=FEW),
        drawn(3, 3, 18, 17),
    ),
    "patches": ("image", PatchInputConfig(size=(18, 17), positions=FEW), drawn(3, 3, 18, 17)),
    "spectrogram": (
        "audio",
        ResidualSpectrogramInputConfig(size=(40, 32)),
        drawn(3, 40, 32),
    ),
    "bank of series": (
        "series",
        BankSeriesInputConfig(length=60, num_channels=2, stem_channels=(4, 4), channels=4),
        drawn(3, 60, 2),
    ),
    "convolved series": (
        "series",
        ConvSeriesInputConfig(length=60, num_channels=2, stem_channels=(4, 4), positions=FEW),
        drawn(3, 60, 2),
    ),
    "irregular series": (
        "series",
        BankSeriesInputConfig(
            length=60, num_channels=2, channels=4, has_missing=True, irregular=True
        ),
        torch.cat(
            [
                drawn(3, 60, 2),
                (drawn(3, 60, 2) > -1).float(),
                torch.linspace(-1, 1, 60)[None, :, None].expand(3, -1, -1),
            ],
            dim=2,
        ),
    ),
    "video": (
        "video",
        ResidualVideoInputConfig(num_frames=4, size=(16, 16), difference=True),
        drawn(3, 4, 3, 16, 16),
    ),
    "neighbor points": (
        "points",
        NeighborPointsInputConfig(num_points=64, num_neighbors=4, stem_channels=(4, 4)),
        cloud(3, 64),
    ),
    "points with colors": (
        "points",
        PointsInputConfig(num_points=64, num_channels=3, num_bands=2, max_resolution=4.0),
        cloud(3, 64, 6),
    ),
    "rows": (
        "array",
        ArrayInputConfig(length=24, num_channels=3, num_coordinates=0, project_channels=6),
        drawn(3, 24, 3),
    ),
    "rows with coordinates": (
        "array",
        ArrayInputConfig(length=24, num_channels=3, num_coordinates=2),
        drawn(3, 24, 5).clamp(-1, 1),
    ),
    "table": ("table", TableInputConfig(num_numbers=3, category_sizes=(2, 3), channels=8), rows(3)),
    "bytes": ("text", TextInputConfig(max_length=50, channels=8), letters(3, 50)),
    "hashed text": ("text", HashedTextInputConfig(max_length=50), letters(3, 50)),
}


def task_and_model(kind: str, config, **changes):
    recipe = masked_autoencoder_for({"x": kind})
    task = dataclasses.replace(
        recipe.task, parts={"x": dataclasses.replace(recipe.task.parts["x"], **changes)}
    ).fit_to_inputs({"x": config}, {})
    torch.manual_seed(0)
    model = build(
        PerceiverConfig(
            inputs={"x": config},
            encoder=ENCODER,
            output=recipe.output.fit_to(task.output_parts()),
        )
    )
    with torch.no_grad():
        for weight in model.parameters():  # heads begin at zero
            weight.add_(0.05 * torch.randn_like(weight))
    return MaskedAutoencodeTask(task), model


def other_hidden(part, x, units):
    """Return the same samples with other values in hidden units."""
    if isinstance(part, PointsMaskingConfig):
        inside = part.points_in(x, part.places(units))
        centers = (part.grid_index(x) + 0.5) * (2 / part.cells) - 1
        moved = torch.cat([centers, x[..., 3:] + 1.0], dim=2)
        return torch.where(inside[..., None], moved, x)
    if x.dtype == torch.int64:
        return torch.where(units[:, : x.shape[1]], 97 + 6 + (x - 97 - 5) % 25, x)
    if isinstance(part, FieldsMaskingConfig):
        changed = x + 1.0
        changed[:, 3:] = 0.0
        return torch.where(units, changed, x)
    return torch.where(part.filled(torch.ones_like(x), part.places(units)) == 0, x + 3.0, x)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_independent_of_hidden_values(name, training, monkeypatch):
    kind, config, x = INPUTS[name]
    task, model = task_and_model(kind, config)
    model.train(training)
    part = task.config.parts["x"]
    units = part.draw(x, None, torch.rand(3, part.num_units))
    assert units.any()
    monkeypatch.setattr(type(part), "draw", lambda *_: units)
    found = []
    for values in (x, other_hidden(part, x, units)):
        torch.manual_seed(3)
        batch = task.prepare_batch({"x": values}, {}, None, training=False)
        found.append((batch, forward_task(model, batch)))
    (first, outputs), (second, others) = found
    assert not torch.equal(first.targets.given["x"], second.targets.given["x"])
    assert torch.equal(first.inputs["x"], second.inputs["x"])
    assert torch.equal(outputs, others)


@pytest.mark.parametrize("name", INPUTS)
def test_only_hidden_values_count(name):
    kind, config, x = INPUTS[name]
    task, model = task_and_model(kind, config)
    batch = task.prepare_batch({"x": x}, {}, None, training=False)
    outputs = forward_task(model, batch).detach()
    loss = task.loss(outputs, batch.targets)
    assert torch.isfinite(loss)
    hidden = batch.targets.real["x"]
    assert hidden.any()
    assert not hidden.all()
    seen = ~hidden.any(dim=2)
    changed = torch.where(seen[..., None], outputs + 1.0, outputs)
    torch.testing.assert_close(task.loss(changed, batch.targets), loss)
    values = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(values, batch.targets), values)
    assert not gradient[seen].any()
    assert gradient.any()


@pytest.mark.parametrize(
    "name", ["residual image", "bank of series", "points with colors", "bytes"]
)
def test_masks_of_evaluation_follow_from_the_sample(name):
    kind, config, x = INPUTS[name]
    task, _ = task_and_model(kind, config)
    whole = task.prepare_batch({"x": x}, {}, None, training=False)
    alone = task.prepare_batch({"x": x[1:2]}, {}, None, training=False)
    assert torch.equal(whole.targets.real["x"][1:2], alone.targets.real["x"])
    again = task.prepare_batch({"x": x}, {}, None, training=True)
    assert not torch.equal(whole.inputs["x"], again.inputs["x"])


def test_padding_changes_neither_masks_nor_loss():
    kind, config, x = INPUTS["bank of series"]
    task, _ = task_and_model(kind, config)
    short = x[:, :40]
    padded = torch.cat([short, torch.full((3, 20, 2), 7.0)], dim=1)
    mask = torch.arange(60)[None].expand(3, -1) < 40
    longer = task.prepare_batch({"x": padded}, {"x": mask}, None, training=False)
    alone = task.prepare_batch({"x": short}, {}, None, training=False)
    assert torch.equal(longer.inputs["x"][:, :40], alone.inputs["x"])
    assert torch.equal(longer.targets.real["x"], alone.targets.real["x"])


def test_share_is_of_real_units():
    scores = torch.rand(2, 10)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[1, 4:] = False
    hidden = draw_hidden(scores, real, 0.5)
    assert hidden.sum(dim=1).tolist() == [5, 2]
    assert not hidden[1, 4:].any()
    one = torch.tensor([[True, False]])
    assert not draw_hidden(torch.rand(1, 2), one, 0.9).any()


def test_a_whole_modality_is_hidden_in_some_samples_and_never_all():
    recipe = masked_autoencoder_for({"image": "image", "series": "series"})
    inputs = {
        "image": ResidualInputConfig(size=(16, 16)),
        "series": BankSeriesInputConfig(length=60, num_channels=2, channels=4),
    }
    config = dataclasses.replace(recipe.task, modality_dropout=0.9).fit_to_inputs(inputs, {})
    task = MaskedAutoencodeTask(config)
    x = {"image": drawn(16, 3, 16, 16), "series": drawn(16, 60, 2)}
    batch = task.prepare_batch(x, {}, None, training=False)
    there = torch.stack([batch.masks[name].any(dim=1) for name in x])
    assert there.any(dim=0).all()
    assert 8 < (~there).any(dim=0).sum() <= 16
    gone = ~batch.masks["image"].any(dim=1)
    assert batch.targets.real["image"][gone].all()
    assert not batch.inputs["image"][gone].any()


def test_per_patch_normalization_is_undone_in_measures():
    kind, config, x = INPUTS["residual image"]
    task, _ = task_and_model(kind, config, normalize=True)
    batch = task.prepare_batch({"x": x}, {}, None, training=False)
    values, real = batch.targets.values["x"], batch.targets.real["x"]
    mean, std = values.mean(dim=2, keepdim=True), values.std(dim=2, keepdim=True, correction=0)
    right = (values - mean) / std.clamp_min(1e-3)
    assert task.loss(right, batch.targets) < 1e-5
    assert (task.measures("x", right, batch.targets)["psnr"][0] > 40).all()
    assert real.any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_shares_outside_of_the_interval_are_refused(share):
    with pytest.raises(ValueError, match="hidden share"):
        GridMaskingConfig(hidden=share)
    with pytest.raises(ValueError, match="hidden share"):
        FieldsMaskingConfig(hidden=share)


def test_blocks_that_do_not_fit_are_refused():
    part = GridMaskingConfig(block=(20, 20))
    with pytest.raises(ValueError, match="fits into its 16 x 16 values"):
        part.fit_to_input("image", ResidualInputConfig(size=(16, 16)), None)
    with pytest.raises(ValueError, match="single block"):
        GridMaskingConfig(block=(16, 16)).fit_to_input(
            "image", ResidualInputConfig(size=(16, 16)), None
        )
    with pytest.raises(ValueError, match="multiple of patch"):
        GridMaskingConfig(block=(6, 6), patch=(4, 4))
    with pytest.raises(ValueError, match="2 numbers"):
        GridMaskingConfig(block=(6,))
    with pytest.raises(ValueError, match="single field"):
        FieldsMaskingConfig().fit_to_input(
            "table", TableInputConfig(num_numbers=1, category_sizes=()), None
        )
    with pytest.raises(ValueError, match="modality_dropout"):
        MaskedAutoencodeConfig(parts={"x": GridMaskingConfig()}, modality_dropout=1.0)


@pytest.mark.parametrize(
    ("size", "block", "patch"),
    [((32, 32), (4, 4), (4, 4)), ((224, 224), (28, 28), (7, 7)), ((8, 8), (1, 1), (1, 1))],
)
def test_open_blocks_follow_from_the_size(size, block, patch):
    part = GridMaskingConfig().fit_to_input("image", PatchInputConfig(size=size), None)
    assert (part.block, part.patch) == (block, patch)
    given = GridMaskingConfig(block=(8, 4)).fit_to_input(
        "x", SpectrogramInputConfig(size=(64, 16)), None
    )
    assert (given.block, given.patch) == ((8, 4), (8, 4))


def test_waves_are_grids_of_samples():
    part = masked_autoencoder_for({"x": "wave"}).task.parts["x"]
    made = part.fit_to_input("x", ConvWaveInputConfig(num_samples=16_000), None)
    assert made.block == (250,)
    assert made.num_units == 64


def test_augmentation_mixes_and_hides_nothing():
    recipe = masked_autoencoder_for({"image": "image", "audio": "audio"})
    mixed = dataclasses.replace(recipe.augment["image"], mixup=0.3, cutout=0.2)
    made = recipe.task.fit_augment({**recipe.augment, "image": mixed})
    assert made["image"].mixup == 0
    assert made["image"].cutout == 0
    assert made["audio"].time_masks == 0


def test_spectra_are_predicted_beside_the_values_of_series():
    kind, config, x = INPUTS["bank of series"]
    task, _ = task_and_model(kind, config)
    part = task.config.parts["x"]
    batch = task.prepare_batch({"x": x}, {}, None, training=False)
    values, real = batch.targets.values["x"], batch.targets.real["x"]
    assert part.num_outputs == values.shape[2] + part.num_magnitudes
    right = torch.cat([values, part.magnitudes(values).flatten(2)], dim=2)
    assert part.mean_error(right, values, real) < 1e-10
    wrong = right.clone()
    wrong[..., -1] += 1.0
    assert part.mean_error(wrong, values, real) > 0
    assert torch.equal(part.readable(wrong), values)
    turned = values.unflatten(2, (-1, 2)).roll(3, dims=2).flatten(2)  # another phase
    torch.testing.assert_close(part.magnitudes(turned), part.magnitudes(values))
    with pytest.raises(ValueError, match="more than one axis"):
        GridMaskingConfig(spectrum=1.0)


def test_a_hierarchical_perceiver_is_pretrained_likewise():
    kinds = {"image": "image", "points": "points"}
    recipe, other = masked_autoencoder_for(kinds), hip_for(kinds)
    recipe = dataclasses.replace(recipe, inputs=other.inputs, encoder=other.encoder)
    inputs = {
        "image": dataclasses.replace(recipe.inputs["image"], size=(16, 16)),
        "points": dataclasses.replace(recipe.inputs["points"], num_points=32),
    }
    config = recipe.task.fit_to_inputs(inputs, {})
    output = recipe.output.fit_to(config.output_parts())
    torch.manual_seed(0)
    model = build(PerceiverConfig(inputs=inputs, encoder=recipe.encoder, output=output))
    task = MaskedAutoencodeTask(config)
    x = {"image": drawn(2, 3, 16, 16), "points": cloud(2, 32)}
    batch = task.prepare_batch(x, {}, None, training=True)
    loss = task.loss(forward_task(model, batch), batch.targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(
        weight.grad is not None
        for name, weight in model.named_parameters()
        if name.startswith("encoder.")
    )
