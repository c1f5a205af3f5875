"""Flags of `perceivers fit`: any field of the recipe by its dotted name, and their help."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from perceivers.recipes.overrides import UNPREFIXED, FlagWords
from perceivers.recipes.registry import Recipe

# Fields that are no flags: tags of unions, and what is filled in from the data.
_HIDDEN = {"kind", "label_names", "target_names", "num_outputs"}

_WIDTH = 80


def split_flags(args: Sequence[str]) -> tuple[list[str], dict[str, FlagWords]]:
    """Return the arguments before the first flag, and the words that follow each flag.

    `--batch-size 8` and `--batch-size=8` are the same. The last one of a repeated flag counts.
    """
    positional: list[str] = []
    words: dict[str, list[str]] = {}
    here = positional
    for arg in args:
        if arg.startswith("--"):
            name, has_value, value = arg[2:].partition("=")
            words.pop(name := name.replace("-", "_"), None)
            here = words[name] = [value] if has_value else []
        else:
            here.append(arg)
    return positional, {name: FlagWords(found) for name, found in words.items()}


def flag_name(key: str) -> str:
    """Return the flag of a field: `--batch-size`, `--optim.lr`."""
    return f"--{key.replace('_', '-')}"


def recipe_flags(recipe: Recipe, *, only: Sequence[str] | None = None) -> str:
    """Return the help of the flags of a recipe: name, type, description and default of each.

    Args:
        recipe: Its fields and defaults.
        only: Names of flags, to list these with one line of description each. By default all are listed.
    """
    found = {name: (hint, text, value) for name, hint, text, value in _fields(recipe, "")}
    if only is not None:
        return "".join(_row(name, *found[name], brief=True) for name in only if name in found)
    sections: dict[str, str] = {}
    for name, (hint, text, value) in found.items():
        title = name.rpartition(".")[0]
        sections[title] = sections.get(title, "") + _row(name, hint, text, value)
    return "\n".join(f"{title or 'run'}:\n{rows}" for title, rows in sections.items())


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any, str, Any]]:
    """Yield name, type, description and value of each field of nested configurations."""
    if isinstance(config, Mapping):
        for name, part in config.items():
            yield from _fields(part, f"{prefix}{name}.")
        return
    hints, texts = get_type_hints(type(config)), _descriptions(type(config))
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.name in _HIDDEN or (isinstance(config, Recipe) and one.name == "name"):
            continue
        holds_configs = isinstance(value, Mapping) and any(
            map(dataclasses.is_dataclass, value.values())
        )
        if dataclasses.is_dataclass(value) or holds_configs:
            inner = "" if one.name in UNPREFIXED and not prefix else f"{prefix}{one.name}."
            yield from _fields(value, inner)
        elif not _holds_configs(hints[one.name]):
            yield f"{prefix}{one.name}", hints[one.name], texts.get(one.name, ""), value


def _holds_configs(hint: Any) -> bool:
    """Return whether values of this type are configurations. A field that is None or empty has no flags then."""
    return dataclasses.is_dataclass(hint) or any(map(_holds_configs, get_args(hint)))


def _descriptions(config: type) -> dict[str, str]:
    """Return the description of each field from the section Attributes of a docstring."""
    _, _, text = (inspect.getdoc(config) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def _row(name: str, hint: Any, text: str, value: Any, *, brief: bool = False) -> str:
    """Return the help of one flag; a brief one in one or two lines."""
    head = f"  {flag_name(name)} {_type_text(hint)}".rstrip()
    if brief:
        text = re.split(r"[.;]\s", text)[0].rstrip(".")
    else:
        text += f" (default: {_value_text(value)})"
    gap = 27 if brief else 8
    lines = textwrap.wrap(text, _WIDTH - gap, break_on_hyphens=False, break_long_words=False)
    if brief and len(head) < gap - 1:
        return head.ljust(gap) + f"\n{' ' * gap}".join(lines) + "\n"
    return "".join(f"{line}\n" for line in [head, *(" " * gap + line for line in lines)])


def _type_text(hint: Any) -> str:
    """Return a type as the help shows it: `INT`, `{adamw,lamb}`, `FLOAT FLOAT`; nothing of a switch."""
    members = [hint] if get_origin(hint) in (None, tuple, dict, Literal) else get_args(hint)
    texts: list[str] = []
    for member in members:
        origin, args = get_origin(member), get_args(member)
        if member is bool or member is type(None):
            continue
        if origin is Literal:
            texts.append("{" + ",".join(map(str, args)) + "}")
        elif origin is dict:
            texts.append("NAME:VALUE,...")
        elif origin is tuple:
            inner = [_type_text(one) for one in args if one is not Ellipsis]
            texts.append(" ".join(inner) + ("..." if Ellipsis in args else ""))
        else:
            texts.append(getattr(member, "__name__", str(member)).upper())
    return "|".join(dict.fromkeys(texts))


def _value_text(value: Any) -> str:
    """Return a value as it is typed after its flag."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{one}" for name, one in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)
