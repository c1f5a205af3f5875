"""The head of the 2021 paper: the mean of the latents, then one linear layer."""

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from torch import nn

from perceivers.typing import Float, Tensor

__all__ = ["MeanPool", "MeanPoolConfig"]


@dataclass(frozen=True, kw_only=True)
class MeanPoolConfig:
    """Averages the latents and projects the mean.

    Attributes:
        num_outputs: Classes, or numbers to predict. None: taken from the data before the model is built.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["mean_pool"] = "mean_pool"
    num_outputs: int | None = 1000


class MeanPool(nn.Module):
    """Averages over the latents first and projects then, in this order.

    The weights begin at zero, as in the papers' release: the first prediction is the same for all classes.

    Args:
        config: Number of outputs.
        latent_channels: Width of the latents (D).

    Raises:
        ValueError: If the number of outputs is not known yet.

    Source: Perceiver (arXiv:2103.03206), appendices C and F.
    """

    def __init__(self, config: MeanPoolConfig, *, latent_channels: int) -> None:
        super().__init__()
        if config.num_outputs is None:
            msg = "Expected the number of classes, num_outputs=K, got None."
            raise ValueError(msg)
        self.config = config
        self.to_logits = nn.Linear(latent_channels, config.num_outputs)
        nn.init.zeros_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)

    def forward(self, latents: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        """Return one row of outputs for each sample."""
        return self.to_logits(latents.mean(dim=1))
