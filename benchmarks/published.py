"""The six Perceiver models of Hugging Face at full size, with random weights, against ours with the same weights.

Each runs in a process of its own, so that its memory can be told. Results go to benchmarks/results/published.json.

    python -m benchmarks.published [--only NAME]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceivers.hub.huggingface import ARCHITECTURES, config_from
from perceivers.hub.names import from_huggingface
from perceivers.models.perceiver import Perceiver, build

RESULTS = Path(__file__).parent / "results" / "published.json"
LARGEST = 1e-4  # norm of the difference over that of the outputs, float32
CHUNKS = 128  # into which DeepMind's release divides the outputs of the multimodal model

_PICTURES = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
}
# The settings in which they have the published numbers of weights.
SETTINGS: dict[str, dict[str, Any]] = {
    "PerceiverForImageClassificationFourier": {**_PICTURES, "d_model": 261},
    "PerceiverForImageClassificationLearned": {**_PICTURES, "d_model": 512, "image_size": 224},
    "PerceiverForImageClassificationConvProcessing": {**_PICTURES, "d_model": 322},
    "PerceiverForMaskedLM": {"qk_channels": 256, "v_channels": 1280},
    "PerceiverForOpticalFlow": {
        "num_latents": 2048,
        "d_latents": 512,
        "d_model": 322,
        "num_self_attends_per_block": 24,
        "num_self_attention_heads": 16,
        "num_cross_attention_heads": 1,
    },
    "PerceiverForMultimodalAutoencoding": {
        "num_latents": 784,
        "d_latents": 512,
        "d_model": 704,
        "num_self_attends_per_block": 8,
        "num_cross_attention_heads": 1,
        "num_labels": 700,
    },
}
WEIGHTS = {
    "PerceiverForImageClassificationFourier": 48_440_627,
    "PerceiverForImageClassificationLearned": 62_255_848,
    "PerceiverForImageClassificationConvProcessing": 48_646_522,
    "PerceiverForMaskedLM": 201_108_230,
    "PerceiverForOpticalFlow": 41_057_134,
    "PerceiverForMultimodalAutoencoding": 19_858_855,
}

Pairs = list[tuple[Tensor, Tensor]]


def pictures(theirs: Any, ours: Perceiver) -> Pairs:
    """Return the logits of both for a picture."""
    image = torch.randn(1, 3, 224, 224)
    return [(theirs(inputs=image).logits, ours({"image": image}))]


def texts(theirs: Any, ours: Perceiver) -> Pairs:
    """Return the logits of both for texts of 2,048 bytes and of an odd length behind padding."""
    ids = torch.randint(6, 262, (2, 2048))
    mask = torch.arange(2048) < torch.tensor([[2048], [1237]])
    found = theirs(inputs=ids, attention_mask=mask.long()).logits
    return [(found[mask], ours({"text": ids}, {"text": mask})[mask])]


def flows(theirs: Any, ours: Perceiver) -> Pairs:
    """Return the flow of both between two frames of 368 x 496 pixels."""
    frames = torch.rand(1, 2, 3, 368, 496) * 2 - 1
    padded = torch.nn.functional.pad(frames, (1, 1, 1, 1))
    around = padded.unfold(3, 3, 1).unfold(4, 3, 1)  # B 2 C Y X y x
    patches = around.permute(0, 1, 5, 6, 2, 3, 4).reshape(1, 2, 27, 368, 496)
    return [(theirs(inputs=patches).logits.flatten(1, 2), ours({"frames": frames}))]


def films(theirs: Any, ours: Perceiver) -> Pairs:
    """Return what both decode in the first and the last of 128 parts, and the label."""
    video, audio = torch.randn(1, 16, 3, 224, 224), torch.randn(1, 30720, 1)
    pairs: Pairs = []
    latents = ours.encode({"video": video, "audio": audio})
    for part in (0, CHUNKS - 1):
        parts = {
            "image": torch.arange(802_816).chunk(CHUNKS)[part],
            "audio": torch.arange(1_920).chunk(CHUNKS)[part],
        }
        given = {"image": video, "audio": audio, "label": torch.zeros(1, 700)}
        found = theirs(inputs=given, subsampled_output_points={**parts, "label": None}).logits
        asked = {"video": parts["image"], "audio": parts["audio"]}
        got = ours.decode(latents, index=asked)
        assert isinstance(got, dict)
        pairs += [
            (found["image"], got["video"]),
            (found["audio"], got["audio"].flatten(1)),
            (found["label"], got["label"]),
        ]
    return pairs


ASK: Mapping[str, Callable[[Any, Perceiver], Pairs]] = {
    "PerceiverForMaskedLM": texts,
    "PerceiverForOpticalFlow": flows,
    "PerceiverForMultimodalAutoencoding": films,
}


@torch.no_grad()
def compare(name: str) -> dict[str, object]:
    """Return how far the outputs of a model and ours with its weights are apart."""
    import transformers

    torch.manual_seed(0)
    settings = transformers.PerceiverConfig(**SETTINGS[name], attention_probs_dropout_prob=0.0)
    settings.architectures = [name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, name)(settings).eval()
    for parameter in theirs.parameters():  # norms of one and biases of zero would hide a mistake
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    config = config_from(settings.to_dict())
    ours = build(config).eval()
    ours.load_state_dict(from_huggingface(theirs.state_dict(), name, config))
    pairs = ASK.get(name, pictures)(theirs, ours)
    errors = [
        float((got.reshape(expected.shape) - expected).norm() / expected.norm())
        for expected, got in pairs
    ]
    return {
        "name": name,
        "weights": sum(parameter.numel() for parameter in ours.parameters()),
        "outputs": sum(expected.numel() for expected, _ in pairs),
        "relative_difference": max(errors),
    }


@torch.no_grad()
def decode_a_whole_film() -> dict[str, object]:
    """Return the time and the memory that all 804,737 outputs of the multimodal model take."""
    torch.manual_seed(0)
    name = "PerceiverForMultimodalAutoencoding"
    ours = build(config_from({**SETTINGS[name], "architectures": [name]})).eval()
    start = time.perf_counter()
    outputs = ours({"video": torch.randn(1, 16, 3, 224, 224), "audio": torch.randn(1, 30720, 1)})
    assert isinstance(outputs, dict)
    return {
        "name": "a whole film",
        "outputs": sum(part.shape[1] for part in outputs.values() if part.ndim == 3) + 1,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Compare all models, or one, and fail where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the name of one model, or `film`")
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    args = parser.parse_args()
    if args.here:
        found = decode_a_whole_film() if args.only == "film" else compare(args.only)
        print(json.dumps(found))
        return
    rows: list[dict[str, Any]] = []
    for name in [args.only] if args.only else [*ARCHITECTURES, "film"]:
        command = [sys.executable, "-m", "benchmarks.published", "--here", "--only", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    names = {row["name"] for row in rows}
    RESULTS.write_text(
        json.dumps([r for r in kept if r["name"] not in names] + rows, indent=2) + "\n"
    )
    wrong = [r["name"] for r in rows if r.get("relative_difference", 0.0) > LARGEST]
    wrong += [r["name"] for r in rows if r.get("weights", 0) != WEIGHTS.get(r["name"], 0)]
    if wrong:
        sys.exit(
            f"Not the same numbers, or not the published number of weights: {', '.join(wrong)}"
        )


if __name__ == "__main__":
    main()
