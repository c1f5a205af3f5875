"""Labels as input elements: one for each sample, so that a label can be learned with what it belongs to."""

from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


@configclass
class LabelInputConfig:
    """The share of each class is a channel of one element.

    Attributes:
        num_classes: Number of classes. None: taken from the data before the model is built.
    """

    kind: Literal["label"] = "label"
    num_classes: int | None = None


class LabelInput(nn.Module):
    """Makes one element of a label: its one-hot vector, without a position.

    Raises:
        ValueError: If it is not known, or there are fewer than two.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.3; the release's `OneHotPreprocessor`.
    """

    channels: int
    num_elements: int = 1
    axes: tuple[int, ...] = (1,)

    def __init__(self, config: LabelInputConfig) -> None:
        super().__init__()
        if config.num_classes is None or config.num_classes < 2:
            raise ValueError(
                f"Expected the number of classes of a label, at least two, got num_classes={config.num_classes}."
            )
        self.channels = config.num_classes

    def forward(self, x: Float[Tensor, "B K"], mask: Bool[Tensor, "B 1"] | None = None) -> Elements:
        """Return the elements of labels.

        Raises:
            ValueError: If there are other classes than the configuration states.
        """
        if x.shape[1] != self.channels:
            raise ValueError(
                f"Expected shares of {self.channels} classes (B x {self.channels}), got shape {tuple(x.shape)}."
            )
        return Elements(x[:, None], mask=mask)

    def example(self, batch_size: int) -> Float[Tensor, "B K"]:
        """Return made-up labels: of no class."""
        return torch.zeros(batch_size, self.channels)


register_input(LabelInputConfig, LabelInput)
