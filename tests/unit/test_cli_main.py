import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from perceivers.cli import main as entry
from perceivers.cli.main import COMMANDS, main, readable


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `perceivers doctor` raise an error."""

    def install(error: BaseException) -> None:
        def run(args):
            raise error

        monkeypatch.setattr(entry.importlib, "import_module", lambda name: SimpleNamespace(run=run))

    return install


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_lists_every_command_with_examples(flag, capsys):
    assert main([flag]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "perceivers fit birds/ --max-time 10m" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_command_shows_the_help_and_is_wrong(capsys):
    assert main([]) == 2
    assert "usage: perceivers COMMAND" in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("perceivers 0.")


def test_unknown_command_suggests_the_nearest(capsys):
    assert main(["evalute", "runs/a"]) == 2
    assert "no command 'evalute'. Did you mean 'evaluate'?" in capsys.readouterr().err


def test_python_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "perceivers", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("perceivers ")


@pytest.mark.parametrize("error", [ValueError, KeyError, TypeError, OSError, RuntimeError])
def test_what_the_work_raises_is_one_sentence_and_status_1(failing, capsys, error):
    failing(error("Expected a cat, got a dog."))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "perceivers doctor: Expected a cat, got a dog.\n"


def test_debug_shows_the_traceback(failing, capsys):
    failing(ValueError("Expected a cat, got a dog."))
    assert main(["doctor", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden(failing):
    failing(AttributeError("oops"))
    with pytest.raises(AttributeError, match="oops"):
        main(["doctor"])


@pytest.mark.parametrize(("code", "status"), [(2, 2), (0, 0), (None, 0), ("text", 1), (143, 143)])
def test_status_of_a_command_that_leaves_is_kept(failing, code, status):
    failing(SystemExit(code))
    assert main(["doctor"]) == status


def test_interrupting_a_fit_says_how_to_go_on(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["fit"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert main(["doctor"]) == 130
    assert "--resume" not in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_error():
    code = (
        "import os, sys; from perceivers.cli.main import main\n"
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        "sys.exit(main(['recipes']))"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_says_what_is_safe_and_what_to_do():
    text = readable(OSError(errno.ENOSPC, "No space left on device", "runs/a/last.ckpt"))
    assert text.startswith("No space left on device ('runs/a/last.ckpt').")
    assert "--resume" in text


def test_other_system_errors_name_the_file():
    text = readable(PermissionError(errno.EACCES, "Permission denied", "secret.png"))
    assert text == "Permission denied ('secret.png')."


def test_a_broken_torchvision_is_explained():
    text = readable(RuntimeError("operator torchvision::nms does not exist"))
    assert "torchvision does not match your torch" in text
    assert "pip uninstall torchvision" in text


def test_messages_become_one_paragraph():
    assert readable(ValueError("one\n  two")) == "one two"
    assert readable(MemoryError()) == "MemoryError"
    assert readable(KeyError("field")) == "KeyError: field. Run again with --debug to see where."


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("predict", "RUN"),
        ("predict run", "Expected at least one FILE"),
        ("predict run a.png --tpo 3", "--top"),
        ("predict run a.png --top x", "--top"),
        ("predict run a.png --batch-size 0", "Expected --batch-size of at least 1, got 0."),
        ("predict run a.png --clips 0", "Expected --clips of at least 1, got 0."),
        ("evaluate run --batch-size 0", "Expected --batch-size of at least 1, got 0."),
        ("evaluate run --max-bad 2", "Expected --max-bad from 0 to 1, got 2.0."),
        ("evaluate run --split other", "--split"),
        ("explain run", "Expected a FILE to explain"),
        ("explain run a.png --clip-position 3", "Expected --clip-position from 0 to 1, got 3.0."),
        ("explain run a.png --row -1", "Expected --row of at least 0, got -1."),
        ("export run", "--out"),
        ("shard data", "--out"),
        ("shard data --out x --rows-per-shard 0", "--rows-per-shard of at least 1, got 0."),
        ("shard data --out x --max-bad 7", "Expected --max-bad from 0 to 1, got 7.0."),
        ("make-flow-data x --count 0", ""),
        ("quickstart --max-epochs 0", "Expected --max-epochs of at least 1, got 0."),
        ("push run name", "Expected USER/NAME"),
        ("report run --examples -1", "Expected --examples of 0 or more, got -1."),
        ("info digits --batch 0", "Expected --batch of at least 1, got 0."),
        ("serve run --port 99999", "Expected --port from 0 to 65535, got 99999."),
        ("compare one", "Expected at least two run folders, got 1."),
        ("doctor --nonsense", "--nonsense"),
        ("fit", "Expected DATA"),
        ("fit a b", "Expected one DATA, got a, b."),
        ("fit x --resume 3", "--resume: expected no value, got 3."),
        ("fit x --size huge", "--size: expected one of tiny, small, base, mini, paper; got huge."),
        ("fit x --seed a", "--seed: Input should be a valid integer"),
    ],
)
def test_wrong_arguments_are_status_2(capsys, monkeypatch, tmp_path, command, expected):
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
