"""Early check of the flags of `perceivers fit`: names and values are read from the source of the configurations.

Importing the configurations imports torch, which takes seconds; a misspelled flag is reported at once. Flags that
depend on the recipe or the data are checked again when these are known.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Union

import pydantic

from perceivers.plugins import GROUP

_PACKAGE = Path(__file__).parents[1]
_RECIPES = "recipes/registry.py"

# Sections whose fields are given without a prefix, with the file and class of each.
_UNPREFIXED = {
    "training": (_RECIPES, "TrainingConfig"),
    "data": ("data/base.py", "DataConfig"),
    "fusion": ("inputs/fusion.py", "FusionConfig"),
}


def check_flags(flags: Mapping[str, Sequence[str]]) -> str | None:
    """Return a sentence on the first flag that no recipe has, or whose value does not fit it; None if none is found.

    Args:
        flags: Words that follow each flag, by its name with underscores.
    """
    try:
        known = _fields(*_UNPREFIXED.values()) | dict.fromkeys(command_options())
        sections = {*_fields((_RECIPES, "Recipe")), *known}
        deep = _annotated_names() if any("." in name for name in flags) else set[str]()
    except (OSError, SyntaxError):  # installed without its source
        return None
    names = (_check_name(name, known, sections, deep, flags) for name in flags)
    values = (_check_value(name, words, known.get(name)) for name, words in flags.items())
    return next((message for message in (*names, *values) if message), None)


def command_options() -> dict[str, bool]:
    """Return the options of the command itself, arguments of `pv.fit`, and whether each is a switch."""
    for node in _module("training/fit.py").body:
        if isinstance(node, ast.FunctionDef) and node.name == "fit":
            arguments = {
                one.arg: one.annotation for one in (*node.args.args, *node.args.kwonlyargs)
            }
            return {
                name: annotation is not None and ast.unparse(annotation) == "bool"
                for name, annotation in arguments.items()
                if name not in ("data", "on_message")
            }
    return {}


@cache
def _module(file: str) -> ast.Module:
    return ast.parse((_PACKAGE / file).read_text(encoding="utf-8"))


def _fields(*classes: tuple[str, str]) -> dict[str, str | None]:
    """Return the annotation of each field of some classes, as its source text."""
    found: dict[str, str | None] = {}
    for file, title in classes:
        for node in _module(file).body:
            if isinstance(node, ast.ClassDef) and node.name == title:
                found |= {
                    one.target.id: ast.unparse(one.annotation)
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }
    return found


@cache
def _annotated_names() -> set[str]:
    """Return the names of all fields of all classes of the package."""
    return {
        name
        for path in _PACKAGE.rglob("*.py")
        for name in re.findall(r"^    (\w+): ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def _check_name(
    name: str,
    known: Iterable[str],
    sections: Iterable[str],
    deep: set[str],
    flags: Mapping[str, Sequence[str]],
) -> str | None:
    """Return a sentence on a flag that no recipe has."""
    first, _, rest = name.partition(".")
    if not rest:
        plain = name.removeprefix("no_")
        near = None if {plain, name} & {*known, *sections} else _near(plain, known)
    elif first not in sections:
        near = _near(first, sections)
        near = near and f"{near}.{rest}"
    else:
        last = name.rpartition(".")[2]
        is_open = bool(entry_points(group=GROUP)) or ":" in "".join(flags.get("recipe", ()))
        if is_open or {last, last.removeprefix("no_")} & deep:
            return None
        near = _near(last, deep)
        near = near and f"{name.rpartition('.')[0]}.{near}"
    if near is None:
        return None
    hint = f" Did you mean {flag_name(near)}?" if near else ""
    return f"there is no flag {flag_name(name)}.{hint} `perceivers fit --help-all` lists them all."


def _near(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def flag_name(key: str) -> str:
    """Return the flag of a field: `--batch-size`, `--optim.lr`."""
    return f"--{key.replace('_', '-')}"


def _check_value(name: str, words: Sequence[str], annotation: str | None) -> str | None:
    """Return a sentence on words that do not fit a field, if it takes one number, name or switch."""
    if annotation is None:
        return None
    members = _members(ast.parse(annotation, mode="eval").body)
    if not members:
        return None
    if not words:
        return None if bool in members else f"{flag_name(name)}: expected a value, got none."
    if len(words) > 1:
        return f"{flag_name(name)}: expected one value, got {' '.join(words)}."
    if NoneType in members and words[0] == "None":
        return None
    union: Any = Union  # of types that are known at run time only
    try:
        pydantic.TypeAdapter[Any](union[tuple(members)]).validate_python(words[0])
    except pydantic.ValidationError as error:
        return f"{flag_name(name)}: {error.errors()[0]['msg']}, got {words[0]!r}."
    return None


def _in_range(node: ast.expr) -> list[Any]:
    """Return the type in the brackets of `Annotated`, with its range if a `Field` states one."""
    assert isinstance(node, ast.Tuple)
    annotated: Any = Annotated
    kinds = _members(node.elts[0])
    for one in node.elts[1:]:
        if isinstance(one, ast.Call) and ast.unparse(one.func) == "Field":
            ends = {str(end.arg): ast.literal_eval(end.value) for end in one.keywords}
            kinds = [annotated[kind, pydantic.Field(**ends)] for kind in kinds]
    return kinds


def _members(node: ast.expr) -> list[Any]:
    """Return the types of a union of plain types and literals; none if it has others, such as tuples."""
    plain = {"int": int, "float": float, "bool": bool, "str": str}
    if isinstance(node, ast.BinOp):
        left, right = _members(node.left), _members(node.right)
        return left + right if left and right else []
    if isinstance(node, ast.Constant) and node.value is None:
        return [NoneType]
    if isinstance(node, ast.Name) and node.id in plain:
        return [plain[node.id]]
    if isinstance(node, ast.Name) and node.id.startswith(("Positive", "NonNegative")):
        return [getattr(pydantic, node.id)]
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
        return _in_range(node.slice)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        values = ast.literal_eval(node.slice)
        return [Literal[values if isinstance(values, tuple) else (values,)]]
    return []
