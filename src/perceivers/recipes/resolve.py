"""From a recipe and the data at hand to a run: what the recipe left open is taken from the data."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from perceivers.data.base import DataConfig, ImagePreprocessConfig, MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.transform import encoded_item_of
from perceivers.data.modalities.image.preprocess import measure_mean_std, suggest_image_size
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.chunking import chunk_texts
from perceivers.data.sources.split import with_validation
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable, Field
from perceivers.recipes.autoencode import autoencoder_for
from perceivers.recipes.multimodal import recipe_for
from perceivers.recipes.registry import Recipe, get_recipe, sizes_of
from perceivers.recipes.resolve_autoencoder import fill_autoencoder, fill_label
from perceivers.recipes.resolve_dense import fill_dense, for_pairs
from perceivers.recipes.resolve_sizes import fill_answer, fill_input, fill_output, measured
from perceivers.recipes.resolve_tasks import fill_tasks, for_targets
from perceivers.tasks.autoencode import LABEL, AutoencodeConfig
from perceivers.tasks.dense import DenseConfig
from perceivers.tasks.masked import MaskedBytesConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, answers_of, fit_task, target_of

__all__ = ["choose_recipe", "joined", "learnable", "made_for", "specialize"]

# Rows of a stream from which size and statistics are taken, and of a split from which a modality is measured.
_LOOKED_AT, _MEASURED = 256, 192

# Bytes of a text that are read at once, where its recipe leaves that open; and how many times as long the pieces are
# that are learned from, so that a part anywhere in them can be read.
_PIECE, _ROOM = 2048, 2

# The means and deviations of ImageNet's training pictures that everybody uses.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Samples seen by a run without any limit, within bounds on its passes over the data.
_SAMPLES, _FEWEST_EPOCHS, _MOST_EPOCHS = 600_000, 12, 200

# A pass over few samples still has so many steps, of no fewer samples than this.
_STEPS, _SMALLEST_BATCH = 64, 16

# The recipe for data of one modality, by its kind.
_RECIPES = {
    "image": "images",
    "audio": "audio",
    "video": "video",
    "points": "points",
    "text": "text",
    "series": "series",
    "array": "arrays",
}


def choose_recipe(
    source: DatasetBundle, *, name: str | None = None, size: str | None = None
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
        asked = get_recipe(name, size=size)
        return made_for(asked, source, size=size), f"Recipe {name}, as asked for."
    kinds = {modality: part.kind for modality, part in source.inputs.items()}
    name = "multimodal"
    if len(kinds) == 1:
        name = _RECIPES.get(next(iter(kinds.values())), "multimodal")
    elif kinds == {"audio": "audio", "video": "video"}:
        name = "audio_video"
    elif kinds == {"frame_pair": "frame_pair", "flow": "flow"}:
        name = "flow"
    if size is not None:
        why = "as asked for"
    elif torch.cuda.is_available():
        many = (_count(source) or 0) >= 50_000
        size, why = ("base", "for a GPU and many samples") if many else ("small", "for a GPU")
    else:
        size, why = "tiny", "for a machine without a GPU"
    others = ", ".join(s for s in sizes_of(name) if s != size)
    sentence = f"Recipe {name} in size {size}, {why} (--size {others})."
    chosen = recipe_for(kinds, size) if name == "multimodal" else get_recipe(name, size=size)
    batch = chosen.training.batch_size
    while batch > _SMALLEST_BATCH and batch * _STEPS > (_count(source) or batch * _STEPS):
        batch //= 2
    if batch < chosen.training.batch_size:
        sentence += f" Steps of {batch} samples, as there are few (--batch-size)."
        chosen = replace(chosen, training=replace(chosen.training, batch_size=batch))
    return chosen, sentence


def specialize(recipe: Recipe, source: DatasetBundle) -> tuple[Recipe, Mapping[str, Any]]:
    """Return the recipe with everything filled in, and what turns a file into the model's array.

    Sizes, statistics, classes and, where no limit is given, the number of epochs come from the data.

    Raises:
        ValueError: If the recipe does not fit the data: other modalities, or no labels. If nothing says
            how long to train.
    """
    recipe = for_targets(_fitting(for_pairs(recipe, source), source), source)
    if target_of(recipe.task) != "nothing":
        _require_labels(source)
    train, num_rows = _training_rows(source)
    inputs, preprocess = dict(recipe.inputs), dict[str, Any]()
    # Films first: the sound of a film takes over the length of its clip.
    for name in sorted(_read_by(recipe), key=lambda name: source.inputs[name].kind != "video"):
        part, column = recipe.inputs[name], source.inputs[name]
        if name in recipe.preprocess:
            asked = _in_step(recipe.preprocess[name], column, source, preprocess)
            preprocess[name] = measured(
                asked, _cells(train, column), largest_image=recipe.data.largest_image
            )
            inputs[name] = fill_input(part, preprocess[name])
        else:
            inputs[name], preprocess[name] = _picture(recipe, part, train, column.column)
    answers = {
        name: fill_answer(
            recipe.preprocess[name], _cells(train, source.inputs[name]), inputs=preprocess
        )
        for name in answers_of(recipe.task)
    }
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
        preprocess={**recipe.preprocess, **answers},
        training=training,
    )
    preprocess |= answers
    return _filled_task(filled, source, preprocess), preprocess


def _filled_task(recipe: Recipe, source: DatasetBundle, preprocess: Mapping[str, Any]) -> Recipe:
    """Return a recipe whose task knows its classes, labels or numbers, and whose output has as many."""
    if isinstance(recipe.task, MultiTaskConfig):
        return fill_tasks(recipe, source)
    if isinstance(recipe.task, DenseConfig):
        return fill_dense(recipe)
    task = fit_task(recipe.task, source.target_kind, source.label_names, source.target_moments())
    if isinstance(task, AutoencodeConfig):
        inputs = fill_label(recipe.inputs, len(source.label_names))
        task, output = fill_autoencoder(task, recipe.output, inputs, preprocess)
        return replace(recipe, inputs=inputs, task=task, output=output)
    if target_of(task) == "nothing":
        return replace(recipe, task=task, output=fill_output(recipe.output, recipe.inputs))
    output = recipe.output.with_num_outputs(len(source.label_names))
    return replace(recipe, task=task, output=output)


def _in_step(
    asked: Any, column: InputColumn, source: DatasetBundle, preprocess: Mapping[str, Any]
) -> Any:
    """Return the preprocessing of sound with clips as long as those of the film that it belongs to."""
    if column.kind != "audio" or asked.seconds is not None:
        return asked
    for name, known in preprocess.items():
        if known.kind == "video" and source.inputs[name].column == column.column:
            return replace(asked, seconds=round(known.num_frames / known.frame_rate, 6))
    return asked


def made_for(recipe: Recipe, source: DatasetBundle, *, size: str | None = None) -> Recipe:
    """Return a recipe of whatever the data hold, made for these; any other recipe as it is.

    Args:
        recipe: As it was asked for.
        source: The data.
        size: Of the recipe. By default the smallest.

    Raises:
        ValueError: If it cannot be made for what the data hold.
    """
    has_label = source.target_kind == "class" and len(source.label_names) > 1
    if recipe.name != "autoencode" or (
        set(_read_by(recipe)) == set(source.inputs) and has_label == (LABEL in recipe.inputs)
    ):
        return recipe
    kinds = {name: part.kind for name, part in source.inputs.items()}
    made = autoencoder_for(kinds, size or sizes_of("autoencode")[0], has_label=has_label)
    return replace(made, data=replace(recipe.data, target=made.data.target))


def _read_by(recipe: Recipe) -> list[str]:
    """Return the modalities that a recipe reads from the data, in its order: all but the class, their target."""
    return [name for name, part in recipe.inputs.items() if part.kind != "label"]


def _fitting(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return the recipe if it reads what the data hold; some are made for them.

    Raises:
        ValueError: If it reads other modalities.
    """
    recipe = made_for(recipe, source)
    if {*_read_by(recipe), *answers_of(recipe.task)} == set(source.inputs):
        return recipe
    kinds = {name: part.kind for name, part in source.inputs.items()}
    if recipe.name == "multimodal":
        made = recipe_for(kinds)
        return replace(recipe, inputs=made.inputs, preprocess=made.preprocess, augment=made.augment)
    seen = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    column = next(iter(source.inputs.values())).column
    kind = next(iter(recipe.inputs))
    answers = "".join(f" and learns {name}" for name in answers_of(recipe.task))
    msg = (
        f"Recipe {recipe.name} reads {', '.join(sorted(recipe.inputs))}{answers}, but the data holds {seen}. Say which "
        f"column is what with --columns {column}:{kind}, or leave --recipe out to get one that fits."
    )
    raise ValueError(msg)


def _picture(
    recipe: Recipe, part: Any, train: MapStyleSplit, column: str
) -> tuple[Any, ImagePreprocessConfig]:
    """Return the input of pictures, of a size that suits them, and their preprocessing."""
    size = part.size
    if size is None:
        size = suggest_image_size(train, column, largest=recipe.data.largest_image)
    mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    if recipe.data.normalization == "data" or part.num_channels != 3:
        mean, std = measure_mean_std(train, column, num_channels=part.num_channels, size=size)
    preprocess = ImagePreprocessConfig(
        size=size,
        num_channels=part.num_channels,
        mean=mean,
        std=std,
        crop_fraction=recipe.data.crop_fraction,
    )
    return replace(part, size=size), preprocess


def _cells(train: MapStyleSplit, column: InputColumn) -> Iterator[EncodedItem]:
    """Yield the cells of a modality of some rows, evenly spaced, in an order that does not go through the classes."""
    if column.kind == "table":  # all of them: a category that is not seen is unknown ever after
        names = column.all_columns
        for cells in zip(*(train.column(name) for name in names), strict=True):
            yield EncodedItem("train", value=dict(zip(names, cells, strict=True)))
        return
    places = np.unique(np.linspace(0, max(len(train) - 1, 0), _MEASURED).round().astype(int))
    for index in np.random.default_rng(0).permutation(places[: len(train)]):
        try:
            media = encoded_item_of(train.row(int(index)), column)
        except (OSError, ValueError):  # named and counted when it is to be learned from
            continue
        if not media.is_missing:
            yield media


def learnable(
    source: DatasetBundle, task: TaskConfig, preprocess: Mapping[str, Any], data: DataConfig | None
) -> DatasetBundle:
    """Return data as a task learns from them, validation held out: with labels or answers, or as pieces of texts.

    Args:
        source: The data.
        task: What is to be learned.
        preprocess: Of each modality; how long a text is.
        data: How a validation split is held out. None: none is.

    Raises:
        ValueError: If there are no labels or answers and the task needs them, or there is no text where it needs one;
            if there are too few rows to hold some out.
    """

    def held_out(source: DatasetBundle) -> DatasetBundle:
        return source if data is None else with_validation(source, data)

    for name in answers_of(task):
        if name not in source.inputs:
            msg = (
                f"There is no '{name}' in these data, and that is what is learned and measured against: they hold "
                f"{', '.join(source.inputs)}. Say which column it is with --columns, or use predict, which needs none."
            )
            raise ValueError(msg)
    if answers_of(task):
        return held_out(source)
    if not isinstance(task, MaskedBytesConfig):
        if target_of(task) != "nothing":
            _require_labels(source)
        return held_out(source)
    if task.modality not in source.inputs:
        msg = f"Masked bytes are learned from texts, but the data holds {', '.join(source.inputs)}."
        raise ValueError(msg)
    length = getattr(preprocess.get(task.modality), "max_length", None) or _PIECE
    long = held_out(chunk_texts(source, task.modality, _ROOM * length))
    # Cut again when some are held out: what is learned from never overlaps what is measured.
    return chunk_texts(long, task.modality, length, leave="train")


def joined(source: DatasetBundle, recipe: Recipe) -> DatasetBundle:
    """Return data whose columns of texts are one input, if there are several and the recipe reads one text alone.

    Raises:
        ValueError: If it learns hidden bytes, which are of one column.
    """
    kinds = {part.kind for part in source.inputs.values()}
    reads = [part.kind for part in recipe.inputs.values()]
    if len(source.inputs) < 2 or kinds != {"text"} or reads not in (["bytes"], ["bytes_convolved"]):
        return source
    columns = tuple(c for part in source.inputs.values() for c in part.all_columns)
    if isinstance(recipe.task, MaskedBytesConfig):
        msg = (
            f"Hidden bytes are learned from one column of texts, and these were named: {', '.join(columns)}. Name one "
            f"of them: --columns {columns[0]}:text."
        )
        raise ValueError(msg)
    name = next(iter(recipe.inputs))
    one = InputColumn(columns[0], "text", columns, ("text",) * len(columns))
    note = f"Read as one text with a mark between them: {', '.join(columns)}."
    return replace(source, inputs={name: one}, notes=(*source.notes, note))


def _require_labels(source: DatasetBundle) -> None:
    if not source.label_names:
        msg = (
            "The data has no labels, so there is nothing to learn. Expected a folder for each class, or "
            "a column of labels (--label COLUMN)."
        )
        raise ValueError(msg)


def _count(source: DatasetBundle) -> int | None:
    """Return the number of training rows; None where a stream does not know it."""
    if "train" in source.streams:
        return source.streams["train"].num_rows
    return len(source.splits["train"]) if "train" in source.splits else 0


def _training_rows(source: DatasetBundle) -> tuple[MapStyleSplit, int | None]:
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
    names = dict.fromkeys(c for part in source.inputs.values() for c in part.all_columns)
    columns = {name: [row[name] for row in rows] for name in names}
    fields = {name: Field("other") for name in names}  # media are such already
    return ColumnTable(name="the stream", columns=columns, fields=fields), _count(source)
