"""View of videos: attention over the gray frames."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.explain.contents import base, plot

FRAMES = 8  # shown side by side, at most
AREA = 1.5  # square inches of a frame


@dataclass(frozen=True, kw_only=True)
class VideoContent(base.Content):
    """Frames x rows x columns x 3 of a clip, frames per second, and frames, rows and columns of an element."""

    frames: npt.NDArray[np.uint8]
    rate: float
    step: tuple[int, int, int] = (1, 1, 1)

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip."""
        return len(self.frames)

    @property
    def frame_seconds(self) -> float:
        """Duration of a frame of an animation, at least 40 ms."""
        return max(1 / self.rate, 0.04)

    def to_json(self, view: base.View) -> base.Json:
        """Return the frames as JPEG."""
        count, height, width = self.frames.shape[:3]
        covered = np.array(view.overall.shape) * self.step / (count, height, width)
        return {
            "media": "video",
            "extent": covered.tolist(),
            "width": width,
            "height": height,
            "rate": self.rate,
            "seconds": count / self.rate,
            "frames": [base.image_url(frame, "JPEG") for frame in self.frames],
            "step": self.step[0],
        }

    def thumbnail(self) -> Image.Image:
        """Return the first, middle and last frame side by side."""
        shown = dict.fromkeys((0, self.num_frames // 2, self.num_frames - 1))
        return plot.sized_image(
            np.concatenate([self.frames[place] for place in shown], axis=1), 320
        )

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with a row of frames for each map."""
        high, wide = self._inches()
        rows = 1 + len(view.maps)
        return min(self.num_frames, FRAMES) * (wide + 0.05) + 1.5, rows * (high + 0.07) + 0.35

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw a strip of frames and, over copies of it, each map."""
        columns = min(self.num_frames, FRAMES)
        grid = figure.subplots(1 + len(view.maps), columns, squeeze=False)
        heat: Any = None
        # The middle of each of as many equal parts of the clip.
        shown = ((np.arange(columns) + 0.5) * self.num_frames / columns).astype(int)
        for place, frame in enumerate(shown):
            plot.lay_image(grid[0, place], self.frames[frame])
            grid[0, place].set_title(f"{frame / self.rate:.2f} s", fontsize=8, color=plot.QUIET)
            for axes, (_, attention) in zip(grid[1:, place], view.maps.values(), strict=True):
                heat = self._lay_map(axes, attention, int(frame), view)
        for row, title in enumerate(["frames", *(title for title, _ in view.maps.values())]):
            plot.name_beside(grid[row, 0], title)
        plot.scale_beside(list(grid[1:].flat), heat, view)

    def draw_frame(self, figure: Any, view: base.View, frame: int) -> None:
        """Draw a frame beside a copy with the map of the whole model."""
        high, wide = self._inches()
        figure.set_size_inches(2 * 2.4 * wide, 2.4 * high)
        cells = figure.subplots(1, 2)
        plot.lay_image(cells[0], self.frames[frame])
        self._lay_map(cells[1], view.overall, frame, view)

    def _lay_map(self, axes: Any, attention: base.Array, frame: int, view: base.View) -> Any:
        grid = attention[min(frame // self.step[0], len(attention) - 1)]
        covered = grid.shape[1] * self.step[2], grid.shape[0] * self.step[1]
        return plot.lay_map(axes, self.frames[frame], grid, covered, view.scale)

    def _inches(self) -> tuple[float, float]:
        height, width = self.frames.shape[1:3]
        tall = min(max(height / width, 0.3), 3.0) ** 0.5
        return AREA**0.5 * tall, AREA**0.5 / tall


def _video(given: base.ModelInput) -> VideoContent:
    config = given.config
    frames = np.moveaxis(given.x[given.real], 1, -1)
    frames = frames * np.array(config.std or (1.0,)) + np.array(config.mean or (0.0,))
    pixels = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    step = given.step[0], given.step[-2], given.step[-1]
    return VideoContent(frames=pixels, rate=float(config.frame_rate or 1), step=step)


base.register_view("video", _video)
