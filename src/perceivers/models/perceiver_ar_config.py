"""Architecture of a Perceiver AR, in the forms of DeepMind's release and of krasserm's library."""

from dataclasses import field
from typing import Any, ClassVar, Literal

from perceivers.models.flops import InputSize, attend_flops
from perceivers.nn.rotary import RotaryConfig
from perceivers.registry import configclass


@configclass
class PerceiverARConfig:
    """Architecture of a `PerceiverAR`.

    The defaults are those of DeepMind's release. krasserm's models differ in the fields from `latent_projection` on:
    `krasserm_perceiver_ar`.

    Attributes:
        vocab_size: Number of different tokens.
        max_length: Tokens of a context, prefix and latents together.
        num_latents: Last tokens of a context that are latents, each of which predicts the token after it.
        channels: Width of embeddings and latents.
        num_heads: Heads of every attention.
        num_layers: Layers of causal self-attention.
        widening_factor: Width of the hidden layer of the self-attention's MLP, as a multiple of `channels`.
        cross_widening_factor: The same of the cross-attention's MLP.
        positions: Vectors added to embeddings: `sinusoidal`, `learned` (summed over the axes) or `none`.
        axes: Rows of each table of learned positions. Empty: one table of `max_length` rows.
        first_position: Position of the first token of a context.
        rotary: Rotation of queries and keys in every cross-attention and in the first `rotary_layers`
            self-attentions. None: no rotation.
        rotary_layers: Self-attention layers that rotate. None: all.
        latents_per_position: Latents of each position. Their outputs are averaged.
        cross_attends_after: Numbers of the self-attention layers after which latents cross-attend again.
        latent_projection: Latents are a linear layer of the embeddings, instead of the embeddings themselves.
        latent_norm_for_keys: The latents' tokens are normalized as queries are, also as keys, instead of as the prefix.
        bias: Linear layers have biases.
        cross_output_bias: The output layer of a cross-attention has a bias in any case.
        activation: Squared ReLU, or GELU in its exact form.
        output_norm: LayerNorm before the output layer.
        tied_output: The output layer has the weights of the token embedding.
        output_bias: The output layer has a bias.
        residual_dropout: Dropout of the output of each attention and MLP.
        prefix_dropout: Share of the prefix left out of each training sample.
        init: `lecun`: linear layers keep the variance of their input, vectors have a standard deviation of 1, the
            output layer is zero. `normal`: all weights have a standard deviation of `init_scale`.
        init_scale: See `init`.

    Raises:
        ValueError: If a number is out of range, or fields contradict each other.
    """

    has_fusion_embeddings: ClassVar[bool] = True
    """Whether a `Fusion` gives elements of several modalities one width and a learned vector."""

    kind: Literal["perceiver_ar"] = "perceiver_ar"
    vocab_size: int
    max_length: int = 1024
    num_latents: int = 512
    channels: int = 512
    num_heads: int = 8
    num_layers: int = 8
    widening_factor: int = 4
    cross_widening_factor: int = 4
    positions: Literal["sinusoidal", "learned", "none"] = "none"
    axes: tuple[int, ...] = ()
    first_position: int = 1
    rotary: RotaryConfig | None = field(
        default_factory=lambda: RotaryConfig(includes_end=True, max_wavelength=1024.0)
    )
    rotary_layers: int | None = None
    latents_per_position: int = 1
    cross_attends_after: tuple[int, ...] = ()
    latent_projection: bool = True
    latent_norm_for_keys: bool = False
    bias: bool = True
    cross_output_bias: bool = True
    activation: Literal["squared_relu", "gelu"] = "squared_relu"
    output_norm: bool = True
    tied_output: bool = False
    output_bias: bool = True
    residual_dropout: float = 0.0
    prefix_dropout: float = 0.0
    init: Literal["lecun", "normal"] = "lecun"
    init_scale: float = 0.02

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.channels, self.num_heads, self.num_latents)
        if min(*sizes, self.latents_per_position, self.num_layers + 1) < 1:
            raise ValueError(f"Expected sizes of at least 1: {self}.")
        if self.channels % self.num_heads:
            raise ValueError(
                f"Expected num_heads that divides channels={self.channels}, got {self.num_heads}."
            )
        if self.max_length < self.num_latents:
            raise ValueError(
                f"Expected a max_length of at least num_latents={self.num_latents}, got {self.max_length}."
            )
        if self.axes and self.positions != "learned":
            raise ValueError(f"axes={self.axes} needs positions='learned', got {self.positions}.")
        if self.latent_norm_for_keys and self.latents_per_position > 1:
            raise ValueError("latent_norm_for_keys needs latents_per_position=1.")
        for name in ("residual_dropout", "prefix_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} from 0 to below 1, got {getattr(self, name)}.")

    def latent_values(self, num_elements: int) -> int:  # noqa: ARG002
        """Return the number of values of the latents of a sample of so many elements."""
        return self.num_latents * self.channels

    @property
    def reading_heads(self) -> tuple[int, ...]:
        """Heads of each attention to the input."""
        return (self.num_heads,) * (1 + len(self.cross_attends_after))

    def paper_flops(self, size: InputSize) -> int:
        """Return the operations of all attentions and of the output layer for one sample."""
        n, width = self.num_latents, self.channels
        wide = {"d": width, "c": width, "qk": width, "v": width}
        read = attend_flops(
            n, size.num_elements, **wide, widening_factor=self.cross_widening_factor
        )
        layer = attend_flops(n, n, **wide, widening_factor=self.widening_factor)
        reads = 1 + len(self.cross_attends_after)
        return reads * read + self.num_layers * layer + 2 * n * width * self.vocab_size

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table of learned positions."""
        if self.positions != "learned":
            return ()
        return self.axes or (self.max_length + self.first_position,)


def krasserm_perceiver_ar(*, absolute: bool, **changes: Any) -> PerceiverARConfig:
    """Return an architecture as that of krasserm's `perceiver-io` library, version 0.11.

    Args:
        absolute: Learned positions beside the rotary ones, which then take half of the channels.
        changes: Fields of the configuration: sizes, and others than that library's defaults.
    """
    fields: dict[str, Any] = {
        "positions": "learned" if absolute else "none",
        "first_position": 0,
        "rotary": RotaryConfig(channel_share=0.5 if absolute else 1.0),
        "rotary_layers": 1,
        "latent_projection": False,
        "latent_norm_for_keys": True,
        "bias": False,
        "activation": "gelu",
        "output_norm": False,
        "tied_output": True,
        "init": "normal",
    }
    return PerceiverARConfig(**fields | changes)
