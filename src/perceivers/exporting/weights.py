"""A model as bare weights: safetensors, its configuration, and a table of what each weight is."""

from collections.abc import Mapping
from pathlib import Path

from perceivers.exporting.graph import graph_of
from perceivers.exporting.verify import Run
from perceivers.hub.checkpoint import Saved, load, save
from perceivers.typing import Tensor

__all__ = ["open_weights", "write_weights"]

_PARTS = {
    "inputs": "makes elements of a modality",
    "encoder.latents": "the latent array, N x D",
    "encoder.cross_attends": "latents read the elements; the number says which of the reads with weights of their own",
    "encoder.blocks": "latents read each other: number of the block, then of the layer in it",
    "encoder": "the encoder",
    "output": "predictions of the latents",
    "fusion.tags": "the vector that tells the elements of a modality from those of others",
    "fusion": "brings modalities to one width",
}
_LAYERS = {
    "to_query": "queries",
    "to_key": "keys",
    "to_value": "values",
    "to_output": "what was read, back to the width of who asked",
    "to_logits": "latents' mean to predictions",
    "embedding": "a vector for each byte's number",
    "places": "a vector for each place",
    "convolutions": "convolution of the stem",
}


def write_weights(saved: Saved, folder: Path) -> None:
    """Write `model.safetensors`, `config.json` and `KEYS.md` into a folder, which `perceivers.load` reads, too."""
    config = saved.config
    save(
        folder,
        saved.model,
        preprocess=config.preprocess,
        task=config.task,
        columns=config.columns,
    )
    (folder / "KEYS.md").write_text(_table(saved.model.state_dict()), encoding="utf-8")


def open_weights(folder: Path) -> Run:
    """Return a model that is built anew of what was written, as a function of inputs by name."""
    graph = graph_of(load(folder))
    return lambda inputs: graph(dict(inputs))


def _table(weights: Mapping[str, Tensor]) -> str:
    """Return a table of the weights in Markdown."""
    total = sum(tensor.numel() for tensor in weights.values())
    lines = [
        "# Keys of model.safetensors",
        "",
        f"{total:,} numbers in {len(weights)} tensors, as PyTorch has them: a linear layer's is outputs x inputs.",
        "`config.json` says under `model` how often layers are used, and in which order.",
        "",
        "| key | shape | what it is |",
        "|---|---|---|",
    ]
    for name, tensor in weights.items():
        shape = " x ".join(map(str, tensor.shape)) or "1"
        lines.append(f"| `{name}` | {shape} | {_meaning(name)} |")
    return "\n".join([*lines, ""])


def _meaning(name: str) -> str:
    part = next((words for start, words in _PARTS.items() if name.startswith(start)), "a weight")
    layer = next((words for key, words in _LAYERS.items() if key in name.split(".")), None)
    if layer is None and "norm" in name:
        layer = "LayerNorm"
    elif layer is None and "mlp" in name:
        layer = "MLP"
    return part if layer is None else f"{part}: {layer}"
