"""Shell commands and Python blocks of the README and the documentation pages."""

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
# A comment before a block states why no test runs it.
_MARKED = re.compile(
    r"(?:<!-- not run by the tests: ([^>]+?) -->\n+)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Command:
    """A shell command or a Python block of a page.

    Attributes:
        text: The command without its trailing comment, or the block.
        language: `bash` or `python`.
        skipped: Why the tests do not run it; empty if they do.
    """

    text: str
    language: str = "bash"
    skipped: str = ""


def blocks(page: Path, *languages: str) -> str:
    """Return the text of all blocks in the given languages."""
    return "\n".join(text for kind, text in BLOCK.findall(page.read_text()) if kind in languages)


def commands(text: str) -> list[str]:
    """Return the commands of a shell block: its lines, split at `&&`."""
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
    """Return all commands and Python blocks of a page in order."""
    found: list[Command] = []
    for why, language, text in _MARKED.findall(page.read_text()):
        if language in _SHELL:
            found += [Command(line, skipped=why.strip()) for line in commands(text)]
        elif language == "python":
            found.append(Command(text, "python", why.strip()))
    return found


def words_of(command: str, folder: Path) -> tuple[list[str], str]:
    """Return the arguments of a command after shell expansion, and the file that its output is redirected to.

    Args:
        command: A shell command.
        folder: Working directory.
    """
    command, _, target = command.partition(" > ")
    echo = f'{command.split()[0]}() {{ printf "%s\\0" "$@"; }}; {command}'
    done = subprocess.run(
        ["bash", "-c", echo], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1], target.strip()
