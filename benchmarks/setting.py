"""Cases, and the sizes of everything that is measured."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "FULL",
    "SMOKE",
    "Builder",
    "Case",
    "Contestant",
    "Setting",
    "Sizes",
    "Skip",
    "Target",
    "Work",
]

Work = Callable[[], Mapping[str, Tensor]]
"""One pass. It returns the numbers it computed, by name, so that contestants can be compared."""

Quantity = Literal["seconds", "peak_mib", "over_mib"]


class Skip(Exception):  # noqa: N818, it is no error
    """A contestant cannot run here; the reason is the message."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of all cases. The defaults are the papers'.

    Attributes:
        num_latents: N.
        latent_channels: D.
        num_blocks: Blocks of the latent transformer; in the 2021 model as many reads.
        num_layers: Self-attends in a block.
        num_heads: Heads of a self-attend.
        num_classes: Outputs.
        num_bands: Frequencies for each axis of an image or clip.
        side: Rows and columns of an image.
        larger_sides: Those whose time must grow no faster than their elements.
        clip: Frames, rows and columns of a clip that is read pixel by pixel.
        stem: Rows, columns and channels of an image after a convolved stem.
        patches: Frames, rows and columns of a clip's patches, and values in each (2 x 8 x 8 x 3).
        patch_bands: Frequencies for each axis of the patches: with a tag of 4 they make 487 channels.
        mel: Time and frequency cells of a mel spectrogram.
        mel_bands: Frequencies for each of its axes.
        tag: Channels of the patches' tag.
    """

    num_latents: int = 512
    latent_channels: int = 1024
    num_blocks: int = 8
    num_layers: int = 6
    num_heads: int = 8
    num_classes: int = 1000
    num_bands: int = 64
    side: int = 224
    larger_sides: tuple[int, ...] = (512, 1024, 2048)
    clip: tuple[int, int, int] = (32, 224, 224)
    stem: tuple[int, int, int] = (56, 56, 64)
    patches: tuple[int, int, int, int] = (16, 28, 28, 384)
    patch_bands: int = 16
    mel: tuple[int, int] = (75, 64)
    mel_bands: int = 16
    tag: int = 4


FULL = Sizes()
SMOKE = Sizes(
    num_latents=8,
    latent_channels=16,
    num_blocks=2,
    num_layers=2,
    num_heads=2,
    num_classes=5,
    num_bands=3,
    side=12,
    larger_sides=(8, 16, 32),
    clip=(2, 6, 5),
    stem=(6, 6, 4),
    patches=(2, 3, 4, 12),
    patch_bands=2,
    mel=(4, 3),
    mel_bands=1,
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Device and precision of a case.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: `float32`, or `bfloat16` for autocast; weights stay float32.
        smoke: Tiny shapes, to see that everything runs. Their numbers mean nothing.
    """

    device: str = "cpu"
    dtype: str = "float32"
    smoke: bool = False

    @property
    def sizes(self) -> Sizes:
        """Sizes of all cases."""
        return SMOKE if self.smoke else FULL

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which every contestant computes."""
        enabled = self.dtype == "bfloat16"
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=enabled)


Builder = Callable[[Setting], Work]
"""Makes the model and the input, on the device; what it returns is what is timed."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way of doing the work of a case.

    Attributes:
        name: Within its case.
        build: Makes the model and the input.
        same: Whether it must compute what the first contestant of the case computes.
        gib: Free memory without which it is skipped.
        devices: Where it makes sense.
    """

    name: str
    build: Builder
    same: bool = True
    gib: float = 0.0
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A number that a case is about: a contestant's quantity, or that over another contestant's.

    Attributes:
        description: The number in words.
        of: A contestant.
        to: Another, by which the first is divided. None: the quantity itself.
        quantity: Measured quantity. Seconds are compared round by round.
        at_least: Bound, for the CPU in float32.
        at_most: Bound, for the CPU in float32.
        stretch: Where it would be even better.
    """

    description: str
    of: str
    to: str | None = None
    quantity: Quantity = "seconds"
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """Contestants that are measured together, in turns.

    Attributes:
        name: For `--only`.
        what: The work, in words.
        contestants: The first is this library's, and the one the others are compared with.
        targets: Claims to be checked.
        devices: Where it makes sense.
        float32_only: Whether bfloat16 makes no sense here.
    """

    name: str
    what: str
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    float32_only: bool = False
