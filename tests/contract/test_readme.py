"""Commands, flags, make targets, links, extras and Python names in the README and docs/ exist."""

import contextlib
import functools
import io
import re
import tomllib

import pytest

import perceivers
from perceivers.cli.main import COMMANDS, main
from perceivers.recipes import list_recipes
from support.docs import BLOCK, PAGES, ROOT, blocks, commands, inline_commands

README = (ROOT / "README.md").read_text()

# The flags of `fit` are those of the recipe that fits the data, which a page does not always name.
RECIPES = (
    *("images", "audio_video", "points", "text", "series", "arrays", "multimodal"),
    *("autoencode", "flow", "segmentation", "dense", "mlm_bytes"),
    *("music", "image_ar", "series_ar", "hip_mae"),
)


def command_lines() -> list[tuple[str, str]]:
    """Return every `perceivers` command in shell blocks and in inline code, with the page's name."""
    return [
        (page.name, command)
        for page in PAGES
        if page.name != "CHANGELOG.md"  # names what is gone
        for command in (
            *commands(blocks(page, "bash", "console", "sh")),
            *inline_commands(page),
        )
        if command.startswith("perceivers ")
    ]


# Of every command, and of a task that exists only for several target columns.
ALWAYS = ("--debug", "--help", "--help-all", "--task.weights")


def positive(flag: str) -> str:
    """Return a flag without its negation, as the help lists it."""
    return re.sub(r"(^--|[.])no-", r"\1", flag.replace("_", "-"))


@functools.cache
def help_of(command: str) -> str:
    """Return the help of a command; of `fit`, all flags of several recipes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for recipe in [["--recipe", name] for name in RECIPES] if command == "fit" else [[]]:
            has_fields = command in ("fit", "pretrain")
            assert main([command, "--help-all" if has_fields else "--help", *recipe]) == 0
    return out.getvalue().replace("_", "-")


@pytest.mark.parametrize(("page", "line"), command_lines(), ids=lambda x: x.replace("/", "|"))
def test_command_and_its_flags_exist(page, line):
    words = re.split(r"\s+", line.split(">")[0].split("|")[0].strip())[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    command = words[0]
    assert command in COMMANDS, page
    for flag in [word.split("=")[0] for word in words[1:] if word.startswith("--")]:
        # The flags of an autoencoder depend on the data: its recipe has video, other pages images.
        known = {positive(flag)}
        if "autoencode" in words:
            known.add(flag.replace(".image.", ".video."))
        shown = help_of(command)
        assert any(one in shown for one in known) or flag in ALWAYS, f"{page}: {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_flags_in_prose_exist(page):
    if page.name in ("CHANGELOG.md", "CONTRIBUTING.md") or page.parent.name == "extending":
        return  # they name flags that are gone, or of plugins
    of_benchmarks = ("--only", "--list", "--smoke", "--threads", "--seconds", "--data")
    known = {*ALWAYS, *of_benchmarks}
    shown = "".join(help_of(command) for command in COMMANDS)
    for code in re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text())):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]", code):
            assert flag in known or "NAME" in code or positive(flag) in shown, code


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)`?(?=[\s`.,]|$)", blocks(page, "bash"))) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_extras_exist(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for names in re.findall(r"(?:perceivers|\.)\[([a-z, ]+)\]", page.read_text()):
        for name in names.split(","):
            assert name.strip() in project["optional-dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_names_exist(page):
    for name in re.findall(r"\bpv\.(\w+)", blocks(page, "python")):
        assert name in perceivers.__all__, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_are_python(page):
    compile(blocks(page, "python"), page.name, "exec")


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_in_the_table(name):
    assert f"`{name}`" in (ROOT / "docs" / "recipes.md").read_text()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_shown(name):
    assert f"| `{name}` |" in (ROOT / "docs" / "commands.md").read_text()


def test_readme_is_short():
    assert len(README.encode()) <= 8192
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_name_no_path_of_the_machine_that_wrote_them(page):
    assert not re.search(r"\.\./shared|/root/|/home/\w+/", page.read_text())
