"""Texts as prompts and results of runs on subwords."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from perceivers.evaluation.generation_formats import TextFormat, register_format

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # the last character lacks bytes of the next tokens
_CONTEXT = 8  # tokens before new ones that are decoded with them, as a space depends on the token before it


class SubwordFormat(TextFormat):
    """Texts as prompts; the result is the continuation as a string."""

    vocabulary: Any

    def tokens(self, prompt: str | bytes | PathLike[str] | None) -> list[int]:
        """Return the tokens of a text, or of the text in a file. What is no Unicode is replaced."""
        if isinstance(prompt, PathLike):
            prompt = self.prompt_of_file(Path(prompt))
        data = prompt.encode(errors="replace") if isinstance(prompt, str) else prompt or b""
        return self.vocabulary.encode([data.decode(errors="replace")])[0]

    def prompt_text(self, prompt: Sequence[int]) -> str:
        """Return the text of a prompt."""
        return self.vocabulary.text(prompt)

    def printed(self, prompt: Sequence[int], found: Iterator[int]) -> Iterator[str]:
        """Yield the text of tokens, each as soon as its characters are complete."""
        known = [*prompt][-_CONTEXT:]
        shown = len(self.vocabulary.text(known))
        for token in found:
            known.append(token)
            text = self.vocabulary.text(known)
            if len(text) > shown and not text.endswith(_UNFINISHED):
                yield text[shown:]
                known = known[-_CONTEXT:]
                shown = len(self.vocabulary.text(known))
        if rest := self.vocabulary.text(known)[shown:]:
            yield rest

    def result(self, prompt: Sequence[int], found: Sequence[int]) -> str:
        """Return the continuation."""
        return "".join(self.printed(prompt, iter(found)))


register_format("subwords", SubwordFormat)
