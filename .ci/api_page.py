"""Generate the API page from the public names in `perceivers/__init__.pyi` when the documentation is built.

MkDocs calls `on_page_markdown` (`hooks` in mkdocs.yml). The comments of the file are the sections of the page.
"""

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import perceivers

__all__ = ["api_entries", "on_page_markdown", "public_names", "signature_block"]


def public_names() -> dict[str, dict[str, str]]:
    """Return, for each section, the public names with the objects that they refer to."""
    text = Path(perceivers.__file__).with_suffix(".pyi").read_text()
    starts = {i: line[1:].strip() for i, line in enumerate(text.splitlines()) if line[:1] == "#"}
    sections: dict[str, dict[str, str]] = {title: {} for title in starts.values()}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom):
            title = starts[max(line for line in starts if line < node.lineno)]
            for alias in node.names:
                found = getattr(perceivers, alias.name)
                path = f"{found.__module__}.{getattr(found, '__qualname__', alias.name)}"
                sections[title][alias.name] = path
    return sections


def api_entries() -> str:
    """Return the Markdown of the API page: a heading and a mkdocstrings directive for each public name."""
    parts: list[str] = []
    for title, names in public_names().items():
        parts.append(f"## {title}")
        functions_first = sorted(names, key=lambda name: (name[0].isupper(), name))
        parts += [
            f"### pv.{name}\n\n{signature_block(name)}::: {names[name]}" for name in functions_first
        ]
    return "\n\n".join(parts) + "\n"


def signature_block(name: str) -> str:
    """Return the call of a public function or class as a code block; types are in the table of parameters."""
    found = getattr(perceivers, name)
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # a constant, or a type alias
        return ""
    if not inspect.isfunction(found) and not inspect.isclass(found):
        return ""
    parameters = [_plain(one) for one in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    call = textwrap.fill(f"pv.{name}{text}", 88, subsequent_indent=" " * 4, break_on_hyphens=False)
    return f"```python\n{call}\n```\n\n"


class _Name(str):
    """Text that is shown without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    if default is not inspect.Parameter.empty and hasattr(default, "__name__"):
        default = _Name(default.__name__)
    elif type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        default = _Name("...")
    return parameter.replace(annotation=inspect.Parameter.empty, default=default)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Append the entries to docs/api.md."""
    return f"{markdown}\n{api_entries()}" if page.file.src_uri == "api.md" else markdown
