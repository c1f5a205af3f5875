"""A task that is registered from outside works in every command."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import perceivers as pv
from perceivers.cli.main import main
from perceivers.hub.checkpoint import load
from perceivers.recipes.files import dump_recipe, parse_recipe
from perceivers.tasks.registry import build_task
from support.runs import make_image_folder


@dataclass(frozen=True, kw_only=True)
class OrdinalConfig(pv.BaseTaskConfig):
    """Ordered classes.

    Attributes:
        label_names: Name of each class, in ascending order. Taken from the data when empty.
    """

    kind: Literal["ordinal"] = "ordinal"
    label_names: tuple[str, ...] = ()

    @property
    def target_kind(self) -> str:
        return "class"

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.label_names

    def fit_to(self, target: pv.TargetInfo) -> "OrdinalConfig":
        return replace(self, label_names=target.names)

    def output_parts(self) -> dict[str, pv.OutputPart]:
        return {"label": pv.OutputPart(num_outputs=max(len(self.label_names) - 1, 0))}


class OrdinalTask(pv.SupervisedTask):
    """Cumulative logits: output k is the logit of P(class > k)."""

    main_metric = "mae"
    higher_is_better = False
    score_name = "accuracy"
    explain_as = "classification"
    export_output = pv.ExportOutput("probabilities", "probability of each class; they sum to one")

    def __init__(self, config: OrdinalConfig) -> None:
        self.config = config

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(outputs.shape[1], device=outputs.device)
        return binary_cross_entropy_with_logits(outputs.float(), (targets[:, None] > steps).float())

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        above = outputs.float().sigmoid().cummin(dim=-1).values
        ones, zeros = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        return torch.cat([ones, above], dim=-1) - torch.cat([above, zeros], dim=-1)

    def combine(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.float().mean(dim=1)

    def training_score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self.probabilities(outputs).argmax(dim=-1) == targets).sum().float()

    def meter(self) -> "OrdinalMeter":
        return OrdinalMeter(self)

    def predictions(
        self, outputs: torch.Tensor, request: pv.PredictionRequest
    ) -> Iterator[pv.Prediction]:
        for name, row in zip(request.names, self.probabilities(outputs).tolist(), strict=True):
            ranked = sorted(zip(self.names, row, strict=True), key=lambda pair: -pair[1])
            yield pv.Prediction(
                name=name,
                label=ranked[0][0],
                probability=ranked[0][1],
                top=tuple(ranked[: max(request.top, 1)]),
                probabilities=dict(ranked),
            )

    def example_targets(self, batch_size: int, *, mixed: bool) -> torch.Tensor:
        return torch.zeros(batch_size, dtype=torch.long)


class OrdinalMeter(pv.ConfusionMeter):
    """Accuracy, and mean absolute error in classes."""

    def __init__(self, task: OrdinalTask) -> None:
        super().__init__(len(task.names), 1)  # the sum of losses
        self.task = task

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.sums += self.task.loss(outputs, targets).item() * len(targets)
        self.count(targets, self.task.probabilities(outputs).argmax(dim=-1))

    def compute(self) -> dict[str, float]:
        samples = max(int(self.confusion.sum()), 1)
        classes = torch.arange(len(self.confusion))
        errors = self.confusion * (classes[:, None] - classes).abs()
        return {
            "mae": errors.sum().item() / samples,
            "accuracy": self.confusion.trace().item() / samples,
            "loss": self.sums.item() / samples,
            "samples": float(self.confusion.sum()),
        }


pv.register_task(OrdinalConfig, OrdinalTask)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grades")
    return make_image_folder(folder / "data", labels=("a", "b", "c"), count=6)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Return a run of three ordered classes, trained by the command from a recipe file."""
    folder = tmp_path_factory.mktemp("ordinal")
    recipe = replace(pv.get_recipe("images", size="tiny"), task=OrdinalConfig(), augment={})
    (folder / "ordinal.yaml").write_text(dump_recipe(recipe))
    options = ["--recipe", str(folder / "ordinal.yaml"), "--out", str(folder / "run")]
    quick = ["--max-steps", "3", "--batch-size", "8", "--workers", "0", "--no-progress"]
    assert main(["fit", str(data), *options, *quick]) == 0
    return folder / "run"


def test_it_is_saved_with_the_names_of_the_data(run):
    saved = load(run).config
    assert saved.task == OrdinalConfig(label_names=("a", "b", "c"))
    assert saved.model.output.num_outputs == 2
    recipe = parse_recipe((run / "recipe.yaml").read_text())
    assert isinstance(recipe.task, OrdinalConfig)


def test_it_is_evaluated_by_its_metrics(run, data, capsys):
    assert main(["evaluate", str(run), "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics.keys() == {"mae", "accuracy", "loss", "samples"}


def test_it_predicts_explains_and_exports(run, data, tmp_path, capsys):
    image = str(next((data / "a").iterdir()))
    assert main(["predict", str(run), image, "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["label"] in "abc"
    explanation = pv.explain_sample(run, image)
    assert explanation.label_names == ("a", "b", "c")
    assert explanation.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--format", "torch"]) == 0
    manifest = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert manifest["outputs"]["probabilities"]["meaning"].startswith("probability of each class")


def test_it_can_be_one_of_several_tasks():
    config = pv.MultiTaskConfig(
        parts={
            "grade": OrdinalConfig(label_names=("a", "b", "c")),
            "kind": pv.ClassificationConfig(label_names=("x", "y")),
        }
    )
    task = build_task(config)
    outputs = {"grade": torch.zeros(4, 2), "kind": torch.zeros(4, 2)}
    targets = {"grade": torch.tensor([0, 1, 2, -1]), "kind": torch.tensor([0, 1, 0, 1])}
    assert task.loss(outputs, targets).isfinite()
    assert {name: part.num_outputs for name, part in config.output_parts().items()} == {
        "grade": 2,
        "kind": 2,
    }
