"""Parsing of a command's arguments: a dataclass whose docstring is the help."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn

import tyro

from perceivers.cli.terminal import echo

Device = Literal["auto", "cpu", "cuda", "mps"]

# As in perceivers.hub.quantize, which imports torch.
Quantize = Literal["int8", "int8-always"]

# A flag that is off unless it is given, without a `--no-` form.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def parse(
    options: Any,
    args: Sequence[str],
    *,
    command: str,
    examples: str,
    about: str | None = None,
    default: Any = None,
) -> Any:
    """Return `options` filled from the arguments, or exit with status 2.

    Args:
        options: A dataclass. The descriptions of its attributes are those of the flags.
        args: Arguments after the command's name.
        command: Name of the command.
        examples: Lines with examples.
        about: Description of the command. By default the first part of the docstring of `options`.
        default: An instance with the defaults of the flags. None: those of the class.
    """
    try:
        return tyro.cli(
            options,
            args=list(args),
            prog=f"perceivers {command}",
            description=summary(options) if about is None else about,
            **({} if default is None else {"default": default}),
        )
    except SystemExit as left:
        prints_help = not any(word.startswith("--tyro-") for word in args)  # but a completion
        if prints_help and left.code in (0, None):  # tyro would run the examples together
            echo(f"examples:\n{examples.strip(chr(10))}")
        raise


def summary(documented: Any) -> str:
    """Return the part of a docstring before its sections."""
    text = inspect.getdoc(documented) or ""
    return text.split("\n\nAttributes:")[0].split("\n\nRun:")[0]


def check_numbers(
    command: str,
    options: Any,
    at_least: Mapping[str, int] | None = None,
    shares: Sequence[str] = (),
) -> None:
    """Exit with status 2 if a number is out of its range; None, a default, is in every range.

    Args:
        command: Name of the command.
        options: The parsed arguments.
        at_least: Smallest value of some of them.
        shares: Those that lie from 0 to 1.
    """
    for name, lowest in (at_least or {}).items():
        value = getattr(options, name)
        if value is not None and value < lowest:
            flag = name.replace("_", "-")
            wrong_arguments(command, f"Expected --{flag} of at least {lowest}, got {value}.")
    for name in shares:
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:
            wrong_arguments(
                command, f"Expected --{name.replace('_', '-')} from 0 to 1, got {value}."
            )


def check_quantize(command: str, quantize: str | None, device: str) -> None:
    """Exit with status 2 if int8 weights are requested on a device that does not support them."""
    if quantize is not None and device not in ("auto", "cpu"):
        wrong_arguments(
            command,
            f"int8 weights are for prediction on the CPU: expected --device cpu with --quantize {quantize}, "
            f"got --device {device}. Leave out one of the two.",
        )


def texts_of(
    command: str, texts: Sequence[str], columns: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Return the samples given by --text, or exit with status 2 if the run does not take text.

    A text of several of the run's input columns takes one --text for each.
    """
    texts_read = [name for name, part in columns.items() if part.kind == "text"]
    if texts and len(texts_read) != 1:
        wrong_arguments(
            command,
            f"--text is for a run with one text input, instead of FILE; this one has {', '.join(columns)}.",
        )
    names = (columns[texts_read[0]].columns or texts_read) if texts_read else ()
    if texts and len(texts) % len(names):
        wrong_arguments(
            command,
            f"Expected --text {len(names)} times for each sample, for {', '.join(names)}; got {len(texts)}.",
        )
    return [
        dict(zip(names, texts[first : first + len(names)], strict=True))
        for first in range(0, len(texts), max(len(names), 1))
    ]


def wrong_arguments(command: str, message: str) -> NoReturn:
    """Print an error about the arguments and exit with status 2."""
    echo(f"perceivers {command}: {message}", err=True)
    raise SystemExit(2)
