"""Registry of modalities: what the rest of the package looks up by the name of a modality.

`perceivers.data.modalities` registers those of this package when `perceivers.data` is imported. Another package adds
one with `register_modality`; it then works in `fit`, `predict`, `explain`, `export` and `serve`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from perceivers.plugins import load_plugins
from perceivers.registry import ConfigRegistry

PREPROCESS = ConfigRegistry("preprocessing")
"""`PreprocessConfig` classes; each builds the `Modality` that decodes, transforms and collates."""

AUGMENT = ConfigRegistry("augmentation")
"""`AugmentConfig` classes."""

PreprocessConfig = Annotated[Any, PREPROCESS]
AugmentConfig = Annotated[Any, AUGMENT]

# What columns hold that are no modality by themselves.
_PLAIN = {"string": "short strings", "other": "something unknown"}


@runtime_checkable
class OwnDataSize(Protocol):
    """Sizes on which the defaults for a user's own data depend: `recipes.common.Size`."""

    @property
    def stem_channels(self) -> int:
        """Width of a stem's last layer."""
        ...

    @property
    def largest_image(self) -> int:
        """Longest side of images and frames in pixels, where the data decide their size."""
        ...


@dataclass(frozen=True)
class UploadSize:
    """Size of an upload, read from its header before anything is decoded.

    Attributes:
        count: The size.
        unit: Unit of the count, for messages ("pixels").
        limit: The field of `server.settings.UploadLimits` that bounds it.
    """

    count: float
    unit: str
    limit: str


@dataclass(frozen=True)
class ColumnKind:
    """A kind of column that `--columns NAME:KIND` may name.

    Attributes:
        noun: Content of such columns, for messages: "frames".
        stored_as: Other kinds of columns that may be read as this one where the user states so ("array"). Columns of
            strings and of unknown content may always be.
    """

    noun: str
    stored_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """One way to preprocess a modality.

    Attributes:
        config: `PreprocessConfig` class, derived from `data.modalities.base.BasePreprocessConfig`.
        modality: `Modality` class: called with a configuration and an augmentation (or None).
        default: Defaults for a user's own data: size -> (preprocess, augment). None: not offered.
    """

    config: type
    modality: Callable[[Any, Any], Any]
    default: Callable[[OwnDataSize], tuple[Any, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class ModalitySpec:
    """A modality, for `register_modality`.

    Attributes:
        name: Name of the modality, of its column kind and of its input by default: "points".
        noun: Content of such columns, for messages: "points".
        preprocessing: Ways to preprocess it; the first is the default.
        augment: `AugmentConfig` class. None: no augmentation.
        suffixes: Suffixes of its files, without a dot.
        magic: Whether encoded bytes begin like a file of this modality.
        column_kinds: Kinds in `--columns NAME:KIND` that become (a part of) this modality. None: its name, if it
            has suffixes.
        array_names: Names of columns of two-axis arrays that hold this modality.
        array_channels: Fewest and most entries of the second axis of these.
        is_media: Whether its files in a folder are data: a text or a table beside other files mostly describes them.
        recipe: The recipe for data of this modality alone.
        fine_encoder: Whether small details decide over the class, so that the encoder for a user's own data gets four
            narrow cross-attention heads (docs/log.md).
        mixup: `blend` adds two samples, `share` takes elements of both. None: mixup is not possible.
        accepts: Modalities whose files can hold this one, too: a video has audio.
        upload_sizes: Sizes of an upload by its header, each held to a limit.
        describe: Returns the `data.modalities.base.Comparable` of a decoded value, for checks of the data. None: the
            array that the model reads is compared.
        example_file: A small file, for examples of requests to a server. Empty: none.
    """

    name: str
    noun: str
    preprocessing: tuple[Preprocessing, ...]
    augment: type | None = None
    suffixes: tuple[str, ...] = ()
    magic: Callable[[bytes], bool] | None = None
    column_kinds: Mapping[str, ColumnKind] | None = None
    array_names: tuple[str, ...] = ()
    array_channels: tuple[int, int] = (1, 1 << 20)
    is_media: bool = True
    recipe: str = "multimodal"
    fine_encoder: bool = True
    mixup: Literal["blend", "share"] | None = None
    accepts: tuple[str, ...] = ()
    upload_sizes: Callable[[Any], Iterable[UploadSize]] | None = None
    describe: Callable[[Any], Any] | None = None
    example_file: bytes = b""

    @property
    def is_chunked(self) -> bool:
        """Whether samples of the default preprocessing can be cut into chunks, so that a single file is enough data."""
        return self.preprocessing[0].config().chunking() is not None

    def holds_array(self, column: str, shape: tuple[int, ...]) -> bool:
        """Return whether a column of arrays holds this modality, by its name and the shape of a row."""
        low, high = self.array_channels
        return column.lower() in self.array_names and len(shape) == 2 and low <= shape[1] <= high


_MODALITIES: dict[str, ModalitySpec] = {}


def register_modality(spec: ModalitySpec) -> None:
    """Register a modality with its preprocessing and augmentation.

    Raises:
        ValueError: If another modality has this name, a suffix of it, or a kind of its configurations.
    """
    for other in _MODALITIES.values():  # without the plugins: one of them may be calling
        shared = sorted({*spec.suffixes} & {*other.suffixes})
        if shared and other.name != spec.name:
            raise ValueError(
                f"Files '.{shared[0]}' are already registered as {other.name}, not as {spec.name}."
            )
    for one in spec.preprocessing:
        PREPROCESS.register(one.config, one.modality)
    if spec.augment is not None:
        AUGMENT.register(spec.augment, spec.augment)
    _MODALITIES[spec.name] = spec
    for lookup in (_suffix_table, column_kinds, media_kinds):
        lookup.cache_clear()


def list_modalities() -> tuple[ModalitySpec, ...]:
    """Return all registered modalities, in the order of registration."""
    load_plugins()
    return tuple(_MODALITIES.values())


def get_modality(name: str) -> ModalitySpec:
    """Return the modality called `name`.

    Raises:
        ValueError: If none is. The message names those that are registered.
    """
    load_plugins()
    if name not in _MODALITIES:
        raise ValueError(
            f"No modality '{name}' is registered. Registered are: {', '.join(_MODALITIES)}."
        )
    return _MODALITIES[name]


def find_modality(config: Any) -> ModalitySpec:
    """Return the modality of a `PreprocessConfig` or `AugmentConfig`.

    Raises:
        ValueError: If its class is not registered.
    """
    for spec in list_modalities():
        if any(isinstance(config, one.config) for one in spec.preprocessing):
            return spec
    for spec in list_modalities():
        if spec.augment is not None and isinstance(config, spec.augment):
            return spec
    raise ValueError(f"No modality with a configuration of kind '{config.kind}' is registered.")


def find_defaults(kind: str) -> Callable[[OwnDataSize], tuple[Any, Any]]:
    """Return the defaults for a user's own data: size -> (preprocess, augment).

    Args:
        kind: A modality, or a kind of preprocessing (`wave`).

    Raises:
        ValueError: If the kind is not registered or has no defaults.
    """
    ways = [one for spec in list_modalities() for one in spec.preprocessing]
    named = [one for one in ways if getattr(one.config, "kind", None) == kind]
    found = get_modality(kind).preprocessing if kind in _MODALITIES or not named else named
    if found[0].default is None:
        raise ValueError(f"'{kind}' has no defaults for a user's own data: write a recipe for it.")
    return found[0].default


@cache
def media_kinds() -> tuple[str, ...]:
    """Return the modalities that a single file can hold."""
    return tuple(spec.name for spec in list_modalities() if spec.suffixes)


@cache
def column_kinds() -> dict[str, ColumnKind]:
    """Return the kinds that `--columns NAME:KIND` may name."""
    found: dict[str, ColumnKind] = {}
    for spec in list_modalities():
        plain = {spec.name: ColumnKind(spec.noun)} if spec.suffixes else {}
        found |= plain if spec.column_kinds is None else spec.column_kinds
    return found


def can_read_as(stored: str, kind: str) -> bool:
    """Return whether a column that holds `stored` may be read as `kind` where the user states so."""
    if stored in {kind, "other"} or (stored == "string" and kind != "number"):
        return True
    return stored in column_kinds()[kind].stored_as


def noun_of(kind: str) -> str:
    """Return the content of columns of a kind, for messages: "images"."""
    if kind in column_kinds():
        return column_kinds()[kind].noun
    return _MODALITIES[kind].noun if kind in _MODALITIES else _PLAIN.get(kind, kind)


def suffixes_of(name: str) -> tuple[str, ...]:
    """Return the suffixes of a modality's files, with their dots."""
    spec = _MODALITIES.get(name)
    return tuple(f".{suffix}" for suffix in spec.suffixes) if spec else ()


def kind_of_name(name: str) -> str | None:
    """Return the modality of a file by its suffix: `image`, `audio`, ... or None."""
    return _suffix_table().get(PurePath(name).suffix.lower())


def kind_of_bytes(data: bytes) -> str | None:
    """Return the modality of encoded bytes by their first ones, or None."""
    found = (spec.name for spec in list_modalities() if spec.magic and spec.magic(data))
    return next(found, None)


def is_media(name: str) -> bool:
    """Return whether a file is of a modality whose files are data by themselves, by its suffix."""
    kind = kind_of_name(name)
    return kind is not None and _MODALITIES[kind].is_media


@cache
def _suffix_table() -> dict[str, str]:
    return {f".{one}": spec.name for spec in list_modalities() for one in spec.suffixes}
