import errno
import os

import pytest

from perceivers.data.base import atomic_write, atomic_write_text


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_appears_when_it_is_finished(tmp_path, sync):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path, sync=sync) as new:
        new.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names_in(path.parent) == ["a.txt"]
    other = tmp_path / "b.txt"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def _fail_after(path, error):
    path.write_text("new")
    raise error


def test_an_error_leaves_the_previous_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="no"), atomic_write(path) as new:
        _fail_after(new, ValueError("no"))
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_previous_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    message = r"a.txt: No space left .* The previous file is unchanged\. .* --resume"
    with pytest.raises(OSError, match=message), atomic_write(path) as new:
        _fail_after(new, OSError(errno.ENOSPC, "No space left on device"))
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_full_disk_without_a_previous_file(tmp_path):
    message = r"Could not write .*a\.txt: No space left on device\. Make room"
    with pytest.raises(OSError, match=message), atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file.a\.txt"), atomic_write(tmp_path / "file" / "a.txt"):
        raise AssertionError


def test_a_full_disk_in_the_words_of_another_library(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    with (
        pytest.raises(OSError, match=r"Could not write .*No space left"),
        atomic_write(path) as new,
    ):
        _fail_after(new, RuntimeError("I/O error: No space left on device (os error 28)"))
    assert path.read_text() == "old"


@pytest.mark.parametrize("raw", [b"caf\xe9.csv", b"a" * 250])
def test_names_of_any_bytes_and_of_any_length(tmp_path, raw):
    path = tmp_path / os.fsdecode(raw)
    atomic_write_text(path, path.name)
    assert path.read_bytes() == raw
    assert [os.fsencode(name) for name in names_in(tmp_path)] == [raw]


def test_the_target_of_a_link_is_replaced(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    atomic_write_text(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    atomic_write_text(path, "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert names_in(tmp_path) == ["pipe"]
