"""Quantized values of series as the tokens of an autoregressive model."""

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch

from perceivers.registry import configclass
from perceivers.tasks.vocabulary import BaseVocabulary, register_vocabulary
from perceivers.typing import Bool, Float, Int, Tensor

_MISSING = 1


class SeriesScale(NamedTuple):
    """Center and unit of the values of each series and channel, B x 1 x C."""

    center: Float[Tensor, "B 1 C"]
    unit: Float[Tensor, "B 1 C"]


@configclass
class SeriesVocabulary(BaseVocabulary):
    """Values of series in bins, step by step, at a step channel by channel. After three special tokens.

    Each series has a center and a unit of its own, of the known values of its context: those steps of a window that
    come before the ones that are predicted. A value is the bin that holds its distance from the center in units; a
    missing value is a token of its own, which is read and never predicted.

    Attributes:
        num_bins: Number of bins.
        bins: `uniform`: of equal width, from -limit to limit. `quantiles`: those of a normal distribution, of equal
            probability, so that they are narrow near the center; the outermost are centered at the limit.
        limit: Distance from the center, in units, of the outer edges of the bins. Values beyond are in the last bin.
        scaling: `standard`: mean and standard deviation of the context. `mean_abs`: zero and the mean absolute value.
        scale_jitter: In training, deviation of the center in units, and of the logarithm of the unit, both drawn for
            each window: few values are then learned in many bins.
        horizon: Steps at the end of a window that are predicted. None: a quarter of the window.
        length: Steps of a window. None: taken from the preprocessing.
        num_channels: Channels of a series. None: taken from the data.
        has_missing: Whether a flag behind the values states which are known.
        mean: Subtracted from each channel in preprocessing. Empty: taken from the data.
        std: Each channel was divided by it after that.

    Raises:
        ValueError: If a number is out of range.

    Reference: Scaling by the context and uniform bins as in Chronos (arXiv:2403.07815), section 3.1.
    """

    kind: Literal["series_values"] = "series_values"
    num_bins: int = 255
    bins: Literal["uniform", "quantiles"] = "uniform"
    limit: float = 6.0
    scaling: Literal["standard", "mean_abs"] = "standard"
    scale_jitter: float = 0.1
    horizon: int | None = None
    length: int | None = None
    num_channels: int | None = None
    has_missing: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    unit: ClassVar[str] = "value"
    units: ClassVar[str] = "values"
    start: ClassVar[int] = 2
    first: ClassVar[int] = 3
    generate_flags: ClassVar[str] = "--prompt FILE --out forecast.png"
    is_chunked: ClassVar[bool] = True
    is_cropped: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_bins < 2 or not 0 < self.limit < math.inf or self.scale_jitter < 0:
            raise ValueError(
                "Expected at least 2 bins, a limit above 0 and a scale_jitter of 0 or more, got "
                f"num_bins={self.num_bins}, limit={self.limit} and scale_jitter={self.scale_jitter}."
            )
        if self.horizon is not None and not 1 <= self.horizon < (self.length or math.inf):
            raise ValueError(
                f"Expected a horizon from 1 to below the steps of a window, {self.length}, got {self.horizon}."
            )

    @property
    def size(self) -> int:
        """The bins and three special tokens."""
        return self.num_bins + self.first

    @property
    def chunk_step(self) -> int | None:
        """Steps at the end of a window that are predicted."""
        return self.horizon

    @property
    def known_channels(self) -> int:
        """Number of channels.

        Raises:
            ValueError: If it is not known.
        """
        if self.num_channels is None:
            raise ValueError(f"Expected num_channels of the series, got {self}.")
        return self.num_channels

    @property
    def known_horizon(self) -> int:
        """Steps at the end of a window that are predicted.

        Raises:
            ValueError: If neither they nor the length of a window is known.
        """
        if self.horizon is None:
            raise ValueError(f"Expected the horizon of the series, got {self}.")
        return self.horizon

    def fit_to(self, preprocess: Any) -> Self:
        """Return the vocabulary with length, channels and normalization of the series."""
        horizon = max(preprocess.length // 4, 1) if self.horizon is None else self.horizon
        return replace(
            self,
            horizon=horizon,
            length=preprocess.length,
            num_channels=len(preprocess.channels),
            has_missing=bool(preprocess.has_missing),
            mean=preprocess.mean or (),
            std=preprocess.std or (),
        )

    def fit_encoder(self, encoder: Any) -> Any:
        """Return the encoder with a latent for each value that is predicted, and a position table of channels."""
        channels = self.known_channels
        return replace(
            encoder,
            vocab_size=self.size,
            max_length=(self.length or 0) * channels + 1,
            num_latents=self.known_horizon * channels,
            axes=(channels + 1,) if encoder.positions == "learned" else (),
        )

    def check_sample(self, name: str) -> None:
        """Refuse: the next values are forecast, with their uncertainty.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"'{name}' is a series, and runs of its next values forecast: `perceivers generate RUN --prompt FILE --out "
            "forecast.csv`, or Predictor.forecast."
        )

    def tokens(
        self,
        content: Float[Tensor, "B L V"] | Int[Tensor, "B L"],
        mask: Bool[Tensor, "B Lm"] | None,
    ) -> tuple[Int[Tensor, "B LC"], Bool[Tensor, "B LC"]]:
        """Return the tokens of normalized series, and which are real: up to the last known step.

        Integers are tokens already.
        """
        return self._tokens(content, mask, jitter=0.0)

    def training_tokens(
        self,
        content: Float[Tensor, "B L V"] | Int[Tensor, "B L"],
        mask: Bool[Tensor, "B Lm"] | None,
    ) -> tuple[Int[Tensor, "B LC"], Bool[Tensor, "B LC"]]:
        """Return the tokens as `tokens` does, with random changes of center and unit."""
        return self._tokens(content, mask, jitter=self.scale_jitter)

    def _tokens(
        self, content: Tensor, mask: Tensor | None, *, jitter: float
    ) -> tuple[Int[Tensor, "B LC"], Bool[Tensor, "B LC"]]:
        if not content.is_floating_point():
            real = torch.ones_like(content, dtype=torch.bool)
            return content, real if mask is None else real & mask
        channels = self.known_channels
        values, known = content[..., :channels], torch.ones_like(content[..., :channels]).bool()
        if self.has_missing:
            known = content[..., channels : 2 * channels] > 0
        if mask is not None:
            known = known & mask[..., None]
        if self.mean:
            values = values * values.new_tensor(self.std) + values.new_tensor(self.mean)
        steps = known.any(dim=2).flip(1).cumsum(dim=1).flip(1) > 0
        context = torch.arange(values.shape[1], device=values.device) < self._context(steps)
        scale = self.scale(values, known & context[..., None])
        if jitter:
            center, unit = scale
            center = center + unit * jitter * torch.randn_like(center)
            scale = SeriesScale(center, unit * (jitter * torch.randn_like(unit)).exp())
        ids = self.quantize(values, known, scale)
        return ids.flatten(1), steps.repeat_interleave(channels, dim=1)

    def measured(
        self, ids: Int[Tensor, "B LC"], real: Bool[Tensor, "B LC"]
    ) -> Bool[Tensor, "B LC"]:
        """Return True for the tokens that are predicted: known values after the context."""
        channels = self.known_channels
        context = self._context(real[:, ::channels]) * channels
        places = torch.arange(ids.shape[1], device=ids.device)
        return real & (ids >= self.first) & (places >= context)

    def scale(self, values: Float[Tensor, "B L C"], known: Bool[Tensor, "B L C"]) -> SeriesScale:
        """Return center and unit of the known values; the unit of equal values is 0."""
        count = known.sum(dim=1, keepdim=True).clamp_min(1)
        kept = values.double().masked_fill(~known, 0.0)
        if self.scaling == "mean_abs":
            unit = kept.abs().sum(dim=1, keepdim=True) / count
            return SeriesScale(torch.zeros_like(unit).to(values), unit.to(values))
        center = kept.sum(dim=1, keepdim=True) / count
        squares = (kept - center).masked_fill(~known, 0.0).square().sum(dim=1, keepdim=True)
        unit = (squares / count).sqrt()
        unit = unit.where(unit > 1e-6 * center.abs(), 0.0)
        return SeriesScale(center.to(values), unit.to(values))

    def quantize(
        self, values: Float[Tensor, "B L C"], known: Bool[Tensor, "B L C"], scale: SeriesScale
    ) -> Int[Tensor, "B L C"]:
        """Return the token of each value."""
        unit = scale.unit.where(scale.unit > 0, 1.0)
        distances = ((values - scale.center) / unit).contiguous()
        edges = self._points(torch.arange(1, self.num_bins, device=values.device))
        found = torch.bucketize(distances, edges) + self.first
        return found.where(known, _MISSING)

    def values(self, tokens: Int[Tensor, "B L C"], scale: SeriesScale) -> Float[Tensor, "B L C"]:
        """Return the center of the bin of each token, in the units of the data."""
        places = (tokens - self.first).clamp(0, self.num_bins - 1)
        return scale.center + self._points(places + 0.5) * scale.unit

    def token_name(self, token: int) -> str:
        """Return the distance from the center of a series, in its units."""
        return f"{float(self._points(torch.tensor(token - self.first + 0.5))):.3g}"

    def _context(self, steps: Bool[Tensor, "B L"]) -> Int[Tensor, "B 1"]:
        """Return the number of steps before those that are predicted: of a short series at least half."""
        count = steps.sum(dim=1, keepdim=True)
        return torch.maximum(count - self.known_horizon, (count + 1) // 2)

    def _points(self, places: Tensor) -> Float[Tensor, "..."]:
        """Return the distance from the center of a place, 0 at the left edge of the first bin, num_bins at the end."""
        share = places.to(torch.float32) / self.num_bins
        if self.bins == "uniform":
            return (2 * share - 1) * self.limit
        last = math.sqrt(2) * float(torch.special.erfinv(torch.tensor(1 - 1 / self.num_bins)))
        return math.sqrt(2) * torch.special.erfinv(2 * share - 1) * (self.limit / last)


register_vocabulary(SeriesVocabulary)
