"""Compare Perceivers and plain networks at equal training cost, in minutes of a small CPU.

Every configuration gets the same core minutes, samples, augmentation and training function (`plain_nets.train`); only
the network, its learning rate and optimizer differ. Operations are counted. A result is added to the file as soon
as it is there.

    python -m benchmarks evidence --list
    python -m benchmarks evidence --data DATA --only cifar10-perceiver --core-minutes 20
    python -m benchmarks evidence --page                          docs/results/evidence.md from the results

`--split validation` measures on a tenth of the training data, for choices; by default the test split is read, once.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import plain_nets
from benchmarks.plain_nets import Training
from benchmarks.small_cpu import ROWS, keep, machine_facts, on_file, read
from benchmarks.small_cpu_baselines import load

RESULTS = Path(__file__).parent / "results" / "evidence.json"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "evidence.md"
SIDE, PIXELS, BANDS = 32, 1024, 16
Build = Callable[
    [int, int], nn.Module
]  # of the number of classes and the channels of a pixel or point


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One network on one data set.

    Attributes:
        name: Name in the results.
        data: `cifar10` or `modelnet10`.
        text: Description for the table.
        build: Returns the network.
        training: Learning rate, optimizer and batch.
        fourier: Put Fourier features of the positions beside the values of each pixel or point.
        permute: Permute the pixels, with the features beside them, by one fixed permutation. Perceivers on pixels
            add positions themselves and permute their elements after that, so theirs is a part of the network.
    """

    name: str
    data: str
    text: str
    build: Build
    training: Training
    fourier: bool = False
    permute: bool = False


def _encoder(**changes: Any) -> Any:
    from perceivers.models.encoder import PerceiverEncoderConfig

    small = {
        "num_latents": 32,
        "latent_channels": 128,
        "num_cross_attends": 2,
        "num_blocks": 4,
        "num_self_attends_per_block": 1,
        "num_cross_attend_heads": 4,
        "cross_attend_qk_channels": 64,
        "cross_attend_v_channels": 64,
        "num_self_attend_heads": 4,
    }
    return PerceiverEncoderConfig(**small | changes)


class _Named(nn.Module):
    """A model of this library for a single tensor."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.model({self.name: x})


def _perceiver(
    name: str, make: Callable[[int], Any], *, permuted: bool = False, **changes: Any
) -> Build:
    """Return a function that builds a Perceiver; `make` returns the input adapter for so many channels."""

    def build(num_classes: int, channels: int) -> nn.Module:
        from perceivers.models.perceiver import PerceiverConfig
        from perceivers.models.perceiver import build as build_model
        from perceivers.outputs.heads import MeanPoolConfig

        config = PerceiverConfig(
            inputs={name: make(channels)},
            encoder=_encoder(**changes),
            output=MeanPoolConfig(num_outputs=num_classes),
            permute=7 if permuted else None,
        )
        return _Named(build_model(config), name)

    return build


def _pixels(positions: Any) -> Callable[[int], Any]:
    from perceivers.inputs.image import PixelInputConfig

    return lambda channels: PixelInputConfig(
        size=(SIDE, SIDE), num_channels=channels, positions=positions
    )


def _fourier_pixels(channels: int) -> Any:
    from perceivers.inputs.positions import FourierPositionsConfig

    return _pixels(FourierPositionsConfig(num_bands=BANDS))(channels)


def _learned_pixels(channels: int) -> Any:
    from perceivers.inputs.positions import LearnedPositionsConfig

    return _pixels(LearnedPositionsConfig(channels=64))(channels)


def _stem(channels: int) -> Any:
    from perceivers.inputs.registry import default_input

    return replace(default_input("image", 64), size=(SIDE, SIDE), num_channels=channels)


def _points(channels: int) -> Any:
    from perceivers.inputs.points import PointsInputConfig

    return PointsInputConfig(
        num_points=512, num_channels=channels - 3, num_bands=8, max_resolution=32.0
    )


def _neighbor_points(channels: int) -> Any:
    from perceivers.inputs.points import NeighborPointsInputConfig

    return NeighborPointsInputConfig(num_points=512, num_channels=channels - 3)


ADAMW = Training(lr=2e-3)
SLOW = Training(lr=1e-3)
SGD = Training(lr=0.1, optimizer="sgd")
FEW = Training(lr=2e-3, batch_size=32)


def _perceivers_of_pixels() -> list[Configuration]:
    made = [
        ("fourier", "Perceiver on pixels, Fourier positions", _fourier_pixels, {}),
        ("learned", "Perceiver on pixels, learned positions", _learned_pixels, {}),
        ("unshared", "Perceiver on pixels, unshared weights", _fourier_pixels, _UNSHARED),
        (
            "interleaved4",
            "4 cross-attentions, interleaved",
            _fourier_pixels,
            {"num_cross_attends": 4},
        ),
        ("start4", "4 cross-attentions at the start", _fourier_pixels, _START),
    ]
    return [
        Configuration(
            name=f"cifar10-perceiver-{name}" + ("-permuted" if permuted else ""),
            data="cifar10",
            text=text + (", permuted" if permuted else ""),
            build=_perceiver("image", make, permuted=permuted, **changes),
            training=ADAMW,
        )
        for name, text, make, changes in made
        for permuted in ((False, True) if name in ("fourier", "learned") else (False,))
    ]


_UNSHARED = {"share_blocks": False, "share_cross_attends": "none"}
_START = {"num_cross_attends": 4, "cross_attends_at": "start"}


def _networks_of_images() -> list[Configuration]:
    made: list[tuple[str, str, Build, Training]] = [
        ("perceiver-stem", "Perceiver behind the default stem", _perceiver("image", _stem), ADAMW),
        ("resnet", "ResNet", plain_nets.ResNet, SGD),
        ("vit", "ViT, patches of 4 x 4", plain_nets.ViT, SLOW),
        ("transformer", "Transformer of all pixels", plain_nets.PixelTransformer, SLOW),
    ]
    ways = {
        "": (False, False),
        "-ff": (True, False),
        "-permuted": (False, True),
        "-ff-permuted": (True, True),
    }
    return [
        Configuration(
            name=f"cifar10-{name}{way}",
            data="cifar10",
            text=text + (" (FF)" if fourier else "") + (", permuted" if permute else ""),
            build=build,
            training=training,
            fourier=fourier,
            permute=permute,
        )
        for name, text, build, training in made
        for way, (fourier, permute) in ways.items()
    ]


def _networks_of_points() -> list[Configuration]:
    made: list[tuple[str, str, Build, bool]] = [
        (
            "perceiver",
            "Perceiver on points, Fourier positions",
            _perceiver("points", _points),
            False,
        ),
        (
            "perceiver-stem",
            "Perceiver behind the default stem",
            _perceiver("points", _neighbor_points),
            False,
        ),
        (
            "transformer",
            "Transformer of all points (FF)",
            lambda classes, channels: plain_nets.Transformer(classes, channels, 0, 64, 4),
            True,
        ),
        ("pointnet", "PointNet", plain_nets.PointNet, False),
    ]
    return [
        Configuration(
            name=f"modelnet10-{name}",
            data="modelnet10",
            text=text,
            build=build,
            training=FEW,
            fourier=fourier,
        )
        for name, text, build, fourier in made
    ]


CONFIGURATIONS = (*_perceivers_of_pixels(), *_networks_of_images(), *_networks_of_points())


def fourier_features(positions: Tensor, bands: int, highest: float) -> Tensor:
    """Return positions in [-1, 1], sines and cosines of each axis: n x d -> n x d(2K + 1)."""
    angles = math.pi * positions[..., None] * torch.linspace(1, highest, bands)
    return torch.cat([positions, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def image_features() -> Tensor:
    """Return Fourier features of a grid of pixels, 1 x P x H x W."""
    axis = torch.linspace(-1, 1, SIDE)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    return fourier_features(grid, BANDS, SIDE / 2).permute(2, 0, 1)[None]


def prepared(one: Configuration) -> Callable[[Tensor], Tensor]:
    """Return a function from normalized samples to the input of the network."""
    if one.data == "modelnet10":
        return lambda x: fourier_features(x, 8, 16.0) if one.fourier else x
    features = image_features()
    order = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(7))

    def prepare(x: Tensor) -> Tensor:
        if one.fourier:
            x = torch.cat([x, features.expand(len(x), -1, -1, -1)], dim=1)
        return x.flatten(2)[:, :, order].view(x.shape) if one.permute else x

    return prepare


def points_augmented(x: Tensor) -> Tensor:
    """Return 512 points of each sample at random, normalized, each axis stretched, moved and jittered."""
    chosen = torch.rand(x.shape[:2]).argsort(dim=1)[:, :512]
    x = normalized_points(torch.take_along_dim(x, chosen[..., None], dim=1))
    x = x * torch.empty(len(x), 1, 3).uniform_(0.8, 1.25) + torch.empty(len(x), 1, 3).uniform_(
        -0.1, 0.1
    )
    return x + 0.01 * torch.randn_like(x)


def normalized_points(x: Tensor) -> Tensor:
    """Return points with zero mean whose largest coordinate is 1."""
    x = x - x.mean(dim=1, keepdim=True)
    return x / x.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-9)


def measure(one: Configuration, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and measure one configuration."""
    row = next(row for row in ROWS if row.name == one.data)
    problem = load(row, folder, 1.0)
    classes, labels = np.unique(problem.train.y, return_inverse=True)
    train_x, train_y = _tensor(one, problem.train.x), torch.as_tensor(labels)
    if args.split == "validation":
        held = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(0))
        cut = len(held) // 10
        test_x, test_y = train_x[held[:cut]], train_y[held[:cut]].numpy()
        train_x, train_y = train_x[held[cut:]], train_y[held[cut:]]
    else:
        test_x, test_y = _tensor(one, problem.test.x), np.searchsorted(classes, problem.test.y)
    prepare, augment, settle = prepared(one), plain_nets.crops_and_mirrored, prepared(one)
    if one.data == "modelnet10":
        augment = points_augmented
        settle = lambda x: prepare(normalized_points(x[:, :512]))  # noqa: E731
    else:
        mean, std = train_x.mean((0, 2, 3), keepdim=True), train_x.std((0, 2, 3), keepdim=True)
        train_x, test_x = (train_x - mean) / std, (test_x - mean) / std
    sample = prepare(augment(train_x[:2]))
    torch.manual_seed(args.seed)
    model = one.build(len(classes), sample.shape[1 if sample.ndim == 4 else 2])
    flops = step_flops(model, sample) / 2
    training = replace(one.training, seed=args.seed)
    core_seconds = 60 * args.core_minutes
    start = time.perf_counter()
    steps, losses = plain_nets.train(
        model,
        train_x,
        train_y,
        lambda x: prepare(augment(x)),
        core_seconds=core_seconds,
        training=training,
    )
    samples = steps * min(training.batch_size, len(train_x))
    accuracy = float((plain_nets.predictions(model, test_x, settle) == test_y).mean())
    return {
        "text": one.text,
        "data": one.data,
        "accuracy": accuracy,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mflops_per_sample": round(flops / 1e6, 1),
        "tflops": round(flops * samples / 1e12, 1),
        "epochs": round(samples / len(train_x), 2),
        "losses": [round(loss, 4) for loss in losses],
        "samples_per_core_second": round(samples / (60 * args.core_minutes), 1),
        "minutes": round((time.perf_counter() - start) / 60, 2),
    }


def step_flops(model: nn.Module, x: Tensor) -> int:
    """Return the operations of a forward and a backward pass: matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    model.train()
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    model.zero_grad()
    return counter.get_total_flops()


def _tensor(one: Configuration, x: np.ndarray) -> Tensor:
    return plain_nets.image_tensor(x) if one.data == "cifar10" else torch.as_tensor(x)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks evidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder with cifar10 and modelnet10")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    parser.add_argument("--list", action="store_true", help="names of all configurations")
    parser.add_argument("--page", action="store_true", help="write docs/results/evidence.md only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="beginnings of names")
    parser.add_argument("--exact", action="store_true", help="--only has whole names")
    parser.add_argument("--core-minutes", type=float, default=10.0, help="threads times minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = arguments(argv)

    def is_chosen(name: str) -> bool:
        return not args.only or any(
            name == one if args.exact else name.startswith(one) for one in args.only
        )

    chosen = [one for one in CONFIGURATIONS if is_chosen(one.name)]
    if not chosen:
        known = ", ".join(one.name for one in CONFIGURATIONS)
        print(
            f"Expected names of configurations, got {args.only}. There are {known}.",
            file=sys.stderr,
        )
        return 2
    if args.list:
        print("\n".join(f"{one.name:40} {one.text}" for one in chosen))
        return 0
    if args.page:
        from benchmarks.evidence_page import rewrite

        rewrite(read(args.results), PAGE)
        print(f"written to {PAGE}")
        return 0
    for one in chosen:
        folder = None if args.data is None else args.data / one.data
        if folder is None or not folder.is_dir():
            where = "--data is not given" if folder is None else f"there is no {folder}"
            print(f"{one.name}: skipped, {where}.")
            continue
        key = {
            "name": one.name,
            "seed": args.seed,
            "core_minutes": args.core_minutes,
            "split": args.split,
        }
        if on_file(args.results, "runs", key):
            print(f"{one.name}: on file")
            continue
        found = {**key, **measure(one, str(folder), args), **machine_facts(torch.get_num_threads())}
        keep(args.results, "runs", key, found)
        print(
            f"{one.name}: {100 * found['accuracy']:.1f} %, {found['tflops']} TFLOP, {found['epochs']} epochs",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
