"""Rules for texts: docs/defaults.md."""

from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules


def choose(choice: Choice, facts: ModalityFacts) -> Choice:  # noqa: ARG001
    """Return the choices for texts."""
    return choice


register_rules("text", choose)
