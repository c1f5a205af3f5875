"""Bodies of requests as samples: forms, JSON and single files.

Every body becomes one or more samples, each a list of form fields, so that all kinds have the same checks.
"""

import asyncio
import base64
import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request

from perceivers.server.forms import (
    FORM_TYPES,
    FormField,
    InputField,
    SampleRequest,
    is_single,
    parse_form,
    read_form,
)
from perceivers.server.settings import UploadLimits

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
TEXT_TYPE = "text/plain"


async def read_samples(
    request: Request,
    inputs: Sequence[InputField],
    limits: UploadLimits,
    *,
    counts: Mapping[str, int] | None = None,
) -> list[SampleRequest]:
    """Return the samples of a request, at least one. For an explanation, `counts` limits reads, latents and heads.

    Options such as `top` are fields of the body, or parameters of the address.

    Raises:
        HTTPException: If the body cannot be read, or does not fit the inputs or the limits.
    """
    options = ("top", *(counts or {}))
    query = [(name, value, "") for name, value in request.query_params.items() if name in options]
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORM_TYPES:
        samples = split_samples(await read_form(request, inputs, limits), options)
    elif kind == JSON_TYPE:
        body = await whole_body(request)
        check_number_of_values(body, limits)
        samples = await asyncio.to_thread(json_samples, body, inputs, options)
    elif kind in raw_types(inputs):
        name = request.query_params.get("name", "")
        samples = [[("file", *_raw_file(await whole_body(request), kind, name, inputs[0]))]]
    else:
        _refuse_type(kind, inputs)
    if len(samples) > limits.samples:
        reason = (
            f"The request holds {len(samples):,} samples; at most {limits.samples} are accepted."
        )
        raise HTTPException(413, f"{reason} Send them in several requests.")
    # The last of an option counts: that of the body.
    found = [parse_form([*query, *fields], inputs, counts=counts) for fields in samples]
    return [
        one if one.name else replace(one, name=f"item {number}") for number, one in enumerate(found)
    ]


def raw_types(inputs: Sequence[InputField]) -> dict[str, str]:
    """Return the media types of a body that is a single file, each with its suffix. Empty: such a body is not accepted.

    The model needs one file: it has one input, or a video with its audio.
    """
    if not is_single(inputs) or not inputs[0].accept:
        return {}
    found = {BINARY_TYPE: ""}
    for suffix in inputs[0].accept:
        kind = mimetypes.types_map.get(suffix)
        if kind is not None and kind not in {*FORM_TYPES, JSON_TYPE}:
            found.setdefault(kind, suffix)
    if inputs[0].kind == "text":
        found[TEXT_TYPE] = ""
    return found


async def whole_body(request: Request) -> bytes:
    """Return the body of a request."""
    return b"".join([chunk async for chunk in request.stream()])


def _raw_file(data: bytes, kind: str, name: str, one: InputField) -> tuple[str | bytes, str]:
    """Return content and file name of a body. Without a name, its type determines the suffix."""
    if not data:
        raise HTTPException(
            400, "The body is empty. Send a file, for example: curl --data-binary @image.jpg"
        )
    if one.kind == "text":
        try:
            return data.decode(), name
        except UnicodeDecodeError as error:
            raise HTTPException(422, f"Expected a text in UTF-8; {error}.") from error
    return data, name or _name_for(kind, one)


def _name_for(kind: str, one: InputField) -> str:
    """Return a file name for a media type, "" where the content must determine the format."""
    suffix = raw_types([one]).get(kind, "")
    return one.name + suffix if suffix else ""


def _refuse_type(kind: str, inputs: Sequence[InputField]) -> NoReturn:
    known = [*FORM_TYPES[:1], JSON_TYPE, *list(raw_types(inputs))[:3]]
    reason = (
        f"Expected a body of type {' or '.join(known)}, got '{kind[:60] or 'nothing'}'. "
        "For example: curl -F file=@image.jpg. /docs has all forms of a request."
    )
    raise HTTPException(415, reason)


def split_samples(fields: Sequence[FormField], options: Sequence[str]) -> list[list[FormField]]:
    """Return the fields of each sample of a form: the n-th of several fields of a name belongs to the n-th sample.

    Raises:
        HTTPException: If the inputs are not given equally often, or an option is given twice.
    """
    by_name: dict[str, list[FormField]] = {}
    for one in fields:
        by_name.setdefault(one[0], []).append(one)
    shared = {name: several for name, several in by_name.items() if name in options}
    given = {name: several for name, several in by_name.items() if name not in options}
    for name, several in shared.items():
        if len(several) > 1:
            raise HTTPException(400, f"The field '{name}' was given twice. Leave out one of them.")
    counts = {len(several) for several in given.values()} or {1}
    if len(counts) > 1:
        listed = ", ".join(f"'{name[:40]}' {len(several)}" for name, several in given.items())
        raise HTTPException(
            400,
            "Expected every input equally often, once for each sample; got fields in these numbers: "
            f"{listed}.",
        )
    common = [one for several in shared.values() for one in several]
    return [
        [*common, *(several[number] for several in given.values())]
        for number in range(counts.pop())
    ]


def check_number_of_values(body: bytes, limits: UploadLimits) -> None:
    """Raise HTTPException if a JSON body has so many values that parsing it would take seconds and gigabytes."""
    count = sum(body.count(mark) for mark in (b"[", b"{", b",", b":"))
    if count > limits.characters:
        reason = (
            f"The JSON body has {count:,} commas, colons and brackets; at most {limits.characters:,} are accepted. "
            "Send long texts as multipart/form-data."
        )
        raise HTTPException(413, reason)


def json_samples(
    body: bytes, inputs: Sequence[InputField], options: Sequence[str]
) -> list[list[FormField]]:
    """Return the fields of each sample of a JSON body: `{"samples": [{"image": "<base64>"}], "top": 3}`.

    Raises:
        HTTPException: If it is no JSON, or has other keys or values.
    """
    whole = parse_object(body, ("samples", *options))
    samples = whole.get("samples")
    if not isinstance(samples, list) or not samples:
        raise HTTPException(
            422, f"Expected samples to be a list of one or more samples, got {_noun(samples)}."
        )
    shared = [(name, _option(name, value), "") for name, value in whole.items() if name in options]
    known = {one.name: one for one in inputs}
    return [
        [*shared, *_json_fields(sample, number, known)]
        for number, sample in enumerate(cast("list[Any]", samples))
    ]


def parse_object(body: bytes, known: Sequence[str]) -> dict[str, Any]:
    """Return the object of a JSON body.

    Args:
        body: The body.
        known: Accepted keys.

    Raises:
        HTTPException: If it is no JSON object, or has other keys.
    """
    try:
        found: Any = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise HTTPException(422, f"Expected a JSON object with {known[0]}, got {_noun(found)}.")
    whole = cast("dict[str, Any]", found)
    unknown = [name for name in whole if name not in known]
    if unknown:
        raise HTTPException(422, f"Expected the keys {', '.join(known)}; got '{unknown[0][:40]}'.")
    return whole


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _option(name: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise HTTPException(422, f"Expected a number for '{name}', got {_noun(value)}.")
    return str(value)


def _json_fields(sample: Any, number: int, known: Mapping[str, InputField]) -> list[FormField]:
    if not isinstance(sample, dict):
        raise HTTPException(
            422,
            f"Expected sample {number} as an object with a value for each input, got {_noun(sample)}.",
        )
    fields: list[FormField] = []
    for name, value in cast("dict[str, Any]", sample).items():
        one = known.get(name)
        if one is None:  # refused with the names of the inputs, or the only input
            single = is_single(list(known.values()))
            one = next(iter(known.values())) if single else InputField(name=name, kind="text")
        fields.append((name, *json_value(one, value, f"'{name[:40]}' of sample {number}")))
    return fields


def json_value(one: InputField, value: Any, where: str) -> tuple[str | bytes, str]:
    """Return content and file name of a value: a text, category or number, or a file in base64."""
    if one.kind == "table":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (not one.number and isinstance(value, str) and value):
            return str(value), ""
        word = "a number" if one.number else "a category"
        raise HTTPException(422, f"Expected {word} for {where}, got {_noun(value)}.")
    if one.is_plain:
        if isinstance(value, str):
            return value, ""
        raise HTTPException(422, f"Expected a text for {where}, got {_noun(value)}.")
    if isinstance(value, str):
        return _from_base64(value, where, one)
    if isinstance(value, dict):
        file = cast("dict[str, Any]", value)
        data, name = file.get("data"), file.get("name", "")
        if isinstance(data, str) and isinstance(name, str) and set(file) <= {"data", "name"}:
            content, typed = _from_base64(data, where, one)
            return content, name or typed
    raise HTTPException(
        422,
        f"Expected a file in base64 for {where}, as a string or as an object with `data` and `name`; got "
        f"{_noun(value)}.",
    )


def _from_base64(text: str, where: str, one: InputField) -> tuple[bytes, str]:
    """Return the content of a string in base64 or of a data address, and a file name for its type."""
    head, comma, rest = text.partition(",")
    name = ""
    if comma and head.startswith("data:"):
        text, kind = rest, head.removeprefix("data:").partition(";")[0].lower()
        name = _name_for(kind, one)
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise HTTPException(422, f"Expected base64 for {where}; {error}.") from error
    if not data:
        raise HTTPException(422, f"Expected a file for {where}, got an empty one.")
    return data, name


def _noun(value: Any) -> str:
    """Return a word for the type of a JSON value."""
    words = {
        type(None): "nothing",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return words.get(type(value), "something else") + (" without elements" if value == [] else "")
