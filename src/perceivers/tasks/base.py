"""What every task offers to training and evaluation."""

from typing import Protocol, runtime_checkable

from perceivers.typing import Float, Tensor

__all__ = ["Meter", "Task"]


@runtime_checkable
class Meter(Protocol):
    """Collects predictions batch by batch. Its state is sums, so meters of several devices add up."""

    def update(self, outputs: Float[Tensor, "B K"], targets: Tensor) -> None:
        """Take in one batch."""
        ...

    def state(self) -> Float[Tensor, " S"]:
        """Return the sums as one vector (float64), to be added over devices."""
        ...

    def load_state(self, state: Float[Tensor, " S"]) -> None:
        """Take over sums that were added up."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""
        ...


@runtime_checkable
class Task(Protocol):
    """A loss, and the metrics that say how good the predictions are."""

    main_metric: str
    higher_is_better: bool

    @property
    def num_outputs(self) -> int:
        """Numbers that the model must predict for a sample."""
        ...

    def loss(self, outputs: Float[Tensor, "B K"], targets: Tensor) -> Float[Tensor, ""]:
        """Return the mean loss of a batch."""
        ...

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return outputs on a scale that people read."""
        ...

    def meter(self) -> Meter:
        """Return a fresh meter."""
        ...
