"""Contestants that are whole models, and the limit: the bare products of their latent transformer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.models import Rival, ours_2021, plain_2021
from benchmarks.setting import Builder, Setting, Skip, Work
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes import get_recipe

__all__ = [
    "RECIPES",
    "checkpointed",
    "forward",
    "int8",
    "mlp_checkpointed",
    "of_recipe",
    "plain_kept",
    "plain_padded",
    "products",
    "step",
]

Make = Callable[[Setting], Rival]


class Shipped(NamedTuple):
    """A shipped recipe: its name, its size, and the side and number of the images it is given."""

    recipe: str
    size: str | None
    side: int
    batch: int


RECIPES: Mapping[str, Shipped] = {
    "digits": Shipped("digits", None, 8, 64),
    "images-tiny-32": Shipped("images", "tiny", 32, 64),
    "images-tiny-64": Shipped("images", "tiny", 64, 64),
    "images-small-128": Shipped("images", "small", 128, 16),
}


def forward(make: Make, batch: int = 1) -> Builder:
    """Return a contestant that predicts."""

    def build_work(setting: Setting) -> Work:
        rival = make(setting)
        rival.model.eval()
        images = make_images(rival.model, setting, batch)

        def run() -> Mapping[str, Tensor]:
            with torch.inference_mode(), setting.autocast():
                return {"logits": rival.call(images)}

        return run

    return build_work


def step(make: Make, batch: int = 1) -> Builder:
    """Return a contestant that learns: forward, loss, backward.

    The update of the weights, which costs the same for all models of one size, is left out.
    """

    def build_work(setting: Setting) -> Work:
        rival = make(setting)
        rival.model.train()
        images = make_images(rival.model, setting, batch)
        labels = torch.zeros(images.shape[0], dtype=torch.long, device=setting.device)

        def run() -> Mapping[str, Tensor]:
            rival.model.zero_grad(set_to_none=True)
            with setting.autocast():
                logits = rival.call(images)
                loss = cross_entropy(logits.float(), labels)
            loss.backward()
            return {"logits": logits.detach()} | dict(gradients(rival))

        return run

    return build_work


def gradients(rival: Rival) -> Iterator[tuple[str, Tensor]]:
    """Yield the gradients under our names, without those that are zero but for rounding."""
    for name, parameter in rival.model.named_parameters():
        ours = rival.our_name(name)
        if parameter.grad is not None and not ours.endswith("to_key.bias"):
            yield f"gradient of {ours}", parameter.grad


def make_images(model: nn.Module, setting: Setting, batch: int) -> Tensor:
    """Return B x 3 x Y x X images of a fixed seed, of the size that the model wants."""
    side = getattr(model, "side", setting.sizes.side)
    channels = getattr(model, "num_channels", 3)
    batch = min(batch, 2) if setting.smoke else batch
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, side, side, generator=generator).to(setting.device)


def plain_kept(setting: Setting) -> Rival:
    """Return the plain model that projects the elements once for all reads with the same weights."""
    return plain_2021(setting, keep=True)


def plain_padded(setting: Setting) -> Rival:
    """Return the plain model whose keys and values are padded for CUDA's fused attention."""
    return plain_2021(setting, pad=True)


def checkpointed(make: Make) -> Make:
    """Return the same model with activations recomputed in the backward pass."""

    def checkpoint(setting: Setting) -> Rival:
        rival = make(setting)
        getattr(rival.model, "encoder").grad_checkpointing = True  # noqa: B009, of either model
        return rival

    return checkpoint


def mlp_checkpointed(make: Make) -> Make:
    """Return the same model with the activations of its MLPs recomputed in the backward pass."""

    def checkpoint(setting: Setting) -> Rival:
        rival = make(setting)
        for module in rival.model.modules():
            if isinstance(module, CrossAttend | SelfAttend):
                module.recompute_mlp = True
        return rival

    return checkpoint


def int8(setting: Setting) -> Rival:
    """Return this library's 2021 model with weights of 8 bits.

    Raises:
        Skip: Where it is not for this device.
    """
    if setting.device != "cpu":
        raise Skip("weights of 8 bits are for prediction on a CPU")
    try:
        from perceivers.hub.quantize import quantize_int8
    except ImportError as error:
        msg = f"this version cannot quantize: {error}"
        raise Skip(msg) from error
    rival = ours_2021(setting)
    model = quantize_int8(rival.model.eval())
    return replace(rival, model=model, call=lambda image: model({"image": image}))


def of_recipe(name: str) -> Make:
    """Return the maker of one of `RECIPES`."""
    shipped = RECIPES[name]
    side = shipped.side

    def make(setting: Setting) -> Rival:
        recipe = get_recipe(shipped.recipe, size=shipped.size)
        adapter = recipe.inputs["image"]
        if adapter.size is None:
            adapter = replace(adapter, size=(side, side))
        output = MeanPoolConfig(num_outputs=recipe.output.num_outputs or 10)
        torch.manual_seed(0)
        config = PerceiverConfig(inputs={"image": adapter}, encoder=recipe.encoder, output=output)
        model = build(config).to(setting.device)
        model.side, model.num_channels = side, adapter.num_channels
        return Rival(model=model, call=lambda image: model({"image": image}))

    return make


def products(setting: Setting) -> Work:
    """Return the matrix products of the 2021 model's latent transformer, and nothing else.

    For each layer six of N x D x D (query, key, value, output, two of the MLP) and, for each head, the
    two of attention. No bias, norm, softmax or activation. What is multiplied has the sizes and the
    number of different weights that the model has.
    """
    sizes = setting.sizes
    length, width, num_heads = sizes.num_latents, sizes.latent_channels, sizes.num_heads
    dtype = getattr(torch, setting.dtype)
    options = {"device": setting.device, "dtype": dtype}
    weights = torch.randn(sizes.num_layers, 6, width, width, **options).mul_(width**-0.5)
    x = torch.randn(length, width, **options)
    out = torch.empty(length, width, **options)
    query = torch.randn(num_heads, length, width // num_heads, **options)
    scores = torch.empty(num_heads, length, length, **options)
    read = torch.empty_like(query)

    def run() -> Mapping[str, Tensor]:
        with torch.inference_mode():
            for _ in range(sizes.num_blocks):
                for layer in weights:
                    for weight in layer:
                        torch.mm(x, weight.t(), out=out)
                    torch.bmm(query, query.transpose(1, 2), out=scores)
                    torch.bmm(scores, query, out=read)
        return {}

    return run
