"""`perceivers fit`: train on data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceivers.cli.flags import flag_name, recipe_flags, split_flags
from perceivers.cli.parsing import wrong_arguments
from perceivers.recipes.files import find_recipe
from perceivers.recipes.overrides import FlagWords, OverrideError, UnknownFieldError
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
        "label",
        "target",
        "columns",
        "group",
        "validation_fraction",
        "max_bad",
        "workers",
    ],
    "the training": [
        *("max_time", "max_epochs", "batch_size", "batch", "precision", "device", "devices"),
        *("early_stopping", "ema", "seed", "permute", "optim.lr", "optim.weight_decay"),
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


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    positional, flags = split_flags(["--help" if arg == "-h" else arg for arg in args])
    everything, brief = "help_all" in flags, "help" in flags
    if everything or brief:
        print(_help(_recipe(flags) or get_recipe("images"), everything=everything))
        return 0
    data = _take_data(positional, flags)
    recipe, size = _recipe(flags), _word(flags, "size")
    flags.pop("recipe", None)
    options: dict[str, Any] = {name: _word(flags, name) for name in ("out", "init_from")}
    resume = flags.pop("resume", None)
    if resume:
        wrong_arguments("fit", f"--resume: expected no value, got {' '.join(resume)}.")
    if "data" in flags or "say" in flags:
        wrong_arguments("fit", "--data and --say are no flags: DATA is the first argument.")
    from perceivers.runs.folder import is_first_process
    from perceivers.training.fit import fit

    try:
        result = fit(data, recipe, size=size, resume=resume is not None, **options, **flags)
    except OverrideError as error:  # nothing was printed or written yet
        wrong_arguments("fit", _explain(error))
    if is_first_process():
        _report(result)
    return 0


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
            "fit", f"{flag_name(name)}: expected one value, got {' '.join(words) or 'none'}."
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
        hint = f" Did you mean {flag_name(error.near)}?" if error.near else ""
        return f"there is no flag {flag_name(error.key)}.{hint} `perceivers fit --help-all` lists them all."
    return f"{flag_name(error.key)}: {error.hint}" if error.key else error.hint


def _help(recipe: Recipe, *, everything: bool) -> str:
    """Return the help: the common flags, or those of every field of a recipe."""
    if everything:
        return f"{_USAGE}\n{recipe_flags(recipe)}"
    common = [f"{title}:\n{recipe_flags(recipe, only=only)}" for title, only in _COMMON.items()]
    return "\n".join([_USAGE, *common, _EXAMPLES]).rstrip()


def _report(result: "Run") -> None:
    """Print the final metrics and what to do next."""
    from perceivers.evaluation.metrics_table import metrics_text

    folder = result.folder
    print(
        f"\nOn the validation split, with the weights that were kept:\n\n{metrics_text(result.metrics)}"
    )
    print(
        f"\nThe run is in {folder} (see report.md there). Next:\n"
        f"  perceivers evaluate {folder}\n"
        f"  perceivers predict {folder} FILE...\n"
        f"  perceivers explain {folder} FILE --out attention.png"
    )
