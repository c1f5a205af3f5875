"""`perceivers recipes`: the list of recipes, or one of them as a file to edit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import parse, wrong_arguments

__all__ = ["run"]

_EXAMPLES = """
  perceivers recipes
  perceivers recipes images --size tiny > my.yaml
  perceivers fit birds/ --recipe my.yaml
"""


@dataclass(frozen=True)
class Options:
    """List the recipes, or print one as YAML.

    Attributes:
        name: A recipe, to be printed as YAML that `fit --recipe FILE` reads.
        size: Which size of it.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    size: Literal["tiny", "small", "base", "paper"] | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="recipes", examples=_EXAMPLES)
    from perceivers.recipes import describe, get_recipe, list_recipes

    if options.name is None:
        for name in list_recipes():
            print(f"{name}\n    {describe(name)}")
        print("\n`perceivers recipes NAME` prints one as YAML to edit.")
        return 0
    from perceivers.recipes.files import recipe_text

    try:
        recipe = get_recipe(options.name, size=options.size)
    except (KeyError, ValueError) as error:
        wrong_arguments("recipes", str(error.args[0]))
    print(recipe_text(recipe), end="")
    return 0
