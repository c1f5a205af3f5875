"""Facts about training data, and the registry of the rules that choose by them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, Literal

import numpy as np

from perceivers.data.base import MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.transform import encoded_item_of, sample_cells
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable, Field
from perceivers.recipes.overrides import override
from perceivers.recipes.registry import Preset, Recipe
from perceivers.recipes.rules.length import length_sentence, with_length

# Rows of a stream on which sizes and statistics are measured.
_STREAM_ROWS = 256

# Kinds of targets that linear models learn.
_LINEAR_TARGETS = {"class", "labels", "number"}

Kept = Literal["nothing", "architecture", "all"]
"""Part of a trained model's recipe that the rules keep."""

Topic = Literal["Input", "Augmentation", "Model", "Training", "Validation"]
"""Subjects of choices; `fit` prints one line for each."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Properties of the training data that hold for all of its modalities.

    Attributes:
        num_rows: Training rows, without those held out for validation. None: unknown, as of some streams.
        target_kind: `class`, `labels`, `number`, `several` or `nothing`.
        num_classes: Classes, labels or target numbers.
        class_counts: Training rows of each class; () if the target is no class.
        preset: `quick`, `default` or `best`.
        overrides: Fields that the user has set, by dotted name. They are applied after the rules in any case.
        is_pretrained: Whether architecture and weights are those of a trained model.
    """

    num_rows: int | None
    target_kind: str
    num_classes: int
    class_counts: tuple[int, ...]
    preset: Preset
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_pretrained: bool = False

    @property
    def rows(self) -> int:
        """Training rows; many if their number is unknown."""
        return 1_000_000 if self.num_rows is None else self.num_rows

    def is_open(self, name: str) -> bool:
        """Return whether the user has set neither this field of the recipe nor a part of it: `inputs.image`."""
        return is_open(self.overrides, name)


def is_open(overrides: Mapping[str, Any], name: str) -> bool:
    """Return whether overrides have neither this field of a recipe nor a part of it: `inputs.image`."""
    last = name.rpartition(".")[2]
    keys = [key.replace("-", "_") for key in overrides]
    return not any(key in (name, last) or key.startswith(f"{name}.") for key in keys)


@dataclass(frozen=True)
class ModalityFacts:
    """Properties of one modality of the training data. Everything that decodes samples is computed on first use.

    Attributes:
        name: Name of the input in the recipe.
        data: Facts about the data as a whole.
        source: The data.
        column: Where the modality lies.
        train: Rows of the training split; the first rows of a stream.
        preprocess: Preprocessing of the recipe, with open sizes.
        is_alone: Whether it is the only input of the model.
    """

    name: str
    data: DataFacts
    source: DatasetBundle
    column: InputColumn
    train: MapStyleSplit
    preprocess: Any
    is_alone: bool

    @property
    def starts_linear(self) -> bool:
        """Whether a head that averages this modality's elements can start from a linear model of the training rows."""
        return (
            self.is_alone
            and not self.source.streams
            and self.data.num_classes > 0
            and self.data.target_kind in _LINEAR_TARGETS
            and self.data.is_open("training.linear_start")
        )

    @cached_property
    def measured(self) -> Any:
        """Preprocessing with sizes, channels and statistics of the data."""
        return self.preprocess.measure(partial(sample_cells, self.train, self.column))

    def cells(self, count: int) -> Iterator[EncodedItem]:
        """Yield cells of so many evenly spaced training rows, in an order that mixes the classes."""
        return sample_cells(self.train, self.column, count)

    def labelled_cells(self, count: int) -> Iterator[tuple[EncodedItem, int]]:
        """Yield cells of evenly spaced training rows with the index of their class.

        Nothing is yielded unless the target is a class. Rows that cannot be read are left out.
        """
        if self.source.target_kind == "class":
            for cell, target in self._targeted_cells(count):
                yield cell, int(target)

    def numbered_cells(self, count: int) -> Iterator[tuple[EncodedItem, list[float]]]:
        """Yield cells of evenly spaced training rows with the numbers to predict; as `labelled_cells`."""
        if self.source.target_kind == "number":
            for cell, target in self._targeted_cells(count):
                yield cell, np.atleast_1d(np.asarray(target, np.float64)).tolist()

    def _targeted_cells(self, count: int) -> Iterator[tuple[EncodedItem, Any]]:
        """Yield cells of evenly spaced training rows with their target. Rows that cannot be read are left out."""
        source = self.source
        if source.target is None or "train" not in source.splits:
            return
        targets = self.train.column(source.target)
        last = len(self.train) - 1
        for index in np.unique(np.linspace(0, last, count).round().astype(int)).tolist():
            try:
                cell = encoded_item_of(self.train.row(index), self.column)
            except (ImportError, KeyError):
                raise
            except Exception:  # named and counted in training
                continue
            if not cell.is_missing:
                yield cell, targets[index]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Choices of a rule for one modality.

    Attributes:
        input: Configuration of the input adapter.
        preprocess: Preprocessing, with open sizes still open.
        augment: Augmentation. None: none.
        fields: Fields of the recipe by dotted name, such as `optim.lr` or `encoder.num_latents`. Applied if the
            modality is the only one of the model.
        length: Factor of the number of samples of a run without a limit. The largest of all modalities counts.
        most_epochs: Epochs after which more of them do harm, also within a limit of time. None: unknown. Applied if the
            modality is the only one of the model.
        reasons: Phrases for the user, by topic: choice and reason, without a full stop.
    """

    input: Any
    preprocess: Any
    augment: Any
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    length: float = 1.0
    most_epochs: int | None = None
    reasons: Mapping[Topic, str] = field(default_factory=dict[Topic, str])


Rule = Callable[[Choice, ModalityFacts], Choice]

_RULES: dict[str, tuple[Rule, type]] = {}


def register_rules(kind: str, rule: Rule, *, adapter: type = object) -> None:
    """Register the rules of a modality.

    Args:
        kind: The `kind` of its preprocessing: `image`, `wave`.
        rule: Returns the choices for a modality, given those of the recipe and facts about the data.
        adapter: Class of the `InputConfig` to which the rules apply. By default any.
    """
    _RULES[kind] = rule, adapter


def apply_rules(
    recipe: Recipe,
    source: DatasetBundle,
    overrides: Mapping[str, Any],
    *,
    keep: Kept = "nothing",
) -> tuple[Recipe, list[str]]:
    """Return the recipe with the choices of the rules and a limit, and a sentence for each topic.

    The user's overrides are applied again afterwards. A recipe without a preset, as the published ones and those of
    finished runs, keeps its values.

    Args:
        recipe: A recipe whose modalities are bound to the data.
        source: The data, with a validation split.
        overrides: Fields that the user has set.
        keep: Part of a trained model's recipe that is kept: `all` but the augmentation; or the `architecture`, after
            pretraining without labels, where output, batch size and length are chosen as from scratch.

    Raises:
        OverrideError: If an override does not fit the recipe.
        ValueError: If no sample can be read, or the number of rows is unknown and no limit is given.
    """
    if recipe.preset is None:
        return with_length(recipe, num_rows(source)), []
    facts = replace(data_facts(recipe, source, overrides), is_pretrained=keep != "nothing")
    named = [
        name
        for name, part in recipe.inputs.items()
        if name in source.inputs and part.kind != "label" and name in recipe.preprocess
    ]
    rows, longest, most = training_rows(source), 0.0, None
    reasons: dict[Topic, list[str]] = {}
    for name in named:
        config = recipe.preprocess[name]
        about = ModalityFacts(
            name, facts, source, source.inputs[name], rows, config, is_alone=len(named) == 1
        )
        before = Choice(
            input=recipe.inputs[name], preprocess=config, augment=recipe.augment.get(name)
        )
        rule, adapter = _RULES.get(config.kind, (None, object))
        made = rule(before, about) if rule and isinstance(before.input, adapter) else before
        made = _without_kept(made, before, keep, facts)
        for topic, phrase in made.reasons.items():
            reasons.setdefault(topic, []).append(phrase)
        longest = max(longest, made.length)
        most = made.most_epochs if about.is_alone else None
        recipe = _with_choice(recipe, name, made, is_alone=about.is_alone)
    recipe = override(recipe, overrides)
    recipe = with_length(recipe, facts.num_rows, factor=longest or 1.0, most_epochs=most)
    reasons.setdefault("Training", []).insert(0, length_sentence(recipe))
    return replace(recipe, preset=None), [
        f"{topic}: {'; '.join(phrases)}." for topic, phrases in reasons.items()
    ]


def _without_kept(made: Choice, before: Choice, keep: Kept, facts: DataFacts) -> Choice:
    """Return the choices for what is not kept of a trained model."""
    if keep == "nothing":
        return made
    topics = ["Augmentation"] + ["Validation"] * (keep == "architecture")
    reasons = {key: why for key, why in made.reasons.items() if key in topics}
    if keep == "all":
        return replace(before, augment=made.augment, reasons=reasons)
    fixed = ("encoder.", "training.linear_start", "training.lr_scale")
    if not facts.is_open("training.cache_latents"):  # outputs are then those of the latents alone
        fixed = (*fixed, "output.")
    fields = {key: value for key, value in made.fields.items() if not key.startswith(fixed)}
    return replace(
        made, input=before.input, preprocess=before.preprocess, fields=fields, reasons=reasons
    )


def _with_choice(recipe: Recipe, name: str, made: Choice, *, is_alone: bool) -> Recipe:
    """Return the recipe with the choices for one of its modalities."""
    augment = {key: value for key, value in recipe.augment.items() if key != name}
    if made.augment is not None:
        augment[name] = made.augment
    recipe = replace(
        recipe,
        inputs={**recipe.inputs, name: made.input},
        preprocess={**recipe.preprocess, name: made.preprocess},
        augment=augment,
    )
    # The output of several tasks is a decoder, which lacks some fields of a head.
    fields = {
        key: value
        for key, value in made.fields.items()
        if not key.startswith("output.") or hasattr(recipe.output, key.partition(".")[2])
    }
    return override(recipe, fields) if is_alone and fields else recipe


def data_facts(recipe: Recipe, source: DatasetBundle, overrides: Mapping[str, Any]) -> DataFacts:
    """Return the facts about some data that hold for all modalities."""
    counts: tuple[int, ...] = ()
    if source.target_kind == "class" and source.target and "train" in source.splits:
        targets = np.asarray(source.targets("train"), dtype=np.int64)
        known = targets[targets >= 0]
        counts = tuple(np.bincount(known, minlength=len(source.label_names)).tolist())
    return DataFacts(
        num_rows=num_rows(source),
        target_kind=source.target_kind,
        num_classes=len(source.label_names),
        class_counts=counts,
        preset=recipe.preset or "default",
        overrides=overrides,
    )


def num_rows(source: DatasetBundle) -> int | None:
    """Return the number of training rows; None if it is unknown, as of some streams."""
    if "train" in source.streams:
        return source.streams["train"].num_rows
    return len(source.splits["train"]) if "train" in source.splits else 0


def training_rows(source: DatasetBundle) -> MapStyleSplit:
    """Return the training rows, of all folds together; the first rows of a stream.

    Raises:
        ValueError: If the data have no training split.
    """
    if source.folds and source.divided is not None:
        return source.divided[0].base
    if "train" in source.splits:
        return source.splits["train"]
    if "train" not in source.streams:
        raise ValueError(
            f"Expected a split called train, got {sorted({*source.splits, *source.streams})}."
        )
    rows = list(islice(source.streams["train"], _STREAM_ROWS))
    names = dict.fromkeys(c for part in source.inputs.values() for c in part.all_columns)
    columns = {name: [row[name] for row in rows] for name in names}
    fields = {name: Field("other") for name in names}  # media are such already
    return ColumnTable(name="the stream", columns=columns, fields=fields)
