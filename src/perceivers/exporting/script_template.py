"""A function of predict.py as text, with what it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, eq=False)
class ScriptTemplate:
    """A function of the script.

    Attributes:
        imports: Modules that it needs, or whole lines `from x import y`.
        uses: Templates of functions that it calls.
        beside: Replacement, if the model reads another kind too, by that kind: the audio track of the same video.
    """

    name: str
    text: str
    imports: tuple[str, ...] = ()
    uses: "tuple[ScriptTemplate, ...]" = ()
    beside: "Mapping[str, ScriptTemplate]" = field(default_factory=dict[str, "ScriptTemplate"])
