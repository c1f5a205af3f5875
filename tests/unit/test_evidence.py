"""Networks, training and page of the benchmark `evidence`."""

import json

import numpy as np
import pytest
import torch
from benchmarks import evidence, evidence_page, plain_nets
from benchmarks.plain_nets import Training

RNG = np.random.default_rng(0)


def sample_of(one):
    shape = (2, 3, 32, 32) if one.data == "cifar10" else (2, 512, 3)
    return evidence.prepared(one)(torch.randn(shape))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "cifar10-perceiver-learned-permuted",
            "cifar10-perceiver-start4",
            "cifar10-perceiver-stem-ff",
        ),
        *("cifar10-resnet-ff-permuted", "cifar10-vit", "modelnet10-perceiver-stem"),
        *("modelnet10-transformer", "modelnet10-pointnet"),
    ],
)
def test_networks_have_an_output_for_each_class(name):
    one = next(one for one in evidence.CONFIGURATIONS if one.name == name)
    x = sample_of(one)
    model = one.build(10, x.shape[1 if x.ndim == 4 else 2])
    assert model(x).shape == (2, 10)
    assert evidence.step_flops(model, x) > 1e6


def test_configurations_have_different_names():
    names = [one.name for one in evidence.CONFIGURATIONS]
    assert len(set(names)) == len(names)


def test_a_permutation_moves_pixels_and_their_features_alike():
    plain, permuted = (
        next(one for one in evidence.CONFIGURATIONS if one.name == f"cifar10-resnet-ff{way}")
        for way in ("", "-permuted")
    )
    x = torch.randn(1, 3, 32, 32)
    found, other = evidence.prepared(plain)(x), evidence.prepared(permuted)(x)
    assert found.shape == (1, 3 + 66, 32, 32)
    assert not torch.equal(found, other)
    columns = {tuple(column.tolist()) for column in found[0].flatten(1).T}
    assert columns == {tuple(column.tolist()) for column in other[0].flatten(1).T}


def test_training_ends_by_the_clock_and_learns():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = (x[:, 0] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    training = Training(lr=0.05, batch_size=16)
    steps, losses = plain_nets.train(model, x, y, lambda x: x, core_seconds=0.3, training=training)
    assert steps > 4
    assert 2 <= len(losses) <= 20
    assert losses[-1] < losses[0]
    assert (plain_nets.predictions(model, x) == y.numpy()).mean() > 0.9


def test_crops_and_points_keep_their_form():
    images = torch.rand(3, 3, 32, 32)
    assert plain_nets.crops_and_mirrored(images).shape == images.shape
    points = torch.rand(2, 600, 3) * 5
    found = evidence.points_augmented(points)
    assert found.shape == (2, 512, 3)
    assert found.abs().max() < 1.5


def test_wrong_names_and_missing_data(tmp_path, capsys):
    assert evidence.main(["--only", "mnist"]) == 2
    assert evidence.main(["--data", str(tmp_path), "--only", "modelnet10"]) == 0
    assert "modelnet10-pointnet: skipped, there is no" in capsys.readouterr().out


def test_a_result_is_kept(tmp_path, capsys):
    folder = tmp_path / "modelnet10"
    folder.mkdir()
    for part, count in (("train", 40), ("test", 10)):
        points = RNG.normal(size=(count, 520, 3))
        np.savez(folder / f"{part}.npz", points=points, label=np.arange(count) % 4)
    results = tmp_path / "results.json"
    given = ["--data", str(tmp_path), "--results", str(results), "--core-minutes", "0.005"]
    given += ["--only", "modelnet10-pointnet", "--split", "validation"]
    assert evidence.main(given) == 0
    assert evidence.main(given) == 0
    assert "on file" in capsys.readouterr().out
    (run,) = json.loads(results.read_text())["runs"]
    assert 0 <= run["accuracy"] <= 1
    assert run["mflops_per_sample"] > 1
    text = evidence_page.render([{**run, "accuracy": 0.5}, {**run, "seed": 1, "accuracy": 0.6}])
    assert "| PointNet | 55.0 % ± 5.0 |" in text


def test_losses_of_the_budget_of_most_networks_are_drawn(tmp_path):
    runs = [
        {"name": f"cifar10-{name}-ff", "core_minutes": minutes, "losses": [2.0, 1.5, 1.0]}
        for name, minutes in (("resnet", 4), ("vit", 4), ("vit", 20))
    ]
    path = tmp_path / "losses.png"
    assert evidence_page.draw_losses(runs, path)
    assert path.stat().st_size > 5_000
    assert not evidence_page.draw_losses([{"name": "cifar10-vit", "core_minutes": 4}], path)
