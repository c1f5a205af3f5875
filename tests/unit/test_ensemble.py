"""Ensembles: averaged outputs, saved and loaded as one model, explained by the mean of their members."""

import json

import pytest
import torch

import perceivers as pv
from perceivers.explain.attribution.attribute import attribute
from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.faithfulness import all_maps, deletion_curves
from perceivers.explain.attribution.rollup import relevance
from perceivers.hub.checkpoint import ensemble_of, load, save
from perceivers.hub.convert import export_huggingface
from perceivers.models.ensemble import Ensemble
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.registry import build_task
from perceivers.training.finetune import plan_warm_start
from support import modality_data as made
from support.models import preprocess_of, tiny_model
from support.tolerance import assert_close

TASK = ClassificationConfig(label_names=("a", "b", "c"))
IMAGE = {"image": torch.rand(1, 3, 8, 8)}


@pytest.fixture(scope="module")
def ensemble():
    return ensemble_of([tiny_model(3).eval() for _ in range(3)], TASK).eval()


@pytest.fixture(scope="module")
def run(ensemble, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    columns = {"inputs": {"image": "image"}, "target": "label", "config": {}}
    save(folder, ensemble, preprocess={"image": preprocess_of("image")}, task=TASK, columns=columns)
    return folder


def test_outputs_are_averaged_as_the_task_states(ensemble):
    inputs = {"image": torch.rand(5, 3, 8, 8)}
    with torch.no_grad():
        outputs = torch.stack([member(inputs) for member in ensemble.members], dim=1)
        found = ensemble(inputs)
    assert_close(found, build_task(TASK).average_members(outputs))
    assert_close(Ensemble(list(ensemble.members))(inputs).detach(), outputs.mean(dim=1))


def test_several_outputs_are_averaged_by_name(ensemble):
    parts = [{"a": torch.rand(2, 3), "b": torch.rand(2, 1)} for _ in range(3)]
    found = Ensemble(list(ensemble.members)).average(parts)
    assert_close(found["b"], torch.stack([part["b"] for part in parts]).mean(dim=0))


def test_one_folder_holds_all_members(ensemble, run):
    content = json.loads((run / "config.json").read_text())
    assert content["num_members"] == 3
    saved = load(run)
    assert set(saved.model.state_dict()) == set(ensemble.state_dict())
    assert all(
        name.startswith(("members.0.", "members.1.", "members.2."))
        for name in ensemble.state_dict()
    )
    with torch.no_grad():
        assert torch.equal(saved.model(IMAGE), ensemble(IMAGE))
    assert saved.model.config == ensemble.members[0].config
    predictor = pv.load(run, device="cpu")
    one = predictor.predict(made.png(0, 0))[0]
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
    count = sum(weight.numel() for weight in ensemble.parameters())
    assert f"{count:,} parameters" in repr(predictor)
    assert predictor.member(1).model is predictor.model.members[1]


def test_a_changed_number_of_members_is_refused(run, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = (run / "config.json").read_text()
    for number, message in [
        (2, "is not part of an ensemble of 2 members"),
        (4, "is missing"),
        (0, "expected 1 to"),
    ]:
        (tmp_path / "config.json").write_text(
            text.replace('"num_members": 3', f'"num_members": {number}')
        )
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


def test_maps_are_the_mean_of_the_members(ensemble):
    found = attribute(ensemble, IMAGE, latents=[1])
    alone = [attribute(member, IMAGE, latents=[1]) for member in ensemble.members]
    for kind in ("mean", "last", "rollup"):
        expected = torch.stack([one.summary(kind) for one in alone]).mean(dim=0)
        assert_close(found.summary(kind), expected)
    assert_close(found.rolled.elements[1:], alone[0].rolled.elements[1:])  # of a single latent
    with torch.no_grad():
        assert_close(found.outputs, ensemble(IMAGE))
        best = int(ensemble(IMAGE)[0].argmax())
    expected = torch.stack([relevance(one, IMAGE, index=best) for one in ensemble.members]).mean(
        dim=0
    )
    assert_close(relevance(ensemble, IMAGE), expected)


def test_deletion_curves_are_of_the_average(ensemble):
    def probability(outputs):
        return outputs.softmax(dim=-1)[:, 1]

    maps = all_maps(ensemble, IMAGE, probability=probability, index=1)
    assert all(len(one) == 64 for one in maps.values())
    curves = deletion_curves(ensemble, IMAGE, probability=probability, maps=maps, steps=3)
    with torch.no_grad():
        whole = float(probability(ensemble(IMAGE)))
    assert curves.deletion["rollup"][0] == pytest.approx(whole, abs=1e-5)
    assert curves.insertion["random"][-1] == pytest.approx(whole, abs=1e-5)


def test_a_sample_is_explained(run):
    found = explain_sample(run, made.png(0, 0))
    predicted = pv.load(run, device="cpu").predict(made.png(0, 0))[0]
    expected = [predicted.probabilities[name] for name in found.label_names]
    assert found.probabilities == pytest.approx(expected, abs=1e-5)


def test_int8_weights_are_those_of_all_members(ensemble, run):
    from perceivers.hub.quantize import plan_int8

    names = plan_int8(load(run).model).num_layers
    assert names == 3 * plan_int8(ensemble.members[0]).num_layers


def test_a_new_run_starts_from_a_member(ensemble, run):
    config = ensemble.members[0].config
    for number in (0, 4):
        plan = plan_warm_start(config, run, member=number)
        weights = ensemble.members[number % 3].state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in plan.weights.items())
        assert f"Began from the weights of member {number % 3} of {run}" in plan.sentences()[0]


def test_transformers_has_no_ensembles(run, tmp_path):
    with pytest.raises(ValueError, match="no counterpart to the average of 3 models"):
        export_huggingface(run, tmp_path / "out")


def test_settings_reach_all_members(ensemble):
    ensemble.set_attn_implementation("projected")
    assert {one.encoder.attn_implementation for one in ensemble.members} == {"projected"}
    ensemble.set_attn_implementation("auto")
    ensemble.set_permutation(1)
    assert {one.permutation for one in ensemble.members} == {1}
    ensemble.set_permutation(None)
