"""`perceivers fit`: train on data."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceivers.cli.fit_flags import check_flags, command_options, flag_name
from perceivers.cli.parsing import wrong_arguments
from perceivers.cli.terminal import echo

if TYPE_CHECKING:
    from perceivers.recipes.overrides import OverrideError
    from perceivers.recipes.registry import Recipe
    from perceivers.training.fit import Run

_SIZES = ("tiny", "small", "base", "mini", "paper")
_SWITCHES = (
    "resume",
    "resume_with_other_data",
    "progress",
    "no_progress",
    "baseline",
    "no_baseline",
    "stream",
    "compile",
    "grad_checkpointing",
)

Words = dict[str, tuple[str, ...]]
"""Words that follow each flag, by its name with underscores."""


def run(args: Sequence[str], *, command: str = "fit", recipes: Sequence[str] = ()) -> int:
    """Run the command and return its exit status.

    Args:
        args: Arguments after the command.
        command: Name of the command, for messages.
        recipes: Names that --recipe may have; the first is the default. (): any recipe, or one that fits the data.
    """
    positional, flags = split_flags(["--help" if arg == "-h" else arg for arg in args])
    asks = [flags.pop(name, None) is not None for name in ("help", "help_all")]
    data = "" if any(asks) else _take_data(positional, flags)
    if recipes:
        chosen = flags.setdefault("recipe", (recipes[0],))
        if chosen not in [(name,) for name in recipes]:
            wrong_arguments(
                command,
                f"--recipe: expected {' or '.join(recipes)}, got {' '.join(chosen) or 'no name'}. `perceivers fit` "
                "takes any recipe.",
            )
    if any(asks):
        return _help(positional, flags, command, everything=asks[1])
    options = _take_options(flags)
    if message := check_flags(flags):
        wrong_arguments("fit", message)
    spec, size = options.pop("recipe"), options["size"]
    from perceivers.recipes.overrides import FlagWords, OverrideError
    from perceivers.runs.folder import is_first_process
    from perceivers.training.fit import fit

    found = _recipe(spec, size)
    try:
        overrides: dict[str, Any] = {name: FlagWords(words) for name, words in flags.items()}
        result = fit(data, found, **options, **overrides)
    except OverrideError as error:  # nothing was printed or written yet
        wrong_arguments("fit", _explain(error))
    if is_first_process():
        _report(result)
    return 0


def _help(positional: Sequence[str], flags: Words, command: str, *, everything: bool) -> int:
    """Print the flags of some data, of a recipe, or those that all recipes have."""
    options = _take_options(flags)
    if message := check_flags(flags):
        wrong_arguments("fit", message)
    from perceivers.cli.fit_help import help_text
    from perceivers.recipes.overrides import FlagWords, OverrideError

    recipe = _recipe(options["recipe"], options["size"])
    overrides = {name: FlagWords(words) for name, words in flags.items()}
    data = positional[0] if positional else None
    try:
        text = help_text(data, recipe, options["size"], overrides, everything=everything)
    except OverrideError as error:
        wrong_arguments("fit", _explain(error))
    echo(text.replace("usage: perceivers fit", f"usage: perceivers {command}", 1))
    return 0


def split_flags(args: Sequence[str]) -> tuple[list[str], Words]:
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
    return positional, {name: tuple(found) for name, found in words.items()}


def _take_data(positional: Sequence[str], flags: Words) -> str:
    """Return DATA: the first argument, or the last one after the words of the last flag."""
    if len(positional) > 1:
        wrong_arguments("fit", f"Expected one DATA, got {', '.join(positional)}.")
    if positional:
        return positional[0]
    last = next(reversed(flags), None)
    if last is not None and flags[last]:
        *words, data = flags[last]
        if words or last in _SWITCHES or "/" in data or Path(data).exists():
            flags[last] = tuple(words)
            return data
    return wrong_arguments("fit", "Expected DATA, a path or a hub id, as the first argument.")


def _take_options(flags: Words) -> dict[str, Any]:
    """Remove the options of the command from the flags, and return their values."""
    options: dict[str, Any] = {"recipe": None, "size": None, "out": None, "resume": False}
    options["init_from"] = None
    for name, is_switch in command_options().items():
        words = flags.pop(name, None)
        if words is None:
            continue
        if is_switch and words:
            got = " ".join(words)
            wrong_arguments("fit", f"{flag_name(name)}: expected no value, got {got}.")
        if not is_switch and len(words) != 1:
            got = " ".join(words) or "none"
            wrong_arguments("fit", f"{flag_name(name)}: expected one value, got {got}.")
        options[name] = True if is_switch else words[0]
    for name in ("data", "on_message"):
        if name in flags:
            wrong_arguments(
                "fit", f"{flag_name(name)} is no flag: DATA is the first argument, without a name."
            )
    size = options["size"]
    if size is not None and size not in _SIZES:
        wrong_arguments("fit", f"--size: expected one of {', '.join(_SIZES)}; got {size}.")
    return options


def _recipe(spec: str | None, size: str | None) -> "Recipe | None":
    """Return the recipe that --recipe names; None if there is no such flag."""
    from perceivers.recipes.files import find_recipe

    try:
        return None if spec is None else find_recipe(spec, size=size)
    except (KeyError, ValueError, OSError) as error:
        wrong_arguments("fit", str(error.args[0] if isinstance(error, KeyError) else error))


def _explain(error: "OverrideError") -> str:
    """Return an error of an override in terms of flags."""
    near = getattr(error, "near", None)
    if near is not None:
        hint = f" Did you mean {flag_name(near)}?" if near else ""
        return f"there is no flag {flag_name(error.key)}.{hint} `perceivers fit --help-all` lists them all."
    return f"{flag_name(error.key)}: {error.hint}" if error.key else error.hint


def _report(result: "Run") -> None:
    """Print the final metrics and what to do next."""
    from perceivers.evaluation.metrics_table import metrics_text
    from perceivers.runs.sentences import few_rows_sentence

    folder = result.folder
    table = metrics_text(result.metrics, result.intervals)
    where = "out of fold" if result.num_members > 1 else "of the validation split"
    echo(f"\nAll metrics {where}:\n\n{table}")
    if warning := few_rows_sentence(
        "validation", result.metrics["samples"], members=result.num_members
    ):
        echo(f"\n{warning}", wrap=True)
    commands = [f"  perceivers {one.replace('RUN', str(folder))}" for one in result.next_commands]
    echo("\n".join([f"\nThe run is in {folder} (see report.md there). Next:", *commands]))
