"""`perceivers recipes`: list the recipes, or print one as a file to edit."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import parse, wrong_arguments
from perceivers.cli.terminal import echo

_EXAMPLES = """
  perceivers recipes
  perceivers recipes images --size tiny > my.yaml
  perceivers fit birds/ --recipe my.yaml
"""


@dataclass(frozen=True)
class Options:
    """List the recipes, or print one as YAML.

    Attributes:
        name: A recipe to print as YAML for `fit --recipe FILE`: a name, or module:function.
        size: Size of the recipe.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    size: Literal["tiny", "small", "base", "paper"] | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="recipes", examples=_EXAMPLES)
    from perceivers.recipes import list_recipes
    from perceivers.recipes.files import dump_recipe, find_recipe

    if options.name is None:
        for name in list_recipes():
            first, expected = _describe(name)
            echo(f"{name}\n    {first}\n    {expected}")
        echo("\n`perceivers recipes NAME > my.yaml` gives a file to edit.")
        return 0
    try:
        recipe = find_recipe(options.name, size=options.size)
    except (KeyError, ValueError, OSError) as error:
        wrong_arguments("recipes", str(error.args[0] if isinstance(error, KeyError) else error))
    echo(dump_recipe(recipe), end="")
    return 0


def _describe(name: str) -> tuple[str, str]:
    """Return the first line of a recipe's docstring, and its section Expected, as one line."""
    from perceivers.recipes.registry import recipe_function

    doc = inspect.getdoc(recipe_function(name)) or ""
    expected = doc.partition("Expected:")[2].partition("Reference:")[0]
    return doc.splitlines()[0] if doc else "", f"Expected: {' '.join(expected.split())}"
