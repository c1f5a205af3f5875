"""Pixels of images as the tokens of an autoregressive model."""

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch

from perceivers.registry import configclass
from perceivers.tasks.vocabulary import BaseVocabulary, register_vocabulary
from perceivers.typing import Bool, Float, Int, Tensor, UInt8
from perceivers.wording import counted

MOST_TOKENS = 16_384
"""Tokens of an image at most: 64 x 64 pixels of three channels are 12,288."""


@configclass
class PixelVocabulary(BaseVocabulary):
    """Gray levels or colors of pixels: row by row, in a row pixel by pixel, in a pixel red, green and blue.

    Attributes:
        levels: Values of a channel, 2 to 256. Level k is the value 255 k / (levels - 1); others are rounded to the
            nearest level, so that 256 levels keep every image exactly.
        image_size: Height and width in pixels. None: taken from the data.
        num_channels: 3 for RGB, 1 for gray. None: taken from the data.
        mean: Subtracted from each channel in preprocessing, of pixels in [0, 1]. Empty: taken from the data.
        std: Each channel was divided by it after that.

    Raises:
        ValueError: If a number is out of range.

    Reference: Perceiver AR (arXiv:2202.07765), section 5.2; special tokens and positions as in DeepMind's release.
    """

    kind: Literal["pixels"] = "pixels"
    levels: int = 256
    image_size: tuple[int, int] | None = None
    num_channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    unit: ClassVar[str] = "dimension"
    units: ClassVar[str] = "dimensions"
    start: ClassVar[int] = 2
    first: ClassVar[int] = 3
    generate_flags: ClassVar[str] = "--count 16 --out samples.png"

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise ValueError(f"Expected 2 to 256 levels of a pixel, got levels={self.levels}.")

    @property
    def size(self) -> int:
        """The levels and three special tokens."""
        return self.levels + self.first

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images.

        Raises:
            ValueError: If they are not known.
        """
        if self.image_size is None or self.num_channels is None:
            raise ValueError(f"Expected image_size and num_channels of the pixels, got {self}.")
        return *self.image_size, self.num_channels

    def fit_to(self, preprocess: Any) -> Self:
        """Return the vocabulary with size, channels and normalization of the images.

        Raises:
            ValueError: If the images have too many pixels.
        """
        found = replace(
            self,
            image_size=preprocess.size,
            num_channels=preprocess.num_channels,
            mean=preprocess.mean or (),
            std=preprocess.std or (),
        )
        height, width, channels = found.shape
        if (count := math.prod(found.shape)) > MOST_TOKENS:
            raise ValueError(
                f"Images of {height} x {width} pixels and {counted(channels, 'channel')} are {count:,} tokens: "
                f"expected at most {MOST_TOKENS:,}. Set a smaller size, --inputs.image.size 32 32, or gray images, "
                "--inputs.image.num-channels 1."
            )
        return found

    def fit_encoder(self, encoder: Any) -> Any:
        """Return the encoder with as many tokens as there are levels, and rows, columns and channels as positions."""
        height, width, channels = self.shape
        length = height * width * channels
        axes = (height + 2, width + 2, channels + 2) if encoder.positions == "learned" else ()
        return replace(
            encoder,
            vocab_size=self.size,
            max_length=length + 1,
            num_latents=min(encoder.num_latents, length),
            axes=axes,
        )

    def check_sample(self, name: str) -> None:
        """Refuse: nothing follows the last pixel of an image.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"'{name}' is a complete image, and nothing follows its last pixel. `perceivers generate` completes the "
            "first rows of an image, and `perceivers evaluate` measures the bits of complete ones."
        )

    def tokens(
        self,
        content: Float[Tensor, "B C Y X"] | Int[Tensor, "B L"],
        mask: Bool[Tensor, "B Lm"] | None,
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the tokens of normalized images, and that all of them are real. Integers are tokens already."""
        if content.is_floating_point():
            channels = (1, content.shape[1], 1, 1)
            if self.mean:
                std, mean = (
                    content.new_tensor(one).view(channels) for one in (self.std, self.mean)
                )
                content = content * std + mean
            levels = (content * (self.levels - 1)).round().clamp(0, self.levels - 1)
            content = levels.long().permute(0, 2, 3, 1).flatten(1) + self.first
        real = torch.ones_like(content, dtype=torch.bool)
        return content, real if mask is None else real & mask

    def images(self, tokens: Int[Tensor, "B L"]) -> UInt8[Tensor, "B Y X C"]:
        """Return the pixels of complete images, 0 to 255."""
        values = (tokens - self.first).clamp(0, self.levels - 1) * (255 / (self.levels - 1))
        return values.round().to(torch.uint8).view(-1, *self.shape)

    def token_name(self, token: int) -> str:
        """Return the level of a pixel."""
        return str(token - self.first)


register_vocabulary(PixelVocabulary)
