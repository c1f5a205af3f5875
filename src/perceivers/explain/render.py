"""Writes what a model attended to in a picture: drawn, or as arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from perceivers.explain.image import ImageExplanation, explain_picture
from perceivers.hub.checkpoint import Saved

__all__ = ["explain_image"]


def explain_image(
    saved: Saved, file: Any, out: str | Path, *, format: str | None = None, latents: int = 8
) -> Path:
    """Write what the model attended to in a picture, and return the path.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        file: A path, a PIL image, or an array of rows x columns [x channels].
        out: The picture or archive to write. Its folder is made if need be.
        format: `png` draws it; `npz` keeps the arrays of `ImageExplanation`. By default as `out` ends.
        latents: How many latents to show on their own.

    Raises:
        ValueError: If the format is neither, the model does not read a single picture, or the file is
            missing or holds none.
        OSError: If `out` cannot be written.
        ImportError: If matplotlib is missing for a `png`. The message says how to install it.
    """
    out = Path(out)
    format = format or out.suffix.removeprefix(".").lower()
    if format not in ("png", "npz"):
        msg = f"Expected the format png or npz to draw attention in, got '{format}' for {out}."
        raise ValueError(msg)
    explanation = explain_picture(saved, file, latents=latents)
    out.parent.mkdir(parents=True, exist_ok=True)
    if format == "png":
        _draw(explanation, out)
        return out
    with out.open("wb") as stream:  # savez would add a suffix to a name that has another
        np.savez_compressed(
            stream,
            picture=explanation.picture,
            label_names=np.array(explanation.label_names),
            probabilities=explanation.probabilities,
            attention=explanation.attention,
            latents=np.array(explanation.latents),
            scores=explanation.scores,
        )
    return out


def _draw(explanation: ImageExplanation, out: Path) -> None:
    """Write the figure, or say what to install."""
    try:
        from perceivers.explain.drawing import draw_explanation
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        msg = 'Drawing needs matplotlib: pip install "perceivers[viz]".'
        raise ImportError(msg) from error
    draw_explanation(explanation).savefig(out, format="png", dpi=110, facecolor="white")
