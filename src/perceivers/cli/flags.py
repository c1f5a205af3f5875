"""The flags of a recipe: one for each of its fields, with the recipe's own values as defaults.

tyro reads flags into dataclasses. Those of a recipe hold unions and mappings, whose choice a flag does not
change (a file does), so tyro is given copies in which each of them is what it is in this recipe.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_type_hints

import tyro

from perceivers.cli.parsing import Switch
from perceivers.data.base import DataConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.registry import ConfigRegistry

__all__ = ["Which", "apply_flags", "flags_of"]

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which recipe, and where the run goes.

    Attributes:
        recipe: A recipe's name or a YAML file. By default one that suits the data.
        size: Which size of the recipe. By default one that suits the machine.
        out: The run's folder. By default a new one in runs/, named like the data.
        resume: Go on from the last checkpoint of the run in `out`.
        init_from: A run folder or hub id, from which the model takes over the weights that fit.
    """

    recipe: str | None = None
    size: Literal["tiny", "small", "base", "paper"] | None = None
    out: Path | None = None
    resume: Switch = False
    init_from: str | None = None


# Their fields are flags without a prefix: --max-time, --label. So are the parts of a recipe.
_UNPREFIXED = (TrainingConfig, DataConfig, FusionConfig, Recipe, Which)

# Not for a flag: what tells a union's members apart, and what the data say.
_HIDDEN = {"kind", "label_names", "target_names", "num_outputs"}


def _columns(text: str) -> dict[str, str]:
    """Read `left_image:image,right_image:image`."""
    pairs = [part.partition(":") for part in text.split(",")]
    if any(not name or not kind for name, _, kind in pairs):
        msg = f"expected NAME:KIND,... (left_image:image,right_image:image), got '{text}'"
        raise ValueError(msg)
    return {name.strip(): kind.strip() for name, _, kind in pairs}


def _shares(text: str) -> dict[str, float]:
    """Read `video:0.3,audio:0.1`."""
    try:
        return {name: float(share) for name, share in _columns(text).items()}
    except ValueError as error:
        msg = f"expected NAME:SHARE,... (video:0.3,audio:0.1), got '{text}'"
        raise ValueError(msg) from error


def _written(columns: Mapping[str, Any] | None) -> list[str]:
    """Return columns as they are typed, for the help."""
    if not columns:
        return ["None"]
    return [",".join(f"{name}:{kind}" for name, kind in columns.items())]


_COLUMNS: tyro.constructors.PrimitiveConstructorSpec[Any] = (
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME:KIND,...",
        instance_from_str=lambda args: _columns(args[0]),
        is_instance=lambda value: value is None or isinstance(value, dict),
        str_from_instance=_written,
    )
)


_SHARES: tyro.constructors.PrimitiveConstructorSpec[Any] = (
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME:SHARE,...",
        instance_from_str=lambda args: _shares(args[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_written,
    )
)


def flags_of(config: Any) -> type:
    """Return a dataclass for tyro whose fields and defaults are those of `config`, a dataclass or mapping."""
    if isinstance(config, Mapping):
        parts = cast("Mapping[str, Any]", config)
        return _dataclass("Parts", {name: _part(part) for name, part in parts.items()}, None)
    hints = get_type_hints(type(config), include_extras=True)
    fields: dict[str, tuple[Any, Any]] = {}
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.name in _HIDDEN or (isinstance(config, Recipe) and one.name == "name"):
            continue
        if one.name == "columns":
            fields[one.name] = Annotated[hints[one.name], _COLUMNS], value
        elif one.name in {"modality_dropout", "weights"}:
            fields[one.name] = Annotated[hints[one.name], _SHARES], value
        elif isinstance(value, Mapping) and not _holds_config(hints[one.name]):
            continue  # names that the data tell
        elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            fields[one.name] = _part(value)
        elif not _holds_config(hints[one.name]):
            fields[one.name] = hints[one.name], value
    return _dataclass(type(config).__name__, fields, type(config).__doc__)


def apply_flags(config: Config, flags: Any) -> Config:
    """Return `config` with the values of the flags that tyro has read.

    Raises:
        ValueError: If the values do not fit each other, as the configuration itself says.
    """
    if isinstance(config, Mapping):
        parts = cast("Mapping[str, Any]", config)
        return cast(
            "Config", {k: apply_flags(part, getattr(flags, k)) for k, part in parts.items()}
        )
    changes: dict[str, Any] = {}
    for one in dataclasses.fields(flags):
        old, new = getattr(config, one.name), getattr(flags, one.name)
        nested = dataclasses.is_dataclass(new)
        changes[one.name] = apply_flags(old, new) if nested else new
    return cast("Config", dataclasses.replace(cast("Any", config), **changes))


def _part(value: Any) -> tuple[Any, Any]:
    """Return the type and the default of a nested configuration."""
    kind = flags_of(value)
    prefix = (tyro.conf.arg(name=""),) if isinstance(value, _UNPREFIXED) else ()
    return (Annotated[kind, *prefix] if prefix else kind), kind()


def _dataclass(name: str, fields: Mapping[str, tuple[Any, Any]], doc: str | None) -> type:
    made = dataclasses.make_dataclass(
        name,
        [
            (key, kind, dataclasses.field(default_factory=lambda value=value: value))
            for key, (kind, value) in fields.items()
        ],
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = doc or ""
    return made


def _registry_of(hint: Any) -> bool:
    return any(isinstance(one, ConfigRegistry) for one in getattr(hint, "__metadata__", ()))


def _holds_config(hint: Any) -> bool:
    """Return whether a dataclass may stand in a field of this type. None stands there in this recipe."""
    if dataclasses.is_dataclass(hint) or _registry_of(hint):
        return True
    return any(_holds_config(part) for part in getattr(hint, "__args__", ()))
