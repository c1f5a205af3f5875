"""A head of your own behind a Perceiver: not a number alone, but how sure it is of it.

    python examples/own_head.py

The model reads pictures of handwritten digits and says how much ink they have, as a mean and a deviation of its own, by
the likelihood of what is true. What it is less sure of should be where it errs more.
"""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import nn

import perceivers as pv


class MeanAndDeviation(nn.Module):
    """B x N x D latents -> B x 2: what a number is likely to be, and how far off that may be."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_channels)
        self.to_both = nn.Linear(latent_channels, 2)
        nn.init.zeros_(self.to_both.weight)  # the first answer is the same for all

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        mean, width = self.to_both(self.norm(latents.mean(dim=1))).unbind(-1)
        return torch.stack([mean, 0.01 + nn.functional.softplus(width)], dim=-1)


def main(steps: int = 200) -> tuple[float, float]:
    torch.manual_seed(0)
    recipe = pv.get_recipe("digits")
    gray = replace(recipe.inputs["image"], num_channels=1)
    recipe = replace(recipe, inputs={"image": gray})
    parts = pv.create_model(recipe)  # its adapter and encoder; the head is ours
    model = pv.Perceiver(
        parts.inputs, parts.encoder, MeanAndDeviation(recipe.encoder.latent_channels)
    )
    pictures = torch.from_numpy(load_digits().images).float()[:, None] / 16
    train, test = pictures[:1400], pictures[1400:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (32,))]
        mean, deviation = model({"image": batch}).unbind(-1)
        loss = nn.functional.gaussian_nll_loss(mean, batch.mean(dim=(1, 2, 3)), deviation**2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode():
        mean, deviation = model({"image": test}).unbind(-1)
    error = (mean - test.mean(dim=(1, 2, 3))).abs()
    print(f"Mean error {error.mean():.3f} of full ink; the model says {deviation.mean():.3f}.")
    return error.mean().item(), deviation.mean().item()


if __name__ == "__main__":
    main()
