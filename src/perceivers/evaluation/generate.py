"""Continuation of texts by a run of an autoregressive model."""

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from perceivers.models.autoregressive import AutoregressiveEncoder
from perceivers.models.generate import GenerationConfig, TokenGenerator, first_latents
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.tasks.byte_tokens import FIRST_BYTE, VOCAB_SIZE
from perceivers.tasks.vocabulary import ByteVocabulary

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor


def generate_bytes(
    predictor: "Predictor",
    prompts: Sequence[str | bytes],
    *,
    length: int = 256,
    config: GenerationConfig | None = None,
) -> Iterator[list[int]]:
    """Yield the next byte of each prompt, `length` times.

    Args:
        predictor: A run of the next byte of texts.
        prompts: Beginnings of texts; an empty one begins a text.
        length: Number of bytes.
        config: Temperature, selection of bytes, and numbers of latents.

    Raises:
        ValueError: If the run is another one, there is no prompt, or a number is out of range.
    """
    model = autoregressive_model(predictor)
    tokens = [_tokens(prompt) for prompt in prompts]
    if not tokens:
        raise ValueError("Expected at least one prompt, got none.")
    allowed = torch.arange(VOCAB_SIZE)[None] >= FIRST_BYTE
    generator = TokenGenerator(model, tokens, length=length, config=config, allowed=allowed)
    return ([token - FIRST_BYTE for token in row.tolist()] for row in generator)


def generate_texts(
    predictor: "Predictor",
    prompts: Sequence[str | bytes],
    *,
    length: int = 256,
    config: GenerationConfig | None = None,
) -> list[str]:
    """Return the continuation of each prompt. Arguments and errors as of `generate_bytes`.

    Prompts that begin with as many latents are continued together, so that the most probable bytes of a text are the
    same as without the others.
    """
    model, config = autoregressive_model(predictor), config or GenerationConfig()
    most = first_latents(model, config)
    groups: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(min(len(_tokens(prompt)), most), []).append(place)
    found = [""] * len(prompts)
    for places in groups.values():
        chosen = [prompts[place] for place in places]
        steps = [*generate_bytes(predictor, chosen, length=length, config=config)]
        for place, row in zip(places, zip(*steps, strict=True), strict=True):
            found[place] = bytes(row).decode(errors="replace")
    return found


def generate_text(
    predictor: "Predictor",
    prompt: str,
    *,
    length: int = 256,
    config: GenerationConfig | None = None,
) -> Iterator[str]:
    """Yield the continuation of a prompt, characters as soon as all of their bytes are drawn.

    Arguments and errors as of `generate_bytes`. Bytes that are no UTF-8 are replaced.
    """
    rows = generate_bytes(predictor, [prompt], length=length, config=config)
    return _decoded(row[0] for row in rows)


def autoregressive_model(predictor: "Predictor") -> PerceiverAR:
    """Return the autoregressive model of a run.

    Raises:
        ValueError: If it has none, or is an ensemble.
    """
    members, task = predictor.model.members, predictor.config.task
    encoder = members[0].encoder
    if not isinstance(encoder, AutoregressiveEncoder):
        kind = getattr(task, "kind", "no task")
        raise ValueError(
            f"{predictor.folder} was trained for '{kind}' and does not generate. Expected a run of the recipe text_ar: "
            "perceivers fit DATA --recipe text_ar."
        )
    if len(members) > 1:
        raise ValueError(
            f"{predictor.folder} is an ensemble of {len(members)} models, which do not generate together. Expected a "
            "single model: train without --folds."
        )
    return encoder.model


def is_cut(predictor: "Predictor", prompt: str) -> bool:
    """Return whether a prompt is longer than the context, so that only its end is read."""
    return len(_tokens(prompt)) > autoregressive_model(predictor).config.max_length


def _tokens(prompt: str | bytes) -> list[int]:
    data = prompt.encode("utf-8", "surrogateescape") if isinstance(prompt, str) else prompt
    return [ByteVocabulary.start, *(byte + FIRST_BYTE for byte in data)]


def _decoded(found: Iterator[int]) -> Iterator[str]:
    """Yield the characters of bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for byte in found:
        if text := decoder.decode(bytes([byte])):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text
