"""Write explanations and faithfulness curves to files: PNG, animated GIF, HTML page or npz archive."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.explanation import Explanation, arrays_of
from perceivers.explain.attribution.faithfulness import MeanCurves
from perceivers.explain.render.explanation_json import explanation_json
from perceivers.hub.checkpoint import Saved

FORMATS = ("png", "gif", "html", "npz")

_VIEWS = ("view_image", "view_audio", "view_points", "view_lines")
SCRIPTS = ("dom", "colors", "clock", "lanes", "answers", *_VIEWS, "views", "page")
"""Modules of the page, each after those that it imports."""

_STYLES: dict[str, dict[str, Any]] = {
    "class": {"color": "#b3242b", "label": "class: roll-up weighted by its gradient"},
    "rollup": {"color": "#3b6fb6", "label": "rollup: attention through all layers"},
    "mean": {"color": "#e39b3b", "label": "mean of all cross-attentions"},
    "last": {"color": "#5f9e6e", "label": "last cross-attention"},
    "gradients": {"color": "#7d6bb2", "linestyle": (0, (4, 2)), "label": "input gradients"},
    "random": {"color": "#6b7280", "linestyle": (0, (1, 1.5)), "label": "a random order"},
}


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
        clip_position: Position of the clip in a longer recording: 0 is its beginning, 1 its end.
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
            f"Expected a moment between 0, the beginning of a recording, and 1, its end; got {clip_position}."
        )
    explanation = explain_sample(saved, file, latents=latents, clip_position=clip_position, **which)
    out.parent.mkdir(parents=True, exist_ok=True)
    if format in ("png", "gif"):
        _draw(explanation, out, animated=format == "gif")
    elif format == "html":
        out.write_text(page_of(explanation), encoding="utf-8")
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
    out.parent.mkdir(parents=True, exist_ok=True)
    if format == "png":
        _save_png(_curves_figure(curves), out)
        return out
    arrays: dict[str, npt.NDArray[Any]] = {"fractions": curves.fractions}
    arrays |= {f"deletion.{name}": curve for name, curve in curves.deletion.items()}
    arrays |= {f"insertion.{name}": curve for name, curve in curves.insertion.items()}
    _write_arrays(out, {"samples": np.array(curves.samples), **arrays})
    return out


def _format_of(out: Path, format: str | None, known: tuple[str, ...], purpose: str) -> str:
    """Return the format of a file: the given one, or its suffix.

    Raises:
        ValueError: If it is none of those known.
    """
    format = format or out.suffix.removeprefix(".").lower()
    if format not in known:
        names = f"{', '.join(known[:-1])} or {known[-1]}"
        raise ValueError(f"Expected the format {names} to {purpose}, got '{format}' for {out}.")
    return format


def _write_arrays(out: Path, arrays: dict[str, Any]) -> None:
    with out.open("wb") as stream:  # savez would add a suffix to a name that has another
        np.savez_compressed(stream, **arrays)


def _save_png(figure: Any, out: Path) -> None:
    figure.savefig(out, format="png", dpi=110, facecolor="white")


def _missing_matplotlib(error: ModuleNotFoundError) -> ImportError:
    """Return an error that names the extra.

    Raises:
        ModuleNotFoundError: The error itself, if another module is missing.
    """
    if error.name is None or not error.name.startswith("matplotlib"):
        raise error
    return ImportError('Drawing needs matplotlib: pip install "perceivers[viz]".')


def _draw(explanation: Explanation, out: Path, *, animated: bool) -> None:
    try:
        from perceivers.explain.render.figure import draw_explanation, write_gif
    except ModuleNotFoundError as error:
        raise _missing_matplotlib(error) from error
    if animated:
        write_gif(explanation, out)
    else:
        _save_png(draw_explanation(explanation), out)


def _curves_figure(curves: MeanCurves) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise _missing_matplotlib(error) from error
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    areas = curves.areas()
    drawn = [*curves.deletion.values(), *curves.insertion.values()]
    top = 1.05 * max(float(curve.max()) for curve in drawn)
    halves: Any = figure.subplots(1, 2, sharey=True)
    parts = (
        ("deletion", curves.deletion, "strongest elements removed first", "removed", "lower"),
        ("insertion", curves.insertion, "strongest elements inserted first", "inserted", "higher"),
    )
    for place, (axes, part) in enumerate(zip(halves, parts, strict=True)):
        title, by_map, order, verb, better = part
        for name, curve in by_map.items():
            style = {"label": name} | _STYLES.get(name, {"color": "#1b1f27"})
            label = f"{areas[name][place]:.3f}  {style['label']}"
            axes.plot(100 * curves.fractions, curve, **style | {"label": label})
        axes.set_title(f"{title}: {order}", loc="left", fontsize=10)
        axes.set_xlabel(f"% of elements {verb}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, top)
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "title_fontsize": 8}
        words = f"area under the curve ({better} is better)"
        axes.legend(fontsize=8, frameon=False, title=words, **where)
    samples = f"mean of {curves.samples} samples" if curves.samples > 1 else "one sample"
    halves[0].set_ylabel(f"probability of the class, {samples}", fontsize=9)
    return figure
