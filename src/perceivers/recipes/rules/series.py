"""Rules for time series: docs/defaults.md."""

from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules


def choose(choice: Choice, facts: ModalityFacts) -> Choice:  # noqa: ARG001
    """Return the choices for time series."""
    return choice


register_rules("series", choose)
