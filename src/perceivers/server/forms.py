"""The form of a request: its fields, its parsing, and checks of the kinds of uploaded files.

Of a file's name only the suffix is used, and only if it is an accepted one.
"""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from perceivers.data.base import nearest
from perceivers.data.registry import get_modality, kind_of_bytes, kind_of_name, noun_of, suffixes_of
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.numbers import LARGEST_NUMBER
from perceivers.server.decoding import Job, Upload
from perceivers.server.settings import UploadLimits

FormField = tuple[str, str | bytes, str]
"""Name, content and file name ("" of a plain field)."""

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")

_MOST_FIELDS = 100  # beside the inputs of several samples
_CHARSETS = {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1"}
_BYTES_OF_CHARACTER = 4  # of a byte of UTF-8 in an address, and some for names
_ONLY_FILE = "file"  # also names the only input
_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMBER_SCHEMA: dict[str, Any] = {
    "type": "number",
    "minimum": -LARGEST_NUMBER,
    "maximum": LARGEST_NUMBER,
}
_LONGEST_NAME = 300  # as of the texts that name a sample in `perceivers predict`


@dataclass(frozen=True, kw_only=True)
class InputField:
    """A field of the form that holds an input of the model.

    Attributes:
        name: The modality, or its column where it has several.
        kind: Kind of the modality.
        accept: Accepted suffixes of files. Empty: a plain field only.
        number: Whether the field holds a number.
        choices: Names of the categories, of a category.
        shared: Column that holds this input and others, such as a video with its audio track; else "".
    """

    name: str
    kind: str
    accept: tuple[str, ...] = ()
    number: bool = False
    choices: tuple[str, ...] = ()
    shared: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether a plain field is accepted instead of a file."""
        return self.kind in {"text", "table"}

    def as_json(self) -> dict[str, Any]:
        """Return the field as JSON."""
        found: dict[str, Any] = {"name": self.name, "kind": self.kind, "accept": [*self.accept]}
        if self.kind == "table":
            found |= {"number": self.number, "choices": [*self.choices]}
        return found | ({"file": self.shared} if self.shared else {})

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the field in a form, for OpenAPI."""
        if self.kind == "table":
            return _NUMBER_SCHEMA if self.number else _TEXT_SCHEMA | self._choices
        text = f"A file of {', '.join(self.accept)}"
        if self.is_plain:
            return {**_TEXT_SCHEMA, "description": f"{text}, or a text."}
        return {"type": "string", "format": "binary", "description": f"{text}."}

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON schema of the value in a JSON body, for OpenAPI."""
        if self.kind == "table":
            schema = self.schema()  # categories may be numbers
            return schema if self.number else {**schema, "type": ["string", "number"]}
        if self.is_plain:
            return {**_TEXT_SCHEMA, "description": "A text."}
        data: dict[str, Any] = {"type": "string", "format": "byte"}
        file: dict[str, Any] = {
            "type": "object",
            "properties": {"data": data, "name": {"type": "string"}},
            "required": ["data"],
            "additionalProperties": False,
        }
        text = f"A file of {', '.join(self.accept)} in base64, also as a data address."
        return {"anyOf": [data, file], "description": text}

    def example(self) -> Any:
        """Return an example of the value in a JSON body. None: there is none."""
        if self.kind == "table":
            return 41.5 if self.number else (self.choices or ("a",))[0]
        if self.is_plain:
            return "A text."
        kinds = (self.kind, *get_modality(self.kind).accepts)
        file = next((data for kind in kinds if (data := get_modality(kind).example_file)), b"")
        return base64.b64encode(file).decode() or None

    @property
    def _choices(self) -> dict[str, Any]:
        """Description of the categories. Others are accepted as unknown."""
        return {"description": f"One of {', '.join(self.choices)}."} if self.choices else {}


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A parsed request for a prediction or an explanation of one sample.

    Attributes:
        job: Files and plain values to decode.
        name: Names of the files, or the text, as `perceivers predict` names the sample. "": it has none.
        read: Index of the explained cross-attention. None: all.
        latent: Index of the explained latent. None: the mean.
        head: Index of the explained head. None: the mean.
        top: Number of best labels.
    """

    job: Job
    name: str = ""
    read: int | None = None
    latent: int | None = None
    head: int | None = None
    top: int = 5


def input_fields(
    columns: Mapping[str, InputColumn], preprocess: Mapping[str, Any]
) -> list[InputField]:
    """Return the form's fields for the inputs of a run."""
    found: list[InputField] = []
    single = [part.column for part in columns.values() if not part.columns]
    for name, part in columns.items():
        config = preprocess[name]
        kinds = (part.kind, *get_modality(part.kind).accepts)
        accept = tuple(suffix for kind in kinds for suffix in suffixes_of(kind))
        if typed := config.form_fields():
            found += [
                InputField(name=one, kind=part.kind, number=choices is None, choices=choices or ())
                for one, choices in typed.items()
            ]
        elif part.columns and part.kind != "series":
            found += [InputField(name=one, kind=part.kind, accept=accept) for one in part.columns]
        else:
            shared = part.column if single.count(part.column) > 1 else ""
            found.append(InputField(name=name, kind=part.kind, accept=accept, shared=shared))
    return found


def is_single(inputs: Sequence[InputField]) -> bool:
    """Return whether a file alone is a sample: the model has one input, or a video with its audio."""
    return len(inputs) == 1 or all(one.shared for one in inputs)


async def read_form(
    request: Request, inputs: Sequence[InputField], limits: UploadLimits
) -> list[FormField]:
    """Return the fields of a request's form, without temporary files. Raise HTTPException if the body is none."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    most = _MOST_FIELDS + limits.samples * len(inputs)
    bounds: dict[str, Any] = {"max_fields": most, "max_part_size": limits.bytes}
    if kind.strip().lower() == FORM_TYPES[0]:
        _check_charset(parameters)
        parser: Any = MultiPartParser(request.headers, request.stream(), max_files=most, **bounds)
        parser.spool_max_size = limits.bytes + 1  # keeps files in memory
    else:
        # It holds texts and numbers only, whose bytes are decoded one by one.
        size = _BYTES_OF_CHARACTER * limits.characters
        parser = FormParser(request.headers, _bounded(request.stream(), size), **bounds)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        reason = f"The form cannot be read: {error.message} It may have been cut off."
        raise HTTPException(400, reason) from error
    except (ValueError, UnicodeError, LookupError) as error:
        reason = f"The form cannot be read: {error or type(error).__name__}."
        raise HTTPException(400, reason) from error
    try:
        return [
            (name, value, "")
            if isinstance(value, str)
            else (name, await value.read(), value.filename or "")
            for name, value in form.multi_items()
        ]
    finally:
        # Includes the files of a form that was cut off, which are not among its items.
        for file in getattr(parser, "_files_to_close_on_error", ()):
            file.close()


def _check_charset(parameters: str) -> None:
    """Raise HTTPException for a form in another encoding than UTF-8: decoding some takes very long."""
    charset = parse_options_header(f"form;{parameters}")[1].get(b"charset", b"utf-8")
    if charset.decode("latin-1").lower() not in _CHARSETS:
        reason = f"Expected a form in UTF-8, got the charset '{charset[:40].decode('latin-1')}'."
        raise HTTPException(415, reason)


async def _bounded(stream: AsyncGenerator[bytes, None], most: int) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body. Raise HTTPException if they are larger together."""
    size = 0
    async for piece in stream:
        size += len(piece)
        if size > most:
            reason = f"A form of this type is larger than {most:,} bytes. Send multipart/form-data."
            raise HTTPException(413, reason)
        yield piece


def parse_form(
    fields: Sequence[FormField],
    inputs: Sequence[InputField],
    *,
    counts: Mapping[str, int] | None = None,
) -> SampleRequest:
    """Return the request that a form makes. For an explanation, `counts` limits reads, latents and heads.

    Raises:
        HTTPException: If a field is unknown or given twice, or a file is of another kind than the input.
    """
    known = {one.name: one for one in inputs}
    columns = {one.shared for one in inputs if one.shared}
    options = ["top", *(counts or {})]
    cells: dict[str, Upload | str] = {}
    files: dict[str, str] = {}
    chosen: dict[str, int | None] = {}
    for name, value, file in fields:
        if name in options and name not in known:
            chosen[name] = _index(name, value, None if name == "top" else (counts or {})[name])
            continue
        one = _input_of(name, known, columns)
        if one.name in cells:
            reason = f"The field '{name}' was given twice. Send one sample at a time."
            raise HTTPException(400, reason)
        cell = cell_of(one, value, file)
        if cell is not None:
            cells[one.name], files[one.name] = cell, file
    if not cells:
        reason = f"The form is empty. Expected a field for {' or '.join(known)}."
        raise HTTPException(400, reason)
    for video in [
        one for one in inputs if one.shared and one.kind == "video" and one.name in cells
    ]:
        for audio in [one for one in inputs if one.shared and one.kind == "audio"]:
            cells.setdefault(audio.name, cells[video.name])
    top = chosen.pop("top", None)
    job = Job(cells, explained=counts is not None)
    top = 5 if top is None else max(top, 1)
    return SampleRequest(job, _name_of(cells, files, inputs), **chosen, top=top)


def _name_of(
    cells: Mapping[str, Upload | str], files: Mapping[str, str], inputs: Sequence[InputField]
) -> str:
    """Return the name of a sample, as `perceivers predict` forms it: its files in the run's order, or its texts."""
    given = [files[one.name] for one in inputs if files.get(one.name)]
    if given:
        return " + ".join(dict.fromkeys(given))[:_LONGEST_NAME]
    kinds = {one.name: one.kind for one in inputs}
    texts = [
        cell for name, cell in cells.items() if isinstance(cell, str) and kinds[name] == "text"
    ]
    name = " | ".join(texts)
    return name if len(name) < _LONGEST_NAME else ""


def _input_of(name: str, known: Mapping[str, InputField], columns: set[str]) -> InputField:
    """Return the input that a field name stands for."""
    if name in known:
        return known[name]
    if is_single([*known.values()]) and (name == _ONLY_FILE or name in columns):
        return next(iter(known.values()))
    short = name if len(name) <= 40 else f"{name[:40]}..."
    expected = ", ".join([*known, *columns])
    reason = f"There is no input '{short}'.{nearest(short, known)} Expected a field for {expected}."
    raise HTTPException(422, reason)


def cell_of(one: InputField, value: str | bytes, file: str) -> Upload | str | None:
    """Return the content of a field, or None if a page sent it empty."""
    if isinstance(value, str):
        if one.number and not value.strip():
            return None
        if one.number:
            _check_number(one.name, value)
        if one.kind == "table" and not value:
            reason = f"Expected a category for '{one.name}', got an empty field. Leave it out."
            raise HTTPException(422, reason)
        if not one.is_plain:
            reason = f"Expected a file for '{one.name}' ({noun_of(one.kind)}), got a plain field."
            raise HTTPException(422, reason)
        return value
    if one.kind == "table":
        reason = f"Expected a plain field for '{one.name}', got a file."
        raise HTTPException(422, reason)
    if not value and not file:
        return None
    suffix = PurePosixPath(file.replace("\\", "/")).suffix.lower()
    if suffix in one.accept:
        return Upload(suffix, value)
    found = kind_of_bytes(value[:32]) or kind_of_name(f"x{suffix}" if suffix.isascii() else "")
    if found is not None and found not in {kind_of_name(f"x{other}") for other in one.accept}:
        reason = (
            f"Expected {noun_of(one.kind)} for '{one.name}', got {noun_of(found)}. "
            f"Accepted are files of {', '.join(one.accept)}."
        )
        raise HTTPException(415, reason)
    return Upload("", value)


def _check_number(name: str, text: str) -> None:
    """Raise HTTPException unless a text is a number that a table may hold."""
    try:
        fits = abs(float(text)) <= LARGEST_NUMBER  # False for NaN
    except ValueError:
        fits = False
    if not fits:
        reason = f"Expected a number from -{LARGEST_NUMBER:g} to {LARGEST_NUMBER:g} for '{name}', got '{text[:40]}'."
        raise HTTPException(422, reason)


def _index(name: str, value: str | bytes, count: int | None) -> int | None:
    """Return a number below `count`; None for `all` or `mean`."""
    if value in ("all", "mean") and name != "top":
        return None
    text = value if isinstance(value, str) else ""
    most = 1000 if count is None else count - 1
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= most):
        word = {"read": "'all' or ", "top": ""}.get(name, "'mean' or ")
        reason = f"Expected {word}a number from 0 to {most} for '{name}', got '{text[:20]}'."
        raise HTTPException(422, reason)
    return int(text)
