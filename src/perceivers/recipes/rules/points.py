"""Rules for point clouds: docs/defaults.md."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.points.decode import draw_points, read_points
from perceivers.data.modalities.points.modality import PointsAugmentConfig, turned_about
from perceivers.inputs.points import NeighborPointsInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules

Points = npt.NDArray[np.float32]

_AXES: dict[Literal["all", "z", "y"], str] = {
    "all": "any axis",
    "z": "the z axis",
    "y": "the y axis",
}
_SAMPLED = 256  # point clouds that are compared with turned and mirrored copies of each other
_FEWEST = 24  # from fewer, nothing follows
_TURNED, _MIRRORED = (
    0.3,
    0.33,
)  # share of copies nearer to another point cloud than the original; 0.5 if such occur
_LOST = 0.1  # accuracy of the nearest neighbor that copies may lose
_BATCHES = {64: 20_000, 32: 512, 16: 0}  # batch sizes, with the fewest rows of each
_CELLS = 6  # of the grid along each axis on which point clouds are compared


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for point clouds: batch, pools, and augmentation by how the data are oriented."""
    fields: dict[str, Any] = {
        "training.batch_size": next(n for n, rows in _BATCHES.items() if facts.data.rows >= rows),
        "output.element_pools": ("max",),
    }
    made = replace(choice, fields=fields, length=0.5)
    reasons: dict[Topic, str] = {}
    if isinstance(choice.input, NeighborPointsInputConfig):
        count = choice.input.num_neighbors
        reasons["Input"] = f"each point with its {count} nearest neighbors"
    if choice.augment is not None:
        augment, reason = augmentation(choice.augment, facts)
        made, reasons["Augmentation"] = replace(made, augment=augment), reason
    return replace(made, reasons=reasons)


def augmentation(
    augment: PointsAugmentConfig, facts: ModalityFacts
) -> tuple[PointsAugmentConfig, str]:
    """Return the augmentation for data of this orientation, and the reason."""
    if facts.data.target_kind != "class":  # numbers may depend on proportions and orientation
        augment = replace(augment, axis_scale=(0.95, 1.05))
        return augment, "hardly stretched, not turned, since the target is no class"
    clouds, classes = _sampled(facts)
    if len(clouds) < _FEWEST:
        return augment, "stretched, not turned, since few samples show how they are oriented"
    for axis, words in _AXES.items():
        rng = np.random.default_rng(0)
        turns = [turned_about(axis, 180.0, rng).astype(np.float32) for _ in clouds]
        copies = [cloud @ turn.T for cloud, turn in zip(clouds, turns, strict=True)]
        if are_alike(clouds, copies, classes, _TURNED):
            reason = f"stretched, turned about {words}: turned copies are as similar to the data as the originals"
            return replace(augment, rotate=axis), reason
    signs = 1.0 - 2.0 * np.eye(3, dtype=np.float32)
    mirrored = [
        are_alike(clouds, [cloud * sign for cloud in clouds], classes, _MIRRORED) for sign in signs
    ]
    x, y, z = (0.5 * is_mirrored for is_mirrored in mirrored)
    names = " and ".join(name for name, one in zip("xyz", mirrored, strict=True) if one)
    reason = f"mirrored along {names}" if names else "not mirrored"
    return replace(augment, flip=(x, y, z)), f"stretched, {reason}, not turned: oriented alike"


def are_alike(
    clouds: list[Points], copies: list[Points], classes: npt.NDArray[np.int64], share: float
) -> bool:
    """Return whether turned or mirrored copies may as well be samples of the data, of the same class.

    At least the given share of the copies is nearer to another sample than the original is, and the nearest sample
    is about as often of the same class. Distances are those of the shares of points in the cells of a coarse grid.
    """
    grids = np.stack([_grid(cloud) for cloud in clouds])
    original, found = _nearest(grids, grids)
    copy, found_of_copy = _nearest(np.stack([_grid(cloud) for cloud in copies]), grids)
    nearer = float((copy < original).mean() + 0.5 * (copy == original).mean())
    hits, hits_of_copy = ((classes[one] == classes).mean() for one in (found, found_of_copy))
    return nearer >= share and bool(hits_of_copy >= hits - _LOST)


def _sampled(facts: ModalityFacts) -> tuple[list[Points], npt.NDArray[np.int64]]:
    """Return points of evenly spaced training samples, and their classes."""
    clouds: list[Points] = []
    classes: list[int] = []
    for cell, index in facts.labelled_cells(_SAMPLED):
        try:
            cloud = read_points(cell)
        except (ImportError, KeyError):
            raise
        except Exception:  # named and counted in training
            continue
        if len(cloud.points) >= 8:
            points = draw_points(cloud.points[:, :3], 512, np.random.default_rng(0))
            clouds.append((points - points.mean(axis=0)).astype(np.float32))
            classes.append(index)
    return clouds, np.array(classes, dtype=np.int64)


def _grid(cloud: Points) -> Points:
    """Return the square roots of the shares of points in the cells of a cube around a point cloud."""
    centered = cloud - cloud.mean(axis=0)
    size = max(float(np.abs(centered).max()), 1e-30)
    cells = np.clip(((centered / size + 1) * (_CELLS / 2)).astype(int), 0, _CELLS - 1)
    counts = np.bincount(cells @ np.array([_CELLS**2, _CELLS, 1]), minlength=_CELLS**3)
    return np.sqrt(counts / len(cloud)).astype(np.float32)


def _nearest(grids: Points, others: Points) -> tuple[Points, npt.NDArray[np.int64]]:
    """Return the squared distance to the nearest grid of another sample, and its index."""
    squared = (grids**2).sum(1)[:, None] + (others**2).sum(1) - 2 * grids @ others.T
    np.fill_diagonal(squared, np.inf)
    return squared.min(axis=1), squared.argmin(axis=1)


register_rules("points", choose)
