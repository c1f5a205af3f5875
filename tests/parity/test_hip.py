"""Outputs, losses, gradients and parameter counts of the Hierarchical Perceiver in DeepMind's release.

The files in `vectors/` were written by the original code in float64 with seeded random weights.
"""

import pytest
import torch

from perceivers.hub.hip import block_module, from_haiku
from perceivers.models import hip_layers
from perceivers.models.hip import HierarchicalPerceiver
from perceivers.models.hip_config import HiPBlockConfig, HiPConfig, hip_config
from perceivers.models.hip_groups import regroup
from perceivers.models.hip_layers import HiPBlock
from support.hip import hip_model, released_latents
from support.perceiver_ar import part, read

LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}


def assert_close(actual, expected, name, atol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, msg=name)


def compare(model, found, modalities, *, grad_atol):
    """Compare outputs, loss and gradients with those of a file."""
    inputs = {name: x.requires_grad_() for name, x in part(found, "input.").items()}
    output = model(inputs)
    is_perceiver_io = len(model.config.blocks) == 1
    latents = released_latents(model, output.latents, is_perceiver_io=is_perceiver_io)
    named = {f"reconstruction.{name}": x for name, x in output.reconstruction.items()}
    named |= {f"latents.{name}": x for name, x in latents.items()}
    weights = part(found, "loss_weights.")
    assert named.keys() == weights.keys()
    for name, x in named.items():
        assert_close(x, found[name], name)
    loss = sum((named[name] * weights[name]).sum() for name in named)
    loss = loss / sum(x.numel() for x in named.values())
    assert_close(loss, found["loss"][0], "loss")
    loss.backward()
    expected = from_haiku(part(found, "grad."), modalities)
    assert expected.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[name], name, grad_atol)
    for name, x in inputs.items():
        assert_close(x.grad, found[f"grad_input.{name}"], name)


@pytest.mark.parametrize(
    ("name", "grad_atol"),
    [
        ("one_modality", 1e-7),  # its gradients are stored in float32
        ("two_modalities", 1e-10),
        ("class_bottleneck", 1e-10),
        ("perceiver_io", 1e-10),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_outputs_and_gradients(name, grad_atol, recompute):
    model, found, modalities = hip_model(f"hip_{name}")
    if recompute:  # without anything random, training is evaluation
        model.train().set_grad_checkpointing(True)
    compare(model, found, modalities, grad_atol=grad_atol)


def test_training_draws_latents_and_drops_layers(monkeypatch):
    model, found, modalities = hip_model("hip_training")
    output = model(part(found, "input."))
    assert_close(output.reconstruction["image"], found["eval.reconstruction.image"], "evaluation")
    chosen, kept = found["latent_indices"].long(), iter(found["drop_path_keep"])
    monkeypatch.setattr(hip_layers, "draw_latents", lambda *_: chosen)
    monkeypatch.setattr(hip_layers, "draw_kept", lambda *_: next(kept))
    compare(model.train(), found, modalities, grad_atol=1e-10)
    assert next(kept, None) is None


def test_a_masked_block():
    found, facts = read("hip_block_masked")
    given = facts["config"]
    shape = HiPBlockConfig(
        num_groups=given["num_output_groups"],
        num_latents=given["output_index_dim"],
        channels=given["num_output_channels"],
        num_self_attends=given["num_self_attend_layers"],
        num_self_attend_heads=given["num_self_attend_heads"],
        num_cross_attend_heads=given["num_cross_attend_heads"],
        cross_attend_widening_factor=given["cross_attend_widening_factor"],
        self_attend_widening_factor=given["self_attend_widening_factor"],
    )
    around = HiPConfig(blocks=(HiPBlockConfig(num_groups=1, num_latents=1, channels=1),))
    x, skip = found["input"].requires_grad_(), found["skip"].requires_grad_()
    block = HiPBlock(shape, around, input_channels=x.shape[-1], skip_channels=skip.shape[-1])
    block = block.double().eval()

    def renamed(kind):
        weights = {}
        for name, weight in part(found, kind).items():
            path, _, leaf = name.removeprefix("block/~/").rpartition("/")
            new = block_module(path) + ("" if leaf == "pos_embs" else f".{LEAVES[leaf]}")
            weights[new] = weight.T if leaf == "w" else weight
        return weights

    block.load_state_dict(renamed("weight."))
    grouped = regroup(x, shape.num_groups, given["regroup_type"])

    def call(layer, *args):
        return layer(*args)

    assert_close(block(grouped, skip=skip, run=call), found["y_no_mask"], "without a mask")
    y = block(grouped, skip=skip, mask=found["attention_mask"].bool(), run=call)
    assert_close(y, found["y"], "y")
    loss = (y * found["loss_weights.y"]).sum() / y.numel()
    assert_close(loss, found["loss"][0], "loss")
    loss.backward()
    assert_close(x.grad, found["grad_input"], "grad_input")
    assert_close(skip.grad, found["grad_skip"], "grad_skip")
    for name, gradient in renamed("grad.").items():
        assert_close(block.get_parameter(name).grad, gradient, name)


IMAGE = {"image": (50_176, 3)}
LABEL = {"label": (1, 1000)}
AUDIO = {"audio": (122_880, 1)}
VIDEO = AUDIO | {"video": (401_408, 3)}
POINTS = {"points": (2048, 3)}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("hip_mini", (20_272_611, 22_927_947, 22_599_009, 35_444_292, 18_732_515)),
        ("hip_16", (100_787_939, 105_492_683, 103_114_337, 115_959_620, 99_247_843)),
        ("hip_16x3", (234_803_299, 237_458_635, 237_129_697, 249_974_980, 233_263_203)),
        ("hip_256", (96_367_155, 101_071_899, 97_530_353, 103_952_996, 95_597_107)),
        ("hip_io_mini", (6_904_451, None, None, 67_591_172, None)),
        ("hip_io_c_50m", (56_169_475, None, None, 298_916_356, None)),
        ("hip_io_c_150m", (176_101_635, None, None, 600_908_676, None)),
    ],
)
def test_parameter_counts(name, counts):
    cases = [(IMAGE, {}), (IMAGE, LABEL), (AUDIO, {}), (VIDEO, {}), (POINTS, {})]
    for (modalities, labels), count in zip(cases, counts, strict=True):
        if count is not None:
            assert parameters(hip_config(name), modalities, labels) == count


def parameters(config, modalities, labels=None):
    with torch.device("meta"):
        model = HierarchicalPerceiver(config, modalities, labels=labels)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "bottleneck", "count"),
    [
        ("hip_16", False, 99_224_996),
        ("hip_256", False, 95_585_188),
        ("hip_mini", False, 18_709_668),
        ("hip_mini", True, 21_114_788),
    ],
)
def test_parameter_counts_of_the_releases_own_test(name, bottleneck, count):
    config = hip_config(name, project_positions=True)
    first, second = {"image": (1024, 3)}, {"audio": (128, 16)}
    labels = {"label": (32, 1)}, {"label2": (16, 16)}
    modalities = first | second
    one = modalities if bottleneck else modalities | labels[0] | labels[1]
    total = parameters(config, one, labels[0] | labels[1] if bottleneck else None)
    # Two data sets there: the second one's linear layers of positions are those of the first, by their place.
    places = len(one) // 2
    width = config.embed_channels
    assert total - places * width**2 == count
