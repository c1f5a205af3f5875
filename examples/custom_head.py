"""A Perceiver with a custom head that predicts a mean and a standard deviation.

    python examples/custom_head.py

The model estimates the mean brightness of images of handwritten digits and its uncertainty, trained by the Gaussian
negative log-likelihood.
"""

from dataclasses import replace

import torch
from sklearn.datasets import load_digits
from torch import nn

import perceivers as pv


class MeanAndDeviation(nn.Module):
    """B x N x D latents -> B x 2: mean and standard deviation of a number."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_channels)
        self.to_both = nn.Linear(latent_channels, 2)
        nn.init.zeros_(self.to_both.weight)  # the initial output is the same for all samples

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        mean, raw_deviation = self.to_both(self.norm(latents.mean(dim=1))).unbind(-1)
        return torch.stack([mean, 0.01 + nn.functional.softplus(raw_deviation)], dim=-1)


def main(steps: int = 200) -> tuple[float, float]:
    torch.manual_seed(0)
    recipe = pv.get_recipe("digits")
    gray = replace(recipe.inputs["image"], num_channels=1)
    recipe = replace(recipe, inputs={"image": gray})
    parts = pv.create_model(recipe)  # input adapter and encoder
    model = pv.Perceiver(
        parts.inputs, parts.encoder, MeanAndDeviation(recipe.encoder.latent_channels)
    )
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    train, test = images[:1400], images[1400:]
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
    print(f"mean error {error.mean():.3f}, predicted deviation {deviation.mean():.3f}")
    return error.mean().item(), deviation.mean().item()


if __name__ == "__main__":
    main()
