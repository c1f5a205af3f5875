"""Ensemble: the outputs of several models of one configuration, averaged."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from perceivers.models.perceiver import Encoder, Perceiver, PerceiverConfig
from perceivers.tasks.averaging import stack_outputs
from perceivers.typing import Tensor, Tensors

Combine = Callable[[Any], Any]
"""Function from the outputs of M members, B x M x ..., by name where there are several, to their average, B x ..."""


def mean_outputs(outputs: Any) -> Any:
    """Return the mean over members, B x M x ... -> B x ..."""
    if isinstance(outputs, Mapping):
        return {name: part.mean(dim=1) for name, part in cast("Tensors", outputs).items()}
    return outputs.mean(dim=1)


class Ensemble(nn.Module):
    """Models of one configuration whose outputs are averaged.

    Args:
        members: The models, at least one.
        combine: The average. By default the mean of the outputs.

    Reference: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles" (arXiv:1612.01474). Members that leave out one fold each: Krogh and Vedelsby, "Neural Network Ensembles,
    Cross Validation, and Active Learning" (1995).
    """

    members: Sequence[Perceiver]

    if TYPE_CHECKING:

        def __call__(
            self, inputs: Tensors, masks: Tensors | None = None, index: Tensors | None = None
        ) -> Tensor | dict[str, Tensor]:
            """Return the averaged predictions for a batch, see `forward`."""
            ...

    def __init__(self, members: Sequence[Perceiver], combine: Combine = mean_outputs) -> None:
        super().__init__()
        self.members = cast("Sequence[Perceiver]", nn.ModuleList(members))
        self.combine = combine

    @property
    def config(self) -> PerceiverConfig:
        """Configuration of each member.

        Raises:
            ValueError: If the members were made of modules without one.
        """
        return self.members[0].config

    @property
    def inputs(self) -> nn.ModuleDict:
        """Input adapters of the first member; those of all have the same sizes."""
        return self.members[0].inputs

    @property
    def encoder(self) -> Encoder:
        """Encoder of the first member; those of all have the same sizes."""
        return self.members[0].encoder

    def forward(
        self, inputs: Tensors, masks: Tensors | None = None, index: Tensors | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Return the averaged predictions for a batch. Arguments and errors as for `Perceiver.forward`."""
        return self.average([member(inputs, masks, index) for member in self.members])

    def average(self, outputs: Sequence[Tensor | dict[str, Tensor]]) -> Tensor | dict[str, Tensor]:
        """Return the average of the outputs of all members."""
        return self.combine(stack_outputs(outputs))

    def set_permutation(self, seed: int | None) -> None:
        """Permute the elements of every input by one fixed permutation, in all members."""
        for member in self.members:
            member.set_permutation(seed)

    def set_attn_implementation(self, implementation: str) -> None:
        """Set the implementation of cross-attention of all members, see `Perceiver.set_attn_implementation`."""
        for member in self.members:
            member.set_attn_implementation(implementation)


def members_of(model: Any) -> list[Any]:
    """Return the members of an ensemble; any other model is its only member."""
    return list(getattr(model, "members", (model,)))


def average_outputs(model: Any, outputs: Sequence[Any]) -> Any:
    """Return the average of the outputs of all members of a model."""
    return outputs[0] if len(outputs) == 1 else model.average(outputs)
