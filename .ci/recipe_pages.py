"""A page for each recipe, made from its docstring and its model when the pages are built, so that none can drift.

MkDocs calls `on_config` and `on_files` (`hooks` in mkdocs.yml); nothing is written beside the pages.
"""

import inspect
import re
from typing import Any

import torch

from perceivers.models.cost import decoder_flops, paper_flops
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe, list_recipes
from perceivers.recipes.files import dump_recipe
from perceivers.recipes.registry import Recipe, recipe_function, sizes_of
from perceivers.recipes.resolve_sizes import assume

__all__ = ["on_config", "on_files", "recipe_page"]

_SECTION = "Recipes"


def recipe_page(name: str) -> str:
    """Return the Markdown of one recipe: what it is, how it is run, what to expect, its sizes and settings."""
    parts = _parts(inspect.getdoc(recipe_function(name)) or "")
    first = get_recipe(name, size=sizes_of(name)[0])
    rows, assumed = _sizes(name)
    notes = "\n".join(f"- {sentence}" for sentence in assumed)
    return "\n\n".join(
        part
        for part in (
            f"# {name}",
            parts["about"],
            f"```bash\n{parts['Run']}\n```",
            f"**Expected.** {_linked(parts['Expected'])}",
            f"**Reference.** {_linked(parts['Reference'])}",
            "## Size\n\n| size | elements x channels | weights | operations a sample, by the papers |\n"
            f"|---|---|---|---|\n{rows}",
            f"What the data decide is assumed here:\n\n{notes}" if notes else "",
            f"## Settings\n\n`perceivers recipes {name} > my.yaml` writes them, `perceivers fit DATA --recipe my.yaml` "
            f"uses them.\n\n```yaml\n{dump_recipe(first).rstrip()}\n```",
        )
        if part
    )


def _parts(doc: str) -> dict[str, str]:
    """Return what a recipe's docstring says, by the words Run, Expected and Reference."""
    pieces = re.split(r"^(Run|Expected|Reference):", doc, flags=re.MULTILINE)
    found = {"about": pieces[0].strip()}
    for word, text in zip(pieces[1::2], pieces[2::2], strict=True):
        found[word] = " ".join(text.split())
    return found


def _linked(text: str) -> str:
    """Return a sentence whose files of docs/ are links, as seen from the folder of these pages."""
    return re.sub(r"docs/([\w/]+\.md)", r"[\1](../\1)", text)


def _sizes(name: str) -> tuple[str, list[str]]:
    """Return a row of the table for each size, and what had to be assumed."""
    rows: list[str] = []
    notes: dict[str, None] = {}
    for size in sizes_of(name):
        recipe, sentences = assume(get_recipe(name, size=size))
        notes |= dict.fromkeys(sentences)
        elements, channels, weights, flops = _counted(recipe)
        told = f"{flops / 1e9:,.1f} G" if flops >= 1e9 else f"{flops / 1e6:,.1f} M"
        rows.append(f"| {size} | {elements:,} x {channels:,} | {weights:,} | {told} |")
    return "\n".join(rows), list(notes)


def _counted(recipe: Recipe) -> tuple[int, int, int, int]:
    """Return elements, channels, weights and operations of a recipe's model, without allocating it."""
    config = recipe.model_config()
    with torch.device("meta"):
        model = build(config)
    elements = sum(adapter.num_elements for adapter in model.inputs.values())
    flops = paper_flops(config, elements, model.input_channels) + decoder_flops(model, elements)
    return elements, model.input_channels, sum(p.numel() for p in model.parameters()), flops


def on_config(config: Any) -> Any:
    """Put the pages behind that of all recipes."""
    pages = [{name: f"recipes/{name}.md"} for name in list_recipes()]
    nav = [entry for entry in config["nav"] if _SECTION not in entry]
    place = next(i for i, entry in enumerate(config["nav"]) if _SECTION in entry)
    nav.insert(place, {_SECTION: [{"All recipes": "recipes.md"}, *pages]})
    config["nav"] = nav
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that are read from docs/."""
    from mkdocs.structure.files import File

    for name in list_recipes():
        files.append(File.generated(config, f"recipes/{name}.md", content=recipe_page(name) + "\n"))
    return files
