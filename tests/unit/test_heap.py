import pytest

from perceivers.nn import heap


@pytest.fixture
def calls(monkeypatch):
    made = []

    def function(name):
        return lambda *values: made.append((name, *values)) or 1

    for name in heap._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(heap, "_function", function)
    return made


def test_freed_memory_is_kept_up_to_a_limit(calls):
    assert heap.keep_freed_memory()
    assert calls == [("mallopt", -3, 32 << 20), ("mallopt", -1, 512 << 20)]


def test_settings_of_the_environment_win(calls, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not heap.keep_freed_memory()
    assert calls == []


def test_nothing_happens_where_the_c_library_has_no_such_function(monkeypatch):
    monkeypatch.setattr(heap, "_function", lambda name: None)
    assert not heap.keep_freed_memory()
    heap.return_freed_memory()


def test_freed_memory_is_returned(calls):
    heap.return_freed_memory()
    assert calls == [("malloc_trim", 0)]
