"""Perceiver AR: training steps and generation, beside the same model in plain PyTorch.

`plain` projects the whole context to keys and values and applies a softmax to the map of latents and tokens, as other
ports do. `fused` does the same with PyTorch's fused attention and a mask. Both have the weights of `ours`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from benchmarks.setting import Case, Contestant, Setting, Target, Work
from perceivers.models.causal_layers import CausalAttention
from perceivers.models.generate import GenerationConfig, TokenGenerator
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig

__all__ = ["autoregressive_cases"]

STEP = PerceiverARConfig(
    vocab_size=256, max_length=8192 + 512, num_latents=512, channels=512, num_layers=4
)
LONG = replace(STEP, max_length=131_072 + 1024, num_latents=1024, channels=256, num_layers=2)
GENERATION = replace(STEP, max_length=2048 + 512, num_layers=8)
TOKENS = 512  # that are generated


def config_of(full: PerceiverARConfig, setting: Setting) -> PerceiverARConfig:
    """Return the configuration, or a tiny one."""
    small = {"max_length": 40, "num_latents": 8, "channels": 16, "num_heads": 2, "num_layers": 1}
    return replace(full, **small) if setting.smoke else full


def model_of(full: PerceiverARConfig, setting: Setting) -> PerceiverAR:
    """Return a model with random weights, also in the output layer."""
    torch.manual_seed(0)
    model = PerceiverAR(config_of(full, setting)).to(setting.device)
    assert model.to_logits is not None
    nn.init.normal_(model.to_logits.weight, std=0.02)
    return model


Forward = Callable[[PerceiverAR, Tensor], Tensor]
Read = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return attention by a softmax of the whole map."""
    scores = (q @ k.transpose(-2, -1) * scale).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return attention by PyTorch's fused kernel."""
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def plain(read: Read) -> Forward:
    """Return a forward pass that projects the whole context."""

    def attend(
        one: CausalAttention, q: Tensor, kv: Tensor, places: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        queries = one.queries(q, places[0])
        keys, values = one.keys_values(kv, places[1])
        return one.output(read(queries, keys, values, mask, one.scale))

    def forward(model: PerceiverAR, tokens: Tensor) -> Tensor:
        count, length = model.config.num_latents, tokens.shape[1]
        positions = torch.arange(length, device=tokens.device).expand_as(tokens)
        x = model.tokens(tokens)
        assert model.to_latents is not None
        assert model.to_logits is not None
        z, latest = model.to_latents(x[:, -count:]), positions[:, -count:]
        seen = positions[:1] <= latest[:1, :, None]
        cross: Any = model.cross_attends[0]
        found = attend(
            cross.attention,
            cross.query_norm(z),
            cross.source_norm(x),
            (latest, positions),
            seen,
        )
        z = cross.with_residuals(z, found)
        for layer in model.layers:
            one: Any = layer
            y = one.norm(z)
            places = (latest, latest)
            found = attend(one.attention, y, y, places, seen[..., -count:])
            z = one.with_residuals(z, found)
        return model.to_logits(model.output_norm(z))

    return forward


def ours(model: PerceiverAR, tokens: Tensor) -> Tensor:
    """Return the logits of the model itself."""
    return model(tokens)


def step(full: PerceiverARConfig, forward: Forward) -> Callable[[Setting], Work]:
    """Return a forward and a backward pass."""

    def build_work(setting: Setting) -> Work:
        model = model_of(full, setting)
        length = model.config.max_length
        tokens = torch.randint(0, 256, (1, length + 1), device=setting.device)

        def run() -> Mapping[str, Tensor]:
            model.zero_grad()
            with setting.autocast():
                logits = forward(model, tokens[:, :-1])
            targets = tokens[:, -logits.shape[1] :]
            loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            loss.backward()
            named = model.named_parameters()
            gradients = {f"gradient.{name}": p.grad for name, p in named if p.grad is not None}
            return {"loss": loss.detach(), **gradients}

        return run

    return build_work


def generation(*, use_cache: bool) -> Callable[[Setting], Work]:
    """Return the generation of tokens after a prompt that leaves room for them in the context."""

    def build_work(setting: Setting) -> Work:
        model = model_of(GENERATION, setting).eval()
        config = model.config
        count = 4 if setting.smoke else TOKENS
        prompt = torch.randint(0, 256, (config.max_length - config.num_latents,))
        settings = GenerationConfig(temperature=0, use_cache=use_cache)

        def run() -> Mapping[str, Tensor]:
            tokens = list(TokenGenerator(model, [prompt], length=count, config=settings))
            return {"tokens": torch.cat(tokens).float()}

        return run

    return build_work


def autoregressive_cases() -> list[Case]:
    """Return a step, a step of a long context, and generation."""
    times = "times the speed of {}"
    return [
        Case(
            name="ar-step",
            what="a training step of Perceiver AR, 8,192 tokens before 512 latents, width 512, 4 layers",
            contestants=(
                Contestant(name="ours", build=step(STEP, ours)),
                Contestant(name="plain", build=step(STEP, plain(explicit))),
                Contestant(name="fused", build=step(STEP, plain(fused))),
            ),
            targets=(
                Target(description=times.format("plain"), of="plain", to="ours", at_least=1.5),
                Target(description=times.format("fused"), of="fused", to="ours"),
                Target(
                    description="of the memory of plain",
                    of="ours",
                    to="plain",
                    quantity="over_mib",
                    at_most=0.5,
                ),
                Target(
                    description="of the memory of fused",
                    of="ours",
                    to="fused",
                    quantity="over_mib",
                ),
            ),
            float32_only=True,
        ),
        Case(
            name="ar-long-step",
            what="the same of 131,072 tokens before 1,024 latents, width 256, 2 layers",
            contestants=(Contestant(name="ours", build=step(LONG, ours)),),
            targets=(
                Target(description="MiB at the most", of="ours", quantity="peak_mib", at_most=6144),
            ),
            float32_only=True,
        ),
        Case(
            name="ar-generate",
            what="512 tokens after a prompt of 2,048, width 512, 8 layers, at most 512 latents",
            contestants=(
                Contestant(name="ours", build=generation(use_cache=True)),
                Contestant(name="uncached", build=generation(use_cache=False)),
            ),
            targets=(
                Target(
                    description="times the speed without a cache",
                    of="uncached",
                    to="ours",
                    at_least=10,
                ),
            ),
            float32_only=True,
        ),
    ]
