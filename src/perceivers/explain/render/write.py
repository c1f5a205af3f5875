"""Write explanations and faithfulness curves to files: PNG, animated GIF, HTML page or npz archive."""

import json
import re
import warnings
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.base import atomic_write, atomic_write_text
from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.explanation import Explanation, arrays_of
from perceivers.explain.attribution.faithfulness import MeanCurves
from perceivers.explain.render.explanation_json import explanation_json
from perceivers.hub.checkpoint import Saved

FORMATS = ("png", "gif", "html", "npz")

_VIEWS = ("view_image", "view_audio", "view_points", "view_lines")
SCRIPTS = ("dom", "colors", "clock", "lanes", "answers", *_VIEWS, "views", "page")
"""Modules of the page, each after those that it imports."""


def explain_file(
    saved: Saved | str | Path,
    file: Any,
    out: str | Path,
    *,
    format: str | None = None,
    latents: int = 8,
    clip_position: float = 0.5,
    **which: Any,
) -> Path:
    """Write the explanation of a sample, and return the path.

    Args:
        saved: A run folder, a model on the Hugging Face hub, or the result of `perceivers.hub.checkpoint.load`.
        file: A path, a PIL image, an array or a text; a dict with one of these for each modality, where a missing
            modality may be left out.
        out: The file to write. Its folder is created if need be.
        format: `png` is a figure; `gif` shows one map after another or, of a video, frame after frame; `html` is a page
            that needs no other file; `npz` holds the arrays of `Explanation`. By default the suffix of `out`.
        latents: Number of latents that are shown one by one.
        clip_position: Position of the clip in a longer file: 0 is its beginning, 1 its end.
        which: `task`, `map` and `about` of `perceivers.explain.attribution.explain.explain_sample`.

    Raises:
        ValueError: If the format does not exist, the model cannot decode files, or the file is missing or cannot be
            decoded.
        OSError: If `out` cannot be written.
        ImportError: If matplotlib is missing for a `png` or `gif`, or a library that decodes the file.
    """
    out = Path(out)
    format = _format_of(out, format, FORMATS, "show attention in")
    if not 0 <= clip_position <= 1:
        raise ValueError(
            f"Expected a clip position between 0, the beginning of a file, and 1, its end; got {clip_position}."
        )
    explanation = explain_sample(saved, file, latents=latents, clip_position=clip_position, **which)
    if format == "png":
        _save_png(_figures().draw_explanation(explanation), out)
    elif format == "gif":
        _figures().write_gif(explanation, out)
    elif format == "html":
        atomic_write_text(out, page_of(explanation))
    else:
        _write_arrays(out, arrays_of(explanation))
    return out


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


def write_curves(curves: MeanCurves, out: str | Path, *, format: str | None = None) -> Path:
    """Write deletion and insertion curves and return the path.

    Args:
        curves: Mean over one sample or more.
        out: The file to write. Its folder is created if need be.
        format: `png` draws them; `npz` holds `fractions`, `deletion.MAP` and `insertion.MAP`. By default the suffix of
            `out`.

    Raises:
        ValueError: If the format is neither.
        OSError: If `out` cannot be written.
        ImportError: If matplotlib is missing for a `png`.
    """
    out = Path(out)
    format = _format_of(out, format, ("png", "npz"), "write curves in")
    if format == "png":
        _save_png(_figures().draw_curves(curves), out)
        return out
    arrays: dict[str, npt.NDArray[Any]] = {"fractions": curves.fractions}
    arrays |= {f"deletion.{name}": curve for name, curve in curves.deletion.items()}
    arrays |= {f"insertion.{name}": curve for name, curve in curves.insertion.items()}
    _write_arrays(out, {"samples": np.array(curves.samples), **arrays})
    return out


def _format_of(out: Path, format: str | None, known: tuple[str, ...], purpose: str) -> str:
    """Return the format of a file: the given one, or its suffix."""
    format = format or out.suffix.removeprefix(".").lower()
    if format not in known:
        names = f"{', '.join(known[:-1])} or {known[-1]}"
        raise ValueError(f"Expected the format {names} to {purpose}, got '{format}' for {out}.")
    return format


def _write_arrays(out: Path, arrays: dict[str, Any]) -> None:
    # Of a stream, since savez would add a suffix to a name that has another.
    with atomic_write(out) as new, new.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _save_png(figure: Any, out: Path) -> None:
    with atomic_write(out) as new, warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; the warning would print it.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(new, format="png", dpi=110, facecolor="white")


def _figures() -> Any:
    """Return the module that draws figures. Raise ImportError if matplotlib is missing."""
    try:
        return import_module("perceivers.explain.render.figure")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        raise ImportError('Drawing needs matplotlib: pip install "perceivers[viz]".') from error
