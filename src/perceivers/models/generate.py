"""Generation of tokens by a Perceiver AR: sampling, the number of latents of each step, and the cache."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from perceivers.models.causal_layers import ARCache
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.registry import configclass
from perceivers.tasks.prediction import NonFiniteOutputError
from perceivers.typing import Bool, Float, Int, Tensor

_TEMPERATURES = 1e-30, 1e30  # smaller and larger ones are 0 and infinite in float32


@configclass
class GenerationConfig:
    """Settings of sampling, and numbers of latents.

    Attributes:
        temperature: Divisor of the logits. 0: the most probable token.
        top_k: Only so many of the most probable tokens are drawn. None: all.
        top_p: Only the most probable tokens whose probabilities, before the temperature, add up to this share are
            drawn. 1: all. 0: the most probable token.
        seed: Seed of the random numbers.
        num_latents: Largest number of latents. None: that of the model.
        first_latents: Latents of the first step, at most the length of the shortest prompt. None: half of
            `num_latents`.
        latents: Number of latents while a sequence grows. `reset`: it grows by one with each token up to its maximum;
            then a step takes half of it, and it grows again. Every step but those is computed from the cache.
            `full`: it grows to its maximum and stays there; these steps are computed in full. Both are exact: a step
            gives what the model gives for its context and number of latents.
        use_cache: Keep keys and values. Without them every step is computed in full: the same tokens, in more time.

    Raises:
        ValueError: If a number is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0
    num_latents: int | None = None
    first_latents: int | None = None
    latents: Literal["reset", "full"] = "reset"
    use_cache: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"Expected a temperature of 0 (the most probable token) or more, got {self.temperature}."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"Expected a top_k of at least 1, got {self.top_k}.")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"Expected a top_p from 0 to 1, got {self.top_p}.")
        for name in ("num_latents", "first_latents"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"Expected {name} of at least 1, got {value}.")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0 or self.top_p == 0 or self.top_k == 1


def sample_tokens(
    logits: Float[Tensor, "B V"],
    config: GenerationConfig,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " B"]:
    """Return a token of each row, drawn from its logits.

    Args:
        logits: Logits; minus infinity where a token is not allowed.
        config: Temperature and the tokens among which one is drawn.
        generator: Source of the random numbers.
    """
    if config.is_greedy:
        return logits.argmax(dim=-1)
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        least = logits.topk(config.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if config.top_p < 1:
        ordered = logits.sort(dim=-1)
        shares = ordered.values.softmax(dim=-1).cumsum(dim=-1)
        place = (shares >= 1 - config.top_p).long().argmax(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits < ordered.values.gather(-1, place), float("-inf"))
    logits = logits.float() - logits.max(dim=-1, keepdim=True).values  # no overflow below
    low, high = _TEMPERATURES
    shares = (logits / min(max(config.temperature, low), high)).softmax(dim=-1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


def first_latents(model: PerceiverAR, config: GenerationConfig) -> int:
    """Return the number of latents of the first step, for prompts of at least this length."""
    most = config.num_latents or model.config.num_latents
    return min(config.first_latents or max(most // 2, 1), most)


class TokenGenerator:
    """Iterator over the tokens that continue prompts; each item is one token of each row.

    A step raises `NonFiniteOutputError` if the logits are NaN or infinite.

    Args:
        model: The model, in evaluation mode.
        prompts: Tokens of each prompt; prompts may differ in length.
        length: Number of tokens to generate.
        config: Temperature, selection of tokens, and numbers of latents.
        indices: Rows of the position tables of each place of a sequence, L x A, for positions of several axes.
        allowed: True for the tokens that are allowed at each place of a sequence, repeated with its period, P x V.

    Raises:
        ValueError: If a prompt is empty or holds tokens outside of the vocabulary, or a number is out of range.
    """

    def __init__(
        self,
        model: PerceiverAR,
        prompts: Sequence[Sequence[int]] | Sequence[Tensor],
        *,
        length: int,
        config: GenerationConfig | None = None,
        indices: Int[Tensor, "L A"] | None = None,
        allowed: Bool[Tensor, "P V"] | None = None,
    ) -> None:
        self.model, self.config = model, config or GenerationConfig()
        self.indices, self.allowed = indices, allowed
        most = model.config.num_latents
        self.num_latents = self.config.num_latents or most
        if length < 1:
            raise ValueError(f"Expected to generate at least one token, got length={length}.")
        if self.num_latents > most:
            raise ValueError(f"Expected num_latents from 1 to {most}, got {self.num_latents}.")
        rows = [torch.as_tensor(one, dtype=torch.long).flatten() for one in prompts]
        self._check(rows)
        device = model.tokens.weight.device
        longest = max(map(len, rows))
        self.tokens = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        self.mask = torch.zeros_like(self.tokens, dtype=torch.bool)
        for place, row in enumerate(rows):
            self.tokens[place, longest - len(row) :] = row.to(device)
            self.mask[place, longest - len(row) :] = True
        self.is_padded = not bool(self.mask.all())
        self.left = length
        shortest = min(map(len, rows))
        self.count = min(first_latents(model, self.config), shortest)
        self.start, self.has_begun = 0, False
        self.cache: ARCache | None = None
        self.random = torch.Generator(device).manual_seed(self.config.seed)

    def __iter__(self) -> Iterator[Int[Tensor, " B"]]:
        """Return the iterator."""
        return self

    def __next__(self) -> Int[Tensor, " B"]:
        """Return the next token of each row."""
        if not self.left:
            raise StopIteration
        logits = self.next_logits()
        if not bool(logits.max(dim=-1).values.isfinite().all()):
            raise NonFiniteOutputError("the prompt", in_weights=True)
        token = sample_tokens(logits, self.config, self.random)
        self.append(token)
        self.left -= 1
        return token

    def append(self, token: Int[Tensor, " B"]) -> None:
        """Add a token to each row."""
        self.tokens = torch.cat([self.tokens, token[:, None]], dim=1)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)

    @torch.inference_mode()
    def next_logits(self) -> Float[Tensor, "B V"]:
        """Return the logits of the next token of each row."""
        start, count, grows = self._plan()
        self.start, self.count, self.has_begun = start, count, True
        if self.config.use_cache and grows:
            return self._run(self.tokens.shape[1] - 1, 1)
        self.cache = self.model.make_cache(len(self.tokens)) if self.config.use_cache else None
        return self._run(start, count)

    def _plan(self) -> tuple[int, int, bool]:
        """Return the first token of the context, the number of latents, and whether only a latent is added."""
        total, longest = self.tokens.shape[1], self.model.config.max_length
        is_reset, count, grows = self.config.latents == "reset", self.count, self.has_begun
        if grows:
            count += 1
        if count > self.num_latents:
            grows = False
            count = max(self.num_latents // 2, 1) if is_reset else self.num_latents
        if is_reset and grows:
            return self.start, count, True  # for which the last reset has left room
        # Room for the tokens up to the next reset, or to the last one.
        room = min(self.num_latents - count, max(self.left - 1, 0)) if is_reset else 0
        start = max(self.start, total - (longest - room))
        return start, min(count, total - start), grows and start == self.start

    def _run(self, first: int, count: int) -> Float[Tensor, "B V"]:
        """Return the last logits of the tokens from `first` on, with `count` latents."""
        mask = self.mask[:, first:] if self.is_padded else None
        indices = None
        if self.indices is not None:
            places = self.indices[first : self.tokens.shape[1]].to(self.tokens.device)
            indices = places.expand(len(self.tokens), -1, -1)
        logits = self.model(
            self.tokens[:, first:], mask, num_latents=count, indices=indices, cache=self.cache
        )[:, -1]
        if self.allowed is None:
            return logits
        allowed = self.allowed[self.tokens.shape[1] % len(self.allowed)].to(logits.device)
        return logits.masked_fill(~allowed, float("-inf"))

    def _check(self, rows: Sequence[Tensor]) -> None:
        """Refuse empty prompts and unknown tokens."""
        size = self.model.config.vocab_size
        if not rows or not all(len(row) for row in rows):
            raise ValueError("Expected prompts of at least one token each, got an empty one.")
        for row in rows:
            if row.min() < 0 or row.max() >= size:
                raise ValueError(
                    f"Expected tokens from 0 to {size - 1}, got {int(row.min())} to {int(row.max())}."
                )
