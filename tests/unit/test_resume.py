from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perceivers.runs.folder import check_same_recipe, differing_fields
from perceivers.training.checkpoint import CheckpointPosition, read_position, save_payload
from support.training import small_recipe

OLD = small_recipe(max_epochs=2)


def with_training(**changes):
    return replace(OLD, training=replace(OLD.training, **changes))


def test_differences_are_named_by_their_place():
    new = replace(with_training(batch_size=32), optim=replace(OLD.optim, lr=1.0))
    assert differing_fields(OLD, new) == {
        "optim.lr": (0.02, 1.0),
        "training.batch_size": (16, 32),
    }


def test_the_same_recipe_goes_on():
    check_same_recipe(OLD, small_recipe(max_epochs=2), Path("run"))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_epochs": 9},
        {"device": "cuda"},
        {"devices": 8},
        {"nodes": 2},
        {"logger": ("wandb",)},
        {"progress": False},
    ],
)
def test_where_to_compute_what_to_show_and_how_long_may_differ(changes):
    check_same_recipe(OLD, with_training(**changes), Path("run"))


def test_another_recipe_is_refused_and_the_fields_are_named():
    message = (
        r"differs from run/recipe.yaml: training.batch_size was 16, now 32; "
        r"training.seed was 0, now 9. Leave these flags out, or start a new run"
    )
    with pytest.raises(ValueError, match=message):
        check_same_recipe(OLD, with_training(batch_size=32, seed=9), Path("run"))


def test_many_differences_are_shortened():
    training = {"batch_size": 1, "seed": 5, "ema": None, "accumulate": 3, "early_stopping": 7}
    new = replace(with_training(**training), optim=replace(OLD.optim, lr=1.0))
    with pytest.raises(ValueError, match=r"\(and 1 more\)"):
        check_same_recipe(OLD, new, Path("run"))


def test_a_modality_more_is_a_difference():
    augment = {**OLD.augment, "depth": OLD.augment["image"]}
    assert "augment.depth.flip" in differing_fields(OLD, replace(OLD, augment=augment))


def test_the_place_of_a_checkpoint_is_read(tmp_path):
    payload = {
        "global_step": 7,
        "perceivers": {"world_size": 2},
        "state_dict": {"a": torch.ones(1)},
    }
    save_payload(tmp_path / "a.ckpt", payload)
    assert read_position(tmp_path / "a.ckpt") == CheckpointPosition(step=7, world_size=2)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    save_payload(tmp_path / "a.ckpt", {"global_step": 7})
    with pytest.raises(OSError, match=r"a.ckpt is not a checkpoint of perceivers"):
        read_position(tmp_path / "a.ckpt")
