"""Small plain networks to compare with, and one function that trains any network for a given time."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _convolution(channels: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(channels, out, 3, stride), _convolution(out, out, 3)
        alike = channels == out and stride == 1
        self.shortcut = nn.Identity() if alike else _convolution(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return (self.second(self.first(x).relu()) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    """ResNet for small images: a convolution, three stages of residual blocks, the mean, a linear layer.

    Reference: Deep residual learning (arXiv:1512.03385), section 4.2, wider and less deep.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, width: int = 32, blocks: int = 2
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(in_channels, width, 3), nn.ReLU()]
        channels = width
        for stage in range(3):
            for block in range(blocks):
                out = width * 2**stage
                layers.append(ResidualBlock(channels, out, 2 if stage and not block else 1))
                channels = out
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, B x C x H x W."""
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.body(x).mean(dim=(2, 3)))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, channels: int, heads: int, widening: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, widening * channels),
            nn.GELU(),
            nn.Linear(widening * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the elements after the layer, B x M x C."""
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv.unbind())
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Transformer whose elements attend to each other, without latents: the mean of the elements is projected.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of an element.
        num_elements: Elements, for a learned position of each. 0: none, where the input has positions.
        channels: Width of the layers.
        depth: Number of layers.
    """

    def __init__(
        self, num_classes: int, in_channels: int, num_elements: int, channels: int, depth: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_channels, channels)
        self.positions = nn.Parameter(0.02 * torch.randn(num_elements, channels))
        layers = [TransformerLayer(channels, channels // 32, 2) for _ in range(depth)]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(channels))
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of elements, B x M x C."""
        x = self.embed(x)
        if len(self.positions):
            x = x + self.positions
        return self.head(self.layers(x).mean(dim=1))


class ViT(nn.Module):
    """Transformer of the square patches of an image, with a learned position of each.

    Reference: An Image is Worth 16x16 Words (arXiv:2010.11929), with the mean of the patches as the output.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        size: int = 32,
        patch: int = 4,
        channels: int = 128,
        depth: int = 6,
    ) -> None:
        super().__init__()
        self.patch = patch
        count = (size // patch) ** 2
        self.transformer = Transformer(num_classes, in_channels * patch**2, count, channels, depth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, B x C x H x W."""
        return self.transformer(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2))


class PixelTransformer(nn.Module):
    """Transformer of all pixels, without latents.

    Reference: the baseline "Transformer" of Perceiver (arXiv:2103.03206), section 4.1.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        num_pixels: int = 1024,
        channels: int = 64,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.transformer = Transformer(num_classes, in_channels, num_pixels, channels, depth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, B x C x H x W."""
        return self.transformer(x.flatten(2).transpose(1, 2))


class PointNet(nn.Module):
    """Layers that see each point by itself, the maximum over the points, and layers behind it.

    Reference: PointNet (arXiv:1612.00593), without the transforms of its input and features.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.points = nn.Sequential(
            *_normed_layer(nn.Conv1d(in_channels, 64, 1)),
            *_normed_layer(nn.Conv1d(64, 128, 1)),
            *_normed_layer(nn.Conv1d(128, 512, 1)),
        )
        self.head = nn.Sequential(
            *_normed_layer(nn.Linear(512, 256)), nn.Dropout(0.3), nn.Linear(256, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of points, B x M x C."""
        return self.head(self.points(x.transpose(1, 2)).amax(dim=2))


def _normed_layer(layer: nn.Conv1d | nn.Linear) -> tuple[nn.Module, ...]:
    return layer, nn.BatchNorm1d(layer.weight.shape[0]), nn.ReLU()


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training of a network.

    Attributes:
        lr: Peak learning rate.
        optimizer: `adamw` with weight decay 0.05, or `sgd` with Nesterov momentum and weight decay 5e-4.
        batch_size: Samples of a step.
        seed: Seed of sample order and augmentation.
    """

    lr: float = 1e-3
    optimizer: str = "adamw"
    batch_size: int = 128
    seed: int = 0


_POINTS = 20  # of the curve of a training


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    augment: Callable[[Tensor], Tensor],
    *,
    core_seconds: float,
    training: Training,
) -> tuple[int, list[float]]:
    """Train a network for so many seconds of computation, summed over threads.

    A tenth of warm-up, then cosine to zero, both by the computation done; label smoothing 0.1; gradients clipped to a
    norm of 1.

    Returns:
        The number of steps, and the mean loss of each twentieth of the computation in which a step ended.
    """
    torch.manual_seed(training.seed)
    optimizer = _optimizer(model, training)
    start, steps = time.process_time(), 0
    losses: list[list[float]] = [[] for _ in range(_POINTS)]
    model.train()
    while True:
        for rows in torch.randperm(len(x)).split(training.batch_size):
            done = (time.process_time() - start) / core_seconds
            if done >= 1:
                return steps, [sum(part) / len(part) for part in losses if part]
            if len(rows) < min(training.batch_size, len(x)):
                continue
            for group in optimizer.param_groups:
                group["lr"] = training.lr * _share_of_rate(done)
            loss = F.cross_entropy(model(augment(x[rows])), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses[int(done * _POINTS)].append(loss.item())
            steps += 1


def _share_of_rate(done: float) -> float:
    return done / 0.1 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))


def _optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), training.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, training.lr, betas=(0.9, 0.99), fused=True)


def predictions(
    model: nn.Module, x: Tensor, prepare: Callable[[Tensor], Tensor] = lambda x: x
) -> np.ndarray:
    """Return the class of each sample."""
    model.eval()
    with torch.inference_mode():
        parts = [model(prepare(part)).argmax(dim=1) for part in x.split(128)]
    return torch.cat(parts).numpy()


def crops_and_mirrored(x: Tensor) -> Tensor:
    """Return images cropped after padding by an eighth, each mirrored at random."""
    size = x.shape[2]
    border = math.ceil(size / 8)
    padded = F.pad(x, (border,) * 4)
    top, left = torch.randint(0, 2 * border + 1, (2, len(x)))
    rows = (top[:, None] + torch.arange(size))[:, None, :, None]
    columns = left[:, None] + torch.arange(x.shape[3])
    columns = torch.where(torch.rand(len(x), 1) < 0.5, columns, columns.flip(1))[:, None, None, :]
    index = torch.arange(len(x))[:, None, None, None]
    channel = torch.arange(x.shape[1])[None, :, None, None]
    return padded[index, channel, rows, columns]


def image_tensor(images: np.ndarray) -> Tensor:
    """Return images of bytes, n x H x W x C, as numbers from 0 to 1, n x C x H x W."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255


def fit_resnet(
    images: np.ndarray, labels: np.ndarray, test: np.ndarray, *, seconds: float
) -> np.ndarray:
    """Train a small ResNet for so many seconds on all threads and return the classes of the test images."""
    torch.manual_seed(0)
    x = image_tensor(images)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    model = ResNet(int(labels.max()) + 1, x.shape[1]).to(memory_format=torch.channels_last)  # pyright: ignore
    y = torch.as_tensor(labels)
    training = Training(lr=0.1, optimizer="sgd")
    core_seconds = seconds * torch.get_num_threads()
    train(
        model, (x - mean) / std, y, crops_and_mirrored, core_seconds=core_seconds, training=training
    )
    return predictions(model, (image_tensor(test) - mean) / std)
