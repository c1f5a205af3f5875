"""Loss of a run of the next byte on a text by the length of the prefix: what bytes further back are worth.

Every byte is predicted once, in windows that move by the number of latents: from as many bytes before the window's
latents as the prefix is long, fewer at the start of the text.

    python -m benchmarks.prefix RUN text.txt --prefixes 16 64 256 512
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from perceivers.evaluation.generate import autoregressive_model
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.tasks.base import forward_task
from perceivers.tasks.byte_tokens import FIRST_BYTE

_BATCH = 8  # windows at a time


def losses(predictor: Predictor, text: bytes, prefix: int) -> torch.Tensor:
    """Return the loss of every byte of a text in nats, in order."""
    tokens = torch.tensor([byte + FIRST_BYTE for byte in text])
    latents = autoregressive_model(predictor).config.num_latents
    ends = range(len(tokens) % latents or latents, len(tokens) + 1, latents)
    windows = [tokens[max(end - latents - prefix, 0) : end] for end in ends]
    modality = next(iter(predictor.preprocess))
    found: list[torch.Tensor] = []
    for first in range(0, len(windows), _BATCH):
        same = windows[first : first + _BATCH]
        groups = [[one] for one in same] if len(set(map(len, same))) > 1 else [same]
        for group in groups:
            batch = predictor.task.prepare_batch(
                {modality: torch.stack(group)}, {}, None, training=False
            )
            with torch.inference_mode():
                outputs = forward_task(predictor.model, batch)[:, -latents:].float()
            targets = batch.targets[:, -outputs.shape[1] :]
            each = cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
            found.append(each)
    return torch.cat(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix", description=__doc__)
    parser.add_argument("run", help="a run of the recipe text_ar")
    parser.add_argument("text", type=Path, help="a text that was not trained on")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[64, 512], help="in bytes")
    args = parser.parse_args(argv)
    predictor, text = load_predictor(args.run), args.text.read_bytes()
    config = autoregressive_model(predictor).config
    most = config.max_length - 1 - config.num_latents
    if not all(0 <= prefix <= most for prefix in args.prefixes) or len(text) < 2:
        print(
            f"Expected --prefixes from 0 to {most}, with {config.num_latents} latents the context, and a text; got "
            f"{args.prefixes} and {len(text)} bytes."
        )
        return 2
    first: torch.Tensor | None = None
    print("prefix  nats a byte  difference from the first")
    for prefix in args.prefixes:
        each = losses(predictor, text, prefix)
        first = each if first is None else first
        # Bytes that follow each other depend on each other: the error is that of the means of a hundred parts.
        blocks = torch.stack([part.mean() for part in (each - first).chunk(100)])
        error = float(blocks.std() / len(blocks) ** 0.5)
        print(
            f"{prefix:6}  {each.mean():11.4f}  {(each - first).mean():+.4f} +- {1.96 * error:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
