"""Interrupted and resumed equals never interrupted, bit for bit."""

import io
import os
import signal
import subprocess
import sys

import pytest
import torch

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.preprocess import decode_image
from perceivers.data.sources.open import open_data
from perceivers.runs.metrics import read_metrics
from support.docs import ROOT
from support.files import write_parquet
from support.training import small_digits, train

SCRIPT = ROOT / "tests" / "support" / "training.py"
RUN = {"max_epochs": 3, "accumulate": 2}  # 10 steps an epoch

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        train(str(folder), **RUN)
    return folder


def leaves(tree, prefix=""):
    if isinstance(tree, dict):
        return {k: v for name in tree for k, v in leaves(tree[name], f"{prefix}.{name}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, x in enumerate(tree) for k, v in leaves(x, f"{prefix}.{i}").items()}
    return {prefix: tree}


def assert_same_run(folder, other):
    """Everything in the last checkpoint is equal: weights, optimizer, average, chance, place in the data."""
    for name in ("last", "best"):
        mine, theirs = (
            leaves(torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True))
            for f in (folder, other)
        )
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            if key.startswith((".perceivers.elapsed", ".perceivers.wait_time")):
                continue  # times
            if ".random.0.python" in key:
                continue  # the shape checker, in tests only, draws from Python's generator
            same = (
                torch.equal(value, theirs[key]) if torch.is_tensor(value) else value == theirs[key]
            )
            assert same, f"{name}.ckpt{key}"
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    rows = [
        [
            {k: v for k, v in row.items() if k not in ("elapsed", "waiting")}
            for row in read_metrics(f / "metrics.jsonl")
        ]
        for f in (folder, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("workers", "step"),
    [
        pytest.param(0, 13, id="within_an_epoch-0", marks=pytest.mark.quick),
        pytest.param(2, 13, id="within_an_epoch-2"),
        pytest.param(0, 20, id="at_its_end-0"),
        pytest.param(2, 20, id="at_its_end-2"),
    ],
)
def test_after_sigterm(uninterrupted, tmp_path, workers, step, capfd):
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        train(str(run), **RUN, workers=workers, die=f"SIGTERM:{step}")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert f"Stopped at step {step}; saved in" in capfd.readouterr().err
    train(str(run), **RUN, workers=workers, resume=True)
    assert f"Resuming from step {step}." in capfd.readouterr().err
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigkill(uninterrupted, tmp_path, workers):
    run = tmp_path / "run"
    options = ["max_epochs=3", "accumulate=2", f"workers={workers}", "save_every=8"]
    killed = subprocess.run(
        [sys.executable, SCRIPT, run, *options, "die=SIGKILL:23"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 22, "epoch": 2.2}\n{"step": 23, "ep'
        )  # after the checkpoint, and cut off
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 20  # of the second epoch's end; 16 was written over
    train(str(run), **RUN, workers=workers, resume=True)
    assert_same_run(run, uninterrupted)


def test_a_validation_that_was_interrupted_is_done_when_the_run_goes_on(
    uninterrupted, tmp_path, monkeypatch
):
    from perceivers.training import callback

    def validate_and_die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*args, **kwargs)

    validate = callback.validate
    with monkeypatch.context() as patch:
        patch.setattr(callback, "validate", validate_and_die)
        with pytest.raises(SystemExit):
            train(str(tmp_path / "run"), **RUN)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == []
    train(str(tmp_path / "run"), **RUN, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_run_that_has_ended_is_finished_again(uninterrupted, tmp_path):
    before = (uninterrupted / "model.safetensors").read_bytes()
    (uninterrupted / "model.safetensors").unlink()
    run = train(str(uninterrupted), **RUN, resume=True)
    assert (uninterrupted / "model.safetensors").read_bytes() == before
    assert run.metrics["samples"] == 40


def test_a_full_disk_costs_no_good_checkpoint(uninterrupted, tmp_path, monkeypatch):
    import resource

    from perceivers.training import callback

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = callback.TrainingCallback.save

    def save_on_a_full_disk(self, trainer):
        if trainer.global_step > 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        save(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(callback.TrainingCallback, "save", save_on_a_full_disk)
        try:
            with pytest.raises(OSError, match=r"last.ckpt: .* The previous file is unchanged"):
                train(str(tmp_path / "run"), **RUN)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt"]
    train(str(tmp_path / "run"), **RUN, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def write_shards(folder):
    """Write the small digits as parquet shards."""
    source = small_digits()
    for split, records in source.splits.items():
        rows = [records.row(i) for i in range(len(records))]
        cells = []
        for row in rows:
            buffer = io.BytesIO()
            decode_image(row["image"], num_channels=1).save(buffer, format="PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        targets = source.targets(split)
        size = len(rows) // 2
        for shard in range(2):
            part = slice(shard * size, (shard + 1) * size)
            columns = {"image": cells[part], "label": targets[part]}
            write_parquet(folder / f"{split}-{shard:05d}.parquet", columns)


def test_a_stream_goes_on_where_it_was(tmp_path):
    pytest.importorskip("pyarrow")
    write_shards(tmp_path / "data")
    options = {"max_epochs": 2, "workers": 2}

    def source():
        return open_data(tmp_path / "data", DataConfig(stream=True, shuffle_buffer=32))

    train(str(tmp_path / "whole"), source(), **options)
    with pytest.raises(SystemExit) as left:
        train(str(tmp_path / "cut"), source(), die="SIGTERM:6", **options)
    assert left.value.code == 128 + signal.SIGTERM
    train(str(tmp_path / "cut"), source(), resume=True, **options)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
