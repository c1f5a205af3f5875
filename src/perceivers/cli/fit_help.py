"""Help of `perceivers fit`: the flags of the recipe that fits some data."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from perceivers.cli.fit_flags import flag_name
from perceivers.cli.main import readable
from perceivers.console import wrapped
from perceivers.recipes.overrides import UNPREFIXED, OverrideError
from perceivers.recipes.registry import Recipe, get_recipe

_USAGE = """\
usage: perceivers fit DATA [--FLAG VALUE ...]

Train on data. Recognizes it, chooses a recipe and writes a run folder.

  DATA                     a folder of classes, a table (parquet, csv, jsonl),
                           tar shards, a saved Hugging Face dataset, a hub id,
                           or builtin:digits

the recipe and the run:
  --recipe NAME|FILE       a recipe's name, a YAML file, or module:function;
                           by default one that fits the data
  --size {tiny,small,base} by default one that fits the machine
  --preset PRESET          quick, default or best: rules that choose by the data
  --out FOLDER             by default a new one in runs/, named like the data
  --resume                 resume the run in --out from its last checkpoint
  --resume-with-other-data the same, although rows were added or changed
  --init-from RUN          fine-tune a run, or a model on the hub
"""

_COMMON = {
    "the data": [
        *("label", "target", "columns", "group", "validation_fraction", "max_bad", "workers")
    ],
    "the training": [
        *("max_time", "max_epochs", "batch_size", "optim.lr", "folds", "early_stopping"),
        *("precision", "device", "devices", "seed"),
    ],
}

_EXAMPLES = """\
examples:
  perceivers fit birds/ --max-time 10m --out runs/a
  perceivers fit birds/ --out runs/a --resume      after an interruption
  perceivers fit table.parquet --label species --group nest
  perceivers fit birds/ --size small --optim.lr 5e-4
  perceivers recipes images > my.yaml; perceivers fit birds/ --recipe my.yaml

`perceivers fit DATA --help` shows the flags and defaults for that data,
`perceivers fit DATA --help-all` every flag.
"""

# Fields that are no flags: tags of unions, and what is filled in from the data.
_HIDDEN = {"kind", "label_names", "target_names", "num_outputs"}

# Sections of the recipe whose flags follow the common ones, those of the modalities first.
_SECTIONS = ("augment", "inputs", "task", "encoder", "preprocess")
_OF_A_SECTION = 4

_WIDTH = 80
_LINES = 60
"""Lines of the help of some data: two screens of a usual terminal."""


def help_text(
    data: str | None,
    recipe: Recipe | None,
    size: str | None,
    overrides: Mapping[str, Any],
    *,
    everything: bool,
) -> str:
    """Return the help: the common flags, then those of the recipe for the data as far as two screens hold them.

    Args:
        data: Data whose flags are shown. None: those of the recipe.
        recipe: The recipe that was named.
        size: Size of the recipe that is chosen for the data.
        overrides: Other flags of the command line, whose values are shown as defaults.
        everything: List every flag.
    """
    if data is None and not everything and recipe is None:
        common = [
            f"{title}:\n{_common_help(get_recipe('images'), only)}"
            for title, only in _COMMON.items()
        ]
        return "\n".join([_USAGE, *common, _EXAMPLES]).rstrip()
    about = ""
    if data is not None:
        recipe, about = _recipe_for(data, recipe, size, overrides)
    recipe = recipe or get_recipe("images")
    if everything:
        return f"{_USAGE}\n{about}{flags_help(recipe)}"
    common = [f"{title}:\n{_common_help(recipe, only)}" for title, only in _COMMON.items()]
    head, _, options = _USAGE.partition("\n\nTrain on data.")
    options = options.partition("\n\nthe recipe and")[2]
    text = "\n".join([f"{head}\n\n{about}\nthe recipe and{options}", *common])
    return f"{text}\n{_more_help(recipe, _LINES - text.count(chr(10)) - 4)}".rstrip()


def _recipe_for(
    data: str, recipe: Recipe | None, size: str | None, overrides: Mapping[str, Any]
) -> tuple[Recipe, str]:
    """Return the recipe for some data, and a paragraph on both."""
    from perceivers.recipes.resolve import resolve_recipe

    try:
        found, source, reason = resolve_recipe(data, recipe, size=size, overrides=overrides)
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, OverrideError):
            raise
        text = f"{data} is not recognized with these flags, so those of images are shown. {readable(error)}"
        return recipe or get_recipe("images"), f"{wrapped(text)}\n"
    inputs = ", ".join(f"{name} ({part.kind})" for name, part in source.inputs.items())
    chosen = reason or f"Recipe {found.name}."
    return found, f"{wrapped(f'{data} is {source.form}; inputs: {inputs}. {chosen}')}\n"


def _common_help(recipe: Recipe, names: Sequence[str]) -> str:
    found = {name: (hint, text, value) for name, hint, text, value in _fields(recipe, "")}
    return "".join(_row(name, *found[name], brief=True) for name in names if name in found)


def _more_help(recipe: Recipe, lines: int) -> str:
    """Return flags of the recipe's sections in so many lines, and a sentence on the others."""
    rest = [one for one in _fields(recipe, "") if one[0] not in _shown_in_common()]
    sections = [
        [one for one in rest if one[0].partition(".")[0] == section] for section in _SECTIONS
    ]
    chosen = [one for section in sections for one in section[:_OF_A_SECTION]][: max(lines, 0)]
    rows = "".join(_short_row(*one) for one in chosen)
    more = len(rest) - len(chosen)
    return (
        f"the recipe {recipe.name}:\n{rows}and {more} more flags: --help-all describes every one.\n"
    )


def _shown_in_common() -> set[str]:
    return {name for names in _COMMON.values() for name in names}


def flags_help(recipe: Recipe) -> str:
    """Return the help of all flags of a recipe: name, type, description and default of each."""
    sections: dict[str, str] = {}
    for name, hint, text, value in _fields(recipe, ""):
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
        elif _is_flag(hints[one.name]):
            yield f"{prefix}{one.name}", hints[one.name], texts.get(one.name, ""), value


def _is_flag(hint: Any) -> bool:
    """Return whether a flag sets values of this type: not configurations, nor mappings of them."""
    if get_origin(hint) is dict:
        return get_args(hint)[1] in (str, float)
    return not dataclasses.is_dataclass(hint) and all(map(_is_flag, get_args(hint)))


def _descriptions(config: type) -> dict[str, str]:
    """Return the description of each field from the sections Attributes of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        _, _, text = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, flags=re.MULTILINE)
        found |= {name: " ".join(words.split()) for name, words in entries}
    return found


def _row(name: str, hint: Any, text: str, value: Any, *, brief: bool = False) -> str:
    """Return the help of one flag; a brief one in one or two lines."""
    head = f"  {flag_name(name)} {_type_text(hint)}".rstrip()
    text, default = _described(text, value)
    if brief:
        first = re.split(r"[.;]\s", text)[0].rstrip(".")
        text = f"{first} [{default}]" if default and len(default) < 80 else first
    elif default:
        text = f"{text} (default: {default})"
    gap = 27 if brief else 8
    lines = textwrap.wrap(text, _WIDTH - gap, break_on_hyphens=False, break_long_words=False)
    if brief and len(head) < gap - 1:
        return head.ljust(gap) + f"\n{' ' * gap}".join(lines) + "\n"
    return "".join(f"{line}\n" for line in [head, *(" " * gap + line for line in lines)])


def _short_row(name: str, hint: Any, text: str, value: Any) -> str:
    """Return a flag with its type and its value in one line."""
    head = f"  {flag_name(name)} {_type_text(hint)}".rstrip()
    _, default = _described(text, value)
    row = f"{head:<50} [{default}]" if default else head
    return (row if len(row) <= _WIDTH else head) + "\n"


def _described(text: str, value: Any) -> tuple[str, str]:
    """Return a description and the default: of None, the effect that the description states."""
    if value is not None:
        return text, _value_text(value)
    found = re.search(
        r"(?:^| )(?:None(?:, after measuring)?:|By default,?) ((?:[^.]|\.(?=\S))*)\.?", text
    )
    if found is None:
        return text, ""
    rest = f"{text[: found.start()]}{text[found.end() :]}".strip()
    return rest, found[1]


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
        return " ".join(map(_value_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
