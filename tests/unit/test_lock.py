import errno
import subprocess
import sys

import pytest

from perceivers.runs import lock
from perceivers.runs.lock import lock_folder

HOLD = """
import multiprocessing, os, sys, time
from pathlib import Path
from perceivers.runs.lock import lock_folder

def work():
    print(os.getpid(), flush=True)  # by the worker, which has then let the lock go
    time.sleep(60)

with lock_folder(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
    time.sleep(60)
"""


def test_one_process_at_a_time_and_no_file_left(tmp_path):
    run = tmp_path / "new" / "run"
    with lock_folder(run) as note:
        assert note == ""
        with (
            pytest.raises(ValueError, match=r"Another process is training in '.*run' now"),
            lock_folder(run),
        ):
            pass
        assert [path.name for path in run.iterdir()] == [".fit.lock"]
    assert list(run.iterdir()) == []
    with lock_folder(run):
        pass


def test_the_lock_ends_with_a_killed_process_although_its_workers_live(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    with pytest.raises(ValueError, match="Another process"), lock_folder(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    try:
        with lock_folder(tmp_path) as note:
            assert note == ""
    finally:
        subprocess.run(["kill", str(worker)], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_gets_a_note(tmp_path, monkeypatch):
    def acquire(_self):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    with lock_folder(tmp_path) as note:
        assert "has no locks: no second process may train" in note
