"""Registry of input adapters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from perceivers.inputs.elements import InputAdapter
from perceivers.registry import ConfigRegistry

INPUTS = ConfigRegistry("input adapter")
InputConfig = Annotated[Any, INPUTS]


@dataclass(frozen=True)
class _Entry:
    preprocess: str | None
    default: Callable[[int], Any] | None
    raw: Callable[[], Any] | None
    joins_columns: bool


_ENTRIES: dict[str, _Entry] = {}


def register_input(
    config_class: type,
    build: Callable[[Any], InputAdapter],
    *,
    preprocess: str | None = None,
    default: Callable[[int], Any] | None = None,
    raw: Callable[[], Any] | None = None,
    joins_columns: bool = False,
) -> None:
    """Register an input adapter.

    Args:
        config_class: Its configuration, a frozen dataclass with a `kind`.
        build: Returns the adapter, a module, for a configuration.
        preprocess: The `kind` of the `PreprocessConfig` whose arrays it takes. None: it is not preprocessed.
        default: Returns the configuration for a user's own data by the width of a stem's last layer, and makes this
            the adapter of such data.
        raw: Returns the configuration whose elements are the smallest parts of the data, without a stem, for encoders
            with positions of their own. None: another adapter is the raw one.
        joins_columns: Whether several columns of its modality are joined if it is the only input of a model.

    Raises:
        ValueError: If another class is registered under this kind.
    """
    INPUTS.register(config_class, build)
    _ENTRIES[str(getattr(config_class, "kind", ""))] = _Entry(
        preprocess, default, raw, joins_columns
    )


def build_input(config: Any) -> InputAdapter:
    """Return the adapter for an `InputConfig`: a module, with parameters or without.

    Raises:
        ValueError: If its kind is not registered, or sizes are not known yet.
    """
    return INPUTS.build(config)


def preprocess_of(kind: str) -> str | None:
    """Return the kind of preprocessing whose arrays an adapter takes. None: it is not preprocessed.

    Raises:
        ValueError: If no adapter of this kind is registered.
    """
    INPUTS.builder(kind)
    return _ENTRIES[kind].preprocess


def joins_columns(kind: str) -> bool:
    """Return whether several columns of its modality are joined for an adapter that is the only input of a model.

    Raises:
        ValueError: If no adapter of this kind is registered.
    """
    INPUTS.builder(kind)
    return _ENTRIES[kind].joins_columns


def default_input(preprocess: str, stem_channels: int) -> Any:
    """Return the `InputConfig` for a user's own data.

    Args:
        preprocess: The kind of preprocessing.
        stem_channels: Width of a stem's last layer.

    Raises:
        ValueError: If no adapter is registered as the default of this kind.
    """
    found = (one.default for one in _ENTRIES.values() if one.preprocess == preprocess)
    default = next((one for one in found if one is not None), None)
    if default is None:
        known = ", ".join(str(one.preprocess) for one in _ENTRIES.values() if one.default)
        raise ValueError(
            f"No input adapter is the default for data preprocessed as '{preprocess}'; those with a default are: "
            f"{known}. State `inputs` in a recipe, or pass default= to register_input."
        )
    return default(stem_channels)


def raw_input(preprocess: str, stem_channels: int) -> Any:
    """Return the `InputConfig` whose elements are the smallest parts of a user's own data, or else the default.

    Arguments and errors as for `default_input`.
    """
    for one in _ENTRIES.values():
        if one.preprocess == preprocess and one.raw is not None:
            return one.raw()
    return default_input(preprocess, stem_channels)
