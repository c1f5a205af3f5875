"""Continuation of sequences by a run of an autoregressive model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from perceivers.evaluation.generation_formats import (
    DEFAULT_LENGTH,
    SampleFormat,
    SampleSettings,
    byte_tokens,
    generation_format,
    vocabulary_of,
)
from perceivers.inputs.tokens import IndexedTokenInput
from perceivers.models.autoregressive import AutoregressiveEncoder
from perceivers.models.generate import GenerationConfig, TokenGenerator, first_latents
from perceivers.models.perceiver_ar import PerceiverAR

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor


def generate_tokens(
    predictor: "Predictor",
    prompts: Sequence[Sequence[int]],
    *,
    length: int = 256,
    config: GenerationConfig | None = None,
) -> Iterator[list[int]]:
    """Yield the next token of each sequence, `length` times.

    Args:
        predictor: A run of the next token.
        prompts: Tokens of the beginnings of sequences, without the start; an empty one begins a sequence.
        length: Number of tokens.
        config: Temperature, selection of tokens, and numbers of latents.

    Raises:
        ValueError: If the run is another one, there is no prompt, or a number is out of range.
    """
    model = autoregressive_model(predictor)
    if not prompts:
        raise ValueError("Expected at least one prompt, got none.")
    vocabulary = vocabulary_of(predictor)
    size = (
        model.config.vocab_size
    )  # of published models, also larger or smaller than the vocabulary
    allowed = torch.zeros(1, size, dtype=torch.bool)
    allowed[:, [token for token in vocabulary.data_tokens if token < size]] = True
    tokens = [[vocabulary.start, *prompt] for prompt in prompts]
    adapter = next(iter(predictor.model.members[0].inputs.values()))
    indices = None
    if isinstance(adapter, IndexedTokenInput):
        indices = adapter.position_indices(torch.arange(max(map(len, tokens)) + length))
        if len(set(map(len, tokens))) > 1:
            raise ValueError("Expected prompts of one length for a model with tables of positions.")
    generator = TokenGenerator(
        model, tokens, length=length, config=config, indices=indices, allowed=allowed
    )
    return (row.tolist() for row in generator)


def generate(
    predictor: "Predictor",
    prompts: Sequence[Any],
    *,
    length: int | None = None,
    config: GenerationConfig | None = None,
) -> list[Any]:
    """Return the continuation of each prompt, in the form of the run's vocabulary.

    Prompts that begin with as many latents are continued together, so that the most probable tokens of a sequence are
    the same as without the others.

    Args:
        predictor: A run of the next token.
        prompts: Beginnings of sequences as the form reads them (`generation_format`): texts, for a run on texts.
        length: Number of tokens. None: 256; of samples (`SampleFormat`) the default of their form.
        config: Temperature, selection of tokens, and numbers of latents.

    Raises:
        ValueError: If the run is another one, a prompt cannot be read, or a number is out of range.
    """
    model, config = autoregressive_model(predictor), config or GenerationConfig()
    form = generation_format(predictor)
    if isinstance(form, SampleFormat):
        settings = SampleSettings(length=length, config=config)
        return [form.sample(prompt, settings) for prompt in prompts]
    length = DEFAULT_LENGTH if length is None else length
    begun = [form.tokens(prompt) for prompt in prompts]
    most = first_latents(model, config)
    groups: dict[int, list[int]] = {}
    for place, tokens in enumerate(begun):
        groups.setdefault(min(len(tokens) + 1, most), []).append(place)
    found: list[Any] = [None] * len(begun)
    for places in groups.values():
        chosen = [begun[place] for place in places]
        steps = [*generate_tokens(predictor, chosen, length=length, config=config)]
        for place, row in zip(places, zip(*steps, strict=True), strict=True):
            found[place] = form.result(begun[place], row)
    return found


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
    autoregressive_model(predictor)  # refuses other runs
    vocabulary = vocabulary_of(predictor)
    if not (vocabulary.is_text and vocabulary.is_of_elements):
        raise ValueError(
            f"{predictor.folder} was trained on {vocabulary.units}, and bytes were asked for. Expected a run of the "
            "recipe text_ar, or Predictor.generate, which takes the prompts of any run."
        )
    tokens = [byte_tokens(prompt, vocabulary.first) for prompt in prompts]
    rows = generate_tokens(predictor, tokens, length=length, config=config)
    return ([token - vocabulary.first for token in row] for row in rows)


def generate_text(
    predictor: "Predictor",
    prompt: str,
    *,
    length: int = 256,
    config: GenerationConfig | None = None,
) -> Iterator[str]:
    """Yield the continuation of a prompt, characters as soon as they are complete; what is no UTF-8 is replaced.

    Args:
        predictor: A run of the next token of texts.
        prompt: Beginning of a text; an empty one begins a text.
        length: Number of tokens.
        config: Temperature, selection of tokens, and numbers of latents.

    Raises:
        ValueError: If the run is another one, or a number is out of range.
    """
    autoregressive_model(predictor)  # refuses other runs
    form = generation_format(predictor)
    if not form.is_printable:
        raise ValueError(
            f"{predictor.folder} was trained on {form.vocabulary.units}, and texts were asked for. Expected a run of "
            "the recipe text_ar, or Predictor.generate, which takes the prompts of any run."
        )
    begun = form.tokens(prompt)
    rows = generate_tokens(predictor, [begun], length=length, config=config)
    return form.printed(begun, (row[0] for row in rows))


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
            f"{predictor.folder} was trained for '{kind}' and does not generate. Expected a run of the next token, as "
            "of the recipe text_ar: perceivers fit DATA --recipe text_ar."
        )
    if len(members) > 1:
        raise ValueError(
            f"{predictor.folder} is an ensemble of {len(members)} models, which do not generate together. Expected a "
            "single model: train without --folds."
        )
    return encoder.model


def is_cut(predictor: "Predictor", prompt: Sequence[int]) -> bool:
    """Return whether the tokens of a prompt are more than the context, so that only its end is read."""
    return len(prompt) + 1 > autoregressive_model(predictor).config.max_length
