"""Writes what a model attended to in a sample, of one modality or several: drawn, moving, as a page, or as arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from perceivers.explain.attribution.explain import explain
from perceivers.explain.attribution.explanation import Explanation, arrays_of
from perceivers.explain.render.page import page_of
from perceivers.hub.checkpoint import Saved

FORMATS = ("png", "gif", "html", "npz")


def explain_file(
    saved: Saved,
    file: Any,
    out: str | Path,
    *,
    format: str | None = None,
    latents: int = 8,
    clip_position: float = 0.5,
    **which: Any,
) -> Path:
    """Write what the model attended to in a sample, and return the path.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        file: A path, a PIL image, an array or a text; a dict with one of these for each modality, where what is
            missing may be left out.
        out: The file to write. Its folder is made if need be.
        format: `png` draws it; `gif` shows one map after another or, of a film, frame after frame; `html` is a page
            that needs nothing else; `npz` keeps the arrays of `Explanation`. By default as `out` ends.
        latents: How many latents to show on their own.
        clip_position: Where the clip lies in a longer recording: 0 at its beginning, 1 at its end.
        which: `task`, `map` and `about` as `perceivers.explain.attribution.explain.explain` takes them.

    Raises:
        ValueError: If there is no such format, the model cannot read files, or the file is missing or cannot be
            decoded.
        OSError: If `out` cannot be written.
        ImportError: If matplotlib is missing for a `png` or `gif`, or a library that decodes the file. The message says
            how to install it.
    """
    out = Path(out)
    format = format or out.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        told = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ValueError(
            f"Expected the format {told} to show attention in, got '{format}' for {out}."
        )
    if not 0 <= clip_position <= 1:
        raise ValueError(
            f"Expected a moment between 0, the beginning of a recording, and 1, its end; got {clip_position}."
        )
    explanation = explain(saved, file, latents=latents, clip_position=clip_position, **which)
    out.parent.mkdir(parents=True, exist_ok=True)
    if format in ("png", "gif"):
        _draw(explanation, out, moving=format == "gif")
    elif format == "html":
        out.write_text(page_of(explanation), encoding="utf-8")
    else:
        with out.open("wb") as stream:  # savez would add a suffix to a name that has another
            np.savez_compressed(stream, **arrays_of(explanation))  # pyright: ignore[reportArgumentType]
    return out


explain_image = explain_file


def _draw(explanation: Explanation, out: Path, *, moving: bool) -> None:
    """Write the figure, or say what to install."""
    try:
        from perceivers.explain.render.animation import write_moving
        from perceivers.explain.render.drawing import draw_explanation
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        raise ImportError('Drawing needs matplotlib: pip install "perceivers[viz]".') from error
    if moving:
        write_moving(explanation, out)
        return
    draw_explanation(explanation).savefig(out, format="png", dpi=110, facecolor="white")
