"""Flow of frames of any size: predicted tile by tile, drawn and written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from perceivers.data.modalities.flow.decode import write_flo
from perceivers.evaluation.color_wheel import flow_colors
from perceivers.evaluation.prediction import Prediction
from perceivers.evaluation.tiles import tiled
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.flow import FlowTask
from perceivers.typing import Float, Tensor

__all__ = ["flow_field", "flow_predictions", "save_flows", "uncut"]


def uncut(preprocess: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return preprocessing under which frames and flow stay whole, and whether there is such.

    Args:
        preprocess: Of each modality.
    """
    found = {
        name: replace(part, whole=True) if hasattr(part, "whole") else part
        for name, part in preprocess.items()
    }
    return found, any(hasattr(part, "whole") for part in found.values())


def flow_field(
    model: Perceiver, task: FlowTask, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> Float[Tensor, "B Y X 2"]:
    """Return where every pixel goes, to the right and down, of frames of any size.

    Args:
        model: Trained on windows.
        task: Which knows what its outputs mean.
        inputs: The frames.
        masks: As the model takes them.
    """
    name = task.config.modality
    size: Any = getattr(model.config.inputs[name], "size", None)

    def read(tile: Tensor) -> Tensor:
        outputs = model({**inputs, name: tile}, masks or None)
        assert isinstance(outputs, Tensor)
        return task.field(outputs.float(), size)

    return tiled(read, inputs[name], size)


def flow_predictions(names: Sequence[str], field: Float[Tensor, "B Y X 2"]) -> Iterator[Prediction]:
    """Yield what a model says of each pair: the whole field, and how far it moves.

    Args:
        names: Of the pairs.
        field: To the right and down, in pixels.
    """
    for name, one in zip(names, field.cpu(), strict=True):
        length = one.norm(dim=-1)
        values = {"mean motion": length.mean().item(), "largest motion": length.max().item()}
        yield Prediction(name=name, values=values, flow=one.numpy())


def save_flows(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write the flow of each prediction as `.flo` and as a picture, and return the files.

    They are called as the first frame of each pair; where two pairs have one name, a number stands behind it.

    Args:
        predictions: With flow; others are passed over.
        folder: Made if need be.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    used: set[str] = set()
    for one in predictions:
        if one.flow is None:
            continue
        stem = base = Path(one.name.partition(" -> ")[0]).stem or "flow"
        number = 1
        while stem in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem)
        paths = [folder / f"{stem}.flo", folder / f"{stem}.png"]
        write_flo(paths[0], one.flow)
        Image.fromarray(flow_colors(one.flow)).save(paths[1])
        written += paths
    return written
