"""Attention maps of a whole model, without a flag through any of its levels.

Hooks ask every `Attention` for the map that its `forward` never writes down.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from perceivers.nn.attention import Attention
from perceivers.typing import Float, Tensor

Watcher = Callable[[str, Attention, tuple[Tensor, Tensor, Tensor | None]], None]


class AttentionMaps(Mapping[str, list[Tensor]]):
    """The maps by the module's name, one for each time it was called. Remembers the order of all calls.

    Attributes:
        calls: Name and map of every call, in the order in which the model made them.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Float[Tensor, "B H Q S"]]] = []

    def __getitem__(self, name: str) -> list[Tensor]:
        maps = [attention for called, attention in self.calls if called == name]
        if not maps:
            raise KeyError(
                f"No map of '{name}'. There are maps of: {', '.join(self) or 'nothing yet'}."
            )
        return maps

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.calls))

    def __len__(self) -> int:
        return len({name for name, _ in self.calls})


@contextmanager
def watch_attention(model: nn.Module, kind: str = "weights") -> Generator[AttentionMaps]:
    """Collect the attention maps of every forward pass inside the `with`.

    A module that serves at several depths appears once, with one map for each time it was called. A map
    is B x H x Q x S and stays on the model's device: 100 MB for 512 latents that read 224 x 224 pixels.

    Args:
        model: Any module that holds `Attention` modules.
        kind: `weights` sum to one over the source; `scores` are what the softmax is taken of, which is
            what the 2021 paper draws.

    Raises:
        ValueError: If `kind` is neither, or if the model holds no `Attention`.
    """
    if kind not in ("weights", "scores"):
        raise ValueError(f"Expected kind='weights' or kind='scores', got {kind!r}.")
    maps = AttentionMaps()

    def record(
        name: str, attention: Attention, arrays: tuple[Tensor, Tensor, Tensor | None]
    ) -> None:
        look = attention.weights if kind == "weights" else attention.scores
        maps.calls.append((name, look(*arrays)))

    with on_attention(model, record):
        yield maps


def cross_attends(maps: AttentionMaps) -> list[Tensor]:
    """Return the maps of the encoder's reads of the input, in the order in which they happened."""
    return [attention for name, attention in maps.calls if "cross_attends" in name.split(".")]


@contextmanager
def on_attention(model: nn.Module, watcher: Watcher) -> Generator[None]:
    """Call `watcher(name, module, (query, source, mask))` before every attention inside the `with`.

    It is called without gradients, so that looking never keeps a graph alive.

    Raises:
        ValueError: If the model holds no `Attention`.
    """

    def hook(name: str) -> Callable[..., None]:
        def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert isinstance(module, Attention)
            given = dict(zip(("query", "source", "source_mask"), args, strict=False)) | kwargs
            source, mask = given["source"], given.get("source_mask")
            with torch.no_grad():
                if not isinstance(source, Tensor):
                    source, mask = source.dense()
                query = given["query"].expand(source.shape[0], -1, -1)
                watcher(name, module, (query, source, mask))

        return call

    handles = [
        module.register_forward_pre_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, Attention)
    ]
    if not handles:
        raise ValueError(
            f"Expected a model with attention to watch, got {type(model).__name__} without any."
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
