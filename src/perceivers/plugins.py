"""Packages that register modalities, tasks or recipes: the entry-point group `perceivers.plugins`.

In the plugin's `pyproject.toml`:

    [project.entry-points."perceivers.plugins"]
    events = "perceivers_events"    # a module; importing it registers what it adds
"""

from importlib.metadata import entry_points

GROUP = "perceivers.plugins"

_loaded = False


def load_plugins() -> None:
    """Import every installed plugin, once per process. Registries call this before they look up a name.

    Raises:
        ImportError: If a plugin cannot be imported. The message names it.
    """
    global _loaded  # noqa: PLW0603
    if _loaded:
        return
    _loaded = True  # before the imports: plugins look up names, too
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except Exception as error:
            _loaded = False
            raise ImportError(
                f"The plugin {plugin.name} ({plugin.value}) cannot be imported: {error}. Fix it, or uninstall the "
                "package that brings it."
            ) from error
