"""Registries of configuration classes: a saved file names registered kinds, never code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import reduce, wraps
from operator import or_
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import CoreSchema, core_schema

from perceivers.plugins import load_plugins

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def configclass(cls: type[Class]) -> type[Class]:
    """Make a class a frozen, keyword-only dataclass that pydantic validates and that refuses unknown fields."""
    made = dataclass(frozen=True, kw_only=True)(_with_explained_checks(cls))
    made.__pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _with_explained_checks(cls: type[Class]) -> type[Class]:
    """Let `__post_init__` name the field of a wrong type, instead of the operation that fails on it."""
    check: Callable[[Any], None] | None = cls.__dict__.get("__post_init__")
    if check is None:
        return cls

    @wraps(check)
    def explained(self: Any) -> None:
        try:
            check(self)
        except TypeError as error:
            if (message := wrong_field(self)) is None:
                raise
            raise TypeError(message) from error

    cls.__post_init__ = explained  # pyright: ignore[reportAttributeAccessIssue]
    return cls


def wrong_field(config: Any) -> str | None:
    """Return a sentence on the first field of a dataclass whose value is of another type; None if all fit."""
    hints = get_type_hints(type(config), include_extras=True)
    names = [one.name for one in fields(config)]
    for is_strict in (
        False,
        True,
    ):  # strictly, "4" is no number: secondary to values that cannot be converted
        for name in names:
            if not _fits(getattr(config, name), hints[name], is_strict=is_strict):
                hint = hints[name]
                text = hint.__name__ if isinstance(hint, type) else hint
                title, value = type(config).__name__, getattr(config, name)
                return f"{title}: expected {name} of type {text}, got {value!r}."
    return None


def _fits(value: Any, hint: Any, *, is_strict: bool) -> bool:
    try:
        TypeAdapter[Any](hint).validate_python(value, strict=is_strict)
    except ValidationError:
        return False
    except PydanticSchemaGenerationError:
        return True
    return True


class ConfigRegistry:
    """Configuration dataclasses by their `kind`, each with the function that builds an object from it.

    As metadata of a type, it lets pydantic resolve a mapping by its `kind`. Kinds may be registered before and after
    such a type is used:

        INPUTS = ConfigRegistry("input adapter")
        InputConfig = Annotated[Any, INPUTS]

    Args:
        title: Name of the registered things in error messages.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._entries: dict[str, tuple[type, Callable[..., Any]]] = {}
        self._adapter: TypeAdapter[Any] | None = None

    def register(self, config_class: type, build: Callable[..., Any]) -> None:
        """Add a configuration class.

        Args:
            config_class: A frozen dataclass with a field `kind: Literal["name"] = "name"`.
            build: Called with a configuration (and what `build` of this registry is given beside it).

        Raises:
            TypeError: If the class has no default for `kind`.
            ValueError: If another class is registered under this kind.
        """
        kind = getattr(config_class, "kind", None)
        if not isinstance(kind, str):
            raise TypeError(
                f'{config_class.__name__} needs a field kind: Literal["name"] = "name".'
            )
        known = self._entries.get(kind)
        if known is not None and known[0].__qualname__ != config_class.__qualname__:
            raise ValueError(
                f"The {self.title} kind '{kind}' is already registered, by {known[0].__qualname__}."
            )
        self._entries[kind] = config_class, build
        self._adapter = None

    def __iter__(self) -> Iterator[type]:
        """Iterate over the registered classes, in the order of registration."""
        load_plugins()
        return (config_class for config_class, _ in self._entries.values())

    def __contains__(self, kind: str) -> bool:
        """Return whether a kind is registered."""
        load_plugins()
        return kind in self._entries

    def builder(self, kind: str) -> Callable[..., Any]:
        """Return the function that builds an object of this kind.

        Raises:
            ValueError: If the kind is not registered. The message names those that are.
        """
        if kind not in self:
            raise ValueError(
                f"No {self.title} of kind '{kind}' is registered. Registered are: {', '.join(self._entries)}. Import "
                "the package that defines it first."
            )
        return self._entries[kind][1]

    def build(self, config: Any, *args: Any) -> Any:
        """Return the object of a configuration. Raises what `builder` raises.

        Raises:
            TypeError: If a field of the configuration has a value of another type. The message names it.
        """
        builder = self.builder(config.kind)
        try:
            return builder(config, *args)
        except (TypeError, AttributeError) as error:
            if (message := wrong_field(config)) is None:
                raise
            raise TypeError(message) from error

    def validate(self, value: Any) -> Any:
        """Return a configuration from a mapping with `kind`, or a configuration as it is.

        Raises:
            pydantic.ValidationError: If the kind is not registered or a field does not fit.
        """
        return self._union().validate_python(value)

    def dump(self, config: Any, info: Any) -> Any:
        """Return a configuration as plain data."""
        mode: Any = info.mode
        return self._union().dump_python(config, mode=mode)

    def _union(self) -> Any:
        """Return the `TypeAdapter` of the union of all registered classes, in which `kind` discriminates."""
        if self._adapter is None:
            classes = tuple(self)
            union: Any = reduce(or_, classes)
            if len(classes) > 1:
                union = Annotated[union, Field(discriminator="kind")]  # pyright: ignore[reportInvalidTypeForm]
            self._adapter = TypeAdapter(union)
        return self._adapter

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic validate and dump through this registry."""
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                self.dump, info_arg=True
            ),
        )
