"""Settings of `perceivers serve` from environment variables: PERCEIVERS_SERVE_PORT for --port, and so on.

The command reads these before it imports torch: keep this module light.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from perceivers.server.access import TOKEN_VARIABLE
from perceivers.server.settings import ServerSettings

PREFIX = "PERCEIVERS_SERVE_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class VariableError(ValueError):
    """An environment variable whose value does not fit its setting."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """An environment variable.

    Attributes:
        name: Its name.
        flag: The flag of the command for the same setting.
        path: Names of the fields that lead to the setting.
        parse: Function that returns the value of a text. Raises ValueError, with the expected form.
        default: Default of the setting.
    """

    name: str
    flag: str
    path: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any


def variables() -> dict[str, Variable]:
    """Return the variable of each setting by name. The token has its own, `PERCEIVERS_TOKEN`."""
    return {one.name: one for one in _variables(ServerSettings, ()) if one.flag != "--token"}


def settings_from(environ: Mapping[str, str]) -> tuple[ServerSettings, list[str]]:
    """Return the settings with the values of the environment, and its variables that name no setting.

    Without `PERCEIVERS_SERVE_RUN` the run is `tyro.MISSING`.

    Raises:
        VariableError: If a value does not fit.
    """
    known = variables()
    settings = ServerSettings(run="")
    unknown: list[str] = []
    for name, text in environ.items():
        if not name.startswith(PREFIX):
            continue
        if name not in known:
            unknown.append(name)
            continue
        one = known[name]
        try:
            settings = _with(settings, one.path, one.parse(text.strip()))
        except ValueError as error:
            raise VariableError(f"{name}: {error} Unset it, or give {one.flag}.") from error
    if not settings.run:
        object.__setattr__(settings, "run", tyro.MISSING)  # required of the command line; no str
    return settings, sorted(unknown)


def unknown_text(names: list[str]) -> str:
    """Return a sentence on variables that name no setting."""
    hint = f" The token is {TOKEN_VARIABLE}." if f"{PREFIX}TOKEN" in names else ""
    return f"Ignored {', '.join(names)}: there is no such setting.{hint} --help lists all."


def _variables(settings: type, path: tuple[str, ...]) -> Iterator[Variable]:
    hints = get_type_hints(settings, include_extras=True)
    plain = get_type_hints(settings)
    for one in fields(settings):
        kind = plain[one.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _variables(kind, (*path, one.name))
            continue
        marks = getattr(hints[one.name], "__metadata__", ())
        names = [mark.name for mark in marks if getattr(mark, "name", None)]
        flag = (names or [one.name.replace("_", "-")])[0]
        name = PREFIX + flag.replace("-", "_").upper()
        shown = "RUN" if one.name == "run" else f"--{flag}"
        yield Variable(
            name=name,
            flag=shown,
            path=(*path, one.name),
            parse=_parser(kind),
            default=one.default,
        )


def _parser(kind: Any) -> Callable[[str], Any]:
    """Return the function that parses a value of a type."""
    if get_origin(kind) is tuple:
        return lambda text: tuple(text.replace(",", " ").split())
    if get_origin(kind) is Literal:
        return lambda text: _choice(text, get_args(kind))
    if kind is bool:
        return lambda text: _choice(text.lower(), (*_TRUE, *_FALSE)) in _TRUE
    if kind in (int, float):
        return lambda text: _number(text, kind)
    return str


def _choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}, got '{text}'.")
    return text


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise ValueError(f"expected {word}, got '{text}'.") from None


def _with(settings: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return settings with another value of a field, which may lie in a part."""
    name, *rest = path
    inner = value if not rest else _with(getattr(settings, name), tuple(rest), value)
    return replace(settings, **{name: inner})
