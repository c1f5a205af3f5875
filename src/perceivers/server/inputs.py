"""What a run can be given: for each field of a form, what it holds and which files are accepted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.data.registry import suffixes_of
from perceivers.data.tables.columns import InputColumn

__all__ = ["Input", "inputs_of"]

_MEDIA = {
    "image": "picture",
    "frame_pair": "picture",
    "audio": "sound",
    "video": "film",
    "points": "points",
    "text": "text",
    "series": "series",
    "array": "array",
    "table": "values",
}
# Beside its own: what else can hold one of these. A film has a sound, a cloud may be an array.
_ALSO = {"audio": ("video",), "points": ("array",), "series": ("array",)}


@dataclass(frozen=True, kw_only=True)
class Input:
    """One field of the form.

    Attributes:
        name: Of the field: the modality, or its column where it has several.
        kind: Of the modality.
        accept: Suffixes of the files that are taken. Empty: none are, only what is written.
        number: Whether a number is expected.
        choices: Which names are known, of a category.
        shared: The column that holds this input and others: a film with its sound.
    """

    name: str
    kind: str
    accept: tuple[str, ...] = ()
    number: bool = False
    choices: tuple[str, ...] = ()
    shared: str = ""

    @property
    def is_written(self) -> bool:
        """Whether it may be a plain field of the form instead of a file."""
        return self.kind in {"text", "table"}

    def told(self) -> dict[str, Any]:
        """Return it as JSON."""
        found: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "media": _MEDIA.get(self.kind, self.kind),
            "accept": list(self.accept),
        }
        if self.kind == "table":
            found["number"] = self.number
            found["choices"] = list(self.choices)
        if self.shared:
            found["file"] = self.shared
        return found


def inputs_of(columns: Mapping[str, InputColumn], preprocess: Mapping[str, Any]) -> list[Input]:
    """Return the fields of the form of a run.

    Args:
        columns: Where each modality lies in the data that it learned from.
        preprocess: How each is prepared.
    """
    found: list[Input] = []
    lying = [part.column for part in columns.values() if not part.columns]
    for name, part in columns.items():
        config = preprocess[name]
        if isinstance(config, TablePreprocessConfig):
            found += [Input(name=column, kind="table", number=True) for column in config.numbers]
            found += [
                Input(name=column, kind="table", choices=names)
                for column, names in config.categories.items()
            ]
        elif part.columns and part.kind != "series":
            accept = _accepted("image" if part.kind == "frame_pair" else part.kind)
            found += [Input(name=one, kind=part.kind, accept=accept) for one in part.columns]
        else:
            shared = part.column if lying.count(part.column) > 1 else ""
            found.append(
                Input(name=name, kind=part.kind, accept=_accepted(part.kind), shared=shared)
            )
    return found


def _accepted(kind: str) -> tuple[str, ...]:
    kinds = (kind, *_ALSO.get(kind, ()))
    return tuple(suffix for one in kinds for suffix in suffixes_of(one))
