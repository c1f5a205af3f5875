"""Writes deletion and insertion curves: drawn, or as arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.explain.attribution.deletion import MeanCurves

_COLORS = {"class": "#b3242b", "rollup": "#3b6fb6", "mean": "#e39b3b", "last": "#5f9e6e"}
_BESIDE = {"gradients": ("#7d6bb2", (0, (4, 2))), "random": ("#6b7280", (0, (1, 1.5)))}
_WORDS = {
    "class": "class: roll-up weighted by its gradient",
    "rollup": "rollup: attention through all layers",
    "mean": "mean of all reads",
    "last": "last read",
    "gradients": "input gradients",
    "random": "a random order",
}


def write_curves(curves: MeanCurves, out: str | Path, *, format: str | None = None) -> Path:
    """Write curves and return the path.

    Args:
        curves: The mean over samples, which may be one.
        out: The file to write. Its folder is made if need be.
        format: `png` draws them; `npz` keeps `fractions`, `deletion.MAP` and `insertion.MAP`. By default as `out` ends.

    Raises:
        ValueError: If the format is neither.
        OSError: If `out` cannot be written.
        ImportError: If matplotlib is missing for a `png`.
    """
    out = Path(out)
    format = format or out.suffix.removeprefix(".").lower()
    if format not in ("png", "npz"):
        raise ValueError(
            f"Expected the format png or npz to write curves in, got '{format}' for {out}."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    if format == "png":
        _figure(curves).savefig(out, format="png", dpi=110, facecolor="white")
        return out
    arrays: dict[str, npt.NDArray[Any]] = {"fractions": curves.fractions}
    arrays |= {f"deletion.{name}": curve for name, curve in curves.deletion.items()}
    arrays |= {f"insertion.{name}": curve for name, curve in curves.insertion.items()}
    with out.open("wb") as stream:
        np.savez_compressed(stream, samples=np.array(curves.samples), **arrays)  # pyright: ignore[reportArgumentType]
    return out


def _figure(curves: MeanCurves) -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError('Drawing needs matplotlib: pip install "perceivers[viz]".') from error
    figure = Figure(figsize=(10, 5.8), layout="constrained")
    areas = curves.areas()
    drawn = [*curves.deletion.values(), *curves.insertion.values()]
    top = 1.05 * max(float(curve.max()) for curve in drawn)
    halves: Any = figure.subplots(1, 2, sharey=True)
    parts = (
        ("deletion", curves.deletion, "strongest elements taken away first", "taken away"),
        ("insertion", curves.insertion, "strongest elements given first", "given"),
    )
    for place, (axes, (title, own, order, what)) in enumerate(zip(halves, parts, strict=True)):
        for name, curve in own.items():
            color, style = _BESIDE.get(name, (_COLORS.get(name, "#1b1f27"), "-"))
            label = f"{areas[name][place]:.3f}  {_WORDS.get(name, name)}"
            axes.plot(100 * curves.fractions, curve, color=color, linestyle=style, label=label)
        axes.set_title(f"{title}: {order}", loc="left", fontsize=10)
        axes.set_xlabel(f"% of elements {what}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, top)
        better = "lower" if place == 0 else "higher"
        told = f"area under the curve ({better} is better)"
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
        legend = axes.legend(fontsize=8, frameon=False, title=told, **where)
        legend.get_title().set_fontsize(8)
    samples = f"mean of {curves.samples} samples" if curves.samples > 1 else "one sample"
    halves[0].set_ylabel(f"probability of the class, {samples}", fontsize=9)
    return figure
