"""Test-time augmentation: whether predictions that are averaged over mirrored samples are better in validation."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.base import Task
from perceivers.tasks.meters import Meter
from perceivers.tasks.metric_text import metric_text
from perceivers.training import distributed
from perceivers.training.low_rank import merge_low_rank

if TYPE_CHECKING:
    from perceivers.training.build import TrainingParts


def mirrored_modalities(run: ResolvedRun) -> tuple[str, ...]:
    """Return the modalities whose augmentation mirrors them, if the recipe asks for test-time augmentation.

    Only predictions of whole samples can be averaged: those of pixels would have to be mirrored back.
    """
    recipe = run.recipe
    if not recipe.training.tta or recipe.task.target_modalities or not recipe.task.requires_labels:
        return ()
    return tuple(
        name
        for name, augment in recipe.augment.items()
        if getattr(augment, "flip", False) is True
        and name in recipe.inputs
        and run.preprocess[name].has_mirrored
    )


def measure_views(
    parts: "TrainingParts", run: ResolvedRun, best: Mapping[str, Any]
) -> Meter | None:
    """Return the validation with averaged views of the weights that are kept. None: there are no other views.

    The weights are loaded into the trained model, which is not used any more. With several processes nothing is
    measured.
    """
    names, module = mirrored_modalities(run), parts.module
    if not names or parts.trainer.world_size > 1 or distributed.is_sharded(module.model):
        return None
    merge_low_rank(module.model)
    module.model.load_state_dict(best["model"])
    module.drop_average()
    from perceivers.training.callback import validate  # Lightning, which takes seconds to load

    views = {name: run.preprocess[name].mirrored for name in names}
    return validate(module, parts.validation, views=views)


def choose_views(
    run: ResolvedRun,
    task: Task,
    plain: tuple[Meter, Mapping[str, float]],
    views: Meter | None,
    note: Callable[[str], object],
) -> tuple[Meter, Mapping[str, float], tuple[str, ...]]:
    """Return meter and metrics with averaged views and the modalities that are mirrored, if that is better, or `plain`.

    Args:
        run: The run, whose recipe states the augmentation.
        task: The task.
        plain: Meter and metrics of single predictions.
        views: Meter of averaged predictions. None: there are no other views.
        note: Called with a sentence on the decision.
    """
    if views is None:
        return *plain, ()
    found = views.compute()
    note(views_sentence(task, found, plain[1]))
    return (
        (views, found, mirrored_modalities(run))
        if is_better(task, found, plain[1])
        else (*plain, ())
    )


def is_better(task: Task, views: Mapping[str, float], plain: Mapping[str, float]) -> bool:
    """Return whether the metrics with averaged views have a lower loss and no worse main metric."""
    if not views.get("loss", 0.0) < plain.get("loss", 0.0):
        return False
    new, old = views.get(task.main_metric, 0.0), plain.get(task.main_metric, 0.0)
    return new >= old if task.higher_is_better else new <= old


def views_sentence(task: Task, views: Mapping[str, float], plain: Mapping[str, float]) -> str:
    """Return a sentence on the decision whether mirrored samples are averaged."""
    texts = {
        key: (metric_text(key, views[key]), metric_text(key, plain[key]))
        for key in dict.fromkeys((task.main_metric, "loss"))
        if key in views and key in plain
    }
    found = ", ".join(
        f"{key} {new} with and without" if new == old else f"{key} {new} instead of {old}"
        for key, (new, old) in texts.items()
    )
    if is_better(task, views, plain):
        return (
            f"Predictions are averaged over mirrored images: validation {found}. They take twice as long; `predict "
            "--no-tta` leaves that out."
        )
    return (
        f"Predictions are not averaged over mirrored images, which would give validation {found}."
    )
