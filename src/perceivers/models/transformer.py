"""The paper's baseline: a transformer over the elements, without latents."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import nn

from perceivers.inputs.elements import Elements, dense
from perceivers.models.encoder import MOST_LAYERS, ElementEncoder, run_layer
from perceivers.models.flops import InputSize, attend_flops
from perceivers.nn.blocks import SelfAttend
from perceivers.nn.init import lecun_linear
from perceivers.registry import configclass
from perceivers.typing import Float, Tensor


@configclass
class TransformerEncoderConfig:
    """Shape of the baseline.

    Attributes:
        channels: Width to which the elements are projected, D.
        num_self_attends: Layers.
        num_self_attend_heads: Heads of each layer.
        self_attend_widening_factor: Width of the MLP, as a multiple of D.
    """

    has_fusion_embeddings: ClassVar[bool] = True
    """Whether a `Fusion` gives elements of several modalities one width and a learned vector."""

    kind: Literal["transformer"] = "transformer"
    channels: int = 512
    num_self_attends: int = 8
    num_self_attend_heads: int = 8
    self_attend_widening_factor: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.num_self_attends <= MOST_LAYERS:
            raise ValueError(
                f"Expected 1 to {MOST_LAYERS:,} layers, got num_self_attends={self.num_self_attends:,}."
            )

    def latent_values(self, num_elements: int) -> int:
        """Return the number of values of the latents of a sample of so many elements."""
        return num_elements * self.channels

    @property
    def reading_heads(self) -> tuple[int, ...]:
        """Heads of each attention to the input: those of every layer."""
        return (self.num_self_attend_heads,) * self.num_self_attends

    def paper_flops(self, size: InputSize) -> int:
        """Return the operations of the projection and all layers for one sample."""
        n, width = size.num_elements, self.channels
        layer = attend_flops(n, n, width, width, width, width, self.self_attend_widening_factor)
        return 2 * n * size.channels * width + self.num_self_attends * layer


class TransformerEncoder(ElementEncoder):
    """Self-attention over all elements: cost grows with the square of their number.

    Args:
        config: Shape of the baseline.
        input_channels: Width of the elements (C).

    Reference: Perceiver (arXiv:2103.03206), section 4.1, "Transformer (64x64)".
    """

    def __init__(self, config: TransformerEncoderConfig, *, input_channels: int) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.out_channels = config.channels
        self.project = lecun_linear(input_channels, config.channels)
        self.self_attends = nn.ModuleList(
            SelfAttend(
                config.channels,
                num_heads=config.num_self_attend_heads,
                widening_factor=config.self_attend_widening_factor,
            )
            for _ in range(config.num_self_attends)
        )

    def forward(self, segments: Sequence[Elements]) -> Float[Tensor, "B M D"]:
        """Return the elements after the last layer. All modalities have width C and no padding.

        Raises:
            ValueError: If elements are masked: their outputs would count in the mean over elements.
        """
        inputs, mask = dense(segments, self.project.weight.dtype)
        if mask is not None:
            raise ValueError(
                "The Transformer baseline averages over its elements and takes no mask; expected inputs "
                "of one length, got a padded batch. Use a Perceiver encoder for it."
            )
        x = self.project(inputs)
        for self_attend in self.self_attends:
            x = run_layer(self, self_attend, x)
        return x
