"""The documentation site: navigation, API page and recipe pages, without building it."""

import importlib
import importlib.util
import re

import pytest
import yaml

import perceivers as pv
from perceivers.cli.main import COMMANDS
from perceivers.recipes import list_recipes
from support.docs import ROOT

DOCS = ROOT / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    return load("recipe_pages")


def navigation(entries):
    """Yield all pages of a navigation."""
    for entry in entries:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        if isinstance(value, list):
            yield from navigation(value)
        else:
            yield value


def mkdocs_config():
    class Loader(yaml.SafeLoader):
        """Ignores Python tags."""

    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def test_every_page_is_in_the_navigation():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages == set(navigation(mkdocs_config()["nav"]))


def test_the_api_page_has_every_public_name():
    assert ":::" not in (DOCS / "api.md").read_text()  # its entries are generated
    shown = re.findall(
        r"^### pv\.(\w+)\n\n(?:```python\n[^`]*```\n\n)?::: perceivers\.([\w.]+)$",
        load("api_page").api_entries(),
        re.M,
    )
    assert sorted(name for name, _ in shown) == sorted(set(pv.__all__) - {"__version__"})
    for name, path in shown:
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(f"perceivers.{module}"), attribute) is getattr(
            pv, name
        )


def test_functions_are_shown_with_their_signature():
    text = load("api_page").api_entries()
    assert re.search(r"pv\.fit\(data, recipe=None, \*, size=None, out=None,", text)
    assert "pv.load(folder, *, device='auto'" in text
    assert " at 0x" not in text


def test_the_reference_has_every_command_with_its_flags():
    text = load("command_pages").reference()
    for command in COMMANDS:
        assert f"\n### perceivers {command}\n" in text
    for flag in ("--top", "--quantize", "--split-column", "--faithfulness", "--max-time", "--port"):
        assert flag in text
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_has_a_page_with_the_expected_result(pages, name):
    text = pages.recipe_page(name)
    assert text.startswith(f"# {name}\n")
    command = re.search(r"```bash\n(.*?)\n```", text)[1].split()
    assert command[0] == "perceivers"
    assert command[1] in COMMANDS
    assert f"--recipe {name}" in " ".join(command)
    assert re.search(r"\*\*Expected\.\*\* \S", text)
    assert re.search(
        r"^\| \w+ \| [\d,]+ x [\d,]+ \| [\d,]+ \| [\d.,]+ [MG] \|$", text, re.MULTILINE
    )
    for target in re.findall(r"\]\(\.\./([\w/]+\.md)\)", text):
        assert (DOCS / target).exists()


def test_recipe_pages_are_in_the_navigation(pages):
    config = pages.on_config({"nav": [{"First": "index.md"}, {"Recipes": "recipes.md"}]})
    (recipes,) = [entry["Recipes"] for entry in config["nav"] if "Recipes" in entry]
    assert recipes[0] == {"Overview": "recipes.md"}
    assert {"images": "recipes/images.md"} in recipes[1]["For your data"]
    assert {"imagenet": "recipes/imagenet.md"} in recipes[2]["Published models"]
    assert config["nav"][0] == {"First": "index.md"}


def test_published_parameter_counts_are_on_the_page(pages):
    assert "44,912,254" in pages.recipe_page("imagenet").partition("## Size")[2]


def test_figures_of_how_it_works_are_drawn_by_its_script(tmp_path):
    drawn = load("how_it_works").main(tmp_path)
    shown = re.findall(r"img/(how-[\w-]+\.png)", (DOCS / "how-it-works.md").read_text())
    assert [path.name for path in drawn] == shown
    assert all(path.stat().st_size > 10_000 for path in drawn)
