"""The shell commands and Python of the README and the pages under docs/, as a reader would run them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BLOCK",
    "PAGES",
    "ROOT",
    "Command",
    "blocks",
    "commands",
    "inline_commands",
    "steps",
    "words_of",
]

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("bash", "console", "sh")
# A comment in front of a block says why no test runs it.
_MARKED = re.compile(
    r"(?:<!-- not run by the tests: ([^>]+?) -->\n+)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Command:
    """A command of a page, or a block of Python.

    Attributes:
        text: As it stands there, without the comment behind it.
        language: `bash` or `python`.
        skipped: Why it is not run. "": it is.
    """

    text: str
    language: str = "bash"
    skipped: str = ""


def blocks(page: Path, *languages: str) -> str:
    """Return the text of all blocks in one of these languages."""
    return "\n".join(text for kind, text in BLOCK.findall(page.read_text()) if kind in languages)


def commands(text: str) -> list[str]:
    """Return the commands of a shell block, one for each line or part of it."""
    found: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        parts = line.partition("  #")[0].strip().removeprefix("$ ").split("&&")
        found += [part.strip() for part in parts if part.strip() and not part.startswith("#")]
    return found


def inline_commands(page: Path) -> list[str]:
    """Return the `perceivers` commands in inline code, outside of blocks."""
    text = BLOCK.sub("", page.read_text())
    return [
        found
        for found in dict.fromkeys(re.findall(r"`(perceivers [^`]+)`", text))
        if re.match(r"perceivers [a-z]", found)
    ]


def steps(page: Path) -> list[Command]:
    """Return every command and block of Python of a page in its order."""
    found: list[Command] = []
    for why, language, text in _MARKED.findall(page.read_text()):
        if language in _SHELL:
            found += [Command(line, skipped=why.strip()) for line in commands(text)]
        elif language == "python":
            found.append(Command(text, "python", why.strip()))
    return found


def words_of(command: str, folder: Path) -> tuple[list[str], str]:
    """Return a command's words as a shell hands them over, patterns filled in, and the file it writes to.

    Args:
        command: As it stands in a page.
        folder: The working directory.
    """
    command, _, target = command.partition(" > ")
    echo = f'{command.split()[0]}() {{ printf "%s\\0" "$@"; }}; {command}'
    told = subprocess.run(
        ["bash", "-c", echo], cwd=folder, capture_output=True, text=True, check=True
    )
    return told.stdout.split("\0")[:-1], target.strip()
