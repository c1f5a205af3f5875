import json
from pathlib import Path

import huggingface_hub
import pytest

import perceivers as pv
from perceivers.cli.main import main
from perceivers.report.publish import prepare_push, push_to_hub
from support.runs import make_finished_run


@pytest.fixture
def folder(tmp_path):
    """A run with all that training leaves, in a place whose name must not travel."""
    folder = make_finished_run(tmp_path / "secret" / "run")
    (folder / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "report.md", "curves.png", "confusion.png"):
        (folder / name).write_bytes(b"secret" if name.endswith("ckpt") else b"\x89PNG")
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("cache: null", "cache: /secret/cache"))
    return folder


TRAVEL = {"README.md", "config.json", "model.safetensors", "recipe.yaml"}


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


class FakeHub:
    """Stands for `HfApi`, and keeps what it was sent."""

    def __init__(self, monkeypatch, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict]] = []
        self.files: dict[str, bytes] = {}
        self.error = error
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)

    def create_repo(self, repo_id, **options):
        if self.error is not None:
            raise self.error
        self.calls.append((repo_id, options))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        sent = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        self.files = {str(path.relative_to(folder_path)): path.read_bytes() for path in sent}
        return f"https://hub/{repo_id}"


def test_what_others_need_is_sent_and_nothing_else(folder, monkeypatch):
    hub = FakeHub(monkeypatch)
    assert pv.push_to_hub(folder, "somebody/birds", private=True) == "https://hub/somebody/birds"
    assert hub.calls == [("somebody/birds", {"private": True, "exist_ok": True})]
    assert hub.files.keys() == TRAVEL | {"curves.png", "confusion.png"}
    assert not any(b"secret" in text for text in hub.files.values())
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b"![Curves of training](curves.png)" in hub.files["README.md"]


def test_what_was_pushed_predicts_as_the_run(folder, tmp_path):
    made = prepare_push(folder, tmp_path / "pushed")
    picture = next((tmp_path / "secret" / "birds").rglob("*.png"))
    (mine,), (theirs,) = (pv.load(one).predict([picture]) for one in (folder, made))
    assert theirs.probabilities == mine.probabilities
    assert json.loads((made / "config.json").read_text())["columns"]["data"] is None
    assert b"secret" not in everything(made)


def test_a_dry_run_sends_nothing(folder, tmp_path, capsys, monkeypatch):
    hub = FakeHub(monkeypatch, RuntimeError("must not be asked"))
    out = tmp_path / "pushed"
    assert main(["push", str(folder), "somebody/birds", "--dry-run", str(out)]) == 0
    assert "Nothing was sent." in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= TRAVEL
    assert hub.files == {}
    assert main(["push", str(folder), "somebody/birds", "--dry-run", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_hub_that_refuses_is_one_paragraph(folder, capsys, monkeypatch):
    FakeHub(monkeypatch, PermissionError("401: Invalid token.\nRequest ID: 1"))
    assert main(["push", str(folder), "somebody/birds"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "401: Invalid token. Log in with `hf auth login`" in told


def test_a_hub_that_cannot_be_reached_is_one_paragraph(folder, capsys, monkeypatch):
    """The real client, told to send nothing."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    api = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api(endpoint="http://127.0.0.1:9"))
    assert main(["push", str(folder), "somebody/birds"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "could not be pushed to somebody/birds" in told


@pytest.mark.parametrize("name", ["birds", "a/b/c"])
def test_other_names_are_refused(folder, name, capsys):
    with pytest.raises(ValueError, match="Expected USER/NAME"):
        push_to_hub(folder, name)
    assert main(["push", str(folder), name]) == 2


def test_only_what_has_ended_is_pushed(tmp_path):
    going = make_finished_run(tmp_path / "going", ended=False)
    with pytest.raises(OSError, match="Only what has ended can be pushed"):
        prepare_push(going, tmp_path / "pushed")
