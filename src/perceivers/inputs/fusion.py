"""Several modalities under one model: a common width by a learned vector for each, and dropping some in training.

Reference: Perceiver (arXiv:2103.03206), section 4.2; the width rule (the widest modality and at least four channels
more) is that of DeepMind's release.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements, MaskedElements
from perceivers.nn.init import truncated_normal_
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

_TAG_SCALE = 0.02


@configclass
class FusionConfig:
    """Fusion of several modalities.

    Attributes:
        min_padding: Channels of the learned vector of the widest modality; narrower ones get more.
        channels: Width of all elements, also of a single modality, as in a model of more modalities whose weights are
            used. None: that of the widest modality and `min_padding`.
        modality_dropout: Share of the training samples in which a modality is dropped, by its name. One that is left
            without any keeps all of them.
        dropped: Treatment of a dropped modality: `masked` as one that is missing; `zeroed`, its elements read as
            zeros with their positions, as the paper states of its video stream; or `token`: a learned vector stands in
            place of each of its elements, and of one that is missing in prediction, too, as in Perceiver IO's
            autoencoding.
    """

    min_padding: int = 4
    channels: int | None = None
    modality_dropout: dict[str, float] = field(default_factory=dict[str, float])
    dropped: Literal["masked", "zeroed", "token"] = "masked"

    def __post_init__(self) -> None:
        if self.min_padding < 1:
            raise ValueError(f"min_padding must be at least 1, got {self.min_padding}.")
        for name, share in self.modality_dropout.items():
            if not 0.0 <= share < 1.0:
                raise ValueError(f"modality_dropout of '{name}' must lie in [0, 1), got {share}.")


class Fusion(nn.Module):
    """Gives the elements of every modality one width, and its own learned vector.

    Args:
        config: Width rule and dropping.
        widths: Width of the elements of each modality with their positions.
        has_embeddings: Whether elements get one width and a learned vector. Otherwise modalities are only dropped.

    Raises:
        ValueError: If a modality that is to be dropped does not exist, or one is too wide.
    """

    channels: int
    """Width of all elements, C."""

    common_channels: int | None
    """The same. None: elements keep their own widths."""

    def __init__(
        self, config: FusionConfig, widths: Mapping[str, int], *, has_embeddings: bool = True
    ) -> None:
        super().__init__()
        unknown = sorted(set(config.modality_dropout) - set(widths))
        if unknown:
            raise ValueError(
                f"modality_dropout names '{unknown[0]}', but the modalities are {', '.join(sorted(widths))}."
            )
        self.config = config
        self.modality_embeddings = nn.ParameterDict()
        self.tokens = nn.ParameterDict()
        widest = max(widths, key=lambda name: widths[name])
        if not has_embeddings:
            if config.channels is not None or config.dropped == "token":
                raise ValueError(
                    "An encoder that embeds each modality takes neither fusion.channels nor fusion.dropped='token': "
                    "leave them out; missing modalities are masked."
                )
            self.channels, self.common_channels = widths[widest], None
            return
        self.channels = config.channels or widths[widest] + config.min_padding
        self.common_channels = self.channels
        if self.channels <= widths[widest]:
            raise ValueError(
                f"Expected fusion.channels above the {widths[widest]} channels of '{widest}', got {self.channels}."
            )
        self.modality_embeddings = nn.ParameterDict(
            {
                name: truncated_normal_(torch.empty(self.channels - width), _TAG_SCALE)
                for name, width in widths.items()
            }
        )
        if config.dropped == "token":
            for name in widths:
                self.tokens[name] = truncated_normal_(torch.empty(self.channels), _TAG_SCALE)

    def forward(self, segments: Mapping[str, Elements]) -> dict[str, Elements]:
        """Return the elements of each modality, all of width C; in training without those that are dropped."""
        if self.training and any(self.config.modality_dropout.values()):
            segments = self._dropped(segments)
        if not self.modality_embeddings:
            return dict(segments)
        segments = {
            name: replace(part, modality_embedding=self._embedding(name))
            for name, part in segments.items()
        }
        if self.config.dropped == "token":
            return {name: self._behind_token(name, part) for name, part in segments.items()}
        return segments

    def _dropped(self, segments: Mapping[str, Elements]) -> dict[str, Elements]:
        """Drop each modality in its share of the samples, but never all that a sample has."""
        content = next(iter(segments.values())).content
        keep: dict[str, Bool[Tensor, " B"]] = {}
        left = torch.zeros(content.shape[0], dtype=torch.bool, device=content.device)
        for name, part in segments.items():
            share = self.config.modality_dropout.get(name, 0.0)
            keep[name] = torch.rand(content.shape[0], device=content.device) >= share
            there = torch.ones_like(left) if part.mask is None else part.mask.any(dim=1)
            left = left | (keep[name] & there)
        return {name: self._kept(part, keep[name] | ~left) for name, part in segments.items()}

    def _kept(self, part: Elements, keep: Bool[Tensor, " B"]) -> Elements:
        if self.config.dropped == "zeroed":
            return replace(part, content=part.content.masked_fill(~keep[:, None, None], 0.0))
        mask = keep[:, None].expand(-1, part.num_elements)
        return replace(part, mask=mask if part.mask is None else part.mask & mask)

    def _embedding(self, name: str) -> Float[Tensor, " G"]:
        """Return the learned vector of a modality."""
        if name not in self.tokens:
            return self.modality_embeddings[name]
        # A vector that stands nowhere in this batch gets a gradient of zero: several processes wait for one.
        return self.modality_embeddings[name] + 0.0 * self.tokens[name].sum()

    def _behind_token(self, name: str, part: Elements) -> Elements:
        """Put the modality's learned vector in place of all elements of the samples that have none of it."""
        if part.mask is None or part.masked is not None:
            return part
        missing = ~part.mask.any(dim=1, keepdim=True)
        hidden = MaskedElements(missing.expand(-1, part.num_elements), self.tokens[name])
        return replace(part, mask=part.mask | missing, masked=hidden)
