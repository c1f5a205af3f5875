"""What the README and the pages under docs/ say is there: commands, flags, targets, files, names."""

import re
import tomllib
from pathlib import Path

import pytest

import perceivers
from perceivers.cli.main import COMMANDS, main
from perceivers.recipes import list_recipes

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> str:
    return "\n".join(text for kind, text in BLOCK.findall(page.read_text()) if kind in languages)


def command_lines() -> list[tuple[str, str]]:
    """Every line in a shell block that calls `perceivers`, with the page's name."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = blocks(page, "bash", "console", "sh").replace("\\\n", " ")
        for line in text.splitlines():
            commands = line.partition("  #")[0].strip().removeprefix("$ ").split("&&")
            found += [
                (page.name, part.strip())
                for part in commands
                if part.strip().startswith("perceivers ")
            ]
    return found


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(("page", "line"), command_lines(), ids=lambda x: x.replace("/", "|"))
def test_command_and_its_flags_exist(page, line, helps, capsys):
    words = re.split(r"\s+", line.split(">")[0].split("|")[0].strip())[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    command = words[0]
    assert command in COMMANDS, page
    if command not in helps:
        assert main([command, "--help"]) == 0
        helps[command] = capsys.readouterr().out
    for flag in [word.split("=")[0] for word in words[1:] if word.startswith("--")]:
        assert flag in helps[command].replace("_", "-") or flag == "--debug", f"{page}: {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?(?=[\s`.,]|$)", blocks(page, "bash"))) <= targets


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


def test_the_tree_names_every_source_file_and_no_other():
    tree = next(text for _, text in BLOCK.findall(README) if text.startswith("src/perceivers/"))
    named: set[str] = set()
    folder = ""
    for line in tree.splitlines()[1:]:
        path = line.split()[0]
        if path.endswith("/"):
            folder = path
        elif path.endswith(".py"):
            named.add(f"{folder if line.startswith('    ') else ''}{path}")
    source = ROOT / "src" / "perceivers"
    there = {str(p.relative_to(source)) for p in source.rglob("*.py") if p.name != "__init__.py"}
    assert named - {"__init__.py"} == there


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_in_the_table(name):
    assert f"`{name}`" in README
    assert f"`{name}`" in (ROOT / "docs" / "recipes.md").read_text()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_shown(name):
    assert f"perceivers {name}" in README
