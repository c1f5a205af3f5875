"""A model as `transformers` loads it, asked the same as ours: that both answer alike is seen, not assumed."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from perceivers.exporting.verify import Difference
from perceivers.models.perceiver import Perceiver
from perceivers.typing import Float, Tensor

__all__ = ["Pairs", "asked", "compare_theirs"]

Pairs = list[tuple[Tensor, Tensor]]
"""Outputs of theirs, and ours."""

PART = 6272  # pixels of a film that are asked for at once, as in DeepMind's release


@torch.no_grad()
def compare_theirs(name: str, folder: Path, ours: Perceiver) -> Difference | None:
    """Return how far a written model is from ours, on made-up input in its own sizes. None without `transformers`.

    Args:
        name: Of their class.
        folder: What was written.
        ours: The model that it was written from.
    """
    if find_spec("transformers") is None:
        return None
    import transformers

    with warnings.catch_warnings(), _quiet(transformers):
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, name).from_pretrained(folder).eval()
        pairs = asked(name, theirs, ours.cpu().eval(), torch.Generator().manual_seed(0))
    largest = max(
        float((got.reshape(expected.shape) - expected).abs().max()) for expected, got in pairs
    )
    return Difference(largest=largest, told="made-up input")


def asked(name: str, theirs: Any, ours: Perceiver, rng: torch.Generator | None = None) -> Pairs:
    """Return what both say of the same random input, in the sizes of their configuration and precision.

    Args:
        name: Of their class.
        theirs: Their model.
        ours: Ours, with the same weights.
        rng: What the input is drawn from.
    """
    settings, dtype = theirs.config, theirs.dtype

    def normal(*shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=rng, dtype=dtype)

    if "ImageClassification" in name:
        side = settings.image_size if "Learned" in name else 224
        image = normal(1, 3, side, side)
        return [(theirs(inputs=image).logits, ours({"image": image}))]
    if name == "PerceiverForMaskedLM":
        length = settings.max_position_embeddings
        ids = torch.randint(6, 262, (2, length), generator=rng)
        mask = torch.arange(length) < torch.tensor([[length], [length * 3 // 5]])  # padding
        found = theirs(inputs=ids, attention_mask=mask.long()).logits
        return [(found[mask], _one(ours({"text": ids}, {"text": mask}))[mask])]
    if name == "PerceiverForOpticalFlow":
        height, width = settings.train_size
        frames = normal(1, 2, 3, height, width).tanh()
        around = torch.nn.functional.pad(frames, (1, 1, 1, 1)).unfold(3, 3, 1).unfold(4, 3, 1)
        patches = around.permute(0, 1, 5, 6, 2, 3, 4).reshape(1, 2, 27, height, width)
        return [(theirs(inputs=patches).logits.flatten(1, 2), _one(ours({"frames": frames})))]
    return _of_films(theirs, ours, normal)


def _of_films(theirs: Any, ours: Perceiver, normal: Any) -> Pairs:
    """Return what both decode in the first and the last part of a film and its sound, if several, and the label."""
    settings = theirs.config
    frames, height, width = settings.output_shape[1:]
    samples = frames * settings.audio_samples_per_frame
    video, audio = normal(1, frames, 3, height, width), normal(1, samples, 1)
    latents = ours.encode({"video": video, "audio": audio})
    given = {"image": video, "audio": audio, "label": normal(1, settings.num_labels) * 0}
    count = max(1, frames * height * width // PART)
    pixels = torch.arange(frames * height * width).chunk(count)
    patches = torch.arange(samples // settings.samples_per_patch).chunk(count)
    pairs: Pairs = []
    for part in (0, -1)[:count]:
        parts = {"image": pixels[part], "audio": patches[part]}
        found = theirs(inputs=given, subsampled_output_points={**parts, "label": None}).logits
        got = ours.decode(latents, index={"video": parts["image"], "audio": parts["audio"]})
        assert isinstance(got, dict)
        pairs += [
            (found["image"], got["video"]),
            (found["audio"], got["audio"].flatten(1)),
            (found["label"], got["label"]),
        ]
    return pairs


def _one(outputs: Any) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs


@contextmanager
def _quiet(transformers: Any) -> Generator[None]:
    """Keep loading free of progress bars and of advice that is about training."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
