"""Installed packages that add modalities, tasks and recipes."""

from importlib.metadata import EntryPoint

import pytest

from perceivers import plugins


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a plugin from its source; nothing of it is left behind."""

    def install(source: str, name: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        found = (EntryPoint(name, name, plugins.GROUP),)
        monkeypatch.setattr(plugins, "entry_points", lambda group: found)
        monkeypatch.setattr(plugins, "_loaded", False)

    return install


def test_plugins_are_imported_once(installed, capsys):
    installed("print('imported')", "perceivers_plugin_once")
    plugins.load_plugins()
    plugins.load_plugins()
    assert capsys.readouterr().out == "imported\n"


def test_a_plugin_may_look_up_names_while_it_is_imported(installed):
    source = "from perceivers.plugins import load_plugins; load_plugins(); done = True"
    installed(source, "perceivers_plugin_lookup")
    plugins.load_plugins()
    import perceivers_plugin_lookup  # pyright: ignore[reportMissingImports]

    assert perceivers_plugin_lookup.done


def test_a_broken_plugin_is_named(installed):
    installed("raise RuntimeError('out of order')", "perceivers_plugin_broken")
    with pytest.raises(ImportError, match=r"plugin perceivers_plugin_broken.*out of order"):
        plugins.load_plugins()
