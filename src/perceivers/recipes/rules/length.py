"""Length of a run without a limit, by the number of rows and the preset."""

from dataclasses import dataclass, replace

from perceivers.recipes.registry import Preset, Recipe
from perceivers.wording import counted

LIMITS = ("max_epochs", "max_steps", "max_time")


@dataclass(frozen=True)
class _Length:
    """Samples of a run, and bounds: fewest and most epochs, fewest steps."""

    samples: int
    min_epochs: int
    max_epochs: int
    min_steps: int


_LENGTHS: dict[Preset, _Length] = {
    "quick": _Length(120_000, 3, 100, 400),
    "default": _Length(600_000, 12, 400, 1_500),
    "best": _Length(1_500_000, 30, 800, 3_000),
}

# An epoch of few samples still has that many steps, unless they would be smaller than the smallest batch.
_STEPS, _SMALLEST_BATCH = 64, 16

# Length of each member of an ensemble, relative to a single model: five of them take twice as long.
_MEMBER_SHARE = 0.4


def with_batch_size(recipe: Recipe, num_rows: int | None) -> Recipe:
    """Return the recipe with a smaller batch if an epoch of few rows would have few steps."""
    batch = recipe.training.batch_size
    while batch > _SMALLEST_BATCH and batch * _STEPS > (num_rows or batch * _STEPS):
        batch //= 2
    return replace(recipe, training=replace(recipe.training, batch_size=batch))


def has_limit(recipe: Recipe) -> bool:
    """Return whether a limit ends the run."""
    return any(getattr(recipe.training, name) is not None for name in LIMITS)


def with_length(
    recipe: Recipe,
    num_rows: int | None,
    *,
    factor: float = 1.0,
    most_epochs: int | None = None,
) -> Recipe:
    """Return the recipe with a number of epochs, if it has no limit, or only one of time.

    Args:
        recipe: A recipe. Without a preset, that is `default`.
        num_rows: Training rows. None: unknown.
        factor: Factor of the number of samples, of the rules of a modality.
        most_epochs: Epochs after which the run ends at the latest, also before a limit of time. None: no such number.

    Raises:
        ValueError: If the number of rows is unknown.
    """
    training = recipe.training
    if has_limit(recipe):
        if most_epochs is None or training.max_epochs is not None or training.max_steps is not None:
            return recipe
        return replace(recipe, training=replace(training, max_epochs=most_epochs))
    if num_rows is None:
        raise ValueError(
            "The number of rows of the stream is unknown, so a limit is needed: --max-time 1h, --max-steps 10000 or "
            "--max-epochs 10."
        )
    length, rows = _LENGTHS[recipe.preset or "default"], max(num_rows, 1)
    samples = max(length.samples * factor, length.min_steps * training.batch_size)
    epochs = min(max(round(samples / rows), length.min_epochs), length.max_epochs)
    if (training.folds or 1) > 1:
        epochs = max(round(_MEMBER_SHARE * epochs), 1)
    epochs = min(epochs, most_epochs or epochs)
    return replace(recipe, training=replace(training, max_epochs=epochs))


def length_sentence(recipe: Recipe) -> str:
    """Return batch size, learning rate and length of the run as a sentence."""
    training = recipe.training
    if training.max_time is not None:
        length = training.max_time
        if training.max_epochs is not None:
            length += f" or {counted(training.max_epochs, 'epoch')}, whichever ends first"
    elif training.max_steps is not None:
        length = counted(training.max_steps, "step")
    else:
        length = counted(training.max_epochs or 0, "epoch")
    if (training.folds or 1) > 1:
        length += " in all" if training.max_time is not None else " for each member"
    return f"batches of {training.batch_size}, learning rate {recipe.optim.lr:g}, {length}"
