import importlib.util
import json

import pytest

from perceivers.runs.metrics import MetricsLogger, read_metrics
from perceivers.training.engine import build_loggers


class Recorder:
    def __init__(self):
        self.rows = []

    def log_metrics(self, metrics, step):
        self.rows.append((step, metrics))


def row(step, **metrics):
    return {"step": step, "epoch": step / 10, "elapsed": 0.5 * step, **metrics}


def test_each_row_is_a_line_and_goes_to_the_loggers(tmp_path):
    logger = Recorder()
    journal = MetricsLogger(tmp_path, [logger])
    journal.write(row(1, lr=0.1))
    journal.write(row(2, lr=0.2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["lr"] for line in lines] == [0.1, 0.2]
    assert logger.rows[1] == (2, {"epoch": 0.2, "lr": 0.2})


def test_lines_after_a_step_are_dropped(tmp_path):
    journal = MetricsLogger(tmp_path)
    for step in (1, 2, 3, 4):
        journal.write(row(step))
    journal.cut_after(2)
    assert [r["step"] for r in read_metrics(journal.path)] == [1, 2]


def test_nothing_is_cut_from_a_file_that_is_not_there(tmp_path):
    MetricsLogger(tmp_path).cut_after(5)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]


@pytest.mark.parametrize("line", ["", "{}", "[1]", "\\xff", '{"step": "2"}', '{"step": 2, "lo'])
def test_a_damaged_line_is_named_with_its_file(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode("latin-1") + b'\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2, is not .* Remove this line"):
        read_metrics(path)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_says_how_to_install_it(tmp_path, name, monkeypatch):
    real = importlib.util.find_spec
    missing = ("wandb", "mlflow", "mlflow_skinny", "tensorboard")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in missing else real(n, *a)
    )
    with pytest.raises(ImportError, match=rf"logger {name} needs .*: pip install {name}"):
        build_loggers([name], tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("wandb", "WandbLogger"), ("mlflow", "MLFlowLogger")])
def test_an_installed_logger_is_lightnings(tmp_path, name, kind, monkeypatch):
    from lightning.pytorch import loggers

    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: object())
    monkeypatch.setattr(loggers, "TensorBoardLogger", lambda *args, **kw: "tensorboard")
    monkeypatch.setattr(loggers, kind, lambda **kw: (kind, sorted(kw)))
    tensorboard, other = build_loggers([name], tmp_path, step=3)
    assert tensorboard == "tensorboard"
    assert other[0] == kind
