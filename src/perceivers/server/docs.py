"""The page that lists what a server answers, made of its OpenAPI description: no script, nothing from elsewhere."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from perceivers.server.inputs import Input

__all__ = ["docs_page", "schema_of"]


def schema_of(inputs: Sequence[Input], counts: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what OpenAPI says of a form with the inputs of a run.

    Args:
        inputs: What the run reads.
        counts: Of an explanation, how many reads, latents and heads there are.
    """
    fields: dict[str, Any] = {}
    for one in inputs:
        if one.kind == "table":
            fields[one.name] = {"type": "number"} if one.number else {"type": "string"}
            if one.choices:
                fields[one.name]["enum"] = list(one.choices)
        else:
            words = f"A file of {', '.join(one.accept)}" + (
                ", or a text." if one.is_written else "."
            )
            fields[one.name] = {"type": "string", "format": "binary", "description": words}
    for name, count in (counts or {}).items():
        others = "all" if name == "read" else "mean"
        words = f"`{others}` (as if it were left out), or a number from 0 to {count - 1}."
        fields[name] = {"type": "string", "description": words}
    content = {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}
    reasons = {
        "400": "The form cannot be read.",
        "413": "Larger than a limit.",
        "415": "Another kind of file.",
        "422": "The file cannot be read.",
        "503": "No room for another request: try again after the seconds that Retry-After says.",
        "504": "It took too long.",
    }
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {status: {"description": words} for status, words in reasons.items()},
    }


def docs_page(schema: Mapping[str, Any]) -> str:
    """Return a page of HTML that lists the operations of an OpenAPI description.

    Args:
        schema: The description.
    """
    parts: list[str] = []
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(told.get('description', ''))}</p>")
            parts += _form(told.get("requestBody", {}))
            parts += _answers(told.get("responses", {}))
    title = html.escape(schema["info"]["title"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{title}</title></head><body>'
        f"<h1>{title}</h1><p>The same as data: <a href='openapi.json'>openapi.json</a></p>"
        f"{''.join(parts)}</body></html>"
    )


def _form(body: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for kind, content in body.get("content", {}).items():
        fields = content["schema"].get("properties", {})
        rows.append(f"<p>A form, <code>{html.escape(kind)}</code>:</p><dl>")
        for name, told in fields.items():
            words = told.get("description") or " or ".join(told.get("enum", [told["type"]]))
            rows.append(f"<dt><code>{html.escape(name)}</code></dt><dd>{html.escape(words)}</dd>")
        rows.append("</dl>")
    return rows


def _answers(responses: Mapping[str, Any]) -> list[str]:
    rows = [
        f"<dt>{html.escape(status)}</dt><dd>{html.escape(told['description'])}</dd>"
        for status, told in responses.items()
    ]
    return ["<p>Answers:</p><dl>", *rows, "</dl>"] if rows else []
