"""`perceivers fit`: train on data."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from perceivers.cli.parsing import wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.recipes.files import find_recipe
from perceivers.recipes.overrides import UNPREFIXED, FlagWords, OverrideError, UnknownFieldError
from perceivers.recipes.registry import Recipe, get_recipe

if TYPE_CHECKING:
    from perceivers.training.fit import Run


_USAGE = """\
usage: perceivers fit DATA [--FLAG VALUE ...]

Train on data. Recognizes it, chooses a recipe and writes a run folder.

  DATA                     a folder of classes, a table (parquet, csv, jsonl),
                           tar shards, a saved Hugging Face dataset, a hub id,
                           or builtin:digits

which recipe, and where the run goes:
  --recipe NAME|FILE       a recipe's name, a YAML file, or module:function;
                           by default one that fits the data
  --size {tiny,small,base} by default one that fits the machine
  --out FOLDER             by default a new one in runs/, named like the data
  --resume                 resume the run in --out from its last checkpoint
  --init-from RUN          start from the weights of a run or hub model that fit
"""

_COMMON = {
    "the data": [
        *("label", "target", "columns", "group", "validation_fraction", "max_bad", "workers")
    ],
    "the training": [
        *("max_time", "max_epochs", "batch_size", "precision", "device", "devices"),
        *("early_stopping", "ema", "seed", "permute", "optim.lr"),
    ],
}

_EXAMPLES = """\
examples:
  perceivers fit birds/ --max-time 10m --out runs/a
  perceivers fit birds/ --out runs/a --resume      after an interruption
  perceivers fit table.parquet --label species --group nest
  perceivers fit table.parquet --label species,age --task.weights age:0.5
  perceivers fit birds/ --size small --optim.lr 5e-4 --augment.image.mixup 0.2
  perceivers recipes images > my.yaml; perceivers fit birds/ --recipe my.yaml

`perceivers fit --help-all` lists every flag, of --recipe NAME if one is given.
"""

_SIZES = ("tiny", "small", "base", "paper")
_SWITCHES = ("resume", "progress", "no_progress", "stream", "compile", "grad_checkpointing")


# Fields that are no flags: tags of unions, and what is filled in from the data.
_HIDDEN = {"kind", "label_names", "target_names", "num_outputs"}

_WIDTH = 80


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    positional, flags = _split_flags(["--help" if arg == "-h" else arg for arg in args])
    everything, brief = "help_all" in flags, "help" in flags
    if everything or brief:
        echo(_help(_recipe(flags) or get_recipe("images"), everything=everything))
        return 0
    data = _take_data(positional, flags)
    recipe, size = _recipe(flags), _word(flags, "size")
    flags.pop("recipe", None)
    options = {name: _word(flags, name) for name in ("out", "init_from")}
    resume = flags.pop("resume", None)
    if resume:
        wrong_arguments("fit", f"--resume: expected no value, got {' '.join(resume)}.")
    if "data" in flags or "on_message" in flags:
        wrong_arguments("fit", "--data and --on-message are no flags: DATA is the first argument.")
    from perceivers.runs.folder import is_first_process
    from perceivers.training.fit import fit

    try:
        settings: dict[str, Any] = {**options, **flags}
        result = fit(data, recipe, size=size, resume=resume is not None, **settings)
    except OverrideError as error:  # nothing was printed or written yet
        wrong_arguments("fit", _explain(error))
    if is_first_process():
        _report(result)
    return 0


def _split_flags(args: Sequence[str]) -> tuple[list[str], dict[str, FlagWords]]:
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


def _flag_name(key: str) -> str:
    """Return the flag of a field: `--batch-size`, `--optim.lr`."""
    return f"--{key.replace('_', '-')}"


def _take_data(positional: Sequence[str], flags: dict[str, FlagWords]) -> str:
    """Return DATA: the first argument, or the last one after the words of the last flag."""
    if len(positional) > 1:
        wrong_arguments("fit", f"Expected one DATA, got {', '.join(positional)}.")
    if positional:
        return positional[0]
    last = next(reversed(flags), None)
    if last is not None and flags[last]:
        *words, data = flags[last]
        if words or last in _SWITCHES or "/" in data or Path(data).exists():
            flags[last] = FlagWords(words)
            return data
    return wrong_arguments("fit", "Expected DATA, a path or a hub id, as the first argument.")


def _word(flags: dict[str, FlagWords], name: str) -> str | None:
    """Remove a flag with one word, and return the word."""
    words = flags.pop(name, None)
    if words is not None and len(words) != 1:
        wrong_arguments(
            "fit", f"{_flag_name(name)}: expected one value, got {' '.join(words) or 'none'}."
        )
    return None if words is None else words[0]


def _recipe(flags: Mapping[str, FlagWords]) -> Recipe | None:
    """Return the recipe that --recipe names; None if there is no such flag."""
    named = dict(flags)
    spec, size = _word(named, "recipe"), _word(named, "size")
    if size is not None and size not in _SIZES:
        wrong_arguments("fit", f"--size: expected one of {', '.join(_SIZES)}; got {size}.")
    try:
        return None if spec is None else find_recipe(spec, size=size)
    except (KeyError, ValueError, OSError) as error:
        wrong_arguments("fit", str(error.args[0] if isinstance(error, KeyError) else error))


def _explain(error: OverrideError) -> str:
    """Return an error of an override in terms of flags."""
    if isinstance(error, UnknownFieldError):
        hint = f" Did you mean {_flag_name(error.near)}?" if error.near else ""
        return f"there is no flag {_flag_name(error.key)}.{hint} `perceivers fit --help-all` lists them all."
    return f"{_flag_name(error.key)}: {error.hint}" if error.key else error.hint


def _help(recipe: Recipe, *, everything: bool) -> str:
    """Return the help: the common flags, or those of every field of a recipe."""
    if everything:
        return f"{_USAGE}\n{_flags_help(recipe)}"
    common = [f"{title}:\n{_flags_help(recipe, only=only)}" for title, only in _COMMON.items()]
    return "\n".join([_USAGE, *common, _EXAMPLES]).rstrip()


def _flags_help(recipe: Recipe, *, only: Sequence[str] | None = None) -> str:
    """Return the help of the flags of a recipe: name, type, description and default of each."""
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
    head = f"  {_flag_name(name)} {_type_text(hint)}".rstrip()
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


def _report(result: "Run") -> None:
    """Print the final metrics and what to do next."""
    from perceivers.evaluation.metrics_table import metrics_text
    from perceivers.runs.sentences import few_rows_sentence

    folder = result.folder
    table = metrics_text(result.metrics, result.intervals)
    echo(f"\nOn the validation split, with the weights that were kept:\n\n{table}")
    if warning := few_rows_sentence("validation", result.metrics["samples"]):
        echo(f"\n{warning}")
    echo(
        f"\nThe run is in {folder} (see report.md there). Next:\n"
        f"  perceivers evaluate {folder}\n"
        f"  perceivers predict {folder} FILE...\n"
        f"  perceivers explain {folder} FILE --out attention.png"
    )
