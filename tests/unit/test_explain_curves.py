"""Deletion and insertion curves of a model of which one knows what its answer rests on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from perceivers.explain.attribution.faithfulness import (
    all_maps,
    class_index,
    class_probability,
    curves_of_files,
    deletion_curves,
    input_gradients,
    mean_curves,
)
from perceivers.explain.render.write import write_curves
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.elements import Elements
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.regression import RegressionConfig
from support.models import tiny_encoder
from support.tolerance import assert_close

TASK = ClassificationConfig(label_names=("cat", "dog"))
PICTURE = {"image": torch.rand(1, 3, 4, 6)}


class Sums:
    """Stands in for a model: how sure it is, is the part of four bright elements that it can see."""

    def __init__(self) -> None:
        bright = torch.tensor([0.0, 1, 0, 1, 1, 0, 0, 1, 0, 0])
        self.given = bright[None, :, None]
        self.real = torch.arange(10)[None] < 9  # the last one is padding

    def elements(self, inputs, masks):
        return [Elements(self.given, mask=self.real)]

    def encoder(self, elements):
        (part,) = elements
        seen = part.content[..., 0] * part.mask
        return seen.sum(dim=1, keepdim=True) / 4

    def decode(self, states, inputs, masks, *, elements):
        return states


def answer(outputs):
    return outputs[:, 0]


def test_what_the_answer_rests_on_goes_first_and_comes_first():
    model, inputs = Sums(), {"x": torch.zeros(1, 10)}
    maps = {"right": model.given[0, :, 0], "wrong": -model.given[0, :, 0]}
    found = deletion_curves(model, inputs, probability=answer, maps=maps, steps=10)
    np.testing.assert_allclose(found.fractions, np.linspace(0, 1, 10))
    expected = np.clip(1 - np.arange(10) / 4, 0, 1)
    np.testing.assert_allclose(found.deletion["right"], expected)
    np.testing.assert_allclose(found.insertion["right"], 1 - expected)
    np.testing.assert_allclose(found.insertion["wrong"], expected[::-1])
    areas = found.areas()
    assert areas["right"][0] == pytest.approx(sum(expected[1:]) / 9 + 0.5 / 9)
    assert areas["right"][0] < areas["wrong"][0]
    assert areas["right"][1] > areas["wrong"][1]


def test_gradients_are_long_where_the_answer_depends_on_an_element():
    found = input_gradients(Sums(), {"x": torch.zeros(1, 10)}, probability=answer)
    assert_close(found, torch.tensor([0.25] * 9 + [0.0]))


def test_means_of_samples_say_how_sure_they_are(tmp_path):
    model, inputs = Sums(), {"x": torch.zeros(1, 10)}
    right, rng = model.given[0, :, 0], torch.linspace(1, 0, 10)
    maps = [{"map": right, "random": rng}, {"map": right, "random": rng.flip(0)}]
    found = mean_curves(
        [deletion_curves(model, inputs, probability=answer, maps=one) for one in maps]
    )
    assert found.samples == 2
    assert found.errors["map"] == pytest.approx((0, 0))
    assert found.errors["random"][0] > 0
    assert found.gains["map"][0][0] == pytest.approx(
        found.areas()["random"][0] - found.areas()["map"][0]
    )
    assert found.gains["random"] == ((0, 0), (0, 0))
    with np.load(write_curves(found, tmp_path / "new" / "a.npz")) as kept:
        assert kept["samples"] == 2
        np.testing.assert_allclose(kept["deletion.map"], found.deletion["map"])
    assert write_curves(found, tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="format png or npz to write curves in, got 'gif'"):
        write_curves(found, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="at least one sample, got none"):
        mean_curves([])


def perceiver():
    encoder = tiny_encoder(latent_channels=8, latent_init_scale=1.0)
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(4, 6))},
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=2),
    )
    model = build(config).eval()
    torch.nn.init.normal_(model.output.to_logits.weight)
    return model


def test_all_maps_of_a_model_are_held_against_each_other():
    model, sure = perceiver(), class_probability(TASK, 1, None)
    maps = all_maps(model, PICTURE, probability=sure, index=1)
    assert list(maps) == ["mean", "last", "rollup", "class", "gradients", "random"]
    found = deletion_curves(model, PICTURE, probability=sure, maps=maps, steps=3)
    whole = model(PICTURE).softmax(dim=-1)[0, 1].item()
    for name in maps:
        assert found.deletion[name][0] == pytest.approx(whole, abs=1e-5)
        assert found.insertion[name][-1] == pytest.approx(whole, abs=1e-5)
        # With nothing to read every order ends, and begins, alike.
        assert found.deletion[name][-1] == pytest.approx(found.insertion[name][0], abs=1e-6)


def test_classes_are_found_by_name_and_numbers_have_no_curves():
    assert class_index(TASK, None) is None
    assert class_index(TASK, "dog") == 1
    with pytest.raises(ValueError, match=r"no class 'dgo' to explain; .*Did you mean 'dog'"):
        class_index(TASK, "dgo")
    with pytest.raises(ValueError, match="the probability of a class, and this run learned regr"):
        class_probability(RegressionConfig(target_names=("x",), mean=(0.0,), std=(1.0,)), 0, None)
    several = {"a": torch.zeros(1, 2), "b": torch.tensor([[0.0, 9.0]])}
    assert float(class_probability(TASK, 1, "b")(several)) > 0.9


def test_a_model_without_labels_has_no_class_to_ask_about():
    model = perceiver()
    saved = Saved(model=model, config=SavedConfig(model=model.config), folder=Path("run"))
    with pytest.raises(ValueError, match="saved without its labels, so it has no class"):
        next(curves_of_files(saved, []))
