"""The command `perceivers`: dispatch to the subcommands, and errors as readable messages.

Nothing heavy is imported here: `perceivers --help` answers before torch could be loaded.
"""

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from perceivers.cli.terminal import echo, prepare_streams

COMMANDS = {
    "quickstart": "Learn real handwritten digits: fit, evaluate, predict, explain. Two minutes.",
    "check": "Check data: what fit would choose, bad files, duplicates, labels, groups.",
    "fit": "Train on your data. Recognizes them and chooses a recipe.",
    "pretrain": "Learn from data without labels: fit --recipe mae, to be fine-tuned.",
    "evaluate": "Measure a run on its test split, or on other data.",
    "predict": "Predict files, folders or globs.",
    "embed": "Write a vector for each file, row or text.",
    "similar": "Find the samples that are most similar to a file.",
    "probe": "Measure how much a frozen model holds about labels, by a linear model.",
    "generate": "Continue a text, draw images or forecast a series by a run of the next token.",
    "explain": "Show which parts of a file a run attends to.",
    "compare": "Compare runs: metrics, curves, cost, settings that differ.",
    "report": "Write a run as an HTML page: metrics, curves, cost, examples.",
    "serve": "Serve a run over HTTP: a page, predictions and explanations as JSON.",
    "make-copy-data": "Write texts of the copy task.",
    "make-flow-data": "Write synthetic frame pairs with their optical flow.",
    "shard": "Write data as Parquet shards, to copy or to stream.",
    "convert": "Convert published weights of Hugging Face or DeepMind to a run.",
    "export": "Export a run to ONNX, OpenVINO, Triton, torch.export, safetensors or transformers.",
    "benchmark": "Compare a run with its exports: size, latency, differences, accuracy.",
    "push": "Push a run to the Hugging Face hub, with a model card.",
    "info": "Print parameters, operations and memory of a recipe or a run.",
    "recipes": "List the recipes, or print one as YAML to edit.",
    "doctor": "Check the installation and this machine.",
}

_USAGE = """\
usage: perceivers COMMAND [ARGUMENTS]

Perceivers: one architecture for any kind of input. Train, use and explain them.

commands:
"""

_EXAMPLES = """\
examples:
  perceivers quickstart
  perceivers fit birds/ --max-time 10m --out runs/birds
  perceivers evaluate runs/birds
  perceivers predict runs/birds new/*.jpg --format csv --out predictions.csv
  perceivers explain runs/birds robin.jpg --out robin.png
  perceivers recipes images > my.yaml && perceivers fit birds/ --recipe my.yaml

`perceivers COMMAND --help` lists the flags of a command. `--debug` with any of them shows the
traceback of an error. Exit status: 0 done, 1 the work failed, 2 wrong arguments, 130 interrupted."""

# Errors of data, files and settings. Any other exception is a bug and shows its traceback.
_EXPECTED = (ValueError, KeyError, TypeError, OSError, RuntimeError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: Arguments after the program's name. By default, those of this process.
    """
    prepare_streams()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not args or args[0] in ("-h", "--help", "help"):
        commands = "".join(f"  {name:<14} {text}\n" for name, text in COMMANDS.items())
        echo(f"{_USAGE}{commands}\n{_EXAMPLES}")
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        echo(f"perceivers {version('perceivers')}")
        return 0
    command = args[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        known = ", ".join(COMMANDS)
        echo(
            f"perceivers: there is no command '{command}'.{hint} There are: {known}.",
            err=True,
        )
        return 2
    return _run(command, args[1:], debug=debug)


def _run(command: str, args: list[str], *, debug: bool) -> int:
    try:
        module = importlib.import_module(f"perceivers.cli.{command.replace('-', '_')}")
        return int(module.run(args))
    except SystemExit as error:  # tyro's, after it has printed what is wrong with the arguments
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        hint = " `--resume` with the same --out continues from the last checkpoint."
        echo(f"\nInterrupted.{hint if command in ('fit', 'pretrain') else ''}", err=True)
        return 130
    except BrokenPipeError:  # as in `perceivers recipes | head`: no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _EXPECTED as error:
        if debug:
            traceback.print_exc()
        else:
            echo(f"perceivers {command}: {readable(error)}", err=True)
        return 1


def readable(error: BaseException) -> str:
    """Return the message of an error as one paragraph."""
    if isinstance(error, OSError) and error.strerror and len(error.args) > 1:
        where = f" ('{error.filename}')" if error.filename else ""
        message = f"{error.strerror}{where}."
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            message += " Files saved before are intact: free some space and continue with --resume."
        return message
    # str() of a KeyError is the repr of its message, with quotes around it.
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = " ".join(message.split()) or type(error).__name__
    if "torchvision" in message and not isinstance(error, ValueError):
        message += (
            " Your torchvision does not match your torch, and other libraries import it when it is "
            "there. perceivers does not need it: `pip uninstall torchvision`."
        )
    elif isinstance(error, TypeError | RuntimeError | KeyError) and " " not in message:
        message = f"{type(error).__name__}: {message}. Run again with --debug to see where."
    return message
