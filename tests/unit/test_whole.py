import errno

import pytest

from perceivers.data.base import atomic_write


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
