"""The six Perceiver models of Hugging Face at full size, with random weights, against ours with the same weights.

Each runs in a process of its own, so that its memory can be measured. Results go to benchmarks/results/published.json.

    python -m benchmarks.published [--only NAME]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from perceivers.exporting.verify import transformers_outputs
from perceivers.hub.huggingface import ARCHITECTURES, config_from
from perceivers.hub.huggingface_weights import from_huggingface
from perceivers.models.perceiver import build

RESULTS = Path(__file__).parent / "results" / "published.json"
LARGEST = 1e-4  # norm of the difference over that of the outputs, float32

_IMAGES = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
}
# The settings in which they have the published numbers of weights.
SETTINGS: dict[str, dict[str, Any]] = {
    "PerceiverForImageClassificationFourier": {**_IMAGES, "d_model": 261},
    "PerceiverForImageClassificationLearned": {**_IMAGES, "d_model": 512, "image_size": 224},
    "PerceiverForImageClassificationConvProcessing": {**_IMAGES, "d_model": 322},
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


@torch.no_grad()
def compare(name: str) -> dict[str, object]:
    """Return the largest difference between the outputs of a model and ours with its weights."""
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
    pairs = transformers_outputs(name, theirs, ours)
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
def decode_a_whole_video() -> dict[str, object]:
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
        found = decode_a_whole_video() if args.only == "film" else compare(args.only)
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
