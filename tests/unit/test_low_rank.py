"""Low-rank updates: nothing changes at first, few weights are trained, and saved weights are merged."""

import pytest
import torch

import perceivers as pv
from perceivers.hub.checkpoint import load
from perceivers.models.decoder import DecoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.training.low_rank import add_low_rank, merge_low_rank, merged_weights


def model():
    torch.manual_seed(0)
    config = PerceiverConfig(
        inputs={"image": pv.PixelInputConfig(size=(8, 8), num_channels=1)},
        encoder=pv.PerceiverEncoderConfig(
            num_latents=4,
            latent_channels=16,
            num_cross_attends=2,
            num_blocks=2,
            num_self_attends_per_block=1,
            num_self_attend_heads=2,
        ),
        output=DecoderConfig.classifier(3),
    )
    return build(config).double()


def test_updates_start_at_zero_and_merge_into_the_weights():
    built, plain = model(), model()
    names = dict(plain.named_parameters())
    trained = add_low_rank(built, 3)
    inputs = {"image": torch.randn(2, 1, 8, 8, dtype=torch.float64)}
    torch.testing.assert_close(built(inputs), plain(inputs), rtol=0, atol=1e-12)
    free = {name for name, p in built.named_parameters() if p.requires_grad}
    assert sum(p.numel() for n, p in built.named_parameters() if n in free) == trained
    assert {n for n in free if "parametrizations" not in n} == {
        "output.heads.label.to_logits.weight",
        "output.heads.label.to_logits.bias",
    }
    for parameter in built.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    updated = built(inputs)
    weights = merged_weights(built.state_dict())
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(inputs), updated)
    merge_low_rank(built)
    assert dict(built.named_parameters()).keys() == names.keys()
    torch.testing.assert_close(built(inputs), updated)


def rows(count=60):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 8, 8), generator=generator, dtype=torch.uint8).numpy()
    return [{"image": one, "label": "abc"[n % 3]} for n, one in enumerate(images)]


def test_a_run_with_updates_is_saved_without_them_and_resumes(tmp_path):
    settings = {"batch_size": 16, "baseline": False, "on_message": str}
    source = pv.fit(rows(), "digits", out=tmp_path / "a", max_epochs=1, **settings).folder
    folder = tmp_path / "b"
    pv.fit(rows(), out=folder, init_from=source, lora=2, max_epochs=1, **settings)
    pv.fit(rows(), out=folder, resume=True, max_epochs=2, **settings)
    began, ended = (load(run).model.state_dict() for run in (source, folder))
    changed = {name for name in began if not torch.equal(began[name], ended[name])}
    assert any(name.startswith("encoder.") for name in changed)
    assert all(
        name.startswith("output.") or (".attention.to_" in name and name.endswith("weight"))
        for name in changed
    )
    difference = ended["encoder.blocks.0.0.attention.to_query.weight"].double()
    difference -= began["encoder.blocks.0.0.attention.to_query.weight"].double()
    assert (torch.linalg.svdvals(difference) > 1e-6).sum() <= 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"init_from": None}, "expected --init-from"),
        ({"freeze": ("encoder",)}, "expected no --freeze"),
    ],
)
def test_wrong_settings_are_errors(tmp_path, changes, told):
    settings = {"batch_size": 16, "baseline": False, "on_message": str, "max_epochs": 1}
    source = pv.fit(rows(), "digits", out=tmp_path / "a", **settings).folder
    with pytest.raises(ValueError, match=told):
        pv.fit(rows(), out=tmp_path / "b", **settings | {"init_from": source, "lora": 2} | changes)
