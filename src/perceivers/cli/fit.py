"""`perceivers fit`: train on data.

The arguments are read twice: first those that say which data and which recipe, then, with that recipe's
values as defaults, all of them.
"""

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perceivers.cli.flags import Which, apply_flags, flags_of
from perceivers.cli.parsing import parse, parse_known, wrong_arguments
from perceivers.data.base import DataConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig

if TYPE_CHECKING:
    from perceivers.training.fit import Run

__all__ = ["run"]

_ABOUT = "Train on data. Looks at them, says what it saw, chooses a recipe and writes a run folder."

_EXAMPLES = """
  perceivers fit birds/                                a folder of classes; the rest is chosen
  perceivers fit birds/ --max-time 10m --out runs/a    ends, annealed, after ten minutes
  perceivers fit birds/ --out runs/a --resume          goes on after an interruption
  perceivers fit table.parquet --label species --group nest
  perceivers fit table.parquet --label species,age --task.weights age:0.5     two tasks on the same latents
  perceivers fit street.parquet --recipe segmentation --task.answer mask --task.asked 256   the class of every pixel
  perceivers fit birds/ --size small --optim.lr 5e-4 --augment.image.mixup 0.2
  perceivers fit birds/ --recipe my.yaml               of `perceivers recipes images > my.yaml`
  perceivers fit builtin:digits --permute 7            built-in digits, their pixels permuted
"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    which, data = _first_reading(args)
    if data is None or {"-h", "--help"} & set(args):
        # There is nothing to look at: the full reading prints the help, or says that DATA is missing.
        _full_reading(args, _asked(which) or get_recipe("images"))
        wrong_arguments("fit", "Expected DATA, a path or a hub id, as the first argument.")
    from perceivers.data.sources.open import open_data
    from perceivers.recipes.resolve import made_for
    from perceivers.recipes.resolve_tasks import for_targets
    from perceivers.runs.folder import goes_on, run_folder
    from perceivers.training.distributed import is_first_process
    from perceivers.training.run import fit_opened, suitable_recipe

    folder = run_folder(data, which.out, resume=which.resume)
    resume = goes_on(folder, resume=which.resume)
    asked = _asked(which, folder if resume else None)
    config = _data_config(args, DataConfig() if asked is None else asked.data)
    source = open_data(data, config)
    if asked is None:
        chosen, why = suitable_recipe(data, source, size=which.size)
    else:
        chosen, why = made_for(asked, source, size=which.size), None
    # Before anything is printed or made: a misspelled flag ends here.
    recipe = _full_reading(_data_first(args, data), for_targets(chosen, source))
    if why and is_first_process():
        print(why)
    result = fit_opened(
        source, recipe, data=data, folder=folder, resume=resume, init_from=which.init_from
    )
    if is_first_process():
        _report(result)
    return 0


def _first_reading(args: Sequence[str]) -> tuple[Which, str | None]:
    """Return what is known before the recipe is, and DATA if it is there.

    The flags of model and augmentation depend on the recipe and stay unread here, with their values. Where
    DATA does not stand before them, the flags of a likely recipe tell it from their values.
    """
    parts = {
        "which": Which(),
        "data": DataConfig(),
        "training": TrainingConfig(),
        "optim": OptimConfig(),
    }
    known, rest = parse_known(flags_of(parts), _without_help(args), command="fit")
    which = apply_flags(Which(), known.which)
    if rest and rest[0].startswith("-"):
        likely = _asked(which) or get_recipe("images")
        rest = parse_known(flags_of(likely), rest, command="fit")[1]
    data = next((arg for arg in (*rest[:1], *rest[-1:]) if not arg.startswith("-")), None)
    return which, data


def _data_config(args: Sequence[str], config: DataConfig) -> DataConfig:
    """Return how the data are read: what the flags say, on top of `config`."""
    known, _ = parse_known(flags_of({"data": config}), _without_help(args), command="fit")
    return apply_flags(config, known.data)


def _full_reading(args: Sequence[str], recipe: Recipe) -> Recipe:
    """Return the recipe with all flags applied, or leave with exit status 2."""
    flags: Any = make_dataclass(
        "Fit",
        [
            ("data", Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]),
            ("which", Annotated[flags_of(Which()), tyro.conf.arg(name="")]),
            ("recipe", Annotated[flags_of(recipe), tyro.conf.arg(name="")]),
        ],
    )
    flags.__doc__ = _DATA_HELP
    parsed = parse(flags, args, command="fit", examples=_EXAMPLES, about=_ABOUT)
    try:
        return apply_flags(recipe, parsed.recipe)
    except ValueError as error:  # values that do not fit each other, as the configuration says
        wrong_arguments("fit", str(error))


_DATA_HELP = """Train on data.

Attributes:
    data: A folder of classes, a table (parquet, csv, jsonl), tar shards, a saved Hugging Face dataset, a
        hub id, or `builtin:digits`.
"""


def _asked(which: Which, folder: Path | None = None) -> Recipe | None:
    """Return the recipe that was named, or that of the run to resume; else the data will decide."""
    from perceivers.training.run import asked_recipe

    try:
        return asked_recipe(which.recipe, size=which.size, folder=folder)
    except (KeyError, ValueError, OSError) as error:
        if which.recipe is None:  # the run's own recipe, which nobody typed
            raise
        wrong_arguments("fit", str(error.args[0] if isinstance(error, KeyError) else error))


def _data_first(args: Sequence[str], data: str) -> list[str]:
    """Return the arguments with DATA in front, where no misspelled flag can claim it as its value."""
    place = list(args).index(data)
    return [data, *args[:place], *args[place + 1 :]]


def _without_help(args: Sequence[str]) -> list[str]:
    return [arg for arg in args if arg not in ("-h", "--help")]


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
