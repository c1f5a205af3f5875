"""Training steps of the tiny recipes for a user's own data, beside those of version 0.2's first draft.

`ours` is what `fit` chooses for made-up data of one size. `before` is the same encoder behind a single convolution,
with PyTorch's AdamW as it is by default. `products` are bare products of large matrices, as many operations as those of
`ours`: their time over that of `ours` is the achieved share of the machine's matrix product.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool1d, pad, relu
from torch.optim import AdamW, Optimizer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setting import Case, Contestant, Setting, Target, Work
from perceivers.data.base import Batch
from perceivers.inputs.elements import Elements
from perceivers.inputs.image import ConvInput, ConvInputConfig
from perceivers.inputs.positions import FourierPositionsConfig, build_positions
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver, build
from perceivers.nn.heap import keep_freed_memory
from perceivers.outputs.heads import MeanPool, MeanPoolConfig
from perceivers.recipes.resolve import resolve
from perceivers.training.build import build_task
from perceivers.training.dataloaders import ProcessInfo, build_loaders
from perceivers.training.optim import build_optimizer, clip_gradients

__all__ = ["step_cases"]

SIDE = 1024  # of the matrices that are multiplied
WORDS = 2000  # different words of the made-up texts


class Scene(NamedTuple):
    """Data of one kind and size, the samples of a step, what is aimed at, and steps before the first measured one."""

    kind: str
    batch: int
    speed: float
    share: float | None
    first_steps: int = 0


SCENES = {
    "images": Scene("image", 128, 1.6, 0.5),
    "text": Scene("text", 64, 3.0, 0.5),
    "series": Scene(
        "series", 16, 1.8, None, first_steps=100
    ),  # the bank measures its statistics in them
}


def made_rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Return made-up samples of two classes: images of 32 x 32, texts of 2,048 bytes, series of 256 steps.

    The series are noise, smoothed in the second class: statistics of the whole are enough to classify them.
    """
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshrdlu"), rng.integers(2, 9))) for _ in range(WORDS)]

    def value(label: int) -> Any:
        if kind == "image":
            return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        if kind == "text":
            return " ".join(rng.choice(words, 600))[:2048]
        noise = rng.normal(size=260).astype(np.float32)
        return np.convolve(noise, np.full(5, 0.2), "valid") if label else noise[:256]

    return [{kind: value(row % 2), "label": f"class {row % 2}"} for row in range(count)]


def training_step(
    model: nn.Module, optimizer: Optimizer, loss: Callable[[Any], Tensor], batch: Any
) -> Work:
    """Return a complete optimizer step: forward, loss, backward, clipping, update."""
    model.train()

    def run() -> Mapping[str, Tensor]:
        loss(batch).backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {}

    return run


def ours(scene: Scene) -> Callable[[Setting], Work]:
    """Return the step of today's default."""

    def build_work(setting: Setting) -> Work:
        keep_freed_memory()  # as `fit` does
        count = 4 if setting.smoke else scene.batch
        rows = made_rows(scene.kind, max(2 * count, 64))
        overrides = {"training.batch_size": count, "workers": 0}
        run = resolve(rows, size="tiny", overrides=overrides)
        recipe = run.recipe
        loader, _ = build_loaders(
            run.data, recipe, run.preprocess, batch_size=count, process=ProcessInfo()
        )
        batch: Batch = next(iter(loader)).to(torch.device(setting.device))
        loader.close()
        torch.manual_seed(0)
        model, task = build(recipe.model_config()).to(setting.device), build_task(recipe, run.data)

        def loss(batch: Batch) -> Tensor:
            with setting.autocast():
                outputs: Any = model(batch.inputs, batch.masks)
            return task.loss(outputs.float(), batch.targets)

        step = training_step(model, build_optimizer(model, recipe.optim), loss, batch)
        for _ in range(0 if setting.smoke else scene.first_steps):
            step()
        return step

    return build_work


class _Row(nn.Module):
    """A strided convolution or two over bytes or series, each with a LayerNorm and a ReLU."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.is_text = kind == "text"
        self.padding = (3, 4) if self.is_text else (2, 2)
        widths = (64, 128) if self.is_text else (1, 64, 128)
        kernel, stride = (8, 1) if self.is_text else (5, 2)
        self.embedding = nn.Embedding(262, 64) if self.is_text else None
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, stride=stride, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.num_elements, self.channels = (256, 128) if self.is_text else (64, 128)
        self.axes = (self.num_elements,)
        self.positions = None
        self.places = nn.Parameter(torch.randn(256, 128) * 0.02) if self.is_text else None
        if not self.is_text:
            positions = FourierPositionsConfig(num_bands=None)
            self.positions = build_positions(positions, (self.num_elements,))
            self.channels += self.positions.channels

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Elements:
        x = (x if self.embedding is None else self.embedding(x)).movedim(2, 1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = relu(norm(convolution(pad(x, self.padding)).movedim(1, -1)).movedim(-1, 1))
        if self.places is not None:
            return Elements(max_pool1d(x, 8).movedim(1, 2) + self.places, mask=mask)
        assert self.positions is not None
        return Elements(x.movedim(1, 2), self.positions((self.num_elements,), x.device), mask=mask)


def before(scene: Scene) -> Callable[[Setting], Work]:
    """Return the step of a stem of one convolution, one wide head for images, and AdamW by loops over tensors."""

    def build_work(setting: Setting) -> Work:
        torch.manual_seed(0)
        is_image, count = scene.kind == "image", 2 if setting.smoke else scene.batch
        narrow = None if is_image else 64
        positions = FourierPositionsConfig(num_bands=None)
        stem = (
            ConvInput(ConvInputConfig(size=(32, 32), stem_channels=64, positions=positions))
            if is_image
            else _Row(scene.kind)
        )
        config = PerceiverEncoderConfig(
            num_latents=32 if is_image else 16,
            latent_channels=128,
            num_cross_attends=2,
            num_blocks=2,
            num_self_attends_per_block=2,
            num_cross_attend_heads=1 if is_image else 4,
            num_self_attend_heads=4,
            cross_attend_qk_channels=narrow,
            cross_attend_v_channels=narrow,
            share_cross_attends="none",
            share_blocks=False,
        )
        encoder = PerceiverEncoder(config, input_channels=stem.channels)
        head = MeanPool(MeanPoolConfig(num_outputs=2), latent_channels=128)
        model = Perceiver({scene.kind: stem}, encoder, head).to(setting.device)
        x = {
            "image": lambda: torch.randn(count, 3, 32, 32),
            "text": lambda: torch.randint(97, 123, (count, 2048)),
            "series": lambda: torch.randn(count, 256, 1),
        }[scene.kind]()
        labels = torch.zeros(count, dtype=torch.long, device=setting.device)

        def loss(batch: Mapping[str, Tensor]) -> Tensor:
            with setting.autocast():
                outputs: Any = model(batch)
            return cross_entropy(outputs.float(), labels)

        optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        return training_step(model, optimizer, loss, {scene.kind: x.to(setting.device)})

    return build_work


def products(scene: Scene) -> Callable[[Setting], Work]:
    """Return products of large matrices, as many operations as a step of ours."""

    @cache
    def counted(smoke: bool) -> int:
        work = ours(scene)(Setting(smoke=smoke))
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    def build_work(setting: Setting) -> Work:
        options: dict[str, Any] = {
            "device": setting.device,
            "dtype": getattr(torch, setting.dtype),
        }
        a, b = torch.randn(SIDE, SIDE, **options), torch.randn(SIDE, SIDE, **options)
        # As many rows as leave the count of operations right.
        rows = max(1, counted(setting.smoke) // (2 * SIDE * SIDE))

        def run() -> Mapping[str, Tensor]:
            for start in range(0, rows, SIDE):
                torch.mm(a[: min(SIDE, rows - start)], b)
            return {}

        return run

    return build_work


def step_cases() -> list[Case]:
    """Return a case for images, texts and series."""
    return [
        Case(
            name=f"training-{name}",
            what=f"an optimizer step of the tiny model that `fit` chooses for {name}, batch {scene.batch}",
            contestants=(
                Contestant(name="ours", build=ours(scene)),
                Contestant(name="before", build=before(scene), same=False),
                Contestant(name="products", build=products(scene), same=False),
            ),
            targets=(
                Target(
                    description="times the samples a second of before",
                    of="before",
                    to="ours",
                    at_least=scene.speed,
                ),
                Target(
                    description="of the speed of bare matrix products",
                    of="products",
                    to="ours",
                    at_least=scene.share,
                ),
            ),
            float32_only=True,
        )
        for name, scene in SCENES.items()
    ]
