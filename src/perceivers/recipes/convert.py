"""Conversion of a published model to a run folder: weights, configuration and recipe."""

from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

from perceivers.hub.checkpoint import save
from perceivers.hub.convert import TOKENIZER_FILE, read_published
from perceivers.recipes.files import RECIPE_FILE, write_recipe
from perceivers.recipes.finetune import recipe_of
from perceivers.tasks.registry import build_task


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A converted model.

    Attributes:
        architecture: The name of the model at Hugging Face.
        num_parameters: Number of its weights.
        predicts: Whether `perceivers predict` can read files with it.
        generates: Whether `perceivers generate` continues texts with it.
    """

    architecture: str
    num_parameters: int
    predicts: bool
    generates: bool


def convert(source: str | Path, out: str | Path) -> Converted:
    """Write a published model as a new run folder.

    The folder gets `model.safetensors`, `config.json` and `recipe.yaml`, with settings for fine-tuning, and the
    `tokenizer.json` of a model of subwords. A model of tokens without one has no recipe.

    Args:
        source: A folder of `save_pretrained` with a Perceiver of transformers or a Perceiver AR of krasserm's library,
            its id on the hub, or a checkpoint of DeepMind's release (`.pystate`, or `.pickle` of the language model).
        out: The run folder, new or empty.

    Raises:
        OSError: If there is no such folder, or a file is missing or damaged.
        ValueError: If it is another model, a weight is missing or too much, or `out` holds something.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Give a new folder for the converted model (--out).")
    name, saved = read_published(source)
    config = saved.config
    save(out, saved.model, preprocess=config.preprocess, task=config.task, columns=config.columns)
    if config.task is not None:
        write_recipe(recipe_of(saved), out / RECIPE_FILE)
    tokenizer = saved.folder / TOKENIZER_FILE
    if tokenizer.is_file():
        copyfile(tokenizer, out / TOKENIZER_FILE)
    count = sum(parameter.numel() for parameter in saved.model.parameters())
    task: Any = config.task
    generates = task is not None and build_task(task).generates_text
    return Converted(
        architecture=name, num_parameters=count, predicts=task is not None, generates=generates
    )
