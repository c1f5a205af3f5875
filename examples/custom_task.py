"""A custom task: classification with the focal loss.

    python examples/custom_task.py

Once registered, a task works in `fit`, `evaluate`, `predict`, `explain`, `export` and `serve` like a built-in one, also
by its `kind` in a recipe file. A package registers its tasks in a module that it names in the entry-point group
`perceivers.plugins`. Tasks with other targets or outputs subclass `pv.Task` or `pv.SupervisedTask`.

Reference: Focal Loss for Dense Object Detection (arXiv:1708.02002), equation 4.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy

import perceivers as pv


@dataclass(frozen=True, kw_only=True)
class FocalConfig(pv.ClassificationConfig):
    """Classification with the focal loss.

    Attributes:
        gamma: Exponent of the factor (1 - p)^gamma of each sample. 0: cross-entropy.
    """

    kind: Literal["focal"] = "focal"
    gamma: float = 2.0


class FocalTask(pv.ClassificationTask):
    """Samples that are classified correctly with confidence have a small weight."""

    config: FocalConfig

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = cross_entropy(outputs.float(), targets, reduction="none")
        return ((1 - (-losses).exp()) ** self.config.gamma * losses).mean()


pv.register_task(FocalConfig, FocalTask)


def main(folder: str = "runs/focal", data: Any = "builtin:digits", **changes: Any) -> pv.Prediction:
    recipe = replace(pv.get_recipe("images", size="tiny"), task=FocalConfig(gamma=1.5))
    changes = {"max_time": "1m", "augment.image.mixup": 0.0, "augment.image.cutmix": 0.0} | changes
    run = pv.fit(data, recipe, out=folder, **changes)
    print(pv.evaluate(run.folder).metrics)
    image = torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()
    print(pv.explain_sample(run.folder, image).label_names)
    pv.export(run.folder, Path(folder) / "export", format="torch")
    return pv.load(run.folder).predict(image)[0]


if __name__ == "__main__":
    print(main())
