"""How a command's arguments are read: one dataclass for each, whose docstring is the help."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn

import tyro

Device = Literal["auto", "cpu", "cuda", "mps"]

# As in perceivers.hub.quantize, which imports torch.
Quantize = Literal["int8", "int8-always"]

# A flag that is off unless it is given, without a `--no-` form.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def parse(
    options: Any, args: Sequence[str], *, command: str, examples: str, about: str | None = None
) -> Any:
    """Return `options` filled from the arguments, or leave with exit status 2.

    Args:
        options: A dataclass. The sentences of its attributes describe the flags.
        args: What stands after the command's name.
        command: The command's name.
        examples: Lines that show how it is used.
        about: What the command does. By default, what the docstring of `options` begins with.
    """
    try:
        return tyro.cli(
            options,
            args=list(args),
            prog=f"perceivers {command}",
            description=summary(options) if about is None else about,
        )
    except SystemExit as left:
        if left.code in (0, None):  # tyro has printed the help; it would run the examples together
            print(f"examples:\n{examples.strip(chr(10))}")
        raise


def parse_known(options: Any, args: Sequence[str], *, command: str) -> tuple[Any, list[str]]:
    """Return `options` filled from the arguments that it knows, and the others in their order."""
    return tyro.cli(
        options,
        args=list(args),
        prog=f"perceivers {command}",
        add_help=False,
        return_unknown_args=True,
    )


def summary(documented: Any) -> str:
    """Return what stands before the sections of a docstring."""
    text = inspect.getdoc(documented) or ""
    return text.split("\n\nAttributes:")[0].split("\n\nRun:")[0]


def check_quantize(command: str, quantize: str | None, device: str) -> None:
    """Leave with exit status 2 if int8 weights are wanted on a device that has none."""
    if quantize is not None and device not in ("auto", "cpu"):
        wrong_arguments(
            command,
            f"int8 weights are for prediction on the CPU: expected --device cpu with --quantize {quantize}, "
            f"got --device {device}. Leave out one of the two.",
        )


def texts_of(
    command: str, texts: Sequence[str], columns: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Return the samples that --text gives, or leave with exit status 2 if the run does not read such.

    Args:
        command: Its name.
        texts: One for each --text.
        columns: Of the run (`InputColumn`), by modality. Several of one text take that many --text each.
    """
    reading = [name for name, part in columns.items() if part.kind == "text"]
    if texts and len(reading) != 1:
        wrong_arguments(
            command,
            f"--text is for a run that reads one text, instead of FILE; this one reads {', '.join(columns)}.",
        )
    names = (columns[reading[0]].columns or reading) if reading else ()
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
    """Say what is wrong with the arguments and leave with exit status 2."""
    print(f"perceivers {command}: {message}", file=sys.stderr)
    raise SystemExit(2)
