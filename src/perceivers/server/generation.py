"""Generation over HTTP: fields of a request, and the continuation as a text, server-sent events or a file."""

import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Send

from perceivers.escaping import json_text
from perceivers.evaluation.generate import autoregressive_model, generate_text, generate_tokens
from perceivers.evaluation.generation_formats import GenerationFormat, generation_format
from perceivers.evaluation.predict import Predictor
from perceivers.models.generate import GenerationConfig
from perceivers.server.batching import ModelGoneError
from perceivers.server.bodies import (
    JSON_TYPE,
    check_number_of_values,
    json_value,
    parse_object,
    whole_body,
)
from perceivers.server.decoding import Job
from perceivers.server.forms import FORM_TYPES, InputField, cell_of, read_form
from perceivers.server.settings import UploadLimits
from perceivers.tasks.prediction import NonFiniteOutputError, Schema

EVENTS_TYPE = "text/event-stream"
_SLICE_SECONDS = 0.05  # of the model's thread, until other requests have their turn
_DEFAULT_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A sequence to continue.

    Attributes:
        prompt: Beginning of a text; of another sequence a file to decode, its decoded value, or None.
        length: Tokens to generate.
        stream: Whether the response is a stream of events.
        format: Form of the response where it is a file: a key of `GenerationFormat.media_types`, or `json`.
        config: Temperature, selection of tokens, seed and number of latents.
    """

    prompt: Any
    length: int
    stream: bool = False
    format: str = ""
    config: GenerationConfig


def served_format(predictor: Predictor) -> GenerationFormat | None:
    """Return the form of prompts and results of a run whose sequences a server continues. None: it does not."""
    if getattr(predictor.config.task, "vocabulary", None) is None:
        return None
    try:
        form = generation_format(predictor)
    except ValueError:  # a vocabulary of another package, without a form
        return None
    return form if form.is_printable or form.media_types else None


def generation_fields(
    form: GenerationFormat, limits: UploadLimits, prompt: InputField
) -> dict[str, Schema]:
    """Return the JSON schema of each field of a request.

    Args:
        form: Form of prompts and results.
        limits: Upper bounds.
        prompt: Input of the run that a prompt is read as.
    """
    predictor = form.predictor
    most, longest = autoregressive_model(predictor).config.num_latents, limits.tokens
    number, whole, maybe = {"type": "number"}, {"type": "integer"}, {"type": ["integer", "null"]}
    if form.is_printable:
        begun: Schema = {"type": "string", "default": ""}
        texts: dict[str, tuple[Schema, str]] = {
            "prompt": (begun, "Beginning of the text. Empty: a new text.")
        }
    else:
        begun = prompt.json_schema()
        text = f"{begun['description']} Left out or null: there is no prompt."
        choices = [*begun["anyOf"], {"type": "null"}]
        texts = {"prompt": ({"anyOf": choices, "default": None}, text)}
    texts |= {
        "length": (
            whole | {"default": min(_DEFAULT_LENGTH, longest), "minimum": 1, "maximum": longest},
            "Tokens to generate.",
        ),
        "temperature": (
            number | {"default": 0.8, "minimum": 0},
            "Divisor of the logits. 0: always the most probable token.",
        ),
        "top_p": (
            number | {"default": 1.0, "minimum": 0, "maximum": 1},
            "Only the most probable tokens whose probabilities add up to this share are drawn.",
        ),
        "top_k": (
            maybe | {"default": None, "minimum": 1},
            "Only so many of the most probable tokens are drawn.",
        ),
        "seed": (
            whole | {"default": 0, "minimum": 0, "maximum": 2**63 - 1},
            "Seed of the random numbers.",
        ),
        "num_latents": (
            maybe | {"default": None, "minimum": 1, "maximum": most},
            "Largest number of latents.",
        ),
    }
    if form.is_printable:
        texts["stream"] = (
            {"type": "boolean", "default": False},
            "Whether the text comes as server-sent events, as it is generated.",
        )
    else:
        names = [*form.media_types, "json"]
        schema: Schema = {"type": "string", "enum": names, "default": names[0]}
        texts["format"] = (schema, f"Form of the result: {' or '.join(names)}.")
    return {name: {**schema, "description": text} for name, (schema, text) in texts.items()}


async def read_generation(
    request: Request, fields: Mapping[str, Schema], limits: UploadLimits, file: InputField | None
) -> GenerationRequest:
    """Return the checked body of a request.

    Args:
        request: The request.
        fields: Schemas of its fields.
        limits: Upper bounds.
        file: Input that a file as prompt is read as; the body may then be a form. None: prompts are texts.

    Raises:
        HTTPException: If the body has another type, or a field is unknown, of another type or out of range.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if file is not None and kind in FORM_TYPES[:1]:
        found = await _form_fields(request, fields, limits, file)
    elif kind == JSON_TYPE:
        body = await whole_body(request)
        check_number_of_values(body, limits)
        found = parse_object(body, tuple(fields))
        if file is not None and found.get("prompt") is not None:
            found["prompt"] = _job(file, *json_value(file, found["prompt"], "'prompt'"))
    else:
        example = """curl --json '{"prompt": "Once"}'""" if file is None else "curl -F length=200"
        known = JSON_TYPE if file is None else f"{FORM_TYPES[0]} or {JSON_TYPE}"
        raise HTTPException(
            415, f"Expected a body of type {known}, got '{kind[:60] or 'nothing'}': {example}."
        )
    values = {name: one["default"] for name, one in fields.items()}
    prompt = found.pop("prompt", values.pop("prompt"))
    values |= {name: _checked(name, value, fields[name]) for name, value in found.items()}
    if file is None:
        _check_text(_checked("prompt", prompt, fields["prompt"]), limits)
    rest = {name: values.pop(name) for name in ("length", "stream", "format") if name in values}
    return GenerationRequest(prompt=prompt, **rest, config=GenerationConfig(**values))


async def _form_fields(
    request: Request, fields: Mapping[str, Schema], limits: UploadLimits, file: InputField
) -> dict[str, Any]:
    """Return the values of a form's fields. Raise HTTPException if one is unknown or given twice."""
    found: dict[str, Any] = {}
    for name, value, file_name in await read_form(request, [file], limits):
        name = "prompt" if name in ("file", file.name) else name  # noqa: PLW2901
        if name not in fields:
            raise HTTPException(422, f"Expected the fields {', '.join(fields)}; got '{name[:40]}'.")
        if name in found:
            raise HTTPException(400, f"The field '{name}' was given twice. Leave out one of them.")
        if name == "prompt":
            found[name] = _job(file, value, file_name)
        else:
            found[name] = _plain(value, fields[name])
    return found


def _job(file: InputField, value: str | bytes, name: str) -> Job | None:
    """Return a file to decode as a prompt. None: a page sent the field empty."""
    cell = cell_of(file, value, name) if value or name else None
    return None if cell is None else Job({file.name: cell}, is_prompt=True)


def _plain(value: str | bytes, field: Schema) -> Any:
    """Return the number in a field of a form, as JSON writes it; a text, or no number, unchanged."""
    if field["type"] == "string" or isinstance(value, bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _check_text(prompt: str, limits: UploadLimits) -> None:
    """Raise HTTPException if a prompt is no Unicode, or too long."""
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise HTTPException(422, f"Expected a prompt of valid Unicode: {error}.") from error
    if size > limits.characters:
        raise HTTPException(
            413, f"The prompt has {size:,} bytes; at most {limits.characters:,} are accepted."
        )


def _checked(name: str, value: Any, field: Schema) -> Any:
    """Return a value of the type and in the range of its field. Raise HTTPException if it is not."""
    kinds = [field["type"]] if isinstance(field["type"], str) else field["type"]
    if value is None and "null" in kinds:
        return None
    kind = kinds[0]
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    known: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}
    fits = isinstance(value, known[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if fits and "enum" in field and value not in field["enum"]:
        names = ", ".join(field["enum"])
        raise HTTPException(422, f"Expected '{name}' as one of {names}, got '{str(value)[:40]}'.")
    low, high = field.get("minimum", -math.inf), field.get("maximum", math.inf)
    if fits and kind in ("integer", "number"):
        number = cast("float", value)
        fits = low <= number <= high and number < math.inf
    if not fits:
        bounds = f" from {low} to {high}" if high < math.inf else f" of at least {low}"
        words = f"{kind}{bounds}" if low > -math.inf else kind
        raise HTTPException(
            422, f"Expected '{name}' as {words}, got {json.dumps(value, default=str)[:60]}."
        )
    return value


class GeneratedText:
    """Continuation of a prompt, a part at a time. Made and used in the model's thread."""

    def __init__(self, predictor: Predictor, request: GenerationRequest) -> None:
        self._parts = generate_text(
            predictor, request.prompt, length=request.length, config=request.config
        )

    def part(self) -> str | None:
        """Return the characters of the next short time; None at the end."""
        until, found = time.monotonic() + _SLICE_SECONDS, ""
        for characters in self._parts:
            found += characters
            if time.monotonic() >= until:
                break
        return found or None


class GeneratedFile:
    """Continuation of a prompt as the content of a file or as plain data. Made and used in the model's thread."""

    def __init__(self, form: GenerationFormat, request: GenerationRequest) -> None:
        self._form, self._request = form, request
        self._begun, self._found = form.tokens(request.prompt), list[int]()
        rows: Iterable[list[int]] = generate_tokens(
            form.predictor, [self._begun], length=request.length, config=request.config
        )
        self._rows, self._is_done = iter(rows), False

    def part(self) -> Any:
        """Return b"" after the tokens of the next short time, and at last the result; None after that."""
        until = time.monotonic() + _SLICE_SECONDS
        for row in self._rows:
            self._found.append(row[0])
            if time.monotonic() >= until:
                return b""
        if self._is_done:
            return None
        self._is_done = True
        if self._request.format == "json":
            return self._form.as_json(self._begun, self._found)
        return self._form.file(self._begun, self._found, self._request.format)


class EventStream(StreamingResponse):
    """Server-sent events, whose source is closed as soon as the client has gone.

    Args:
        events: Events as text.
    """

    media_type = EVENTS_TYPE

    def __init__(self, events: AsyncGenerator[str]) -> None:
        self._events = events
        super().__init__(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        async with aclosing(self._events):
            await super().stream_response(send)


async def events_of(
    parts: AsyncGenerator[str], end: Callable[[], Mapping[str, Any]]
) -> AsyncGenerator[str]:
    """Return events: one for each part of a text, then `end`, or `error` if the rest cannot be computed.

    Raises what the first part raises, so that such an error has its status.
    """
    first = await anext(parts)

    async def events() -> AsyncGenerator[str]:
        async with aclosing(parts):
            yield _event({"text": first})
            try:
                async for part in parts:
                    yield _event({"text": part})
            except (ModelGoneError, TimeoutError, NonFiniteOutputError) as error:
                reason = str(error) or "The next part of the text took longer than the limit."
                yield _event({"error": reason}, "error")
            else:
                yield _event(end(), "end")

    return events()


def _event(content: Mapping[str, Any], name: str = "") -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json_text(content)}\n\n"
