"""Check docstrings, error messages and identifiers against the prose rules of CONTRIBUTING.md, as far as a machine can.

python .ci/prose.py [FILE ...]    all Python files by default, of the tests only tests/support
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src/perceivers", "benchmarks", "examples", ".ci", "tests/support")

BUDGET = 0
"""Violations that are tolerated. Only ever lower it."""

_OPENINGS = (
    (
        r"(?:(?:return|yield|give|iterate over) )?(?:what|how|which|where|who|whom|whose)\b",
        "opens with a relative clause; name the object",
    ),
    (r"of (?:the|a|an|this|that|these|those|all|each|every)\b", "has no noun before 'of'"),
)
_ANYWHERE = (
    (r"\bas above\.", "'As above.' instead of a description"),
    (r"^ *sources?:$", "section 'Source:' instead of 'Reference:'"),
    (
        r"^ +\w+(?: \([^)]*\))?: of (?:the|a|an|this|that|these|those|all|each|every)\b",
        "argument without a noun before 'of'",
    ),
    (
        r"^ +\w+(?: \([^)]*\))?: (?:what|who|whom|whose|how)\b",
        "argument described by a relative clause",
    ),
)
_WORDS = {
    r"pictures?": "image",
    r"films?": "video",
    r"sounds?": "audio",
    r"(?<!point )clouds?(?! storage)": "points",
    r"recordings?": "series or audio",
    r"letters": "text",
    r"tells?|told|telling": "return, print, state or report",
    r"sa(?:y|ys|id|ying)": "return, print, state or report",
    r"chance(?! level)": "random",
    r"yardstick": "baseline",
    r"riddles?": "question",
}
_PARTS = {
    "picture": "image",
    "pictures": "images",
    "film": "video",
    "films": "videos",
    "sound": "audio",
    "sounds": "audio",
    "recording": "series",
    "recordings": "series",
    "told": "a noun",
    "asked": "query",
    "chance": "rng",
    "lookback": "summary",
    "yardstick": "baseline",
}


@dataclass(frozen=True, order=True)
class Violation:
    """A place that breaks a rule.

    Attributes:
        line: Line number.
        rule: Short name of the rule.
        reason: Explanation for the author.
    """

    line: int
    rule: str
    reason: str


def check(text: str) -> list[Violation]:
    """Return the violations in the source text of a module, in the order of their lines."""
    tree = ast.parse(text)
    found = [violation for node in ast.walk(tree) for violation in _docstring(node)]
    return sorted({*found, *_messages(tree), *_identifiers(tree)})


def _docstring(node: ast.AST) -> Iterator[Violation]:
    """Yield the violations in the docstring of a node, if it has one."""
    for value in _docstrings(node):
        lines = value.value.splitlines() or [""]
        for pattern, reason in _OPENINGS:
            if match := re.match(pattern, lines[0], re.IGNORECASE):
                yield Violation(value.lineno, "opening", f"'{match[0]} ...' {reason}")
        for number, line in enumerate(lines, value.lineno):
            for pattern, reason in _ANYWHERE:
                if re.search(pattern, line, re.IGNORECASE):
                    yield Violation(number, "description", reason)
            for better, word in _words(line):
                yield Violation(number, "word", f"'{word}'; write {better}")


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Yield the replacement of each discouraged word in a text, and the word. Code and quotations may have them."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"", "", text)
    for pattern, better in _WORDS.items():
        if match := re.search(rf"(?<![\w.:-])(?:{pattern})(?![\w-])", plain, re.IGNORECASE):
            yield better, match[0]


def _messages(tree: ast.Module) -> Iterator[Violation]:
    """Yield the violations in the messages of errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for part in ast.walk(node.exc):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    for better, word in _words(part.value):
                        yield Violation(part.lineno, "message", f"'{word}'; write {better}")


def _docstrings(node: ast.AST) -> Iterator[ast.Constant]:
    """Yield the docstrings in the body of a node: its own, and those below assignments."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for number, child in enumerate(node.body):
        if not isinstance(child, ast.Expr) or not isinstance(child.value, ast.Constant):
            continue
        follows_assignment = number and isinstance(
            node.body[number - 1], ast.Assign | ast.AnnAssign
        )
        if isinstance(child.value.value, str) and (number == 0 or follows_assignment):
            yield child.value


def _identifiers(tree: ast.Module) -> Iterator[Violation]:
    """Yield the violations in the names that a module defines."""
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
            if better := _PARTS.get(part.lower()):
                yield Violation(node.lineno, "identifier", f"'{name}'; use {better}")


def main(files: list[Path]) -> int:
    """Print the violations in files; return 1 if there are more than the budget allows."""
    counts: Counter[str] = Counter()
    for path in files:
        for violation in check(path.read_text()):
            counts[violation.rule] += 1
            place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            print(f"{place}:{violation.line}: {violation.rule}: {violation.reason}")
    total = counts.total()
    parts = ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items())) or "none"
    print(f"Prose: {total} violations ({parts}); the budget is {BUDGET}.")
    return int(total > BUDGET)


if __name__ == "__main__":
    given = [Path(name).resolve() for name in sys.argv[1:]]
    every = (path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))
    sys.exit(main(given or sorted(every)))
