"""Small plain networks to compare with, and one function that trains them for a given time."""

import math
import time
from collections.abc import Callable

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
        return self.head(self.body(x).mean(dim=(2, 3)))


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "resnet": ResNet,
}


def fit_images(
    network: str,
    images: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    *,
    seconds: float,
    seed: int = 0,
) -> np.ndarray:
    """Train a network on images, n x H x W x C of bytes, for so many seconds; return the classes of the test images.

    Crops after padding by an eighth, mirroring, label smoothing 0.1, SGD with Nesterov momentum, one cycle of the rate.
    """
    torch.manual_seed(seed)
    x, y = _tensor(images), torch.as_tensor(labels)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    x = (x - mean) / std
    model = NETWORKS[network](int(y.max()) + 1, x.shape[1]).to(memory_format=torch.channels_last)  # pyright: ignore
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    start, batch = time.perf_counter(), 128
    is_done = False
    while not is_done:
        for rows in torch.randperm(len(x)).split(batch):
            done = (time.perf_counter() - start) / seconds
            is_done = done >= 1
            if is_done or len(rows) < min(batch, len(x)):
                break
            for group in optimizer.param_groups:
                group["lr"] = 0.2 * min(done / 0.15, (1 - done) / 0.85)
            loss = F.cross_entropy(model(augmented(x[rows])), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return predictions(model, (_tensor(test) - mean) / std)


def predictions(model: nn.Module, x: Tensor) -> np.ndarray:
    """Return the class of each image, the mean of an image and its mirrored copy."""
    model.eval()
    with torch.inference_mode():
        parts = [model(part) + model(part.flip(3)) for part in x.split(256)]
    return torch.cat(parts).argmax(dim=1).numpy()


def augmented(x: Tensor) -> Tensor:
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
    return padded[index, channel, rows, columns].contiguous(memory_format=torch.channels_last)


def _tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
