"""From a recipe and the data at hand to a run: what the recipe left open is taken from the data."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

import torch

from perceivers.data.base import ImagePreprocessConfig, Records
from perceivers.data.images import measure_mean_std, suggest_image_size
from perceivers.data.sources import DataSource
from perceivers.data.tables import ColumnTable
from perceivers.recipes.base import Recipe, get_recipe, sizes_of

__all__ = ["choose_recipe", "require_labels", "specialize"]

# Rows of a stream from which size and statistics are taken.
_LOOKED_AT = 256

# The means and deviations of ImageNet's training pictures that everybody uses.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Samples seen by a run without any limit, within bounds on its passes over the data.
_SAMPLES, _FEWEST_EPOCHS, _MOST_EPOCHS = 600_000, 12, 200


def choose_recipe(
    source: DataSource, *, name: str | None = None, size: str | None = None
) -> tuple[Recipe, str]:
    """Return the recipe for some data, and a sentence that says why this one.

    Args:
        source: What was recognized.
        name: A recipe that was asked for. By default that of the data's modality.
        size: A size that was asked for. By default one that fits the machine.

    Raises:
        KeyError: If there is no such recipe.
        ValueError: If it does not come in this size.
    """
    if name is not None:
        return get_recipe(name, size=size), f"Recipe {name}, as asked for."
    if size is not None:
        return get_recipe("images", size=size), f"Recipe images in size {size}, as asked for."
    if torch.cuda.is_available():
        many = (_count(source) or 0) >= 50_000
        size, why = ("base", "a GPU and many pictures") if many else ("small", "a GPU")
    else:
        size, why = "tiny", "a machine without a GPU"
    others = ", ".join(s for s in sizes_of("images") if s != size)
    return get_recipe(
        "images", size=size
    ), f"Recipe images in size {size}, for {why} (--size {others})."


def specialize(
    recipe: Recipe, source: DataSource
) -> tuple[Recipe, Mapping[str, ImagePreprocessConfig]]:
    """Return the recipe with everything filled in, and what turns a file into the model's array.

    Picture size, classes and, where no limit is given, the number of epochs come from the data.

    Raises:
        ValueError: If the recipe does not fit the data: other modalities, or no labels. If nothing says
            how long to train.
    """
    if set(recipe.inputs) != set(source.inputs):
        msg = (
            f"Recipe {recipe.name} reads {sorted(recipe.inputs)}, but the data holds the inputs "
            f"{ {name: c.column for name, c in source.inputs.items()} }. Choose the column with "
            f"--columns {next(iter(source.inputs.values())).column}:image."
        )
        raise ValueError(msg)
    require_labels(source)
    train, num_rows = _training_rows(source)
    inputs, preprocess = dict(recipe.inputs), {}
    for name, part in recipe.inputs.items():
        column = source.inputs[name].column
        image_size = part.size
        if image_size is None:
            image_size = suggest_image_size(train, column, largest=recipe.data.largest_image)
        mean, std = _IMAGENET_MEAN, _IMAGENET_STD
        if recipe.data.normalization == "data" or part.num_channels != 3:
            mean, std = measure_mean_std(
                train, column, num_channels=part.num_channels, size=image_size
            )
        inputs[name] = replace(part, size=image_size)
        preprocess[name] = ImagePreprocessConfig(
            size=image_size,
            num_channels=part.num_channels,
            mean=mean,
            std=std,
            crop_fraction=recipe.data.crop_fraction,
        )
    training = recipe.training
    if training.max_epochs is None and training.max_steps is None and training.max_time is None:
        if num_rows is None:
            msg = (
                "How many rows the stream has is not known, so how long to train must be said: "
                "--max-time 1h, --max-steps 10000 or --max-epochs 10."
            )
            raise ValueError(msg)
        epochs = round(_SAMPLES / max(num_rows, 1))
        training = replace(training, max_epochs=min(max(epochs, _FEWEST_EPOCHS), _MOST_EPOCHS))
    filled = replace(
        recipe,
        inputs=inputs,
        output=replace(recipe.output, num_outputs=len(source.label_names)),
        task=replace(recipe.task, label_names=source.label_names),
        training=training,
    )
    return filled, preprocess


def require_labels(source: DataSource) -> None:
    """Refuse data that cannot be learned from.

    Raises:
        ValueError: If there are no labels.
    """
    if not source.label_names:
        msg = (
            "The data has no labels, so there is nothing to learn. Expected a folder for each class, or "
            "a column of labels (--label COLUMN)."
        )
        raise ValueError(msg)


def _count(source: DataSource) -> int | None:
    """Return the number of training rows; None where a stream does not know it."""
    if "train" in source.streams:
        return source.streams["train"].num_rows
    return len(source.splits["train"]) if "train" in source.splits else 0


def _training_rows(source: DataSource) -> tuple[Records, int | None]:
    """Return rows to look at, all of train or the first of a stream, and how many there are in all.

    Raises:
        ValueError: If there is no training split.
    """
    if "train" in source.splits:
        train = source.splits["train"]
        return train, len(train)
    if "train" not in source.streams:
        msg = f"Expected a split called train, got {sorted({*source.splits, *source.streams})}."
        raise ValueError(msg)
    rows = list(islice(source.streams["train"], _LOOKED_AT))
    names = [column.column for column in source.inputs.values()]
    columns = {name: [row[name] for row in rows] for name in names}
    return ColumnTable(name="the stream", columns=columns), _count(source)
