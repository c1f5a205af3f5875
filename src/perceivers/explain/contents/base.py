"""Views of explained modalities: the content of a sample in human units, and the attention to its elements."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.explain.contents import plot

Array = npt.NDArray[Any]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One modality of a sample, as decoded and as the model receives it.

    Attributes:
        config: Preprocess configuration of the modality.
        value: Decoded value, before cropping and normalization.
        x: The model's array, without the batch axis.
        real: Mask along the first axis of `x`: False at padding.
        step: Samples, pixels, bytes ... that one element covers along each axis.
    """

    config: Any
    value: Any
    x: Array
    real: npt.NDArray[np.bool_]
    step: tuple[int, ...] = (1,)


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of one modality in human units, and how it is shown: as JSON for pages, and drawn.

    The fields of a subclass are written to npz archives. By default, a figure has a plot of the content above a track
    of attention for each map.
    """

    array_names: ClassVar[Mapping[str, str]] = {}
    """Names of fields in an npz archive, where they differ from the field's."""
    has_numbers: ClassVar[bool] = False
    """Whether a page writes the attention of each element as a number."""

    def to_json(self, view: "View") -> Json:
        """Return the content as JSON for `static/views.js`.

        `media` names the JavaScript view; `extent` is the fraction of each axis of the content that the elements cover.
        """
        return {"media": "elements", "extent": [1.0]}

    def arrange(self, attention: Array, view: "View") -> Array:
        """Return a map on the axes of the elements in the layout in which it is drawn, without padding at its end."""
        return attention[: self.num_elements(view)]

    def num_elements(self, view: "View") -> int | None:
        """Return the number of elements of the content on a single axis, which padding follows. None: all."""
        return None

    def size(self, view: "View") -> tuple[float, float]:
        """Return width and height of the figure in inches."""
        return plot.WIDE, self.plot_height + plot.TRACK * len(view.maps) + 0.5

    def draw(self, figure: Any, view: "View") -> None:
        """Draw the content and its maps into a matplotlib figure or subfigure."""
        heights = [self.plot_height] * (self.plot_height > 0) + [plot.TRACK] * len(view.maps)
        grid = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)
        rows = list(grid.flat)
        tracks = rows[-len(view.maps) :]
        if self.plot_height > 0:
            plot.bare(rows[0])
            self.draw_plot(rows)
            rows[0].tick_params(labelbottom=False)
        plot.draw_tracks(tracks, view, self.edges(view.overall.size))
        tracks[-1].set_xlabel(self.axis_label, fontsize=8, color=plot.QUIET)

    def thumbnail(self) -> Image.Image | str | None:
        """Return a small image of the content without attention, or a text. None: neither is known.

        Raises:
            ImportError: If it is drawn and matplotlib is missing.
        """
        if self.plot_height <= 0:
            return None

        def draw(figure: Any) -> None:
            axes = figure.subplots()
            plot.bare(axes)
            self.draw_plot([axes])

        return plot.drawn_image(draw, 3.4, min(max(self.plot_height, 1.3), 2.6))

    @property
    def plot_height(self) -> float:
        """Height in inches of the plot above the tracks."""
        return 0.0

    @property
    def axis_label(self) -> str:
        """Label of the horizontal axis of the tracks."""
        return "element"

    def draw_plot(self, rows: list[Any]) -> None:
        """Draw the content into the first of the axes of a figure."""

    def edges(self, count: int) -> Array:
        """Return start and end of `count` elements on the horizontal axis."""
        return np.arange(count + 1)

    def latents_size(self, view: "View") -> tuple[float, float] | None:
        """Return width and height of a figure with the scores of single latents. None: they are not drawn."""
        return None

    def draw_latents(self, figure: Any, view: "View", latents: tuple[int, ...]) -> None:
        """Draw the scores of single latents with the given indices."""

    @property
    def num_frames(self) -> int:
        """Number of frames of an animation; 0 if the content has none."""
        return 0

    @property
    def frame_seconds(self) -> float:
        """Duration of a frame of an animation."""
        return 0.12

    def draw_frame(self, figure: Any, view: "View", frame: int) -> None:
        """Draw one frame of an animation."""


@dataclass(frozen=True, kw_only=True)
class ElementsContent(Content):
    """Content of a modality without a registered view: the model's input as it is."""

    values: Array


@dataclass(frozen=True, kw_only=True)
class View:
    """Content of one modality, and the attention to its elements.

    Maps of attention are in multiples of an even share among the elements of the modality: 1 everywhere is uniform
    attention. They are NaN where an element is padding or missing.

    Attributes:
        name: Name of the modality.
        content: The content.
        attention: Attention of each cross-attention, averaged over latents and heads: T x the axes of the elements.
        share: Fraction of each cross-attention's attention that this modality received.
        even: Fraction that it would receive if attention were uniform: its fraction of all real elements.
        scores: Scores before the softmax of each cross-attention and chosen latent: T x L x the axes.
        query: Attention of the output's own query through the latents. None: the output has no query of its own.
        summary: Map of the whole model. None: the mean of all cross-attentions.
        summary_title: Title of `summary`.
        latents: Attention of each cross-attention and chosen latent, averaged over heads: T x L x the axes.
        rolled: Attention of each chosen latent through all layers: L x the axes.
        heads: Attention of each cross-attention and head, averaged over latents: T x H x the axes.
        head_scores: Scores of each cross-attention, head and chosen latent: T x H x L x the axes.
    """

    name: str
    content: Content
    attention: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32]
    even: float
    scores: npt.NDArray[np.float32]
    query: npt.NDArray[np.float32] | None = None
    summary: npt.NDArray[np.float32] | None = None
    summary_title: str = ""
    latents: npt.NDArray[np.float32] | None = None
    rolled: npt.NDArray[np.float32] | None = None
    heads: npt.NDArray[np.float32] | None = None
    head_scores: npt.NDArray[np.float32] | None = None

    @property
    def overall(self) -> npt.NDArray[np.float32]:
        """The summary or, without one, the mean of all cross-attentions."""
        if self.summary is not None:
            return self.summary
        seen = np.isfinite(self.attention)
        total = np.where(seen, self.attention, 0).sum(axis=0)
        count = seen.sum(axis=0)
        mean = total / np.maximum(count, 1)
        return np.where(count > 0, mean, np.nan).astype(np.float32)

    @property
    def maps(self) -> dict[int | str, tuple[str, Array]]:
        """Title and map by key: `all` is the summary, a number a cross-attention, `query` the output's own query."""
        count, overall = len(self.attention), self.overall
        found: dict[int | str, tuple[str, Array]] = {}
        if count > 1 or not np.allclose(overall, self.attention[0], rtol=1e-4, equal_nan=True):
            found["all"] = (self.summary_title or f"all {count} cross-attentions", overall)
        for index, attention in enumerate(self.attention):
            title = "" if found or count > 1 else self.summary_title
            found[index] = (title or f"cross-attention {index + 1} of {count}", attention)
        if self.query is not None:
            found["query"] = ("query of the first blank", self.query)
        return found

    @property
    def scale(self) -> float:
        """Multiple of an even share that has the strongest color in all maps of the modality."""
        return scale_of([attention for _, attention in self.maps.values()])

    @property
    def scale_text(self) -> str:
        """`scale` as the end of a color scale: `18.9x`, or `≥18.9x` if larger values have the same color."""
        largest = largest_of([attention for _, attention in self.maps.values()])
        return f"{'≥' if largest > self.scale else ''}{self.scale:.1f}x"

    @property
    def num_real(self) -> int:
        """Number of elements up to the last real one of a single axis, at least one. Padding follows."""
        real = np.flatnonzero(np.isfinite(self.overall))
        return int(real[-1]) + 1 if real.size else 1


def largest_of(maps: list[Array]) -> float:
    """Return the largest value of maps, 0 if all are missing."""
    seen = [attention[np.isfinite(attention)] for attention in maps]
    return max([0.0, *(float(part.max()) for part in seen if part.size)])


def scale_of(maps: list[Array]) -> float:
    """Return the value that has the strongest color, so that a single peak does not darken all else.

    It is the largest 99.5th percentile of the maps, and at least 1.5.
    """
    seen = [attention[np.isfinite(attention)] for attention in maps]
    return max([1.5, *(float(np.percentile(part, 99.5)) for part in seen if part.size)])


_VIEWS: dict[str, Callable[[ModelInput], Content]] = {}


def register_view(kind: str, build: Callable[[ModelInput], Content]) -> None:
    """Register the function that returns the content of a sample, by `kind` of the preprocess configuration."""
    _VIEWS[kind] = build


def content_of(given: ModelInput) -> Content:
    """Return the content of one modality of a sample; that of a kind without a view shows its elements alone."""
    build = _VIEWS.get(given.config.kind)
    return ElementsContent(values=given.x) if build is None else build(given)


def image_url(pixels: Array, kind: str = "PNG") -> str:
    """Return pixels, rows x columns or rows x columns x 3 bytes, as a data URL of a `PNG` or `JPEG`."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def shades_of(values: Array) -> npt.NDArray[np.uint8]:
    """Return values as shades of gray between their 5th and 99.7th percentile; 0 where they are missing."""
    finite = values[np.isfinite(values)]
    # Silence is far below everything else, so the lowest values are cut off.
    low, high = np.percentile(finite, [5, 99.7]) if finite.size else (0.0, 1.0)
    level = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-6)
    return np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)


def number_list(values: Array) -> list[Any]:
    """Return numbers of five digits as nested lists; None where a value is missing."""
    return [
        number_list(part)
        if isinstance(part, np.ndarray)
        else float(f"{part:.5g}")
        if np.isfinite(part)
        else None
        for part in np.asarray(values)
    ]
