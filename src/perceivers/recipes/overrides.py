"""Recipes changed by dotted names: the flags of `perceivers fit` and the keywords of `pv.fit`."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from perceivers.data.base import DataConfig, nearest
from perceivers.inputs.fusion import FusionConfig
from perceivers.recipes.files import find_field
from perceivers.recipes.registry import Recipe, TrainingConfig

# Sections whose fields are given without a prefix: `max_time`, not `training.max_time`.
UNPREFIXED: dict[str, type] = {
    "training": TrainingConfig,
    "data": DataConfig,
    "fusion": FusionConfig,
}

Config = TypeVar("Config", Recipe, DataConfig)


class FlagWords(tuple[str, ...]):
    """The words that follow a flag on the command line; converted by the type of the flag's field."""

    __slots__ = ()


class OverrideError(Exception):
    """A field that cannot be overridden: its name, empty if several values contradict each other; and a hint."""

    key: str
    hint: str


class UnknownFieldError(OverrideError, KeyError):
    """The recipe has no such field. `near` is the most similar name, or ""."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        suggestion = nearest(key, known)
        self.key, self.near = key, suggestion.partition("'")[2].rpartition("'")[0]
        self.hint = f"{suggestion} There are: {', '.join(known)}."
        super().__init__(f"A recipe has no '{key}'.{self.hint}")


class FieldValueError(OverrideError, ValueError):
    """A value that does not fit its field, or values that contradict each other."""

    def __init__(self, key: str, hint: str) -> None:
        self.key, self.hint = key, hint
        super().__init__(f"{key}: {hint}" if key else hint)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe with some of its fields changed.

    A size that an input adapter takes over from its preprocessing, like `inputs.text.max_length`, is changed in both.

    Args:
        recipe: Values of all other fields.
        changes: New values by name: `{"max_time": "10m", "label": "species", "optim.lr": 1e-3}`. Fields of `training`,
            `data` and `fusion` need no prefix; `-` and `_` are the same.

    Raises:
        UnknownFieldError: If there is no such field (a `KeyError`). The message names the nearest.
        FieldValueError: If a value does not fit its field (a `ValueError`).
    """
    names = {key: _full_name(key) for key in changes}
    return _with_shared_sizes(_apply(recipe, changes, names), list(names.values()))


def _with_shared_sizes(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe with sizes of input adapters that were set also in the preprocessing that states them."""
    changed = dict(recipe.preprocess)
    for section, *parts in (name.split(".") for name in names):
        if section != "inputs" or len(parts) != 2 or f"preprocess.{'.'.join(parts)}" in names:
            continue
        name, key = parts
        known: Any = changed.get(name)
        is_stated = key in getattr(known, "__dataclass_fields__", ()) and key in _sizes(known)
        if is_stated and getattr(known, key) is not None:
            changed[name] = dataclasses.replace(known, **{key: getattr(recipe.inputs[name], key)})
    return dataclasses.replace(recipe, preprocess=changed)


def _sizes(preprocess: Any) -> dict[str, Any]:
    """Return the sizes that an input adapter takes over; none of a preprocessing with open fields that they need."""
    with suppress(ValueError):
        return dict(preprocess.input_fields())
    return {}


def override_data(config: DataConfig, changes: Mapping[str, Any]) -> DataConfig:
    """Return the data configuration with those of the changes that concern it, see `override`."""
    names = {key: _full_name(key) for key in changes}
    concerned = {k: n.removeprefix("data.") for k, n in names.items() if n.startswith("data.")}
    return _apply(config, changes, concerned)


def _apply(config: Config, changes: Mapping[str, Any], names: Mapping[str, str]) -> Config:
    """Return the configuration with the changes of some keys, given with the names of their fields."""
    if not names:
        return config
    plain = dataclasses.asdict(config)
    keys: dict[str, str] = {}
    for key, full_name in names.items():
        name, value = _name_and_value(config, key, full_name, changes[key])
        keys[name] = key
        _set(plain, key, name, value)
    try:
        return TypeAdapter(type(config)).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = find_field([str(part) for part in first["loc"]], type(config))[0]
        key = next((key for name, key in keys.items() if f"{place}.".startswith(f"{name}.")), "")
        if first["type"] == "value_error":  # values that contradict each other
            raise FieldValueError(key, str(first.get("ctx", {}).get("error"))) from error
        raise FieldValueError(key or place, f"{first['msg']}, got {first['input']!r}.") from error


def _full_name(key: str) -> str:
    """Return the name with its section: `max_time` -> `training.max_time`."""
    name = key.replace("-", "_")
    for prefix, section in UNPREFIXED.items():
        known = section.__dataclass_fields__  # pyright: ignore[reportAttributeAccessIssue]
        if name.partition(".")[0] in known or name.removeprefix("no_") in known:
            return f"{prefix}.{name}"
    return name


def _set(plain: dict[str, Any], key: str, name: str, value: Any) -> None:
    """Set one field of nested dictionaries, which must exist."""
    *parents, last = name.split(".")
    here = plain
    for depth, part in enumerate([*parents, last]):
        if part not in here:
            parent = ".".join(parents[:depth])
            known = [f"{parent}.{one}" if parent not in ("", *UNPREFIXED) else one for one in here]
            if not parent:
                known += [
                    one.name for part in UNPREFIXED.values() for one in dataclasses.fields(part)
                ]
            raise UnknownFieldError(key, known)
        if depth < len(parents):
            inside = here[part]
            if not isinstance(inside, dict):
                msg = f"'{part}' is {inside!r} in this recipe: it has no fields to set."
                raise FieldValueError(key, msg)
            here = cast("dict[str, Any]", inside)
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    here[last] = dataclasses.asdict(cast("Any", value)) if is_config else value


def _name_and_value(config: Any, key: str, name: str, words: Any) -> tuple[str, Any]:
    """Return the name of a field and its value. The flag `--no-progress` is `progress` and False."""
    if not isinstance(words, FlagWords):
        return name, _column_names(name, words)
    hint = _type_of(config, name)
    parent, _, last = name.rpartition(".")
    if hint is None and not words and last.startswith("no_"):
        positive = f"{parent}.{last[3:]}".lstrip(".")
        if _type_of(config, positive) is bool:
            return positive, False
    kinds = _members(hint)
    if not words:
        if bool not in kinds and hint is not None:
            raise FieldValueError(key, "expected a value, got none.")
        return name, True
    if type(None) in kinds and words == ("None",):
        return name, None
    if any(get_origin(kind) is dict for kind in kinds):
        return name, _pairs(key, name, words)
    is_single = len(words) == 1 and any(
        words[0] in get_args(kind) or (kind is int and words[0].isdecimal()) for kind in kinds
    )
    if any(get_origin(kind) is tuple for kind in kinds) and not is_single:
        return name, list(words)
    if len(words) > 1:
        raise FieldValueError(key, f"expected one value, got {' '.join(words)}.")
    return name, words[0]


def _pairs(key: str, name: str, words: Sequence[str]) -> dict[str, str]:
    """Return names with their values: NAME:VALUE,... or, except for columns, NAME=VALUE,..."""
    # The name of a column may hold any character; alone, its kind is inferred.
    is_columns = name == "columns" or name.endswith(".columns")
    named = [part.strip() for part in ",".join(words).split(",")]
    if not is_columns:
        named = [part if ":" in part else part.replace("=", ":", 1) for part in named]
    pairs = [
        part.rpartition(":") if ":" in part or not is_columns else (part, ":", "auto")
        for part in named
    ]
    if any(not item.strip() or not value.strip() for item, _, value in pairs):
        msg = f"expected NAME:VALUE,... (left_image:image,right_image:image), got '{' '.join(words)}'."
        raise FieldValueError(key, msg)
    return {item.strip(): value.strip() for item, _, value in pairs}


_COLUMNS = ("data.label", "data.group", "data.split_column", "label", "group", "split_column")


def _column_names(name: str, value: Any) -> Any:
    """Return names of columns as text: those of a DataFrame may be numbers, and labels may be a list."""
    if name in {"data.columns", "columns"} and isinstance(value, Mapping):
        return {str(key): kind for key, kind in cast("Mapping[Any, Any]", value).items()}
    if name not in _COLUMNS or isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return ",".join(map(str, cast("list[Any]", value)))
    return str(value) if isinstance(value, int) else value


def _type_of(config: Any, name: str) -> Any:
    """Return the type of a field of nested configurations; None if it is unknown."""
    *parents, last = name.split(".")
    for part in parents:
        config = config.get(part) if isinstance(config, Mapping) else getattr(config, part, None)
    if not dataclasses.is_dataclass(config):
        return None
    return get_type_hints(type(config)).get(last)


def _members(hint: Any) -> list[Any]:
    """Return the types of a union, or the one type itself."""
    if get_origin(hint) in (None, tuple, dict, list, Literal):
        return [hint]
    return [member for part in get_args(hint) for member in _members(part)]
