"""A recipe changed by names with dots: what `pv.fit(data, **changes)` does with its keywords."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from perceivers.data.base import DataConfig, nearest
from perceivers.recipes.registry import Recipe, TrainingConfig

__all__ = ["override", "override_data"]

# Their fields are given without a prefix: `max_time`, not `training.max_time`.
_UNPREFIXED: dict[str, type] = {"training": TrainingConfig, "data": DataConfig}

Config = TypeVar("Config", Recipe, DataConfig)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with some of its fields changed.

    Args:
        recipe: Where everything that is not named comes from.
        changes: New values by name: `{"max_time": "10m", "label": "species", "optim.lr": 1e-3}`. Fields of
            `training` and `data` need no prefix; `-` and `_` are the same.

    Raises:
        KeyError: If there is no such field. The message names the nearest.
        ValueError: If a value does not fit its field.
    """
    plain = dataclasses.asdict(recipe)
    for key, value in changes.items():
        _set(plain, _full_name(key), value)
    return _validated(Recipe, plain)


def override_data(config: DataConfig, changes: Mapping[str, Any]) -> DataConfig:
    """Return how data are read, with those of the changes that concern it.

    Raises:
        ValueError: If a value does not fit its field.
    """
    plain = dataclasses.asdict(config)
    for key, value in changes.items():
        prefix, _, name = _full_name(key).partition(".")
        if prefix == "data" and name in plain:
            plain[name] = value
    return _validated(DataConfig, plain)


def _validated(config: type[Config], plain: Mapping[str, Any]) -> Config:
    try:
        return TypeAdapter(config).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"{place}: {first['msg']}, got {first['input']!r}."
        raise ValueError(msg) from error


def _full_name(key: str) -> str:
    """Return the name with its prefix: `max_time` -> `training.max_time`."""
    name = key.replace("-", "_")
    for prefix in _UNPREFIXED:
        if name in _fields(prefix):
            return f"{prefix}.{name}"
    return name


def _fields(prefix: str) -> list[str]:
    return [field.name for field in dataclasses.fields(_UNPREFIXED[prefix])]


def _set(plain: dict[str, Any], name: str, value: Any) -> None:
    """Set one field of nested dictionaries, which must be there."""
    *parents, last = name.split(".")
    here = plain
    for depth, part in enumerate([*parents, last]):
        if part not in here:
            _unknown(name, ".".join(parents[:depth]), list(here))
        if depth < len(parents):
            inside = here[part]
            if not isinstance(inside, dict):
                msg = f"'{part}' in '{name}' is {inside!r} in this recipe: it has no fields to set."
                raise KeyError(msg)
            here = cast("dict[str, Any]", inside)
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    here[last] = dataclasses.asdict(cast("Any", value)) if is_config else value


def _unknown(name: str, parent: str, inside: list[str]) -> None:
    known = [f"{parent}.{key}" for key in inside] if parent else [*inside]
    if not parent:
        known += [field for prefix in _UNPREFIXED for field in _fields(prefix)]
    msg = f"A recipe has no '{name}'.{nearest(name, known)} There are: {', '.join(known)}."
    raise KeyError(msg)
