"""Compression of an autoencoder: size of its latents relative to its inputs."""

from dataclasses import dataclass
from typing import cast

import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.models.perceiver import PerceiverConfig, build


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Number of values of one sample.

    Attributes:
        raw_values: Values of the raw inputs: pixels times colors, samples, classes.
        array_values: Values of the encoder's input array, positions and padding included: M x C.
        latent_values: Values of the latents, N x D.
    """

    raw_values: int
    array_values: int
    latent_values: int

    @property
    def of_raw(self) -> float:
        """Values of the inputs for each value of the latents."""
        return self.raw_values / self.latent_values

    @property
    def of_array(self) -> float:
        """Values of the padded input array for each value of the latents, as Perceiver IO counts."""
        return self.array_values / self.latent_values

    def sentence(self) -> str:
        """Return both ratios as a sentence."""
        return (
            f"{self.latent_values:,} values of the latents stand for {self.raw_values:,} of the inputs "
            f"({self.of_raw:.1f} to 1); the papers count against the padded input array, {self.array_values:,} values "
            f"({self.of_array:.1f} to 1)"
        )


def compression(config: PerceiverConfig) -> Compression:
    """Return the compression of a model. No weight is allocated.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.3, whose 88x, 176x and 352x are relative to the padded array.
    """
    with torch.device("meta"):
        model = build(config)
        adapters = [cast("InputAdapter", adapter) for adapter in model.inputs.values()]
        raw = sum(adapter.example(1).numel() for adapter in adapters)
    elements = sum(adapter.num_elements for adapter in adapters)
    latents = config.encoder.latent_values(elements)
    return Compression(
        raw_values=raw, array_values=elements * model.input_channels, latent_values=latents
    )
