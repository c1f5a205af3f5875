"""Grouping of the elements of several modalities, and regrouping of latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import pad

from perceivers.typing import Bool, Float, Tensor, Tensors


@dataclass(frozen=True, kw_only=True)
class Part:
    """Groups of one modality.

    Attributes:
        count: Elements of the modality.
        groups: Groups of it.
        rows: Elements of each group before it is filled up, except for the last ones.
    """

    count: int
    groups: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """Division of the elements of all modalities into groups of equal size.

    Each modality gets at least one group and is cut in order. Groups are filled up with zeros at their end.

    Attributes:
        parts: Groups of each modality, by name.
        rows: Elements of each group, M.
        is_concatenated: Whether all modalities form a single group, one after the other.
    """

    parts: Mapping[str, Part]
    rows: int
    is_concatenated: bool

    @property
    def num_groups(self) -> int:
        """Number of groups, G."""
        return 1 if self.is_concatenated else sum(part.groups for part in self.parts.values())

    @property
    def is_filled(self) -> bool:
        """Whether any group is filled up."""
        return sum(part.count for part in self.parts.values()) < self.num_groups * self.rows

    def group(self, arrays: Tensors) -> Tensor:
        """Return the arrays of all modalities, each B x n x C, in groups: B x G x M x C."""
        if self.is_concatenated:
            return torch.cat([arrays[name] for name in self.parts], dim=1)[:, None]
        found = [self._cut(part, arrays[name]) for name, part in self.parts.items()]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _cut(self, part: Part, array: Tensor) -> Tensor:
        missing = part.groups * part.rows - part.count
        if missing:
            array = pad(array, (0, 0, 0, missing))
        array = array.unflatten(1, (part.groups, part.rows))
        if part.rows < self.rows:
            array = pad(array, (0, 0, 0, self.rows - part.rows))
        return array

    def group_masks(self, masks: Mapping[str, Bool[Tensor, "#B _"]]) -> Bool[Tensor, "#B G M"]:
        """Return masks of all modalities in groups. False where groups are filled up."""
        grouped = self.group({name: mask[..., None] for name, mask in masks.items()})
        return grouped[..., 0]

    def ungroup(self, x: Float[Tensor, "B G M C"]) -> dict[str, Float[Tensor, "B _ C"]]:
        """Return the array of each modality from groups, without what fills them up."""
        if self.is_concatenated:
            counts = [part.count for part in self.parts.values()]
            return dict(zip(self.parts, x[:, 0].split(counts, dim=1), strict=True))
        found = x.split([part.groups for part in self.parts.values()], dim=1)
        return {
            name: groups[:, :, : part.rows].flatten(1, 2)[:, : part.count]
            for (name, part), groups in zip(self.parts.items(), found, strict=True)
        }


def plan_groups(counts: Mapping[str, int], num_groups: int) -> GroupPlan:
    """Return the division of modalities with these numbers of elements into groups.

    Every modality gets one group; then the one with the most elements for each of its groups gets one more, until there
    are `num_groups`. A single group holds all modalities.

    Raises:
        ValueError: If there are more modalities than groups, or a modality has no elements.

    Reference: Hierarchical Perceiver (arXiv:2202.10890), as in DeepMind's release.
    """
    if not counts or min(counts.values()) < 1:
        raise ValueError(f"Expected modalities with at least one element each, got {dict(counts)}.")
    if num_groups == 1:
        parts = {name: Part(count=count, groups=1, rows=count) for name, count in counts.items()}
        return GroupPlan(parts=parts, rows=sum(counts.values()), is_concatenated=True)
    if len(counts) > num_groups:
        raise ValueError(
            f"Expected at most {num_groups} modalities, one for each group of the first block, got {len(counts)}: "
            f"{', '.join(counts)}. Use an architecture with more groups."
        )
    groups = dict.fromkeys(counts, 1)
    for _ in range(num_groups - len(counts)):
        groups[max(counts, key=lambda name: counts[name] / groups[name])] += 1
    parts = {
        name: Part(count=count, groups=groups[name], rows=-(-count // groups[name]))
        for name, count in counts.items()
    }
    rows = max(part.rows for part in parts.values())
    return GroupPlan(parts=parts, rows=rows, is_concatenated=False)


def regroup(x: Tensor, num_groups: int, how: Literal["reshape", "transpose_reshape"]) -> Tensor:
    """Return latents of groups, B x G x N x C, in `num_groups` groups, see `HiPConfig.regroup`."""
    if how == "transpose_reshape":
        x = x.transpose(1, 2)
    return x.flatten(1, 2).unflatten(1, (num_groups, -1))
