"""YAML and JSON files of settings, read with bounds on size, nesting and numbers."""

import json
import re
from typing import Any

import yaml

_MOST_BYTES = 2**20  # of a YAML file; recipes have some kilobytes
_MOST_JSON_BYTES = 2**26  # of a JSON file, which may hold the names of many classes
_MOST_NODES = 100_000  # of a YAML file, with every alias written out
_MOST_DIGITS = 64  # of an integer
_INT = re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)


class _Loader(yaml.SafeLoader):
    """YAML without code, base-60 numbers and integers of thousands of digits."""

    def construct_int(self, node: Any) -> int:
        """Return an integer: decimal, `0x`, `0o`, `0` (octal) or `0b`."""
        text = str(self.construct_scalar(node))
        if len(text) > _MOST_DIGITS or not _INT.match(text):
            raise yaml.constructor.ConstructorError(
                None, None, f"expected an integer, got {text[:40]!r}", node.start_mark
            )
        plain = text.replace("_", "").lower()
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", plain)
        return int(f"{octal[1]}0o{octal[2]}" if octal else plain, 0)

    def construct_float(self, node: Any) -> float:
        """Return a number: decimal, `.inf` or `.nan`."""
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        try:
            return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text))
        except ValueError as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"expected a number, got {text[:40]!r}", node.start_mark
            ) from error


# A number of base 60, such as 1:30, is a string as in YAML 1.2.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if not tag.endswith((":int", ":float"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)


def load_yaml(text: str, name: str) -> Any:
    """Return the content of a YAML document, without running code from it.

    Args:
        text: The document.
        name: Name of the file, for messages.

    Raises:
        ValueError: If it is not YAML, or larger or deeper nested (with every alias written out) than settings can be.
    """
    if len(text) > _MOST_BYTES:
        raise ValueError(
            f"{name} is too large for settings in YAML: expected at most {_MOST_BYTES:,} characters, got {len(text):,}."
        )
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_nodes(node, {}) > _MOST_NODES:
            raise ValueError(
                f"{name} has aliases (*name) that stand for more than {_MOST_NODES:,} values. Write them out, or "
                "leave them away."
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deep for settings in YAML.") from error
    except ValueError as error:  # of a value, such as a date that does not exist
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} holds a value that is not YAML: {error}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def load_json(raw: bytes, name: str) -> Any:
    """Return the content of a JSON file.

    Raises:
        ValueError: If it is not JSON, or larger or deeper nested than settings can be. The message names the file.
    """
    if len(raw) > _MOST_JSON_BYTES:
        raise ValueError(
            f"{name} is too large: expected at most {_MOST_JSON_BYTES:,} bytes, got {len(raw):,}."
        )
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deep.") from error
    except ValueError as error:
        raise ValueError(f"{name}: Invalid JSON: {error}.") from error


def _num_nodes(node: Any, known: dict[int, int]) -> int:
    """Return the number of nodes of a document, with every alias written out; too large for one that holds itself."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MOST_NODES + 1  # while its parts are counted
    parts: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    known[id(node)] = 1 + sum(_num_nodes(part, known) for part in parts)
    return known[id(node)]
