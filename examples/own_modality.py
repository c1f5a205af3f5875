"""A sense of your own under a Perceiver: an adapter of a dozen lines, and any training loop.

    python examples/own_modality.py

An event camera tells which pixel became brighter or darker, and when. The events of a dot that moves are made up.
"""

import torch
from torch import nn

import perceivers as pv

SIDES = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


class EventsInput(nn.Module):  # B x M x 4 (x, y, time, change) -> M elements
    def __init__(self, num_events: int, num_bands: int = 8) -> None:
        super().__init__()
        self.num_elements, self.axes, self.changes = num_events, (num_events,), nn.Embedding(2, 16)
        self.register_buffer("frequencies", torch.linspace(1, 16, num_bands) * torch.pi)
        self.channels = 16 + 3 * (1 + 2 * num_bands)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> pv.Elements:
        waves = (x[..., :3, None] * self.frequencies).flatten(-2)
        positions = torch.cat([x[..., :3], waves.sin(), waves.cos()], dim=-1)
        return pv.Elements(self.changes(x[..., 3].long()), positions=positions, mask=mask)


def make_events(count: int, num_events: int) -> tuple[torch.Tensor, torch.Tensor]:
    side = torch.randint(4, (count,))
    time = torch.rand(count, num_events, 1) * 2 - 1
    place = 0.6 * time * torch.tensor(SIDES)[side][:, None] + 0.1 * torch.randn(
        count, num_events, 2
    )
    return torch.cat([place, time, torch.ones_like(time)], dim=-1), side


def main(steps: int = 200, num_events: int = 128) -> float:
    torch.manual_seed(0)
    eye = EventsInput(num_events)
    sizes = {"num_latents": 8, "latent_channels": 32, "num_blocks": 1, "num_cross_attends": 1}
    encoder = pv.PerceiverEncoder(pv.PerceiverEncoderConfig(**sizes), input_channels=eye.channels)
    head = pv.MeanPool(pv.MeanPoolConfig(num_outputs=4), latent_channels=32)
    model = pv.Perceiver({"events": eye}, encoder, head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        events, side = make_events(32, num_events)
        nn.functional.cross_entropy(model({"events": events}), side).backward()
        optimizer.step()
        optimizer.zero_grad()
    events, side = make_events(256, num_events)
    accuracy = (model({"events": events}).argmax(dim=1) == side).float().mean().item()
    print(f"{accuracy:.1%} of 256 new samples are right; 25 % would be chance.")
    return accuracy


if __name__ == "__main__":
    main()
