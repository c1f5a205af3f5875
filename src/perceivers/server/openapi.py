"""OpenAPI description of a served run: parameters, bodies, answers and errors with examples, as JSON and as a page."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from perceivers.data.registry import noun_of
from perceivers.server.bodies import JSON_TYPE, TEXT_TYPE, raw_types
from perceivers.server.forms import FORM_TYPES, InputField, is_single
from perceivers.server.generation import EVENTS_TYPE
from perceivers.tasks.base import Task
from perceivers.tasks.prediction import ANSWER_VERSION, Schema

ERRORS = {
    "400": ("The body cannot be parsed.", "The form cannot be read: it may have been cut off."),
    "401": (
        "The token is missing or wrong.",
        "This server requires a token: send the header `Authorization: Bearer TOKEN`.",
    ),
    "403": (
        "A page of another origin sent the request.",
        "This server accepts forms of its own page only, and of programs.",
    ),
    "408": ("The body arrives too slowly.", "The body of the request arrives too slowly."),
    "413": (
        "A limit is exceeded.",
        "The request is larger than the limit of 67,108,864 bytes. Send a smaller file.",
    ),
    "415": (
        "A type of body or file that is not accepted.",
        "Expected an image for 'image', got audio. Accepted are files of .jpg, .png.",
    ),
    "421": (
        "The host name of the request is not a name of this server.",
        "This server accepts requests to its own names and addresses only.",
    ),
    "422": (
        "A field, a file or a value does not fit the run.",
        "There is no input 'img'. Expected a field for image.",
    ),
    "500": (
        "The process that decoded this file has died; other requests are not affected.",
        "The decoding process ended before it was done. It is restarted.",
    ),
    "503": (
        "The queue is full, or the server stops. `Retry-After` has the seconds to wait.",
        "The queue of 64 requests is full. Try again in a second.",
    ),
    "504": (
        "The request took longer than `--max-wait`.",
        "The request took longer than the limit. Send something smaller, or try again later.",
    ),
}
"""Description and example of each error."""

_MODEL_ERRORS = tuple(ERRORS)
_VIEW: Schema = {
    "type": "object",
    "description": "One input and its attention maps, as in perceivers.explain.render.explanation_json.",
    "properties": {
        "input": {"type": "string"},
        "media": {"type": "string"},
        "axes": {"type": "array", "items": {"type": "integer"}},
        "low": {"type": "number"},
        "high": {"type": "number"},
        "largest": {"type": "number"},
        "maps": {"type": "array", "items": {"type": "object"}},
        "share": {"type": "array", "items": {"type": "number"}},
        "even": {"type": "number"},
    },
    "required": ["input", "media", "axes", "low", "high", "maps", "share", "even"],
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """Facts of a run that its OpenAPI description depends on.

    Attributes:
        name: Name of the run.
        inputs: Fields of the inputs.
        task: The task.
        counts: Numbers of cross-attentions, latents and heads that an explanation can choose from.
        generation: Fields of requests to continue a sequence. Empty: the run does not generate.
        media_types: Media types of generated files, by their suffixes. Empty: texts are generated.
        has_token: Whether requests need a token.
    """

    name: str
    inputs: Sequence[InputField]
    task: Task
    counts: Mapping[str, int]
    generation: Mapping[str, Schema]
    media_types: Mapping[str, str]
    has_token: bool


def openapi(described: Description) -> dict[str, Any]:
    """Return the OpenAPI description, version 3.1."""
    security: dict[str, Any] = {"security": [{"token": []}]} if described.has_token else {}
    token = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"perceivers: {described.name}", "version": version("perceivers")},
        **security,
        "paths": {
            "/predict": {"post": _model_operation(described, explains=False)},
            "/explain": {"post": _model_operation(described, explains=True)},
            **({"/generate": {"post": _generation(described)}} if described.generation else {}),
            "/run": {"get": _get("Inputs, outputs and limits of the run.", _run(described))},
            "/health": {
                method: {**_health(described, has_body=method == "get"), "security": []}
                for method in ("get", "head")
            },
            "/metrics": {
                "get": _get(
                    "Metrics in Prometheus' text format.",
                    {
                        "text/plain": {
                            "schema": {"type": "string"},
                            "example": "perceivers_queue 0.0\n",
                        }
                    },
                )
            },
        },
        "components": {
            "schemas": {
                "Answer": _answer(described.task),
                "FailedSample": _failed_sample(),
                "Error": _object({"error": {"type": "string"}}),
            },
            **({"securitySchemes": {"token": token}} if described.has_token else {}),
        },
    }


def _model_operation(described: Description, *, explains: bool) -> dict[str, Any]:
    options = _options(described, explains=explains)
    about = (
        "Return the answer for one sample and the attention maps of each cross-attention."
        if explains
        else "Return the answers for one sample, or for several in one request."
    )
    names = dict.fromkeys(one.name for one in described.inputs)
    field = "file=@FILE" if is_single(described.inputs) else " -F ".join(f"{n}=..." for n in names)
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in options.items()
    ]
    if raw_types(described.inputs):
        text = "Name of the file, for a body that is a file."
        schema = {"type": "string", "description": text}
        parameters.append({"name": "name", "in": "query", "required": False, "schema": schema})
    done = {"description": "The answers.", "content": _success(described, explains=explains)}
    return {
        "summary": about,
        "description": f"For example: curl -F {field} ADDRESS/{'explain' if explains else 'predict'}",
        "parameters": parameters,
        "requestBody": {"required": True, "content": _bodies(described, options, one=explains)},
        "responses": {"200": done, **_errors(_MODEL_ERRORS)},
    }


_GENERATION_FACTS: dict[str, Schema] = {
    "tokens": {"type": "integer", "minimum": 1},
    "prompt_is_cut": {
        "type": "boolean",
        "description": "Whether only the end of the prompt was read, since it is longer than the context.",
    },
    "milliseconds": {"type": "number", "minimum": 0},
}
_GENERATION_END = {"tokens": 100, "prompt_is_cut": False, "milliseconds": 412.5}


def _generation(described: Description) -> dict[str, Any]:
    return _file_generation(described) if described.media_types else _text_generation(described)


def _file_generation(described: Description) -> dict[str, Any]:
    """Return the description of a route whose prompts and results are files."""
    one = described.inputs[0]
    about = (
        f"For example: curl -F prompt=@FILE -F length=200 -o generated.{next(iter(described.media_types))} "
        "ADDRESS/generate. Without a prompt, send the length alone. Headers of a file state the other facts of the "
        "answer: X-Tokens, X-Prompt-Is-Cut and X-Milliseconds."
    )
    form = {**described.generation, "prompt": one.schema()}
    example = {"length": 100, "temperature": 0.8}
    bodies = {
        FORM_TYPES[0]: {"schema": _object(form, required=())},
        JSON_TYPE: {"schema": _object(described.generation, required=()), "example": example},
    }
    facts = _object(_GENERATION_FACTS) | {"additionalProperties": True}
    content: dict[str, Any] = {
        kind: {"schema": {"type": "string", "format": "binary"}, "example": "(the file)"}
        for kind in described.media_types.values()
    }
    content[JSON_TYPE] = {"schema": facts, "example": _GENERATION_END}
    headers = {
        f"X-{name.replace('_', '-').title()}": {"schema": schema, "required": False}
        for name, schema in _GENERATION_FACTS.items()
    }
    done = {
        "description": "The prompt and its continuation.",
        "content": content,
        "headers": headers,
    }
    return {
        "summary": f"Return the continuation of {noun_of(one.kind)} as a file.",
        "description": about,
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": done, **_errors(_MODEL_ERRORS)},
    }


def _text_generation(described: Description) -> dict[str, Any]:
    text = "Return the continuation of a text, whole or as server-sent events."
    about = (
        """For example: curl --no-buffer --json '{"prompt": "Once", "stream": true}' ADDRESS/generate. Each event """
        "has an object as data: parts of the text have the key text; the last event is named end, with the other keys "
        "of the whole answer, or error, with the key error."
    )
    example = {"prompt": "Once upon a time", "length": 100, "temperature": 0.8}
    properties: dict[str, Schema] = {
        "text": {"type": "string", "description": "The continuation, without the prompt."},
        **_GENERATION_FACTS,
    }
    end = _GENERATION_END
    names = {"enum": ["message", "end", "error"]}
    event = _object({"event": names, "data": {"type": "string"}}, required=("data",))
    events = f'data: {{"text": " there"}}\n\nevent: end\ndata: {json.dumps(end)}\n\n'
    content = {
        JSON_TYPE: {"schema": _object(properties), "example": {"text": " there was", **end}},
        EVENTS_TYPE: {"schema": event, "example": events},
    }
    body = {"schema": _object(described.generation, required=()), "example": example}
    return {
        "summary": text,
        "description": about,
        "requestBody": {"required": True, "content": {JSON_TYPE: body}},
        "responses": {
            "200": {"description": "The continuation.", "content": content},
            **_errors([status for status in ERRORS if status != "500"]),
        },
    }


def _options(described: Description, *, explains: bool) -> dict[str, Schema]:
    """Return the schema of each option of a request, as a field of a body or a parameter of the address."""
    found: dict[str, Schema] = {
        "top": _index("Number of most probable labels to list; 5 if it is left out.", 1000)
    }
    if explains:
        found["read"] = _index("Index of the cross-attention.", described.counts["read"] - 1, "all")
        for name in ("latent", "head"):
            found[name] = _index(f"Index of the {name}.", described.counts[name] - 1, "mean")
    return found


def _index(description: str, most: int, word: str = "") -> Schema:
    text = f"{description} `{word}` is the same as none." if word else description
    return {"type": "integer", "minimum": 0, "maximum": most, "description": text}


def _bodies(described: Description, options: Mapping[str, Schema], *, one: bool) -> dict[str, Any]:
    """Return the accepted bodies by media type, each with its schema."""
    fields = {field.name: field.schema() for field in described.inputs}
    plain = {field.name: field for field in described.inputs if field.is_plain}
    form = _some_input(_object({**fields, **options}, required=()), list(fields))
    sample = _object({f.name: f.json_schema() for f in described.inputs}, required=())
    sample = _some_input(sample, list(fields))
    samples = {"type": "array", "items": sample, "minItems": 1}
    if one:
        samples["maxItems"] = 1
    body = _object({"samples": samples, **options}, required=("samples",))
    values = {f.name: f.example() for f in described.inputs}
    known = {name: value for name, value in values.items() if value is not None}
    example = {"example": {"samples": [known], "top": 3}} if known else {}
    found: dict[str, Any] = {FORM_TYPES[0]: {"schema": form}, JSON_TYPE: {"schema": body} | example}
    if len(plain) == len(fields):
        found[FORM_TYPES[1]] = {"schema": form}
    for kind in raw_types(described.inputs):
        text = kind == TEXT_TYPE
        found[kind] = {
            "schema": {"type": "string"} if text else {"type": "string", "format": "binary"}
        }
    return found


def _success(described: Description, *, explains: bool) -> dict[str, Any]:
    answer = {"$ref": "#/components/schemas/Answer"}
    failed = {"$ref": "#/components/schemas/FailedSample"}
    example = _answer_example(described.task)
    answers = {"type": "array", "items": answer if explains else {"anyOf": [answer, failed]}}
    properties: dict[str, Schema] = {
        "answers": {**answers, "minItems": 1},
        "milliseconds": {"type": "number", "minimum": 0},
    }
    whole: dict[str, Any] = {"answers": [example], "milliseconds": 8.1}
    if explains:
        number = {"type": "integer", "minimum": 0}
        properties |= {
            "reads": number,
            "latents": {"type": ["integer", "null"]},
            "heads": {"type": "array", "items": number},
            "missing": {"type": "array", "items": {"type": "string"}},
            "views": {"type": "array", "items": _VIEW},
        }
        heads = [described.counts["head"]] * described.counts["read"]
        whole |= {"reads": described.counts["read"], "latents": described.counts["latent"]}
        whole |= {"heads": heads, "missing": [], "views": []}
    return {JSON_TYPE: {"schema": _object(properties), "example": whole}}


def _answer(task: Task) -> Schema:
    schema = task.answer_schema()
    head = {"version": {"const": ANSWER_VERSION}, "name": {"type": "string"}}
    return {
        **schema,
        "description": "The answer for one sample, as `perceivers predict --format json` prints it.",
        "properties": {**head, **schema["properties"]},
        "required": ["version", "name", *schema["required"]],
        "examples": [_answer_example(task)],
    }


def _answer_example(task: Task) -> dict[str, Any]:
    return {"version": ANSWER_VERSION, "name": "sample", **task.answer_example()}


def _failed_sample() -> Schema:
    return {
        **_object(
            {
                "version": {"const": ANSWER_VERSION},
                "name": {"type": "string"},
                "error": {"type": "string"},
                "status": {"type": "integer"},
            }
        ),
        "description": "One of several samples that cannot be predicted, with the reason and its status.",
    }


def _run(described: Description) -> dict[str, Any]:
    objects = {"type": "array", "items": {"type": "object"}}
    number = {"type": ["integer", "null"]}
    schema = _object(
        {
            "name": {"type": "string"},
            "recipe": {"type": ["string", "null"]},
            "parameters": {"type": "integer"},
            "task": {"type": "string"},
            "inputs": objects,
            "outputs": objects,
            "generation": {"type": ["object", "null"]},
            "latents": number,
            "reads": number,
            "heads": {"type": "array", "items": {"type": "integer"}},
            "limits": {"type": "object"},
        }
    )
    inputs = [one.as_json() for one in described.inputs]
    counts = described.counts
    example = {"name": described.name, "recipe": None, "parameters": 100_000}
    example |= {"task": described.task.config.kind, "inputs": inputs, "outputs": []}
    example |= {"generation": dict(described.generation) or None}
    example |= {"latents": counts["latent"], "reads": counts["read"]}
    example |= {"heads": [counts["head"]] * counts["read"], "limits": {}}
    return {JSON_TYPE: {"schema": schema, "example": example}}


def _health(described: Description, *, has_body: bool) -> dict[str, Any]:
    names: dict[str, Schema] = {"status": {"type": "string"}}
    name = {} if described.has_token else {"run": described.name}
    if name:
        names["run"] = {"type": "string"}
    found: dict[str, Any] = {}
    for status, text, word in (
        ("200", "Requests are answered.", "ok"),
        ("503", "The server stops, or its model has ended.", "stopping"),
    ):
        content = {JSON_TYPE: {"schema": _object(names), "example": {"status": word, **name}}}
        found[status] = {"description": text, **({"content": content} if has_body else {})}
    refused = _errors(("421",)) if has_body else {"421": {"description": ERRORS["421"][0]}}
    return {"summary": "Status of the server.", "responses": {**found, **refused}}


def _get(summary: str, content: Mapping[str, Any]) -> dict[str, Any]:
    done = {"description": summary, "content": content}
    return {"summary": summary, "responses": {"200": done, **_errors(("401", "421"))}}


def _errors(statuses: Sequence[str]) -> dict[str, Any]:
    """Return the responses of these errors."""
    schema = {"$ref": "#/components/schemas/Error"}
    found: dict[str, Any] = {}
    for status in statuses:
        text, example = ERRORS[status]
        content = {JSON_TYPE: {"schema": schema, "example": {"error": example}}}
        found[status] = {"description": text, "content": content}
    if "503" in found:
        schema = {"type": "string"}
        found["503"]["headers"] = {"Retry-After": {"schema": schema, "required": False}}
    return found


def _some_input(schema: Schema, names: Sequence[str]) -> Schema:
    """Return the schema with at least one of the inputs required."""
    if len(names) == 1:
        return schema | {"required": list(names)}
    return schema | {"anyOf": [{"required": [name]} for name in names]}


def _object(
    properties: Mapping[str, Schema],
    *,
    required: Sequence[str] | None = None,
) -> Schema:
    """Return the schema of an object with these keys only, by default all required."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def docs_page(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI description as HTML without scripts and files of other hosts."""
    title = html.escape(document["info"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<link rel="stylesheet" href="static/shared/style.css">'
        f'<main class="docs"><h1>{title}</h1>'
        "<p>The same as data: <a href='openapi.json'>openapi.json</a></p>"
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation_html(method, path, operation)
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h2>{html.escape(name)}</h2><p>{_text(schema)}</p>{_properties(schema)}")
        parts += [_pre(example) for example in schema.get("examples", ())]
    return "".join([*parts, "</main></html>"])


def _operation_html(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
    yield f"<p>{html.escape(operation['summary'])}</p>"
    if "description" in operation:
        yield f"<p>{html.escape(operation['description'])}</p>"
    parameters = {one["name"]: one["schema"] for one in operation.get("parameters", ())}
    if parameters:
        yield f"<h3>Parameters of the address</h3>{_definitions(parameters)}"
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body of type <code>{html.escape(kind)}</code></h3>{_properties(body['schema'])}"
        yield _pre(body["example"]) if "example" in body else ""
    for status, reply in operation["responses"].items():
        yield f"<h3>{status}</h3><p>{html.escape(reply['description'])}</p>"
        for content in reply.get("content", {}).values():
            yield _pre(content["example"])


def _pre(example: Any) -> str:
    text = (
        example if isinstance(example, str) else json.dumps(example, ensure_ascii=False, indent=2)
    )
    return f"<pre>{html.escape(text)}</pre>"


def _properties(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if properties is None:
        return f"<p>{'A text.' if schema.get('format') is None else 'The file itself.'}</p>"
    return _definitions(properties)


def _definitions(described: Mapping[str, Any]) -> str:
    rows = [
        f"<dt><code>{html.escape(name)}</code></dt><dd>{_text(one)}</dd>"
        for name, one in described.items()
    ]
    return f"<dl>{''.join(rows)}</dl>"


def _text(schema: Mapping[str, Any]) -> str:
    """Return the description of a schema, or else its values or type."""
    if "description" in schema:
        return html.escape(schema["description"])
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    kind = schema.get("type", "")
    kinds = kind if isinstance(kind, list) else [kind]
    return html.escape(" or ".join(map(str, values or kinds)))
