"""Generation over HTTP: fields of a request, and the continuation as one answer or as server-sent events."""

import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Send

from perceivers.escaping import json_text
from perceivers.evaluation.generate import autoregressive_model, generate_text
from perceivers.evaluation.predict import Predictor
from perceivers.models.generate import GenerationConfig
from perceivers.server.batching import ModelGoneError
from perceivers.server.bodies import JSON_TYPE, check_number_of_values, parse_object, whole_body
from perceivers.server.settings import UploadLimits
from perceivers.tasks.prediction import NonFiniteOutputError, Schema

EVENTS_TYPE = "text/event-stream"
_SLICE_SECONDS = 0.05  # of the model's thread, until other requests have their turn
_DEFAULT_LENGTH = 256


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A text to continue.

    Attributes:
        prompt: Beginning of the text.
        length: Tokens to generate.
        stream: Whether the response is a stream of events.
        config: Temperature, selection of tokens, seed and number of latents.
    """

    prompt: str
    length: int
    stream: bool
    config: GenerationConfig


def generation_fields(predictor: Predictor, limits: UploadLimits) -> dict[str, Schema]:
    """Return the JSON schema of each field of a request."""
    most, longest = autoregressive_model(predictor).config.num_latents, limits.tokens
    number, whole, maybe = {"type": "number"}, {"type": "integer"}, {"type": ["integer", "null"]}
    texts: dict[str, tuple[Schema, str]] = {
        "prompt": ({"type": "string", "default": ""}, "Beginning of the text. Empty: a new text."),
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
        "stream": (
            {"type": "boolean", "default": False},
            "Whether the text comes as server-sent events, as it is generated.",
        ),
    }
    return {name: {**schema, "description": text} for name, (schema, text) in texts.items()}


async def read_generation(
    request: Request, fields: Mapping[str, Schema], limits: UploadLimits
) -> GenerationRequest:
    """Return the checked body of a request.

    Raises:
        HTTPException: If the body is no JSON object, or a field is unknown, of another type or out of range.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        example = """curl --json '{"prompt": "Once"}'"""
        raise HTTPException(
            415, f"Expected a body of type {JSON_TYPE}, got '{kind[:60] or 'nothing'}': {example}."
        )
    body = await whole_body(request)
    check_number_of_values(body, limits)
    found = parse_object(body, tuple(fields))
    values = {name: one["default"] for name, one in fields.items()}
    values |= {name: _checked(name, value, fields[name]) for name, value in found.items()}
    prompt, length, stream = (values.pop(name) for name in ("prompt", "length", "stream"))
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError as error:
        raise HTTPException(422, f"Expected a prompt of valid Unicode: {error}.") from error
    if size > limits.characters:
        raise HTTPException(
            413, f"The prompt has {size:,} bytes; at most {limits.characters:,} are accepted."
        )
    return GenerationRequest(
        prompt=prompt, length=length, stream=stream, config=GenerationConfig(**values)
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
