"""Folds of cross-validation: stratified by class, a group on one side only, the same for the same seed."""

import random
from collections import Counter
from collections.abc import Hashable, Sequence

_Groups = dict[Hashable, list[int]]


def stratified_folds(
    labels: Sequence[int] | None,
    groups: Sequence[Hashable] | None,
    num_folds: int,
    seed: int,
) -> list[list[int]]:
    """Return the rows that each fold holds out, sorted; no fold is empty.

    The rows of a class are dealt out to the folds in turn, in random order. Groups are assigned as a whole, the largest
    first, to the fold that has the smallest share of their classes. A class with a single row, or a single group, is in
    no fold: every member learns it. There are fewer folds than requested if there are fewer rows or groups.

    Args:
        labels: Class of each row. None: rows are alike.
        groups: Group of each row. None: no groups.
        num_folds: Number of folds.
        seed: Random seed.

    Raises:
        ValueError: If the rows cannot be divided into two folds.
    """
    length = len(labels if labels is not None else groups if groups is not None else ())
    classes: Sequence[int] = [0] * length if labels is None else labels
    members = _groups_of(groups, length)
    counts = {group: Counter(classes[row] for row in rows) for group, rows in members.items()}
    spread = Counter(label for found in counts.values() for label in found)
    free = [g for g in members if all(spread[label] > 1 for label in counts[g])]
    if len(free) < 2:
        what = "rows" if groups is None else "groups"
        raise ValueError(
            f"Expected at least two {what} whose classes other {what} have, too, to divide them into folds; got "
            f"{len(free)} of {len(members)}. Give more data, or --folds 1 for a single model."
        )
    order = sorted(free, key=str) if groups is not None else free
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))  # stable: of one size in random order
    folds: list[list[int]] = [[] for _ in range(min(num_folds, len(order)))]
    held: list[Counter[int]] = [Counter() for _ in folds]
    total = Counter(classes)
    if groups is None:  # the rows of a class one after the other
        order.sort(key=lambda row: next(iter(counts[row])))

    def load(fold: int, group: Hashable) -> tuple[float, int, int]:
        found = counts[group].items()
        excess = sum(n * (2 * held[fold][label] + n) / total[label] for label, n in found)
        return excess, len(folds[fold]), fold

    for group in order:
        fold = min(range(len(folds)), key=lambda fold: load(fold, group))
        folds[fold] += members[group]
        held[fold] += counts[group]
    return [sorted(rows) for rows in folds]


def _groups_of(groups: Sequence[Hashable] | None, length: int) -> _Groups:
    """Return the rows of each group; without groups, each row is one."""
    if groups is None:
        return {row: [row] for row in range(length)}
    members: _Groups = {}
    for row, group in enumerate(groups):
        if group is None:
            raise ValueError(
                f"Row {row} has no group. Fill it in, so that it can be kept on one side of the folds."
            )
        members.setdefault(group, []).append(row)
    return members
