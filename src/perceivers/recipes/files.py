"""Recipes as YAML files: every field is written, unknown keys are refused."""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from perceivers.data.base import atomic_write_text, nearest
from perceivers.data.formats.documents import load_yaml
from perceivers.hub.checkpoint import FORMAT, check_format
from perceivers.models.perceiver import Perceiver, build
from perceivers.recipes.registry import Recipe, get_recipe
from perceivers.registry import ConfigRegistry

RECIPE_FILE = "recipe.yaml"  # in a run folder


def create_model(recipe: str | Path | Recipe, *, size: str | None = None) -> Perceiver:
    """Return a new model of a recipe, with initial weights. Arguments as for `find_recipe`.

    Raises:
        KeyError: If no recipe has this name. The message names the nearest.
        ValueError: If the recipe leaves sizes to the data, like `images`: `pv.fit` fills them in.
    """
    return build(find_recipe(recipe, size=size).model_config())


def find_recipe(spec: str | Path | Recipe, *, size: str | None = None) -> Recipe:
    """Return the recipe that a user names on the command line or in Python.

    Args:
        spec: The name of a registered recipe, a YAML or JSON file, `module:function` of a function that returns a
            recipe, or a recipe.
        size: Size of a registered recipe, or argument of the function.

    Raises:
        KeyError: If no recipe has this name.
        ValueError: If the recipe does not have this size, the file is not a recipe, or the function cannot be found.
        OSError: If the file cannot be read.
    """
    if isinstance(spec, Recipe):
        return spec
    path = Path(spec)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        if size is not None:
            raise ValueError(
                f"The recipe in '{path}' has its sizes written out; leave --size {size} away."
            )
        return read_recipe(path)
    if ":" in str(spec):
        return _from_function(str(spec), size)
    return get_recipe(str(spec), size=size)


def _from_function(spec: str, size: str | None) -> Recipe:
    """Return the recipe of `module:function`. The module is searched in the working directory, too."""
    module, _, name = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected --recipe MODULE:FUNCTION that can be imported, got '{spec}': {error}."
        ) from error
    made = function() if size is None else function(size=size)
    if not isinstance(made, Recipe):
        raise ValueError(f"Expected '{spec}' to return a Recipe, got {type(made).__name__}.")
    return made


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML: the format version and every field."""
    plain = {"format": FORMAT, **TypeAdapter(Recipe).dump_python(recipe, mode="json")}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def write_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe into a YAML file."""
    atomic_write_text(Path(path), dump_recipe(recipe))


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a YAML or JSON file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no YAML, or holds an unknown key or a wrong value. An unknown key's message
            names the nearest known one.
    """
    return parse_recipe(_read_text(Path(path)), name=str(path))


def read_run_recipe(folder: Path) -> Recipe:
    """Return the recipe in a run folder.

    Raises:
        OSError: If there is none.
        ValueError: If another version wrote it, or it is no recipe.
    """
    path = folder / RECIPE_FILE
    text = _read_text(path)
    check_format(load_yaml(text, str(path)), path)
    return parse_recipe(text, name=str(path))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file. Expected a recipe in YAML (`perceivers recipes images`)."
        ) from error


def parse_recipe(text: str, *, name: str = "recipe") -> Recipe:
    """Return the recipe written in `text` (YAML or JSON). Messages call it `name`."""
    plain = load_yaml(text, name)
    if not isinstance(plain, dict):
        raise ValueError(
            f"{name} holds no recipe. Expected the keys that `perceivers recipes images` prints."
        )
    if "format" in plain:
        check_format(plain, Path(name))
        del plain["format"]
    try:
        return TypeAdapter(Recipe).validate_python(plain)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(f"{name}: {' '.join(problems[:3])}{more}") from error


def _explain(problem: Any) -> str:
    """Return one of pydantic's errors as a sentence."""
    place = [str(part) for part in problem["loc"]]
    if problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        parent, known = find_field(place[:-1])
        hint = nearest(place[-1], known) or f" Known here: {', '.join(known)}."
        return f"'{place[-1]}' is not a key{f' in {parent}' if parent else ''}.{hint}"
    path, _ = find_field(place)
    if problem["type"] in {"missing", "missing_argument"}:
        return f"'{path}' is missing."
    return f"{path}: {problem['msg']}; got {problem.get('input')!r}."


def find_field(place: Sequence[str], config: type = Recipe) -> tuple[str, list[str]]:
    """Return the dotted path of pydantic's location, without the tags of unions, and the names of the fields there."""
    here: Any = config
    shown: list[str] = []
    for step in place:
        tags = [one.default for m in _members(here) for one in _fields(m) if one.name == "kind"]
        if step not in tags:
            shown.append(step)
        here = _step(here, step)
    return ".".join(shown), [one.name for member in _members(here) for one in _fields(member)]


def _fields(member: Any) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(member) if dataclasses.is_dataclass(member) else ()


def _step(here: Any, step: str) -> Any:
    if get_origin(here) is dict:
        return get_args(here)[1]
    for member in _members(here):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if not dataclasses.is_dataclass(member):
            continue
        fields = {f.name: f for f in dataclasses.fields(member)}
        if "kind" in fields and fields["kind"].default == step:
            return member
        if step in fields:
            return fields[step].type
    return None


def _members(here: Any) -> list[Any]:
    """Return the types of a union, or the one type itself."""
    if hasattr(here, "__metadata__"):  # Annotated
        for registry in here.__metadata__:
            if isinstance(registry, ConfigRegistry):
                return list(registry)
        return _members(get_args(here)[0])
    if dataclasses.is_dataclass(here) or get_origin(here) is dict:
        return [here]
    return [m for part in get_args(here) for m in _members(part)]
