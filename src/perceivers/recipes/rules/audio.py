"""Rules for audio: docs/defaults.md."""

from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules


def choose(choice: Choice, facts: ModalityFacts) -> Choice:  # noqa: ARG001
    """Return the choices for audio."""
    return choice


register_rules("audio", choose)
