"""Rules for point clouds: docs/defaults.md."""

from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules


def choose(choice: Choice, facts: ModalityFacts) -> Choice:  # noqa: ARG001
    """Return the choices for point clouds."""
    return choice


register_rules("points", choose)
