"""Rules for point clouds."""

from dataclasses import replace

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.points.modality import PointsAugmentConfig, turned_about
from perceivers.inputs.points import NeighborPointsInputConfig
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts
from perceivers.recipes.rules.points import augmentation, choose

COUNT = 60


def boxes(*, turned="none", classes=2):
    """Return point clouds of boxes and wedges that lie along the axes, or are turned at random, and their classes."""
    rng = np.random.default_rng(0)
    clouds, labels = [], []
    for number in range(COUNT):
        label = number % classes
        points = (
            rng.uniform(-1, 1, (300, 3)) * (1.0, 0.6, 0.3 + 0.2 * label) * rng.uniform(0.9, 1.1, 3)
        )
        points[:, 0] -= 0.5 * (points[:, 0] > 0.4) * (points[:, 1] > 0) * (points[:, 2] > 0)
        if label == 0:
            points = points[(points[:, 0] > 0) | (points[:, 1] < 0)]
        clouds.append(points @ turned_about(turned, 180.0, rng).T)
        labels.append(label)
    return clouds, labels


class MadeFacts(ModalityFacts):
    """Facts about samples that are given."""

    def labelled_cells(self, count):
        return iter(self.cells[:count])


def facts(clouds, labels, kind="class", rows=1000):
    made = object.__new__(MadeFacts)
    data = DataFacts(
        num_rows=rows,
        target_kind=kind,
        num_classes=2,
        class_counts=(),
        preset="default",
    )
    pairs = zip(clouds, labels, strict=True)
    object.__setattr__(made, "data", data)
    object.__setattr__(made, "cells", [(EncodedItem("a", value=c), int(n)) for c, n in pairs])
    return made


@pytest.mark.parametrize("turned", ["none", "z", "y", "all"])
def test_data_are_turned_as_they_are_found(turned):
    augment, reason = augmentation(PointsAugmentConfig(), facts(*boxes(turned=turned)))
    assert augment.rotate == turned
    assert ("turned about" in reason) == (turned != "none")


def test_symmetric_data_are_mirrored_and_classes_that_are_mirrored_are_not():
    clouds, labels = boxes()
    both = [cloud * (1, 1, -1) if n % 4 > 1 else cloud for n, cloud in enumerate(clouds)]
    augment, reason = augmentation(PointsAugmentConfig(), facts(both, labels))
    assert augment.flip[2] == 0.5
    assert "mirrored along" in reason
    handed = [n % 4 > 1 for n in range(COUNT)]
    augment, _ = augmentation(PointsAugmentConfig(), facts(both, handed))
    assert augment.flip[2] == 0


def test_numbers_are_hardly_stretched_and_few_samples_prove_nothing():
    augment = PointsAugmentConfig(axis_scale=(0.8, 1.25))
    clouds, labels = boxes(turned="z")
    for number in (augmentation(augment, facts(clouds, labels, "number"))[0],):
        assert number == replace(augment, axis_scale=(0.95, 1.05))
    found, reason = augmentation(augment, facts(clouds[:10], labels[:10]))
    assert found == augment
    assert "few samples" in reason


def test_choices_name_neighbors_and_the_batch_follows_the_rows():
    choice = Choice(
        input=NeighborPointsInputConfig(), preprocess=None, augment=PointsAugmentConfig()
    )
    few, many = (choose(choice, facts(*boxes(), rows=rows)) for rows in (1000, 100_000))
    assert "its 16 nearest neighbors" in few.reasons["Input"]
    assert few.fields["training.batch_size"] < many.fields["training.batch_size"]
