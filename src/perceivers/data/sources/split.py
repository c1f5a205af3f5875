"""Validation split held out of train: reproducible, stratified by class, groups on one side only."""

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from perceivers.data.base import DataConfig, MapStyleSplit
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.folds import stratified_folds
from perceivers.data.sources.identity import (
    RowIdentity,
    SavedSplits,
    fold_name,
    row_identities,
    shard_identities,
)
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.table import Subset
from perceivers.wording import counted

_WINDOW = 64  # groups compared at a time; all of 10,000 would take minutes


def hold_out(
    labels: Sequence[int] | None, groups: Sequence[Hashable] | None, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return the rows that stay and the rows that are held out, both sorted.

    Without groups, each class contributes its share, rounded so that the shares add up; a class never loses its last
    row. With groups, these are visited in random order, and the one that brings the classes nearest to their shares is
    taken, as long as one does.

    Args:
        labels: Class of each row. None: rows are alike.
        groups: Group of each row. None: no groups.
        fraction: Share of the rows to hold out.
        seed: Random seed; the same seed always gives the same rows.

    Raises:
        ValueError: If the fraction is not in (0, 1), or there is only one row or group.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction between 0 and 1 to hold out, got {fraction}.")
    length = len(labels if labels is not None else groups if groups is not None else ())
    classes: Sequence[int] = [0] * length if labels is None else labels
    held = (
        _by_class(classes, fraction, seed)
        if groups is None
        else _by_group(classes, groups, fraction, seed)
    )
    chosen = set(held)
    return [row for row in range(length) if row not in chosen], sorted(held)


def _by_class(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    if len(labels) < 2:
        raise ValueError(f"Expected at least two rows to hold some out, got {len(labels)}.")
    wanted = {label: len(rows[label]) * fraction for label in sorted(rows)}
    counts = {label: min(int(share), len(rows[label]) - 1) for label, share in wanted.items()}
    # The remainder goes to the classes that rounding down took most from.
    left = max(1, round(len(labels) * fraction)) - sum(counts.values())
    for label in sorted(wanted, key=lambda k: (counts[k] - wanted[k], k)):
        if left > 0 and counts[label] < len(rows[label]) - 1:
            counts[label] += 1
            left -= 1
    generator = random.Random(seed)
    held: list[int] = []
    for label, count in counts.items():
        generator.shuffle(rows[label])
        held += rows[label][:count]
    return held or [generator.randrange(len(labels))]  # every class has one row


def _by_group(
    labels: Sequence[int], groups: Sequence[Hashable], fraction: float, seed: int
) -> list[int]:
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        if group is None:
            raise ValueError(
                f"Row {row} has no group. Fill it in, so that it can be kept on one side of the split."
            )
        members.setdefault(group, []).append(row)
    if len(members) < 2:
        raise ValueError(
            f"Expected at least two groups to hold one out, got only {next(iter(members), 'none')!r}."
        )
    counts = {group: Counter(labels[row] for row in rows) for group, rows in members.items()}
    total = Counter(labels)
    held: Counter[int] = Counter()

    def gain(group: Hashable) -> float:
        """Return the gain per row of a group: how much nearer the classes come to their shares."""
        classes = counts[group].items()
        if any(held[label] + n == total[label] for label, n in classes):
            return -float(len(labels))  # train would lose the class
        nearer = sum(n * (2 * (fraction * total[label] - held[label]) - n) for label, n in classes)
        return nearer / len(members[group])

    order = sorted(members, key=str)
    random.Random(seed).shuffle(order)
    waiting, taken = order, list[Hashable]()
    while waiting:
        best = max(waiting[:_WINDOW], key=gain)
        if gain(best) > 0:
            taken.append(best)
            held += counts[best]
            waiting = [group for group in waiting[:_WINDOW] if group != best] + waiting[_WINDOW:]
        else:
            waiting = waiting[_WINDOW:]
    return [row for group in taken or [max(order, key=gain)] for row in members[group]]


def with_validation(
    source: DatasetBundle,
    config: DataConfig,
    saved: SavedSplits | None = None,
    *,
    num_folds: int | None = None,
) -> DatasetBundle:
    """Return the data with a validation split, held out of train if none is given, never out of test.

    Args:
        source: The data.
        config: Share, seed and groups of the hold-out.
        saved: The splits of a run on these data, which are kept, also if the data have changed since.
        num_folds: Number of folds of train, also where a validation split is given. None or 1: a single split.

    Raises:
        ValueError: If there is no train split to hold rows out of, or too few rows; if streamed rows are to be divided
            into folds.
    """
    has_folds = (num_folds or 1) > 1
    if source.streams:
        if has_folds:
            raise ValueError(
                f"Folds need rows that are read by index, and these data are streamed. Leave --folds {num_folds} out, "
                "or --stream."
            )
        return _with_validation_stream(source, config)
    if not has_folds and ("validation" in source.splits or config.validation_fraction == 0):
        return source
    if "train" not in source.splits:
        raise ValueError(
            f"There is no train split to hold validation out of; there is {', '.join(source.splits)}."
        )
    if saved is not None and saved.held_out:
        return _divided_as_before(source, config, saved)
    train: MapStyleSplit = source.splits["train"]
    labels = _classes(source)
    how = (
        f"by '{config.group}'"
        if config.group
        else "at random"
        if labels is None
        else "stratified by class"
    )
    groups: Sequence[Any] | None = train.column(config.group) if config.group else None
    if labels is None and groups is None:
        labels = [0] * len(train)
    if num_folds is not None and has_folds:
        folds = stratified_folds(labels, groups, num_folds, config.split_seed)
        note = _folds_note(source, folds, num_folds, how, config)
        return _with_folds(source, folds, range(len(train)), note)
    stay, held = hold_out(labels, groups, config.validation_fraction, config.split_seed)
    verb = "is" if len(held) == 1 else "are"
    note = (
        f"No validation split is given: {len(held):,} of the {len(train):,} rows of train {verb} held out for it, "
        f"{how} (seed {config.split_seed})."
    )
    return _divided(source, stay, held, note)


def _classes(source: DatasetBundle) -> Sequence[int] | None:
    """Return the class of each row of train, by which it is stratified. None: its targets are no classes."""
    # Sets of labels and numbers cannot be stratified.
    if source.target and source.target_kind == "class":
        return source.targets("train")
    # Several tasks are stratified by the first whose target is a class.
    first = next((task for task, one in source.tasks.items() if one.kind == "class"), None)
    return None if first is None else [int(one[first]) for one in source.targets("train")]


def _folds_note(
    source: DatasetBundle,
    folds: Sequence[Sequence[int]],
    wanted: int,
    how: str,
    config: DataConfig,
) -> str:
    """Return a sentence on the folds, and on what is left out of them."""
    rows, held = len(source.splits["train"]), sum(map(len, folds))
    sizes = sorted({len(fold) for fold in folds})
    each = counted(sizes[-1], "row")
    if len(sizes) > 1:
        each = f"{sizes[0]:,} to {each}"
    text = (
        f"{len(folds)} folds of the {rows:,} rows of train, {how} (seed {config.split_seed}): each member of the "
        f"ensemble is trained without the {each} of one fold and validated on them."
    )
    if len(folds) < wanted:
        text += f" {wanted} folds were requested, and there are not more {'groups' if config.group else 'rows'}."
    if held < rows:
        what = "group" if config.group else "row"
        count = counted(rows - held, "row")
        text += (
            f" {count} of classes with a single {what}: in no fold, and learned by every member."
        )
    if "validation" in source.splits:
        text += " The given validation split is not used; `perceivers evaluate --split validation` measures on it."
    return text


def _with_folds(
    source: DatasetBundle, folds: Sequence[Sequence[int]], rows: Sequence[int], note: str
) -> DatasetBundle:
    """Return the data with folds of some rows of train; its splits are those of the first one."""
    train = source.splits["train"]
    kept = tuple(tuple(fold) for fold in folds)
    divided = Subset(train, rows), Subset(train, [])
    found = replace(source, notes=(*source.notes, note), divided=divided, folds=kept)
    return replace(found.fold(0), folds=kept)


def _divided(
    source: DatasetBundle, stay: Sequence[int], held: Sequence[int], note: str
) -> DatasetBundle:
    train = source.splits["train"]
    divided = Subset(train, stay), Subset(train, held)
    splits = {**source.splits, "train": divided[0], "validation": divided[1]}
    return replace(source, splits=splits, notes=(*source.notes, note), divided=divided)


def _divided_as_before(
    source: DatasetBundle, config: DataConfig, saved: SavedSplits
) -> DatasetBundle:
    """Return the data with the splits of a run, by the keys of the rows.

    Raises:
        ValueError: If no row of one of the splits is left.
    """
    rows = _identities(source, source.splits["train"], "train")
    splits = saved.divide(rows, config.validation_fraction, config.split_seed)
    if saved.folds:
        return _folds_as_before(source, rows, splits, saved)
    stay, held = (
        [row for row, split in enumerate(splits) if split == name]
        for name in ("train", "validation")
    )
    if saved.takes_new and not (stay and held):
        lacking = "validation" if stay else "train"
        raise ValueError(
            f"None of the {counted(len(rows), 'row')} of the data was in the {lacking} split of the run: these are "
            "other data. Expected the data of the run, perhaps with rows added or removed."
        )
    note = f"{counted(len(held), 'row')} of {len(rows):,} are held out for validation: those that the run held out."
    divided = _divided(source, stay, held, note)
    known = [replace(row, split=split) for row, split in zip(rows, splits, strict=True) if split]
    some = {name: part for name, part in divided.splits.items() if len(part)}
    return replace(divided, splits=some, identities=known, new_rows=splits.count(None))


def _folds_as_before(
    source: DatasetBundle,
    rows: Sequence[RowIdentity],
    splits: Sequence[str | None],
    saved: SavedSplits,
) -> DatasetBundle:
    """Return the data with the folds of a run; arguments as in `_divided_as_before`."""
    names = [fold_name(index) for index in range(saved.folds)]
    folds = [[row for row, split in enumerate(splits) if split == name] for name in names]
    if not all(folds):
        raise ValueError(
            f"None of the {counted(len(rows), 'row')} of the data was in one of the {saved.folds} folds of the run: "
            "these are other data. Expected the data of the run, perhaps with rows added or removed."
        )
    held = sum(map(len, folds))
    note = (
        f"The {saved.folds} folds of the run: {held:,} of the {counted(len(rows), 'row')} of train."
    )
    known = [replace(row, split=split) for row, split in zip(rows, splits, strict=True) if split]
    found = _with_folds(source, folds, [n for n, split in enumerate(splits) if split], note)
    return replace(found, identities=known, new_rows=splits.count(None))


def identify_rows(source: DatasetBundle) -> Sequence[RowIdentity]:
    """Return the identity of each row of train and validation; of streams, of each shard."""
    if source.identities:
        return source.identities
    if source.streams:
        return [
            row
            for split, stream in source.streams.items()
            if split in ("train", "validation")
            for row in shard_identities(stream, split)
        ]
    if source.divided is not None:
        train, held = source.divided
        rows = _identities(source, train.base, "train")
        parts = {fold_name(number): fold for number, fold in enumerate(source.folds)}
        for name, indices in (parts or {"validation": held.indices.tolist()}).items():
            for index in indices:
                rows[index] = replace(rows[index], split=name)
        return rows
    return [
        replace(row, key=f"{split}/{row.key}")
        for split in ("train", "validation")
        if split in source.splits
        for row in _identities(source, source.splits[split], split)
    ]


def _identities(source: DatasetBundle, table: MapStyleSplit, split: str) -> list[RowIdentity]:
    targets = None if source.target is None else table.column(source.target)
    names = source.label_names if source.target_kind == "class" else ()
    return row_identities(table, source.inputs, targets, names, split=split)


def _with_validation_stream(source: DatasetBundle, config: DataConfig) -> DatasetBundle:
    if "validation" in source.streams or config.validation_fraction == 0:
        return source
    if "train" not in source.streams:
        raise ValueError(
            f"There is no train split to hold validation out of; there is {', '.join(source.streams)}."
        )
    train: Stream = source.streams["train"]
    stay, held = train.hold_out(config.validation_fraction, config.split_seed, config.group)
    how = f"by '{config.group}'" if config.group else "at random"
    note = (
        f"No validation split is given: about {config.validation_fraction:.0%} of the streamed rows of train are held "
        f"out for it, {how} (seed {config.split_seed})."
    )
    streams = {**source.streams, "train": stay, "validation": held}
    return replace(source, streams=streams, notes=(*source.notes, note))
