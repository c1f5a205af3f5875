"""Draw the figures of docs/how-it-works.md with the modules of this library.

python .ci/how_it_works.py [FOLDER]    docs/img by default
"""

import sys
from dataclasses import replace
from pathlib import Path

from perceivers.models.cost import paper_flops
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.nn.position import axis_coordinates, axis_features
from perceivers.recipes import get_recipe
from perceivers.runs.report import figure

__all__ = ["main"]

_CELLS, _FEW = 224, 32  # cells of an axis: on ImageNet, and few enough to be visible


def main(folder: Path) -> list[Path]:
    """Write the figures into a folder and return their paths."""
    drawn = {"how-positions.png": _positions(), "how-cost.png": _cost()}
    for name, made in drawn.items():
        made.savefig(folder / name, dpi=110)
    return [folder / name for name in drawn]


def _positions() -> object:
    """Draw the Fourier features of an axis, and the similarity of one position to all others."""
    table = axis_features(axis_coordinates(_CELLS), num_bands=64, max_resolution=_CELLS)
    made = figure(11, 3.6)
    left, middle, right = made.subplots(1, 3, width_ratios=(2, 1, 1))
    left.imshow(table.T.numpy(), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
    left.set(title="one axis: 129 features of 224 cells", xlabel="cell", ylabel="feature")
    few = axis_features(axis_coordinates(_FEW), num_bands=_FEW // 2, max_resolution=_FEW)
    for axes, row, column in ((middle, 15, 15), (right, 5, 24)):
        alike = (few @ few[row])[:, None] + (few @ few[column])[None]
        axes.imshow((alike / alike.max()).numpy(), cmap="magma", vmin=0, vmax=1)
        axes.set(title=f"similarity to row {row}, column {column}", xticks=[], yticks=[])
    return made


def _cost() -> object:
    """Draw the operations for a sample over the number of elements: the 2021 model and a Transformer of equal depth."""
    recipe = get_recipe("imagenet")
    config = recipe.model_config()
    transformer = replace(
        config,
        encoder=TransformerEncoderConfig(
            channels=1024, num_self_attends=48, num_self_attend_heads=8
        ),
    )
    lengths = [2**power for power in range(8, 21)]
    made = figure(6, 3.6)
    axes = made.subplots()
    for one, label in ((config, "Perceiver, 512 latents"), (transformer, "Transformer, 48 layers")):
        flops = [paper_flops(one, length, 261) / 1e9 for length in lengths]
        axes.loglog(lengths, flops, label=label, marker=".")
    axes.axvline(_CELLS**2, color="gray", linestyle=":")
    axes.text(_CELLS**2 * 1.2, 2e2, "224 x 224", color="gray")
    axes.set(xlabel="elements", ylabel="GFLOPs for a sample")
    axes.grid(alpha=0.3)
    axes.legend()
    return made


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "img"
    for path in main(target):
        print(path)
