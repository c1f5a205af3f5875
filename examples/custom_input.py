"""A Perceiver with a custom input adapter in a plain training loop.

    python examples/custom_input.py

Synthetic events of an event camera (position, time and sign of a change) show a moving dot; the class is its direction.
"""

import torch
from torch import nn

import perceivers as pv

DIRECTIONS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


class EventsInput(nn.Module):  # B x M x 4 (x, y, time, change) -> M elements
    def __init__(self, num_events: int, num_bands: int = 8) -> None:
        super().__init__()
        self.num_elements, self.axes, self.changes = num_events, (num_events,), nn.Embedding(2, 16)
        self.register_buffer("frequencies", torch.linspace(1, 16, num_bands) * torch.pi)
        self.channels = 16 + 3 * (1 + 2 * num_bands)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> pv.Elements:
        phases = (x[..., :3, None] * self.frequencies).flatten(-2)
        positions = torch.cat([x[..., :3], phases.sin(), phases.cos()], dim=-1)
        return pv.Elements(self.changes(x[..., 3].long()), positions=positions, mask=mask)


def make_events(count: int, num_events: int) -> tuple[torch.Tensor, torch.Tensor]:
    direction = torch.randint(4, (count,))
    time = torch.rand(count, num_events, 1) * 2 - 1
    center = 0.6 * time * torch.tensor(DIRECTIONS)[direction][:, None]
    position = center + 0.1 * torch.randn(count, num_events, 2)
    return torch.cat([position, time, torch.ones_like(time)], dim=-1), direction


def main(steps: int = 200, num_events: int = 128) -> float:
    torch.manual_seed(0)
    adapter = EventsInput(num_events)
    config = pv.PerceiverEncoderConfig(
        num_latents=8, latent_channels=32, num_blocks=1, num_cross_attends=1
    )
    encoder = pv.PerceiverEncoder(config, input_channels=adapter.channels)
    head = pv.MeanPool(pv.MeanPoolConfig(num_outputs=4), latent_channels=32)
    model = pv.Perceiver({"events": adapter}, encoder, head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        events, direction = make_events(32, num_events)
        nn.functional.cross_entropy(model({"events": events}), direction).backward()
        optimizer.step()
        optimizer.zero_grad()
    events, direction = make_events(256, num_events)
    accuracy = (model({"events": events}).argmax(dim=1) == direction).float().mean().item()
    print(f"accuracy on 256 new samples: {accuracy:.1%} (chance: 25 %)")
    return accuracy


if __name__ == "__main__":
    main()
