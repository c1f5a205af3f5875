from dataclasses import replace

import pytest
import torch

from perceivers.data.base import DataConfig
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.recipes.files import read_run_recipe
from perceivers.recipes.registry import TrainingConfig
from perceivers.runs.folder import open_folder, with_found_batch, write_run_recipe
from perceivers.training import dataloaders
from perceivers.training.build import build_task
from perceivers.training.dataloaders import (
    ProcessInfo,
    build_loaders,
    num_rows,
    step_parts,
    step_size,
    step_text,
)
from support.training import PREPROCESS, small_digits, small_recipe

RECIPE = small_recipe(max_epochs=1)


def opened(folder, **options):
    return open_folder(folder, RECIPE, **options)


def test_a_new_run_gets_its_recipe(tmp_path):
    assert opened(tmp_path / "new" / "run", resume=False) is None
    assert "max_epochs: 1" in (tmp_path / "new" / "run" / "recipe.yaml").read_text()


def with_checkpoint(folder):
    last = folder / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"")
    return last


def test_a_run_is_not_overwritten(tmp_path):
    opened(tmp_path, resume=False)
    with_checkpoint(tmp_path)
    with pytest.raises(
        ValueError, match=r"already holds a run. Expected another --out, or --resume"
    ):
        opened(tmp_path, resume=False)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"it is a file. Expected a new folder"):
        opened(tmp_path / "run", resume=False)


def test_without_a_run_to_resume_one_is_started(tmp_path):
    assert opened(tmp_path, resume=True) is None
    assert (tmp_path / "recipe.yaml").is_file()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_a_checkpoint_begins_again_without_its_files(tmp_path, resume):
    opened(tmp_path, resume=False)
    left = ["metrics.jsonl", "checkpoints/best.ckpt", "checkpoints/.last.ckpt.0123abcd.part"]
    for name in [*left, ".config.json.0123abcd.part", "tensorboard/events"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert opened(tmp_path, resume=resume) is None
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert names == {"recipe.yaml", "checkpoints"}


def test_a_run_is_resumed_from_its_checkpoint(tmp_path):
    opened(tmp_path, resume=False)
    last = with_checkpoint(tmp_path)
    (tmp_path / "checkpoints/.last.ckpt.0123abcd.part").touch()
    (tmp_path / "metrics.jsonl").touch()
    assert opened(tmp_path, resume=True) == last
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "metrics.jsonl").exists()


def test_a_run_that_has_ended_without_its_checkpoint_is_left_alone(tmp_path):
    opened(tmp_path, resume=False)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(OSError, match=r"has ended, and its checkpoint .* is gone"):
        opened(tmp_path, resume=True)


def test_a_run_is_not_resumed_with_another_recipe(tmp_path):
    opened(tmp_path, resume=False)
    with pytest.raises(ValueError, match=r"training.seed was 0, now 2"):
        open_folder(tmp_path, small_recipe(max_epochs=1, seed=2), resume=True)


def test_a_run_may_be_resumed_for_longer(tmp_path):
    opened(tmp_path, resume=False)
    with_checkpoint(tmp_path)
    open_folder(tmp_path, small_recipe(max_epochs=2), resume=True)
    assert read_run_recipe(tmp_path).training.max_epochs == 2


def test_cores_are_shared_by_the_processes(monkeypatch):
    monkeypatch.setattr(
        dataloaders.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False
    )
    assert ProcessInfo().threads_and_workers(None) == (12, 4)
    assert ProcessInfo(local_processes=4).threads_and_workers(None) == (3, 1)
    assert ProcessInfo(local_processes=64).threads_and_workers(None) == (1, 0)
    assert ProcessInfo().threads_and_workers(2) == (14, 2)


def test_a_step_is_divided_over_batches_and_processes():
    assert step_size(64, 2, 4, 1000) == (8, "")
    assert step_size(64, 1, 1, None) == (64, "")


def test_a_step_that_cannot_be_divided_names_one_that_can():
    with pytest.raises(ValueError, match=r"got 100 for 3 x 2. The next that fits is 102"):
        step_size(100, 3, 2, 1000)


@pytest.mark.parametrize(("size", "accumulate"), [(0, 1), (16, 0)])
def test_a_step_of_nothing_is_refused(size, accumulate):
    with pytest.raises(ValueError, match="must be a multiple of"):
        step_size(size, accumulate, 1, 1000)


def test_few_rows_make_smaller_steps_and_it_is_said():
    assert step_size(128, 2, 1, 51) == (
        25,
        "Steps of 50 samples: train has 51, fewer than the batch size of 128.",
    )


def test_fewer_rows_than_parts_of_a_step_are_refused():
    with pytest.raises(ValueError, match="Expected at least 8 training samples for 2 x 4, got 5"):
        step_size(64, 2, 4, 5)


def test_loaders_give_train_in_whole_batches_and_validation_whole():
    source = small_digits()
    train, validation = build_loaders(
        source, RECIPE, PREPROCESS, batch_size=16, process=ProcessInfo()
    )
    assert num_rows(source, "train") == 160
    assert len(train) == 10
    batch = next(iter(train))
    assert batch.targets.shape == (16, 10)  # mixed
    assert [b.targets.shape[0] for b in validation] == [16, 16, 8]


def test_balanced_weights_are_counted_in_train():
    recipe = replace(RECIPE, task=replace(RECIPE.task, class_weights="balanced"))
    task = build_task(recipe, small_digits())
    targets = torch.tensor(small_digits().targets("train"))
    expected = 160 / (10 * targets.bincount(minlength=10).float())
    torch.testing.assert_close(task.class_weights, expected)


def test_a_stream_is_read_as_a_stream(tmp_path):
    from perceivers.data.sources.open import open_data
    from support.files import write_tar
    from support.image_data import members

    write_tar(tmp_path / "train-0.tar", members(range(8)))
    write_tar(tmp_path / "validation-0.tar", members(range(8, 12)))
    source = open_data(tmp_path, DataConfig(stream=True))
    recipe = replace(
        RECIPE,
        data=DataConfig(stream=True, workers=0, shuffle_buffer=4),
        task=replace(RECIPE.task, label_names=source.label_names),
        augment={},
    )
    preprocess = {
        "image": replace(PREPROCESS["image"], num_channels=3, mean=(0.5,) * 3, std=(1.0,) * 3)
    }
    train, validation = build_loaders(
        source, recipe, preprocess, batch_size=4, process=ProcessInfo()
    )
    assert not hasattr(train, "__len__")
    assert sum(batch.targets.shape[0] for batch in train) == 8
    assert sum(batch.targets.shape[0] for batch in validation) == 4
    assert num_rows(source, "train") is None or num_rows(source, "train") == 8


def parts(world_size=1, rows=1000, **training):
    return step_parts(TrainingConfig(**{"batch_size": 48, **training}), world_size, rows)


def test_a_step_is_divided_as_the_recipe_says():
    assert parts(accumulate=4) == (12, 4, "")
    assert parts(batch=8) == (8, 6, "")
    assert parts(batch=8, world_size=2) == (8, 3, "")
    assert parts(batch="auto", accumulate=4, world_size=2) == (
        24,
        1,
        "",
    )  # until it is known what fits
    assert parts(batch=8, rows=None) == (8, 6, "")


def test_a_batch_is_no_larger_than_what_train_has():
    assert parts(batch=16, rows=20)[:2] == (16, 1)
    assert parts(batch=8, rows=20)[:2] == (8, 2)
    assert parts(batch=40, rows=20)[:2] == (20, 1)


@pytest.mark.parametrize("batch", [0, 7, 48])
def test_a_batch_that_does_not_divide_the_step_is_refused(batch):
    with pytest.raises(
        ValueError, match=rf"divide the 24 .*got {batch}\. Expected one of 1, 2, 3, 4"
    ):
        parts(batch=batch, world_size=2)


def test_batch_and_accumulate_together_are_refused():
    with pytest.raises(ValueError, match="Give --batch or --accumulate, not both"):
        parts(batch=8, accumulate=6)


def test_a_step_is_told_in_words():
    def text(accumulate, **settings):
        return step_text(LoaderSettings(**settings), accumulate)

    assert text(1, batch_size=32) == "32 samples: one batch of 32"
    assert text(4, batch_size=8) == "32 samples: 4 batches of 8"
    assert text(2, batch_size=8, world_size=2) == "32 samples: 2 batches of 8 on each of 2 devices"


def test_auto_is_what_the_run_has_found(tmp_path):
    recipe = small_recipe(batch="auto")
    assert with_found_batch(recipe, tmp_path) == recipe  # there is no run
    write_run_recipe(tmp_path, recipe)
    assert with_found_batch(recipe, tmp_path) == recipe  # which was interrupted before it knew
    found = replace(recipe, training=replace(recipe.training, batch=4))
    write_run_recipe(tmp_path, found)
    assert with_found_batch(recipe, tmp_path) == found
    other = replace(recipe, training=replace(recipe.training, batch=2))
    assert (
        with_found_batch(other, tmp_path) == other
    )  # a number is compared, and refused, as everything is
