"""Explanation as one HTML file that needs no server: its JSON, and the scripts and style of `static/`."""

import json
import re
from importlib.resources import files

from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.render.explanation_json import explanation_json

__all__ = ["page_of"]

_VIEWS = ("view_image", "view_audio", "view_points", "view_lines")
SCRIPTS = ("dom", "colors", "clock", "lanes", "answers", *_VIEWS, "views", "page")
"""Modules of the page, each after those that it imports."""


def page_of(explanation: Explanation) -> str:
    """Return an explanation as an HTML page: controls for depth and latents, videos that play, points that turn."""
    data = json.dumps(explanation_json(explanation), separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c")  # no text can end the script
    scripts = "\n".join(_inlined(_static(f"{name}.js")) for name in SCRIPTS)
    parts = {"STYLE": _static("style.css"), "DATA": data, "SCRIPT": scripts}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _static("page.html"))


def _static(name: str) -> str:
    return (files("perceivers.explain.render") / "static" / name).read_text(encoding="utf-8")


def _inlined(script: str) -> str:
    """Return a module without imports and exports: all modules of a page are one script."""
    script = re.sub(r"^import .*?;\n", "", script, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^export ", "", script, flags=re.MULTILINE)
