"""Generate a page for each recipe from its docstring and its model when the documentation is built.

MkDocs calls `on_config` and `on_files` (`hooks` in mkdocs.yml); nothing is written to docs/.
"""

import inspect
import re
from typing import Any

import torch

from perceivers.models.cost import decoder_flops, paper_flops
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe, list_recipes
from perceivers.recipes.assume import assume
from perceivers.recipes.files import dump_recipe
from perceivers.recipes.registry import Recipe, recipe_function, sizes_of

__all__ = ["on_config", "on_files", "recipe_page"]

_SECTION = "Recipes"


def recipe_page(name: str) -> str:
    """Return the Markdown page of a recipe: description, command, expected result, sizes and settings."""
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
            "## Size\n\n| size | elements x channels | parameters | operations for a sample |\n"
            f"|---|---|---|---|\n{rows}",
            f"Assumed here, and taken from the data by `fit`:\n\n{notes}" if notes else "",
            f"## Settings\n\n`perceivers recipes {name} > my.yaml` writes them to a file for `perceivers fit DATA "
            f"--recipe my.yaml`.\n\n```yaml\n{dump_recipe(first).rstrip()}\n```",
        )
        if part
    )


def _parts(doc: str) -> dict[str, str]:
    """Return the sections of a recipe's docstring: about, Run, Expected and Reference."""
    pieces = re.split(r"^(Run|Expected|Reference):", doc, flags=re.MULTILINE)
    found = {"about": pieces[0].strip()}
    for word, text in zip(pieces[1::2], pieces[2::2], strict=True):
        found[word] = " ".join(text.split())
    return found


def _linked(text: str) -> str:
    """Return a sentence with links to the files of docs/, relative to the folder of these pages."""
    return re.sub(r"docs/([\w/]+\.md)", r"[\1](../\1)", text)


def _sizes(name: str) -> tuple[str, list[str]]:
    """Return a row of the table for each size, and the assumptions."""
    rows: list[str] = []
    notes: dict[str, None] = {}
    for size in sizes_of(name):
        recipe, sentences = assume(get_recipe(name, size=size))
        notes |= dict.fromkeys(sentences)
        elements, channels, parameters, flops = _counted(recipe)
        count = f"{flops / 1e9:,.1f} G" if flops >= 1e9 else f"{flops / 1e6:,.1f} M"
        rows.append(f"| {size} | {elements:,} x {channels:,} | {parameters:,} | {count} |")
    return "\n".join(rows), list(notes)


def _counted(recipe: Recipe) -> tuple[int, int, int, int]:
    """Return elements, channels, parameters and operations of a recipe's model, built on the meta device."""
    config = recipe.model_config()
    with torch.device("meta"):
        model = build(config)
    elements = sum(adapter.num_elements for adapter in model.inputs.values())
    flops = paper_flops(config, elements, model.input_channels) + decoder_flops(model, elements)
    return elements, model.input_channels, sum(p.numel() for p in model.parameters()), flops


def on_config(config: Any) -> Any:
    """Add the pages to the navigation, collapsed below the overview."""
    groups: dict[str, list[dict[str, str]]] = {"For your data": [], "Published models": []}
    for name in list_recipes():
        published = ".published." in recipe_function(name).__module__
        group = groups["Published models" if published else "For your data"]
        group.append({name: f"recipes/{name}.md"})
    nav = [entry for entry in config["nav"] if _SECTION not in entry]
    place = next(i for i, entry in enumerate(config["nav"]) if _SECTION in entry)
    nav.insert(
        place, {_SECTION: [{"Overview": "recipes.md"}, *({k: v} for k, v in groups.items())]}
    )
    config["nav"] = nav
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the files of docs/."""
    from mkdocs.structure.files import File

    for name in list_recipes():
        files.append(File.generated(config, f"recipes/{name}.md", content=recipe_page(name) + "\n"))
    return files
