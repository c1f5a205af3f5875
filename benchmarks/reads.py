"""Contestants that are one read: from queries to what was read, without projections of queries and output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.models import seeded
from benchmarks.plain import PlainRead, fourier_positions
from benchmarks.setting import Builder, Setting, Work
from perceivers.cross_attention.source import ElementSource
from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import FourierPositions, FourierPositionsConfig
from perceivers.nn.blocks import CrossAttend

__all__ = ["Scene", "audiovisual", "clip", "image", "ours", "plain", "stem"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One modality of a scene.

    Attributes:
        grid: Cells along each axis.
        num_bands: Frequencies for each axis.
        content: B x M x Cc.
        tag: Learned vector of the modality.
    """

    grid: tuple[int, ...]
    num_bands: int
    content: Tensor
    tag: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Input of a cross-attention, and the parameters of it that learn.

    Attributes:
        parts: Makes the modalities.
        learns: Whether contents and tags get a gradient, as behind a convolved stem or for learned tags.
    """

    parts: Callable[[Setting], list[Part]]
    learns: bool = False

    def made(self, setting: Setting) -> list[Part]:
        """Return the modalities on the device, with gradients if they learn."""
        torch.manual_seed(1)
        found: list[Part] = []
        for part in self.parts(setting):
            content = part.content.to(setting.device)
            tag = None if part.tag is None else part.tag.to(setting.device)
            if self.learns and tag is None:
                content.requires_grad_()
            if self.learns and tag is not None:
                tag.requires_grad_()
            found.append(replace(part, content=content, tag=tag))
        return found


def image(larger: int | None = None, *, learns: bool = False) -> Scene:
    """Return single pixels of an image: 3 colors and, in the papers' sizes, 258 position channels.

    Args:
        larger: Index of the larger image side. None: the model's.
        learns: Whether the colors get a gradient.
    """

    def parts(setting: Setting) -> list[Part]:
        n = setting.sizes.side if larger is None else setting.sizes.larger_sides[larger]
        return [part((n, n), setting.sizes.num_bands, 3)]

    return Scene(parts=parts, learns=learns)


def clip() -> Scene:
    """Return single pixels of a clip: 3 colors and 387 position channels."""
    return Scene(parts=lambda setting: [part(setting.sizes.clip, setting.sizes.num_bands, 3)])


def stem() -> Scene:
    """Return the cells of Perceiver IO's convolved stem: 64 channels that learn, 258 of position."""

    def parts(setting: Setting) -> list[Part]:
        rows, columns, channels = setting.sizes.stem
        return [part((rows, columns), setting.sizes.num_bands, channels)]

    return Scene(parts=parts, learns=True)


def audiovisual(*, learns: bool = False) -> Scene:
    """Return patches of a clip and cells of a mel spectrogram, of one width by their tags: 487.

    384 values + 3 (2 * 16 + 1) + 4 = 487; the tag of the audio is as wide as it takes.

    Source: Perceiver (arXiv:2103.03206), section 4.2; Perceiver IO (arXiv:2107.14795), table 6.
    """

    def parts(setting: Setting) -> list[Part]:
        sizes = setting.sizes
        *grid, values = sizes.patches
        video = part(tuple(grid), sizes.patch_bands, values, tag=sizes.tag)
        width = values + 3 * (2 * sizes.patch_bands + 1) + sizes.tag
        rest = width - 1 - 2 * (2 * sizes.mel_bands + 1)
        return [part(sizes.mel, sizes.mel_bands, 1, tag=rest), video]

    return Scene(parts=parts, learns=learns)


def part(grid: tuple[int, ...], num_bands: int, channels: int, tag: int = 0) -> Part:
    """Return a modality with content like normalized pixels."""
    count = 1
    for size in grid:
        count *= size
    return Part(
        grid=grid,
        num_bands=num_bands,
        content=torch.randn(1, count, channels),
        tag=0.02 * torch.randn(tag) if tag else None,
    )


def width_of(part: Part) -> int:
    """Return the channels of an element, C."""
    tag = 0 if part.tag is None else part.tag.shape[0]
    return part.content.shape[2] + len(part.grid) * (2 * part.num_bands + 1) + tag


def read_weights(width: int, setting: Setting) -> CrossAttend:
    """Return the module that reads, with weights of a fixed seed."""
    return seeded(lambda: CrossAttend(setting.sizes.latent_channels, width)).to(setting.device)


def queries(width: int, setting: Setting) -> tuple[Tensor, Tensor]:
    """Return projected queries, B x 1 x N x C, and what comes back from above, B x N x C."""
    generator = torch.Generator().manual_seed(2)
    shape = (1, 1, setting.sizes.num_latents, width)
    query, upstream = (torch.randn(shape, generator=generator) for _ in range(2))
    return query.to(setting.device), upstream[:, 0].to(setting.device)


def passes(
    read: Callable[[Tensor], Tensor],
    width: int,
    setting: Setting,
    *,
    leaves: Mapping[str, Tensor],
    backward: bool,
) -> Work:
    """Return the pass that is timed: forward, or forward and backward from a given gradient.

    Args:
        read: Queries -> what was read.
        width: Channels of an element, C.
        setting: Device and precision.
        leaves: Tensors that get a gradient besides the queries, by name.
        backward: Whether there is a backward pass.
    """
    query, upstream = queries(width, setting)
    query.requires_grad_(backward)
    leaves = {"queries": query, **leaves} if backward else {}

    def run() -> Mapping[str, Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        with torch.inference_mode(not backward), setting.autocast():
            found = read(query)
        if backward:
            found.backward(upstream.to(found.dtype))
        grads = {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}
        return {"read": found.detach(), **grads}

    return run


def learning(parts: list[Part]) -> dict[str, Tensor]:
    """Return contents and tags that get a gradient."""
    named = {}
    for i, part in enumerate(parts):
        named[f"content {i}"] = part.content
        if part.tag is not None:
            named[f"tag {i}"] = part.tag
    return {name: tensor for name, tensor in named.items() if tensor.requires_grad}


def ours(scene: Scene, *, backward: bool = False, path: str = "auto") -> Builder:
    """Return this library's read.

    Args:
        scene: The input.
        backward: Whether there is a backward pass.
        path: Attention implementation.
    """

    def build(setting: Setting) -> Work:
        parts = scene.made(setting)
        width = width_of(parts[0])
        cross = read_weights(width, setting)
        segments = [elements(part, setting) for part in parts]
        way = (
            "structured" if setting.smoke and path == "auto" else path
        )  # as larger shapes would be read

        def read(query: Tensor) -> Tensor:
            source = ElementSource(segments, implementation=way).normalized(cross.source_norm)
            return source.read(query, cross.attention)

        leaves = {
            "norm weight": cross.source_norm.weight,
            "norm bias": cross.source_norm.bias,
            "key weight": cross.attention.to_key.weight,
            "value weight": cross.attention.to_value.weight,
            "value bias": cross.attention.to_value.bias,
        } | learning(parts)
        return passes(read, width, setting, leaves=leaves, backward=backward)

    return build


def elements(part: Part, setting: Setting) -> Elements:
    """Return a modality as the library's adapters make it."""
    positions = FourierPositions(FourierPositionsConfig(num_bands=part.num_bands), part.grid)
    tables = positions(part.grid, torch.device(setting.device))
    return Elements(part.content, tables, modality_embedding=part.tag)


def plain(scene: Scene, *, backward: bool = False, pad: bool = False) -> Builder:
    """Return the plain read. Its dense array is made beforehand where nothing in it learns.

    Args:
        scene: The input.
        backward: Whether there is a backward pass.
        pad: Fill the width of keys and values up to a multiple of 8.
    """

    def build(setting: Setting) -> Work:
        parts = scene.made(setting)
        width = width_of(parts[0])
        module = PlainRead(width, pad=pad)
        cross = read_weights(width, setting)
        module.norm.load_state_dict(cross.source_norm.state_dict())
        module.key.load_state_dict(cross.attention.to_key.state_dict())
        module.value.load_state_dict(cross.attention.to_value.state_dict())
        module = module.to(setting.device)
        positions = [
            fourier_positions(part.grid, part.num_bands)[None].to(setting.device) for part in parts
        ]
        if not scene.learns:
            made = dense(parts, positions)
            positions.clear()

        def read(query: Tensor) -> Tensor:
            return module(query, dense(parts, positions) if scene.learns else made)

        leaves = {
            "norm weight": module.norm.weight,
            "norm bias": module.norm.bias,
            "key weight": module.key.weight,
            "value weight": module.value.weight,
            "value bias": module.value.bias,
        } | learning(parts)
        return passes(read, width, setting, leaves=leaves, backward=backward)

    return build


def dense(parts: list[Part], positions: list[Tensor]) -> Tensor:
    """Return the papers' array, B x M x C."""
    rows: list[Tensor] = []
    for part, encoded in zip(parts, positions, strict=True):
        columns = [part.content, encoded]
        if part.tag is not None:
            columns.append(part.tag.expand(1, encoded.shape[1], -1))
        rows.append(torch.cat(columns, dim=-1))
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
