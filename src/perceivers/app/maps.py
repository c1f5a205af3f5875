"""An explanation as plain data."""

from typing import Any

from perceivers.explain.explanation import Explanation

__all__ = ["views"]


def views(explanation: Explanation, *, read: int | str = "all") -> list[dict[str, Any]]:
    """Return what each modality held and where the reads looked in it."""
    return [
        {"input": view.name, "axes": list(view.attention.shape[1:])} for view in explanation.views
    ]
