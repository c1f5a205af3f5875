"""Rules for images: docs/defaults.md."""

from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules


def choose(choice: Choice, facts: ModalityFacts) -> Choice:  # noqa: ARG001
    """Return the choices for images."""
    return choice


register_rules("image", choose)
