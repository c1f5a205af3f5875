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
    "promised",
    "shortened",
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


# Flags for a minimal run; flags of the command take precedence.
TINY = {
    "--max-steps": ["1"],
    "--batch-size": ["4"],
    "--workers": ["0"],
    "--no-progress": [],
    "--folds": ["1"],
    "--no-baseline": [],
    "--encoder.num-latents": ["4"],
    "--encoder.latent-channels": ["16"],
    "--encoder.num-blocks": ["1"],
    "--encoder.num-self-attends-per-block": ["1"],
    "--encoder.num-self-attend-heads": ["2"],
    "--encoder.num-cross-attends": ["1"],
}


def shortened(words: list[str]) -> list[str]:
    """Return the arguments of a command with the flags for a minimal run."""
    if words[0] != "fit":
        return words
    tiny = [[flag, *values] for flag, values in TINY.items() if flag not in words]
    if "--encoder.num-cross-attends" in words:  # which must not exceed the number of blocks
        tiny = [flag for flag in tiny if flag[0] != "--encoder.num-blocks"]
    return [*words, *(word for flag in tiny for word in flag)]


def promised(words: list[str]) -> list[Path]:
    """Return the files that a command should write."""
    if "--out" not in words:
        return []
    out = Path(words[words.index("--out") + 1])
    if words[0] == "fit":
        names = ("report.md", "recipe.yaml", "config.json", "model.safetensors", "metrics.jsonl")
        return [out / name for name in names]
    return [out]
