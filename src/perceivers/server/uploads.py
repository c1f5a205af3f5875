"""From a request's form to a job. Of a file's name only its suffix is used, and only if it is an accepted one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from perceivers.data.base import nearest
from perceivers.data.registry import kind_of_bytes, kind_of_name, noun_of
from perceivers.server.decoding import Job, Upload
from perceivers.server.inputs import Input
from perceivers.server.limits import Limits
from perceivers.server.service import RefusedError

__all__ = ["Asked", "asked_of", "read_form"]

_FIELDS = 100  # of a form: no run has so many inputs that are written
_ALL = "file"  # the field of a run that reads one file


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for beside the sample.

    Attributes:
        job: The sample.
        read: Which read is drawn, from 0 on. None: all.
        latent: Which latent. None: the mean of all.
        head: Which head. None: the mean of all.
        top: How many of the best labels.
    """

    job: Job
    read: int | None = None
    latent: int | None = None
    head: int | None = None
    top: int = 5


async def read_form(request: Request, limits: Limits) -> list[tuple[str, str | bytes, str]]:
    """Return name, content and file name of each field of a form. Nothing touches the disk.

    Args:
        request: Whose body is bounded already.
        limits: What is accepted.

    Raises:
        RefusedError: If the body is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parser: Any = MultiPartParser(
            request.headers,
            request.stream(),
            max_files=_FIELDS,
            max_fields=_FIELDS,
            max_part_size=limits.bytes,
        )
        parser.spool_max_size = limits.bytes + 1  # kept in memory
    elif kind == "application/x-www-form-urlencoded":
        parser = FormParser(
            request.headers, request.stream(), max_fields=_FIELDS, max_part_size=limits.bytes
        )
    else:
        reason = (
            f"Expected a form (multipart/form-data) with a field for each input, got '{kind or 'nothing'}'. "
            "For example: curl -F file=@picture.jpg"
        )
        raise RefusedError(415, reason)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        reason = f"The form cannot be read: {error.message} It may have been cut off."
        raise RefusedError(400, reason) from error
    except (ValueError, UnicodeError, LookupError) as error:
        reason = f"The form cannot be read: {error or type(error).__name__}."
        raise RefusedError(400, reason) from error
    try:
        return [
            (name, value, "")
            if isinstance(value, str)
            else (name, await value.read(), value.filename or "")
            for name, value in form.multi_items()
        ]
    finally:
        # Also those of a form that was cut off, which are not among its items.
        for file in getattr(parser, "_files_to_close_on_error", ()):
            file.close()


def asked_of(
    fields: Sequence[tuple[str, str | bytes, str]],
    inputs: Sequence[Input],
    *,
    counts: Mapping[str, int] | None = None,
) -> Asked:
    """Return what a form asks for.

    Args:
        fields: Of `read_form`.
        inputs: What the run reads.
        counts: Of an explanation, how many reads, latents and heads there are.

    Raises:
        RefusedError: If a field is unknown or given twice, or a file is of another kind than the input.
    """
    known = {one.name: one for one in inputs}
    whole = {one.shared for one in inputs if one.shared}
    options = ["top", *(counts or {})]
    cells: dict[str, Upload | str] = {}
    chosen: dict[str, int | None] = {}
    for name, value, file in fields:
        if name in options and name not in known:
            chosen[name] = _number(name, value, None if name == "top" else (counts or {})[name])
            continue
        one = _input(name, known, whole)
        if one.name in cells:
            reason = f"The field '{name}' was given twice. Send one sample at a time."
            raise RefusedError(400, reason)
        cell = _cell(one, value, file)
        if cell is not None:
            cells[one.name] = cell
    if not cells:
        reason = f"Nothing was sent. Expected a field for {' or '.join(known)}."
        raise RefusedError(400, reason)
    top = chosen.pop("top", None)
    job = Job(_spread(cells, inputs), whole=counts is not None)
    return Asked(job, **chosen, top=5 if top is None else max(top, 1))


def _input(name: str, known: Mapping[str, Input], whole: set[str]) -> Input:
    """Return the input that a field is for.

    Raises:
        RefusedError: If there is none.
    """
    if name in known:
        return known[name]
    is_one = len(known) == 1 or all(one.shared for one in known.values())
    if is_one and (name == _ALL or name in whole):
        return next(iter(known.values()))
    told = ", ".join([*known, *whole])
    short = name if len(name) <= 40 else f"{name[:40]}..."
    reason = f"There is no input '{short}'.{nearest(short, known)} Expected a field for {told}."
    raise RefusedError(422, reason)


def _cell(one: Input, value: str | bytes, file: str) -> Upload | str | None:
    """Return what a field holds. None if it is an empty field of a page.

    Raises:
        RefusedError: If it is not what the input takes.
    """
    if isinstance(value, str):
        if not value.strip() and one.kind == "table":
            return None
        if not one.is_written:
            reason = f"Expected a file for '{one.name}' ({noun_of(one.kind)}), got a plain field."
            raise RefusedError(422, reason)
        return value
    if one.kind == "table":
        reason = f"Expected a plain field for '{one.name}', got a file."
        raise RefusedError(422, reason)
    if not value and not file:
        return None
    suffix = PurePosixPath(file.replace("\\", "/")).suffix.lower()
    found = kind_of_bytes(value[:32])
    if suffix not in one.accept:
        other = found or kind_of_name(f"x{suffix}" if suffix.isascii() else "")
        if other is not None and not _fits(other, one):
            words = noun_of(one.kind)
            reason = (
                f"Expected {words} for '{one.name}', got {noun_of(other)}. Accepted are files of "
                f"{', '.join(one.accept)}."
            )
            raise RefusedError(415, reason)
        suffix = ""
    return Upload(suffix, value)


def _fits(kind: str, one: Input) -> bool:
    """Tell whether an input takes files of a kind."""
    return any(kind_of_name(f"x{suffix}") == kind for suffix in one.accept)


def _spread(cells: Mapping[str, Upload | str], inputs: Sequence[Input]) -> dict[str, Upload | str]:
    """Return the cells, a film for all that is read of it unless it was given apart."""
    found = dict(cells)
    shared = [one for one in inputs if one.shared and one.name in cells]
    for one in inputs:
        if one.shared and shared and one.name not in cells and one.kind == "audio":
            film = next((other for other in shared if other.kind == "video"), None)
            if film is not None:
                found[one.name] = cells[film.name]
    return found


def _number(name: str, value: str | bytes, count: int | None) -> int | None:
    """Return a number, None for all or the mean.

    Raises:
        RefusedError: If it is neither, or there are not so many.
    """
    if value in ("all", "mean", ""):
        return None
    text = value if isinstance(value, str) else ""
    most = 1000 if count is None else count - 1
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= most):
        word = "all" if name == "read" else "mean"
        reason = f"Expected '{word}' or a number from 0 to {most} for '{name}', got '{text[:20]}'."
        raise RefusedError(422, reason)
    return int(text)
