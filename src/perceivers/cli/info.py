"""`perceivers info`: size and cost of a model, without allocating it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Switch, parse, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.wording import counted

if TYPE_CHECKING:
    from perceivers.models.cost import Cost
    from perceivers.models.perceiver import PerceiverConfig
    from perceivers.tasks.registry import TaskConfig


_EXAMPLES = """
  perceivers info imagenet
  perceivers info images --size base --batch 64
  perceivers info runs/birds --format json
"""


@dataclass(frozen=True)
class Options:
    """Print the size and cost of a recipe's or run's model: elements, parameters, operations, memory of a step.

    Attributes:
        what: A recipe's name, a recipe's YAML file, or a run folder.
        size: Size of the recipe.
        batch: Samples of the training step whose memory is estimated.
        grad_checkpointing: Whether that step recomputes activations instead of keeping them.
        format: Output format.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|RUN")]
    size: Literal["tiny", "small", "base", "paper"] | None = None
    batch: int = 1
    grad_checkpointing: Switch = False
    format: Literal["table", "json"] = "table"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="info", examples=_EXAMPLES)
    if options.batch < 1:
        wrong_arguments("info", f"Expected --batch of at least 1, got {options.batch}.")
    from perceivers.models.compression import compression
    from perceivers.models.cost import cost

    config, task, assumed, num_members = _model_of(options)
    result = cost(config, batch_size=options.batch, grad_checkpointing=options.grad_checkpointing)
    result = result.times(num_members)
    small = compression(config) if task is not None and task.reports_compression else None
    if options.format == "json":
        extra: dict[str, Any] = {} if small is None else {"compression": dataclasses.asdict(small)}
        extra |= {"members": num_members} if num_members > 1 else {}
        echo(json.dumps({**dataclasses.asdict(result), **extra, "assumed": assumed}, indent=2))
        return 0
    for sentence in assumed:
        echo(sentence, wrap=True)
    lines = _lines(result)
    if num_members > 1:
        text = f"{num_members} models whose outputs are averaged; numbers are of all, a training step is of one"
        lines.insert(0, ("members", text))
    if small is not None:
        lines.append(("compression", small.sentence()))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        echo(f"{name.ljust(width)}  {value}")
    return 0


def _model_of(options: Options) -> "tuple[PerceiverConfig, TaskConfig | None, list[str], int]":
    """Return the configurations of model and task, the assumptions about sizes that depend on data, and the members."""
    path = Path(options.what)
    if path.is_dir():
        from perceivers.hub.checkpoint import load

        config = load(path).config
        return config.model, config.task, [], config.num_members
    from perceivers.recipes.assume import assume
    from perceivers.recipes.files import find_recipe

    try:
        recipe = find_recipe(options.what, size=options.size)
    except (KeyError, ValueError, OSError) as error:
        wrong_arguments("info", str(error.args[0] if isinstance(error, KeyError) else error))
    recipe, sentences = assume(recipe)
    return recipe.model_config(), recipe.task, sentences, recipe.training.folds or 1


def _lines(result: "Cost") -> list[tuple[str, str]]:
    elements = (
        f"{result.num_elements:,} elements of {counted(result.input_channels, 'channel')} (M x C)"
    )
    step = f"{_bytes(result.step_bytes)}, float32, AdamW or LAMB, batch {result.batch_size}"
    return [
        ("input", elements),
        ("parameters", f"{result.num_parameters:,}"),
        ("weights", f"{_bytes(result.weight_bytes)} in float32"),
        (
            "FLOPs, by the papers",
            f"{_operations(result.paper_flops)} a sample (2 per multiply-add)",
        ),
        ("FLOPs, really done", f"{_operations(result.flops)} a sample"),
        ("how it is read", _reading(result)),
        ("training step", step),
    ]


def _reading(result: "Cost") -> str:
    """Return the way of reading and, if there was a choice, what made it."""
    words = {
        "structured": "structured (positions as tables, projections absorbed)",
        "absorbed": "absorbed (nothing is projected for each element)",
        "projected": "projected (a key and a value for each element)",
        "self-attention": "self-attention (every element reads every other)",
        "streamed": "streamed (a key and a value for each token, chunk by chunk)",
        "grouped": "grouped (all groups of a block in one call, a key and a value for each element)",
    }
    costs = [f"{_operations(int(n))} {path}" for path, n in result.attention_flops.items()]
    why = f": one read costs {', '.join(costs)}" if costs else ""
    return words[result.attn_implementation] + why


def _operations(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.1f} G"


def _bytes(count: int) -> str:
    if count < 2**20:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.2f} GiB"
