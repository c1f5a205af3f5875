from dataclasses import replace

import pytest
import torch
from train_digits import PREPROCESS, small_digits, small_recipe

from perceivers.data.base import DataConfig
from perceivers.hub.checkpoint import save
from perceivers.training import prepare
from perceivers.training.prepare import (
    Place,
    build_loaders,
    build_model,
    build_task,
    num_rows,
    open_folder,
    start_from,
    step_size,
)

RECIPE = small_recipe(max_epochs=1)


def opened(folder, **options):
    return open_folder(folder, RECIPE, last=folder / "checkpoints/last.ckpt", **options)


def test_a_new_run_gets_its_recipe(tmp_path):
    assert opened(tmp_path / "new" / "run", resume=False) is None
    assert "max_epochs: 1" in (tmp_path / "new" / "run" / "recipe.yaml").read_text()


def test_a_run_is_not_overwritten(tmp_path):
    opened(tmp_path, resume=False)
    with pytest.raises(ValueError, match=r"holds a run already. Go on with it by --resume"):
        opened(tmp_path, resume=False)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"is a file. Expected a folder"):
        opened(tmp_path / "run", resume=False)


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(OSError, match=r"no run to resume in .*: it has no recipe.yaml"):
        opened(tmp_path, resume=True)


def test_a_run_without_a_checkpoint_begins_again(tmp_path):
    opened(tmp_path, resume=False)
    assert opened(tmp_path, resume=True) is None


def test_a_run_is_resumed_from_its_checkpoint(tmp_path):
    opened(tmp_path, resume=False)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"")
    assert opened(tmp_path, resume=True) == last


def test_a_run_is_not_resumed_with_another_recipe(tmp_path):
    opened(tmp_path, resume=False)
    with pytest.raises(ValueError, match=r"training.max_epochs was 1, now 2"):
        open_folder(tmp_path, small_recipe(max_epochs=2), resume=True, last=tmp_path / "none")


def test_cores_are_shared_by_the_processes(monkeypatch):
    monkeypatch.setattr(prepare.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert Place().threads_and_workers(None) == (12, 4)
    assert Place(local_processes=4).threads_and_workers(None) == (3, 1)
    assert Place(local_processes=64).threads_and_workers(None) == (1, 0)
    assert Place().threads_and_workers(2) == (14, 2)


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
        "Steps of 50 samples: train has 51, fewer than the 128 asked for.",
    )


def test_fewer_rows_than_parts_of_a_step_are_refused():
    with pytest.raises(ValueError, match="Expected at least 8 training samples for 2 x 4, got 5"):
        step_size(64, 2, 4, 5)


def test_loaders_give_train_in_whole_batches_and_validation_whole():
    source = small_digits()
    train, validation = build_loaders(source, RECIPE, PREPROCESS, batch_size=16, place=Place())
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


def test_weights_that_fit_are_taken_over(tmp_path):
    other, model = build_model(RECIPE), build_model(RECIPE)
    save(tmp_path, other, preprocess=PREPROCESS, task=RECIPE.task)
    note = start_from(model, tmp_path)
    count = len(model.state_dict())
    assert note == f"Began from the weights of {tmp_path}: {count} of {count} tensors fit."
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])

    three = replace(RECIPE, output=replace(RECIPE.output, num_outputs=3))
    assert "; fresh: output." in start_from(build_model(three), tmp_path)


def test_a_model_that_shares_nothing_is_refused(tmp_path):
    save(tmp_path, build_model(RECIPE), preprocess=PREPROCESS, task=RECIPE.task)
    with pytest.raises(ValueError, match=r"No weight of .* fits the model of this recipe"):
        start_from(torch.nn.Linear(2, 2), tmp_path)


def test_a_stream_is_read_as_a_stream(tmp_path):
    from small_data import members, write_tar

    from perceivers.data.sources import open_data

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
    train, validation = build_loaders(source, recipe, preprocess, batch_size=4, place=Place())
    assert not hasattr(train, "__len__")
    assert sum(batch.targets.shape[0] for batch in train) == 8
    assert sum(batch.targets.shape[0] for batch in validation) == 4
    assert num_rows(source, "train") is None or num_rows(source, "train") == 8
