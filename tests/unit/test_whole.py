import errno

import pytest

from perceivers.data.base import whole


def test_a_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole(path) as place:
        place.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def _fail_after(place):
    place.write_text("new")
    raise ValueError("no")


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="no"), whole(path) as place:
        _fail_after(place)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told(tmp_path):
    message = r"Could not write .*a\.txt: No space left on device\. Make room"
    with pytest.raises(OSError, match=message), whole(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []
