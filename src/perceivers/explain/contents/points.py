"""View of points in space: each with the color and size of its attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.explain.contents import base, plot

POINTS = 8000  # shown at most: a page turns them while a finger moves
TURNS = 24  # frames of an animation
COLUMNS = 4


@dataclass(frozen=True, kw_only=True)
class PointsContent(base.Content):
    """Points in space, M x 3. Each is an element."""

    points: npt.NDArray[np.float32]

    @property
    def num_frames(self) -> int:
        """Number of frames of one turn."""
        return TURNS

    def to_json(self, view: base.View) -> base.Json:
        """Return the coordinates of the points that are shown."""
        points = base.number_list(self.points[self._shown(view)].round(4))
        return {"media": "points", "extent": [1.0], "points": points, "total": len(self.points)}

    def arrange(self, attention: base.Array, view: base.View) -> base.Array:
        """Return the attention to the points that are shown."""
        return attention[self._shown(view)]

    def thumbnail(self) -> Image.Image:
        """Return the points seen from one side; those behind are paler."""
        points = self.points[np.isfinite(self.points).all(axis=1)][:POINTS]
        turn = np.deg2rad(35)
        across = points[:, 0] * np.cos(turn) - points[:, 1] * np.sin(turn)
        depth = points[:, 0] * np.sin(turn) + points[:, 1] * np.cos(turn)

        def draw(figure: Any) -> None:
            axes = figure.subplots()
            axes.scatter(across, points[:, 2] + 0.35 * depth, c=depth, cmap="Blues_r", s=3, lw=0)
            axes.set_aspect("equal")
            axes.set_axis_off()

        return plot.drawn_image(draw, 2.4, 2.4)

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with a plot for each map."""
        count = len(view.maps)
        columns = min(count, COLUMNS)
        side = 2.6 if count > 1 else 4.2
        return columns * side + 0.8, -(-count // columns) * (side + 0.3)

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw the points for each map, side by side."""
        columns = min(len(view.maps), COLUMNS)
        drawn: list[Any] = []
        heat: Any = None
        for place, (title, attention) in enumerate(view.maps.values()):
            axes = figure.add_subplot(
                -(-len(view.maps) // columns), columns, place + 1, projection="3d"
            )
            heat = self._scatter(axes, attention, view)
            axes.set_title(
                plot.shorten(title, 24), color=plot.INK, fontsize=9, pad=0, parse_math=False
            )
            axes.view_init(elev=22, azim=-55)
            drawn.append(axes)
        plot.scale_beside(drawn, heat, view, pad=0.04, shrink=0.8)

    def draw_frame(self, figure: Any, view: base.View, frame: int) -> None:
        """Draw the points once, with the map of the whole model, from another side in each frame."""
        figure.set_size_inches(4.4, 4.2)
        axes = figure.add_subplot(projection="3d")
        heat = self._scatter(axes, view.overall, view)
        title = plot.shorten(view.summary_title, 40)
        axes.set_title(title, color=plot.INK, fontsize=10, pad=0, parse_math=False)
        axes.view_init(elev=22, azim=-55 + 360 * frame / TURNS)
        plot.scale_beside([axes], heat, view, pad=0.02, shrink=0.8)

    def _shown(self, view: base.View) -> npt.NDArray[np.int64]:
        """Return the indices of the points that are shown: at most `POINTS`, evenly through the list."""
        real = np.flatnonzero(np.isfinite(view.overall) & np.isfinite(self.points).all(axis=1))
        if len(real) > POINTS:
            real = real[np.linspace(0, len(real) - 1, POINTS).astype(int)]
        return real

    def _scatter(self, axes: Any, attention: base.Array, view: base.View) -> Any:
        """Draw the points in a cube around them; those with more attention are larger and in front."""
        points = self.points[self._shown(view)]
        level = np.nan_to_num(self.arrange(attention, view))
        norm = plot.norm_of(view.scale)
        order = np.argsort(level)
        size = float(np.clip(9000 / max(len(points), 1), 2, 30))
        heat = axes.scatter(
            *points[order].T,
            c=level[order],
            cmap=plot.palette("glow"),
            norm=norm,
            s=size * (0.5 + np.ma.filled(norm(level[order]), 0)),
            linewidths=0,
            depthshade=False,
        )
        low, high = (
            (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.ones(3))
        )
        half = max(float((high - low).max()) / 2, 1e-6)
        for name, middle in zip("xyz", (low + high) / 2, strict=True):
            axes.set(**{f"{name}lim": (middle - half, middle + half), f"{name}ticks": []})
        axes.set_box_aspect((1, 1, 1), zoom=1.25)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((0.97, 0.97, 0.98, 1.0))
            axis.line.set_color(plot.PALE)
        axes.set_xlabel("x", fontsize=7, color=plot.QUIET, labelpad=-13)
        axes.set_ylabel("y", fontsize=7, color=plot.QUIET, labelpad=-13)
        axes.text2D(0.97, 0.6, "z", transform=axes.transAxes, fontsize=7, color=plot.QUIET)
        return heat


def _points(given: base.ModelInput) -> PointsContent:
    return PointsContent(points=given.x[:, :3].astype(np.float32))


base.register_view("points", _points)
