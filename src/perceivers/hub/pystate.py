"""Arrays of JAX and Haiku checkpoints (`.pystate`), which are pickles, read without running code from them.

Nothing that a pickle names is imported. The few names that arrays and dictionaries need are replaced by classes that
only keep what they are given, and any other name is refused.

Reference: `google-deepmind/dm-haiku`, `data_structures.py`, for the names by which its mappings are pickled.
"""

import math
import pickle
from collections.abc import Generator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

SUFFIXES = (".pystate", ".pickle", ".pkl")

# Names of the same function in NumPy 1 and 2.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")

# Kinds of numbers with their bytes; no objects, strings or dates.
_TYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
# A pickle can repeat a mapping without end.
_MOST_DEPTH, _MOST_ARRAYS = 4, 100_000

NumberArray = npt.NDArray[Any]


def is_pystate(path: Path) -> bool:
    """Return whether a path is an existing file with the suffix of a pickled checkpoint."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_pystate(path: str | Path) -> dict[str, NumberArray]:
    """Return the arrays of a pickled checkpoint by module path and name, such as `embed/embeddings`.

    The content is a nested mapping of arrays, or a mapping with these under `params` and `state`.

    Args:
        path: The file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no pickle, is truncated, or holds something else than mappings and arrays of numbers.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            content = _Unpickler(file).load()
        except _Refused as error:
            raise ValueError(
                f"{path} was refused: it names {error}, and loading anything but arrays could run code. Expected a "
                "checkpoint of dictionaries of arrays, as DeepMind's release of Perceiver IO has them."
            ) from error
        except Exception as error:  # damaged pickles raise errors of any kind
            raise ValueError(
                f"{path} cannot be read as a pickled checkpoint ({error or type(error).__name__}): it is truncated or "
                "another kind of file. Copy it again from where it came from."
            ) from error
    root = content if isinstance(content, Mapping) else {"": content}
    parts = [root[name] for name in ("params", "state") if name in root] or [root]
    leaves = (leaf for part in cast("list[Any]", parts) for leaf in _leaves(part, (), path))
    found = list(islice(leaves, _MOST_ARRAYS + 1))
    if len(found) > _MOST_ARRAYS:
        raise ValueError(f"{path} was refused: it holds more than {_MOST_ARRAYS:,} arrays.")
    return dict(found)


def _leaves(part: Any, names: tuple[str, ...], path: Path) -> Generator[tuple[str, NumberArray]]:
    """Yield the arrays of nested mappings with their names joined by `/`.

    Raises:
        ValueError: If something else is there.
    """
    if isinstance(part, Mapping) and len(names) < _MOST_DEPTH:
        for key, value in cast("Mapping[Any, Any]", part).items():
            yield from _leaves(value, (*names, str(key)), path)
        return
    try:
        array = _array(part)
    except (TypeError, ValueError) as error:
        place = "/".join(names) or "its content"
        raise ValueError(
            f"{path} was refused: {place} is no array of numbers ({error}). Expected dictionaries of arrays, as "
            "DeepMind's release of Perceiver IO has them."
        ) from error
    yield "/".join(names), array


def _array(value: Any) -> NumberArray:
    """Return the array of a leaf.

    Raises:
        TypeError: If it is none.
        ValueError: If its bytes do not fit its shape or type.
    """
    if isinstance(value, bool | int | float):
        return np.asarray(value)
    numbers: Any = getattr(value, "numbers", None)
    if numbers is None:
        raise TypeError(f"got {type(value).__name__}")
    return numbers()


class _Refused(Exception):  # noqa: N818  a signal within this file
    """A name in a pickle that is not allowed."""


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows nothing but mappings and arrays."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._known = _stand_ins()

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the stand-in for a name, without importing anything.

        Raises:
            _Refused: If there is none.
        """
        known = self._known.get((module_name, global_name))
        if known is None:
            raise _Refused(f"{module_name}.{global_name}")
        return known


def _array_types() -> tuple[type[Any], type[Any]]:
    """Return the replacements of `numpy.dtype` and `numpy.ndarray`, new at each call."""

    class NumberType:
        """Stand-in for `numpy.dtype`."""

        def __init__(self, code: Any, *_: object) -> None:
            self.code, self.order = code, "="

        def __setstate__(self, state: Any) -> None:
            self.order = state[1]

        def resolved(self) -> np.dtype[Any]:
            """Return the type of numbers."""
            code = self.code.lstrip("<>=|") if isinstance(self.code, str) else ""
            if code not in _TYPES:
                raise ValueError(f"type {self.code}")
            order = self.code[0] if self.code[0] in "<>" else self.order
            return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")

    class Numbers:
        """Stand-in for `numpy.ndarray`."""

        def __init__(self, *state: Any) -> None:
            self.state = state

        def __setstate__(self, state: Any) -> None:
            self.state = tuple(state[-4:])

        def numbers(self) -> NumberArray:
            """Return the array."""
            shape, kind, is_fortran, raw = self.state
            if not isinstance(kind, NumberType) or not isinstance(raw, bytes | bytearray):
                raise ValueError("no numbers")
            resolved = kind.resolved()
            if len(raw) != math.prod(shape) * resolved.itemsize:
                raise ValueError(f"{len(raw):,} bytes for a shape of {tuple(shape)}")
            flat = np.frombuffer(raw, dtype=resolved)
            return flat.reshape(tuple(shape), order="F" if is_fortran else "C")

    return NumberType, Numbers


def _stand_ins() -> dict[tuple[str, str], Any]:
    """Return the replacement of each allowed name, new for each file: a pickle can set attributes of classes."""
    number_type, numbers = _array_types()

    def reconstruct(*_: object) -> Any:
        return numbers()

    def scalar(kind: Any, raw: Any = None) -> Any:
        return from_buffer(raw, kind, (), "C")

    def from_buffer(raw: Any, kind: Any, shape: Any, order: str) -> Any:
        return numbers(shape, kind, order == "F", raw)

    def array(make: Any, args: Any, state: Any, *_: object) -> Any:
        made = make(*args)
        made.__setstate__(state)
        return made

    def encoded(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _Refused(f"the encoding {encoding}")
        return text.encode("latin1")

    def mapping(content: Any = ()) -> dict[Any, Any]:
        return dict(content)

    found: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): number_type,
        ("numpy", "ndarray"): numbers,
        ("collections", "OrderedDict"): mapping,
        ("_codecs", "encode"): encoded,
        ("jax._src.array", "_reconstruct_array"): array,
        ("dill._dill", "_create_array"): array,
    }
    for name in ("FlatMapping", "FlatMap", "frozendict"):
        found["haiku._src.data_structures", name] = mapping
    for module in _MULTIARRAY:
        found[module, "_reconstruct"], found[module, "scalar"] = reconstruct, scalar
    for module in _NUMERIC:
        found[module, "_frombuffer"] = from_buffer
    return found
