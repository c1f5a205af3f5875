"""Bits per dimension of handwritten digits: `image_ar` beside two baselines on the same rows and the same CPU time.

A categorical distribution of each pixel by itself, with Laplace smoothing; and masked convolutions, as PixelCNN
(arXiv:1601.06759), of as many parameters, with the learning rate that is best on the validation split.

    python -m benchmarks.pixels --steps 1200 --out /tmp/pixels
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.evaluation.evaluate import evaluate_source, open_for_run
from perceivers.evaluation.generate_images import generate_images, image_grid
from perceivers.evaluation.predict import load_predictor
from perceivers.models.generate import GenerationConfig
from perceivers.training.fit import fit

LEVELS, SIDE = 17, 8
RATES = (1e-3, 3e-3)  # learning rates of the masked convolutions
_BATCH, _BLOCKS, _WIDTH = 32, 4, 79  # about as many parameters as `image_ar --size tiny`
_EVERY = 40  # steps between validations


def rows(name: str) -> Tensor:
    """Return the levels of the pixels of a split, n x 8 x 8."""
    source = with_validation(open_data("builtin:digits", DataConfig()), DataConfig())
    split = source.splits[name]
    images = [torch.from_numpy(split.row(n)["image"].array) for n in range(len(split))]
    return (torch.stack(images).float() * ((LEVELS - 1) / 255)).round().long()


def categorical_bits(train: Tensor, test: Tensor) -> float:
    """Return the bits per dimension of independent pixels, with one count added to each level."""
    counts = nn.functional.one_hot(train.flatten(1), LEVELS).sum(dim=0) + 1.0
    shares = counts / counts.sum(dim=1, keepdim=True)
    found = shares.expand(len(test), -1, -1).gather(2, test.flatten(1)[..., None])
    return float(-found.log2().mean())


class MaskedConv(nn.Conv2d):
    """Convolution of the pixels before each one, in reading order; `own` includes the pixel itself."""

    def __init__(self, inputs: int, outputs: int, side: int, *, own: bool) -> None:
        super().__init__(inputs, outputs, side, padding=side // 2)
        order = torch.arange(side * side).view(side, side)
        self.register_buffer("mask", order < side * side // 2 + own)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution."""
        weight = self.weight * self.get_buffer("mask")
        return conv2d(input, weight, self.bias, padding=self.padding)  # pyright: ignore


class MaskedConvs(nn.Module):
    """Residual blocks of masked convolutions: levels B x 8 x 8 -> logits B x 17 x 8 x 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = MaskedConv(LEVELS, width, 5, own=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), MaskedConv(width, width, 3, own=True)) for _ in range(_BLOCKS)
        )
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(width, LEVELS, 1))

    def forward(self, levels: Tensor) -> Tensor:
        """Return the logits of each pixel from those before it."""
        z = self.first(nn.functional.one_hot(levels, LEVELS).permute(0, 3, 1, 2).float())
        for block in self.blocks:
            z = z + block(z)
        return self.last(z)


@torch.no_grad()
def bits(model: nn.Module, levels: Tensor) -> float:
    """Return the bits per dimension of a model of images."""
    return float(cross_entropy(model.eval()(levels), levels)) / math.log(2)


def train_convolutions(
    train: Tensor, held: Tensor, *, rate: float, seconds: float
) -> tuple[MaskedConvs, float]:
    """Return the model of the best validation, and its bits, after so much CPU time."""
    torch.manual_seed(0)
    model = MaskedConvs(_WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.05)
    best, kept, step, began = math.inf, model.state_dict(), 0, time.process_time()
    while (spent := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(
            (step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * spent)
        )
        batch = train[torch.randint(len(train), (_BATCH,))]
        loss = cross_entropy(model.train()(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % _EVERY == 0 and (found := bits(model, held)) < best:
            best, kept = found, {name: one.clone() for name, one in model.state_dict().items()}
    model.load_state_dict(kept)
    print(f"masked convolutions, rate {rate:g}: {step} steps, validation {best:.3f}", flush=True)
    return model, best


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run and of the samples"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, held, test = (rows(name) for name in ("train", "validation", "test"))
    began = time.process_time()
    settings: dict[str, Any] = {
        "task.vocabulary.levels": LEVELS,
        "baseline": False,
        "data.workers": 0,
    }
    fit("builtin:digits", "image_ar", out=args.out / "run", max_steps=args.steps, **settings)
    seconds = time.process_time() - began
    predictor = load_predictor(args.out / "run")
    source = open_for_run(predictor)
    found = {
        name: evaluate_source(predictor, source, name).metrics for name in ("validation", "test")
    }
    tried = [train_convolutions(train, held, rate=rate, seconds=seconds) for rate in RATES]
    model = min(tried, key=lambda one: one[1])[0]
    result = {
        "seconds": seconds,
        "image_ar": {
            "parameters": sum(p.numel() for p in predictor.model.parameters()),
            **{name: one["bits_per_dimension"] for name, one in found.items()},
        },
        "masked convolutions": {
            "parameters": sum(int(p.numel()) for p in model.parameters()),
            "validation": bits(model, held),
            "test": bits(model, test),
        },
        "categorical": {
            "validation": categorical_bits(train, held),
            "test": categorical_bits(train, test),
        },
    }
    print(json.dumps(result, indent=2))
    (args.out / "result.json").write_text(json.dumps(result, indent=2))
    config = GenerationConfig(seed=1)
    image_grid(generate_images(predictor, count=64, config=config)).save(args.out / "samples.png")


if __name__ == "__main__":
    main()
