"""Perceiver AR as encoder and output of a model of one sequence of tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.models.encoder import ElementEncoder
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.registry import configclass
from perceivers.tasks.config import OutputPart
from perceivers.typing import Float, Tensor


class AutoregressiveEncoder(ElementEncoder):
    """Latents of a Perceiver AR from tokens, which are the content of the elements.

    The first channel of an element is its token, all others its rows in the tables of learned positions.

    Args:
        config: Architecture.
    """

    attention_name = "streamed"

    def __init__(self, config: PerceiverARConfig) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.out_channels = config.channels
        self.model = PerceiverAR(config)

    def forward(self, segments: Sequence[Elements]) -> Float[Tensor, "B n C"]:
        """Return the latents of the last tokens. Rows are padded on the left.

        Raises:
            ValueError: If there are several modalities.
        """
        if len(segments) != 1:
            raise ValueError(
                f"A Perceiver AR reads one sequence of tokens; got {len(segments)} modalities."
            )
        content = segments[0].content.long()
        indices = content[..., 1:] if content.shape[2] > 1 else None
        return self.model.hidden(content[..., 0], segments[0].mask, indices=indices)


@configclass
class NextTokenConfig:
    """The token that follows each latent, by the output layer of the Perceiver AR itself."""

    kind: Literal["next_token"] = "next_token"

    @property
    def num_outputs(self) -> None:
        """Number of classes: there are none."""
        return

    def fit_to(self, parts: Mapping[str, OutputPart]) -> "NextTokenConfig":
        """Return the same configuration.

        Raises:
            ValueError: If the task needs other outputs.
        """
        if parts:
            raise ValueError(
                f"A model of the next token has no outputs for {', '.join(parts)}: expected texts without labels, or "
                "another model to start from."
            )
        return self

    def for_labels(self) -> "NextTokenConfig":
        """Return the same configuration."""
        return self

    def fit_to_inputs(self, inputs: Mapping[str, Any]) -> "NextTokenConfig":  # noqa: ARG002
        """Return the same configuration."""
        return self

    def rename_modalities(self, names: Mapping[str, str]) -> "NextTokenConfig":  # noqa: ARG002
        """Return the same configuration."""
        return self


class NextToken(nn.Module):
    """Logits of the next token, by the output layer of the encoder, which keeps its weights.

    Args:
        encoder: Encoder of the model.
    """

    def __init__(self, encoder: AutoregressiveEncoder) -> None:
        super().__init__()
        self._encoder = (encoder,)  # not a submodule

    def forward(self, latents: Float[Tensor, "B n C"]) -> Float[Tensor, "B n V"]:
        """Return the logits of the token that follows each latent."""
        return self._encoder[0].model.logits(latents)
