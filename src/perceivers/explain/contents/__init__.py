"""Views of modalities: their content in human units, as JSON for pages, and drawn.

Importing the package registers the built-in views.
"""

from importlib import import_module

for _name in ("array", "audio", "image", "points", "series", "table", "text", "video"):
    import_module(f"{__name__}.{_name}")
