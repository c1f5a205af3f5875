import importlib.util
import itertools
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.hub.checkpoint import load
from perceivers.recipes.files import read_recipe, read_run_recipe
from perceivers.runs.metrics import read_metrics
from perceivers.training import build as build_module
from perceivers.training import fit as fit_module
from perceivers.training import stopping as clock
from perceivers.training.module import PerceiverModule
from support.tolerance import GOLDEN, relative_error
from support.training import PREPROCESS, resolved, small_digits, small_recipe, train

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def rows_of(run):
    return read_metrics(run.folder / "metrics.jsonl")


def checkpoint(run, name="last"):
    return torch.load(run.folder / f"checkpoints/{name}.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return train(str(tmp_path_factory.mktemp("fit") / "run"), max_epochs=2)


def test_a_run_leaves_everything_in_its_folder(run):
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*")}
    assert {
        "config.json",
        "model.safetensors",
        "recipe.yaml",
        "metrics.jsonl",
        "report.md",
        "curves.png",
        "confusion.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    } <= names
    assert any(name.startswith("tensorboard/events.out") for name in names)
    assert not any("/." in name or name.startswith(".") for name in names)  # no half-written files


def test_the_log_tells_each_epoch(run):
    rows = rows_of(run)
    assert [(row["step"], row["epoch"]) for row in rows] == [(10, 1.0), (20, 2.0)]
    assert {"elapsed", "lr", "train/loss", "train/accuracy", "train/grad_norm"} <= rows[0].keys()
    assert {"validation/accuracy", "validation/loss"} <= rows[0].keys()
    assert rows[1]["elapsed"] > rows[0]["elapsed"]


def test_the_saved_model_is_that_of_the_end_by_the_average_of_weights(run):
    best, saved = checkpoint(run, "best"), load(run.folder)
    assert run.metrics == best["metrics"]
    assert best["step"] == 20
    assert run.metrics["accuracy"] == rows_of(run)[-1]["validation/accuracy"]
    for name, weight in saved.model.state_dict().items():
        assert torch.equal(weight, best["model"][name])
    last = checkpoint(run)
    assert last["perceivers"]["best"]["metrics"] == run.metrics
    if best["step"] == last["global_step"]:
        for name, average in last["perceivers"]["average"].items():
            assert torch.equal(average, best["model"][name])


def test_what_prediction_needs_is_saved(run):
    saved = load(run.folder)
    assert saved.config.preprocess == PREPROCESS
    assert saved.config.task.label_names == tuple(map(str, range(10)))
    assert saved.config.columns["inputs"] == {
        "image": {"column": "image", "kind": "image", "columns": [], "kinds": []}
    }
    assert saved.config.columns["target"] == "label"
    assert read_recipe(run.folder / "recipe.yaml") == small_recipe(max_epochs=2)


def test_steps_end_a_run_within_an_epoch_and_the_rate_has_fallen(tmp_path):
    run = train(str(tmp_path / "run"), max_steps=13, ema=None)
    rows = rows_of(run)
    assert [row["step"] for row in rows] == [10, 13]
    assert "validation/accuracy" in rows[-1]
    # The last rate of a cosine over 13 steps, after 12 of them.
    assert rows[-1]["lr"] == pytest.approx(
        0.01 * (1 + torch.tensor(torch.pi * 12 / 13).cos().item())
    )
    assert checkpoint(run)["global_step"] == 13
    assert checkpoint(run)["perceivers"]["average"] is None


def test_time_ends_a_run_annealed_and_goes_on_when_it_is_resumed(tmp_path, monkeypatch):
    now, step = [0.0], PerceiverModule.training_step

    def slow_step(self, batch):
        now[0] += 0.2
        return step(self, batch)

    monkeypatch.setattr(PerceiverModule, "training_step", slow_step)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    path = str(tmp_path / "run")
    with pytest.raises(SystemExit):
        train(path, max_time="8s", die="SIGTERM:2")
    before = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert before["perceivers"]["elapsed"] == pytest.approx(0.4)
    run = train(path, max_time="8s", resume=True)
    rows = rows_of(run)
    assert rows[-1]["lr"] < 0.1 * small_recipe().optim.lr
    assert rows[-1]["elapsed"] == pytest.approx(8, abs=0.3)
    assert rows[-1]["step"] == pytest.approx(40, abs=1)
    assert all(a["elapsed"] <= b["elapsed"] for a, b in itertools.pairwise(rows))


def test_long_epochs_are_logged_every_fifty_steps(tmp_path):
    run = train(str(tmp_path / "run"), max_steps=160, batch_size=2, ema=None, augment={})
    assert [row["step"] for row in rows_of(run)] == [50, 80, 130, 160]
    assert "validation/accuracy" not in rows_of(run)[0]


def test_no_line_of_the_log_is_of_few_steps(tmp_path):
    run = train(str(tmp_path / "run"), max_steps=60, batch_size=2, ema=None, augment={})
    assert [row["step"] for row in rows_of(run)] == [60]  # one at 50 would leave 10 steps


def test_a_run_that_has_ended_is_trained_longer(tmp_path, capfd):
    path = str(tmp_path / "run")
    first = train(path, max_epochs=1)
    rate = rows_of(first)[-1]["lr"]
    assert "had ended already" not in capfd.readouterr().err
    train(path, max_epochs=1, resume=True)
    assert "had ended already; only its report is written again" in capfd.readouterr().err
    run = train(path, max_epochs=3, resume=True)
    assert "had ended already" not in capfd.readouterr().err
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == [1.0, 2.0, 3.0]
    assert rows[1]["lr"] > rate > rows[2]["lr"]  # the schedule is that of the longer run
    assert read_run_recipe(run.folder).training.max_epochs == 3
    assert checkpoint(run, "best")["step"] == 30


def test_accumulated_batches_are_one_step(tmp_path):
    options = {"max_steps": 6, "augment": {}, "ema": None}
    whole = checkpoint(train(str(tmp_path / "whole"), **options))["state_dict"]
    parts = checkpoint(train(str(tmp_path / "parts"), accumulate=4, **options))["state_dict"]
    # Norm-wise: LAMB makes rounding noise as long as a gradient where the gradient is zero (keys' biases).
    found, expected = (torch.cat([w.flatten() for w in s.values()]) for s in (parts, whole))
    assert relative_error(found, expected) < GOLDEN


def test_no_better_result_ends_a_run(tmp_path):
    run = train(str(tmp_path / "run"), max_epochs=50, early_stopping=2, optim={"lr": 0.0})
    assert [row["epoch"] for row in rows_of(run)] == [1.0, 2.0, 3.0]
    assert checkpoint(run, "best")["step"] == 10


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16"}, {"grad_checkpointing": True}, {"optim": {"name": "adamw"}}],
    ids=["bf16", "checkpointing", "adamw"],
)
def test_other_ways_to_train_learn_too(tmp_path, options):
    run = train(str(tmp_path / "run"), max_steps=2, ema=None, **options)
    assert rows_of(run)[-1]["train/loss"] == pytest.approx(2.3, abs=0.3)


def test_compilation_keeps_the_names_of_the_weights(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    train(str(tmp_path / "run"), max_steps=1, compile=True)
    assert compiled == ["Perceiver"]


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_saved(tmp_path, monkeypatch):
    step = PerceiverModule.training_step

    def diverge(self, batch):
        if batch.epoch == 1:
            torch.nn.init.constant_(self.model.output.to_logits.bias, float("nan"))
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PerceiverModule, "training_step", diverge)
        message = (
            r"has diverged: the loss was nan at step 20.* holds an earlier step. .* lower rate"
        )
        with pytest.raises(ValueError, match=message):
            train(str(tmp_path / "run"), max_epochs=3)
        # Nor when a checkpoint is due before the next line of the log.
        with pytest.raises(ValueError, match=r"the loss was nan at step 14"):
            train(str(tmp_path / "often"), max_epochs=3, save_every=7)
    for name in ("run", "often"):
        saved = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)
        assert saved["global_step"] == 10


def in_last_step(patch, step, change):
    """Change the model after this optimizer step, or its gradient before."""
    hook = PerceiverModule.on_before_optimizer_step

    def changed(self, optimizer):
        if self.global_step == step - 1:
            change(self)
        hook(self, optimizer)

    patch.setattr(PerceiverModule, "on_before_optimizer_step", changed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda module: module.model.output.to_logits.weight.grad.fill_(float("inf")),
            "the gradient was not finite",
        ),
        (
            lambda module: torch.nn.init.constant_(module.model.output.to_logits.bias, torch.inf),
            "a weight was not a finite number",
        ),
        (
            lambda module: module.model.output.to_logits.bias.data.copy_(
                torch.tensor([3e38, *[-3e38] * 9])  # their difference is infinite
            ),
            "the validation loss was",
        ),
    ],
    ids=["gradient", "weight", "loss"],
)
def test_a_divergence_in_the_last_step_of_an_epoch_is_not_saved(
    tmp_path, monkeypatch, change, reason
):
    with monkeypatch.context() as patch:
        in_last_step(patch, 20, change)
        with pytest.raises(ValueError, match=f"has diverged: {reason}.* at step 20, and nothing"):
            train(str(tmp_path / "run"), max_epochs=3, ema=None, optim={"name": "adamw"})
    for name, key in (("last", "global_step"), ("best", "step")):
        saved = torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)
        assert saved[key] == 10
    assert [row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl")] == [10]
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_run_that_diverges_in_its_only_step_saves_nothing(tmp_path):
    with pytest.raises(ValueError, match="has diverged"):
        train(str(tmp_path / "run"), max_steps=1, optim={"lr": 1e30})
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_a_run_begins_from_the_weights_of_another(run, tmp_path, capfd):
    recipe = small_recipe(max_steps=1, optim={"lr": 0.0}, ema=None)
    begun = fit_module.train(
        resolved(small_digits(), recipe), out=tmp_path / "run", init_from=run.folder
    )
    assert "Began from the weights of" in capfd.readouterr().err
    theirs = load(run.folder).model.state_dict()
    for name, weight in load(begun.folder).model.state_dict().items():
        assert torch.equal(weight, theirs[name])
    assert "Began from the weights of" in (begun.folder / "report.md").read_text()
    assert len(json.loads((begun.folder / "init.json").read_text())["taken"]) == len(theirs)


def test_a_run_that_has_nothing_to_begin_with_leaves_no_folder(run, tmp_path):
    recipe = small_recipe(max_steps=1)
    wider = replace(recipe, encoder=replace(recipe.encoder, latent_channels=24))
    for source in (run.folder, tmp_path / "nowhere"):
        with pytest.raises((ValueError, OSError), match=r"weights of .* do not fit|does not exist"):
            fit_module.train(
                resolved(small_digits(), wider), out=tmp_path / "run", init_from=source
            )
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_read_are_in_the_report(tmp_path):
    class OneBroken:
        def __init__(self, records):
            self.records = records

        def __len__(self):
            return len(self.records)

        def row(self, index):
            row = dict(self.records.row(index))
            return {**row, "image": EncodedItem("broken.png", data=b"no")} if index == 3 else row

        def column(self, name):
            return self.records.column(name)

    source, recipe = small_digits(), small_recipe(max_epochs=1)
    source = replace(source, splits={**source.splits, "train": OneBroken(source.splits["train"])})
    run = fit_module.train(resolved(source, recipe), out=tmp_path / "run")
    report = (run.folder / "report.md").read_text()
    assert "1 row was left out." in report
    assert "broken.png" in report


def test_ctrl_c_saves_and_stops(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as stopped:
        train(str(tmp_path / "run"), max_epochs=2, die="SIGINT:3")
    assert stopped.value.code == 128 + signal.SIGINT
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """A run of one epoch that was stopped after step 5. Tests copy it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with pytest.raises(SystemExit):
            train(str(folder), max_epochs=1, die="SIGTERM:5")
    return folder


def test_a_closed_terminal_saves_and_stops_unless_ignored(tmp_path, monkeypatch):
    started = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, too
    try:
        with pytest.raises(SystemExit) as stopped:
            train(str(tmp_path / "run"), max_epochs=2, die="SIGHUP:3")
    finally:
        signal.signal(signal.SIGHUP, started)
    assert stopped.value.code == 128 + signal.SIGHUP
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert signal.SIGHUP not in build_module._signals()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in build_module._signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_number_of_processes_is_said_to_be_inexact(stopped_run, tmp_path, capfd):
    shutil.copytree(stopped_run, tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    payload = torch.load(last, weights_only=True)
    payload["perceivers"]["world_size"] = 4
    torch.save(payload, last)
    train(str(tmp_path / "run"), max_epochs=1, resume=True)
    assert "had 4 processes and now has 1: its numbers will not be" in capfd.readouterr().err


def test_a_job_that_slurm_starts_again_goes_on_by_itself(stopped_run, tmp_path, monkeypatch, capfd):
    shutil.copytree(stopped_run, tmp_path / "run")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(str(tmp_path / "run"), max_epochs=1)
    assert "Resuming from step 5." in capfd.readouterr().err


def test_without_limits_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="would never end"):
        train(str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_lightning_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "perceivers\[train\]"'):
        train(str(tmp_path / "run"), max_epochs=1)


def test_threads_are_this_process_share_and_come_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    wanted = []
    monkeypatch.setattr(fit_module.torch, "set_num_threads", wanted.append)
    with fit_module._threads(small_recipe(max_epochs=1)):
        assert wanted == [len(os.sched_getaffinity(0))]
    assert wanted[-1] == before


def test_the_metrics_are_json(run):
    for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
