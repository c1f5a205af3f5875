"""Prompts and results of generation: each vocabulary reads prompts and writes what was generated in its own form."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from perceivers.data.base import atomic_write_text
from perceivers.models.generate import GenerationConfig
from perceivers.plugins import load_plugins
from perceivers.tasks.vocabulary import BaseVocabulary

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor


class GenerationFormat:
    """Base class of the forms in which prompts are read and results are returned, printed and written.

    A subclass is registered for its vocabulary with `register_format`. Tokens are those of the vocabulary, without the
    token of the start.

    Args:
        predictor: The run that generates.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that can be written, with their dots. Empty: all."""

    is_printable: ClassVar[bool] = False
    """Whether the result is text, which is printed as it is generated. Otherwise it needs a file."""

    media_types: ClassVar[Mapping[str, str]] = {}
    """Media types of the files that a server returns, by their suffixes without dots; the first is the default.

    A server continues sequences whose form has some, or is printable.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self.predictor = predictor
        self.vocabulary = vocabulary_of(predictor)

    def check_path(self, path: Path) -> None:
        """Check before generation that a file can be written in the format of its suffix.

        Raises:
            ValueError: If not.
        """
        if self.suffixes and path.suffix.lower() not in self.suffixes:
            raise ValueError(
                f"Expected --out with a file that ends in {' or '.join(self.suffixes)}, got '{path}'."
            )

    def prompt_of_argument(self, argument: str) -> Any:
        """Return the prompt that `--prompt` states."""
        return argument

    def prompt_of_file(self, path: Path) -> Any:
        """Return the prompt in a file.

        Raises:
            OSError: If the file cannot be read.
        """
        raise NotImplementedError

    def tokens(self, prompt: Any) -> list[int]:
        """Return the tokens of a prompt. None is an empty one.

        Args:
            prompt: The prompt. From a server, a file is the value that the modality decodes.

        Raises:
            ValueError: If it cannot be read. The message names it.
        """
        raise NotImplementedError

    def prompt_text(self, prompt: Sequence[int]) -> str:
        """Return the tokens of a prompt as text, where the result is printable."""
        raise NotImplementedError

    def printed(self, prompt: Sequence[int], found: Iterator[int]) -> Iterator[str]:
        """Yield generated tokens as parts of a text, where the result is printable. Arguments as of `result`."""
        raise NotImplementedError

    def result(self, prompt: Sequence[int], found: Sequence[int]) -> Any:
        """Return the result for callers in Python.

        Args:
            prompt: Tokens of the prompt.
            found: Tokens that were generated.
        """
        raise NotImplementedError

    def as_json(self, prompt: Sequence[int], found: Sequence[int]) -> dict[str, Any]:
        """Return the result as plain data. Arguments as of `result`."""
        raise NotImplementedError

    def write(self, prompt: Sequence[int], found: Sequence[int], path: Path) -> str:
        """Write the result and return the size of what was generated, in words. Arguments as of `result`.

        Raises:
            OSError: If the file cannot be written.
        """
        raise NotImplementedError

    def file(self, prompt: Sequence[int], found: Sequence[int], suffix: str) -> bytes:
        """Return the content of the file that `write` writes.

        Args:
            prompt: Tokens of the prompt.
            found: Tokens that were generated.
            suffix: A key of `media_types`.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder, f"generated.{suffix}")
            self.write(prompt, found, path)
            return path.read_bytes()


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """Settings of samples.

    Attributes:
        length: Number of tokens or steps; `all`: to the end of samples that have one. None: the default of the form.
        count: Number of samples. None: the default of the form.
        quantiles: Quantiles of the samples that are written, from 0 to 1. Empty: the default of the form.
        config: Temperature, selection of tokens, seed, and numbers of latents.

    Raises:
        ValueError: If a number is out of range.
    """

    length: int | Literal["all"] | None = None
    count: int | None = None
    quantiles: tuple[float, ...] = ()
    config: GenerationConfig = field(default_factory=GenerationConfig)

    def __post_init__(self) -> None:
        for name in ("length", "count"):
            if (value := getattr(self, name)) not in (None, "all") and value < 1:
                raise ValueError(f"Expected {name} of at least 1, got {value}.")
        if any(not 0 <= one <= 1 for one in self.quantiles):
            raise ValueError(f"Expected quantiles from 0 to 1, got {self.quantiles}.")


class SampleFormat(GenerationFormat):
    """Base class of forms whose results are several samples that begin with one prompt: images, paths of a series."""

    def prompt_of_argument(self, argument: str) -> Path:
        """Return the file that `--prompt` names."""
        return Path(argument)

    def prompt_of_file(self, path: Path) -> Path:
        """Return the file."""
        return path

    def sample(self, prompt: Any, settings: SampleSettings) -> Any:
        """Return samples that continue a prompt, for callers in Python. None is an empty one.

        Raises:
            ValueError: If the prompt cannot be read, or does not fit the run.
        """
        raise NotImplementedError

    def samples_json(self, samples: Any) -> dict[str, Any]:
        """Return the result of `sample` as plain data."""
        raise NotImplementedError

    def save(self, samples: Any, path: Path) -> str:
        """Write the result of `sample` and return its size, in words.

        Raises:
            OSError: If the file cannot be written.
        """
        raise NotImplementedError


DEFAULT_LENGTH = 256
"""Number of tokens to generate, where a form has no other default."""

_BUILT_IN = {
    "midi": "perceivers.evaluation.music_format",
    "midi_windows": "perceivers.evaluation.music_format",
    "pixels": "perceivers.evaluation.generate_images",
    "series_values": "perceivers.evaluation.forecast",
    "subwords": "perceivers.evaluation.subword_format",
}
"""Modules that register the form of a vocabulary of this package, imported when it is used."""

_FORMATS: dict[str, type[GenerationFormat]] = {}


def register_format(vocabulary: str, form: type[GenerationFormat]) -> None:
    """Register the form of prompts and results of a vocabulary.

    Args:
        vocabulary: Kind of the vocabulary.
        form: Called with the run.

    Raises:
        ValueError: If another form is registered for this vocabulary.
    """
    known = _FORMATS.get(vocabulary)
    if known is not None and known.__qualname__ != form.__qualname__:
        raise ValueError(
            f"The form of generation for '{vocabulary}' is already registered, by {known.__qualname__}."
        )
    _FORMATS[vocabulary] = form


def vocabulary_of(predictor: "Predictor") -> BaseVocabulary:
    """Return the vocabulary of a run of the next token."""
    task: Any = predictor.config.task
    return task.vocabulary


def generation_format(predictor: "Predictor") -> GenerationFormat:
    """Return the form of prompts and results of a run that generates.

    Raises:
        ValueError: If no form is registered for its vocabulary.
    """
    load_plugins()
    kind = vocabulary_of(predictor).kind
    if kind in _BUILT_IN:
        import_module(_BUILT_IN[kind])
    if kind not in _FORMATS:
        raise ValueError(
            f"Sequences of the vocabulary '{kind}' cannot be written: expected one of {', '.join(_FORMATS)}. Register "
            "a form with register_format."
        )
    return _FORMATS[kind](predictor)


class TextFormat(GenerationFormat):
    """Texts as prompts; the result is the continuation as a string."""

    is_printable: ClassVar[bool] = True

    def prompt_of_file(self, path: Path) -> bytes:
        """Return the bytes of a file."""
        return path.read_bytes()

    def tokens(self, prompt: str | bytes | PathLike[str] | None) -> list[int]:
        """Return the tokens of a text, or of the text in a file."""
        if isinstance(prompt, PathLike):
            prompt = self.prompt_of_file(Path(prompt))
        return byte_tokens(prompt or "", self.vocabulary.first)

    def printed(self, prompt: Sequence[int], found: Iterator[int]) -> Iterator[str]:  # noqa: ARG002
        """Yield the characters of bytes, each as soon as all of its bytes are there."""
        return decode_utf8(token - self.vocabulary.first for token in found)

    def result(self, prompt: Sequence[int], found: Sequence[int]) -> str:  # noqa: ARG002
        """Return the continuation. Bytes that are no UTF-8 are replaced."""
        return self.vocabulary.text(found)

    def prompt_text(self, prompt: Sequence[int]) -> str:
        """Return the text of a prompt."""
        return bytes(token - self.vocabulary.first for token in prompt).decode(
            "utf-8", "surrogateescape"
        )

    def as_json(self, prompt: Sequence[int], found: Sequence[int]) -> dict[str, Any]:
        """Return prompt and continuation."""
        return {"prompt": self.prompt_text(prompt), "continuation": self.result(prompt, found)}

    def write(self, prompt: Sequence[int], found: Sequence[int], path: Path) -> str:
        """Write the prompt with its continuation."""
        text = self.result(prompt, found)
        atomic_write_text(path, f"{self.prompt_text(prompt)}{text}\n")
        return f"{len(text):,} characters"


register_format("bytes", TextFormat)
register_format("lines", TextFormat)


def byte_tokens(text: str | bytes, first: int) -> list[int]:
    """Return the tokens of a text, whose byte 0 is the token `first`."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [byte + first for byte in data]


def decode_utf8(found: Iterator[int]) -> Iterator[str]:
    """Yield the characters of bytes; those that are no UTF-8 are replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for byte in found:
        if text := decoder.decode(bytes([byte])):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text
