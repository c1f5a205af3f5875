"""Input adapter of event streams: one element for each event."""

from typing import Literal

import torch
from torch import nn

import perceivers as pv
from perceivers.registry import configclass


@configclass
class EventsInputConfig:
    """Input adapter of event streams.

    Attributes:
        num_events: Events of a sample at most, M. None: taken from the data.
        num_bands: Frequencies of the Fourier features of x, y and time.
        sign_channels: Width of the learned embedding of the sign.
    """

    kind: Literal["events"] = "events"
    num_events: int | None = None
    num_bands: int = 8
    sign_channels: int = 16


class EventsInput(nn.Module):
    """Makes one element of each event: the embedding of its sign and Fourier features of its position and time."""

    def __init__(self, config: EventsInputConfig) -> None:
        super().__init__()
        if config.num_events is None:
            raise ValueError("Expected num_events of the streams; measure them first.")
        self.num_elements, self.axes = config.num_events, (config.num_events,)
        self.signs = nn.Embedding(2, config.sign_channels)
        frequencies = torch.linspace(1, 16, config.num_bands) * torch.pi
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.channels = config.sign_channels + 3 * (1 + 2 * config.num_bands)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> pv.Elements:
        """Return the elements of events, B x M x 4."""
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
        phases = (x[..., :3, None] * self.frequencies).flatten(-2)
        positions = torch.cat([x[..., :3], phases.sin(), phases.cos()], dim=-1)
        return pv.Elements(self.signs(x[..., 3].long()), positions=positions, mask=mask)

    def example(self, batch_size: int) -> torch.Tensor:
        """Return synthetic events."""
        return torch.zeros(batch_size, self.num_elements, 4)


pv.register_input(
    EventsInputConfig,
    EventsInput,
    preprocess="events",
    default=lambda _: EventsInputConfig(),
)
