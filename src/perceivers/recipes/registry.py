"""A recipe: everything that a run is, as plain data. And the list of them."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from perceivers.data.base import DataConfig
from perceivers.data.modalities.registry import AugmentConfig, PreprocessConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.registry import InputConfig
from perceivers.models.perceiver import EncoderConfig, PerceiverConfig, ReadoutConfig
from perceivers.tasks.registry import TaskConfig

__all__ = [
    "OptimConfig",
    "Recipe",
    "TrainingConfig",
    "get_recipe",
    "list_recipes",
    "recipe",
    "sizes_of",
]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights follow the gradient.

    Attributes:
        name: `lamb` as in DeepMind's release, or `adamw`.
        lr: Learning rate at its highest.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
        weight_decay: Pull to zero of everything but biases and norms.
        clip_norm: Largest global norm of the gradient. None: no clipping.
        schedule: How the rate falls. `steps` multiplies it by `decay` at each milestone; `cosine` falls to
            zero; `constant_cosine` stays for `constant_fraction` of the run and then does.
        milestones: Shares of the run, in (0, 1), at which `steps` decays.
        decay: Factor of `steps`.
        constant_fraction: Share of the run in which `constant_cosine` stays.
        warmup_steps: Optimizer steps in which the rate rises from zero.
        warmup_fraction: The same as a share of the run, for runs limited by time. The longer of the two holds.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Literal["lamb", "adamw"] = "lamb"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float | None = 10.0
    schedule: Literal["constant", "steps", "cosine", "constant_cosine"] = "constant_cosine"
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    constant_fraction: float = 0.5
    warmup_steps: int = 0
    warmup_fraction: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how large and on what a run trains.

    Attributes:
        batch_size: Samples in one optimizer step, over all devices and accumulated batches.
        max_epochs: Passes over train. None: no limit.
        max_steps: Optimizer steps. None: no limit.
        max_time: `45s`, `10m`, `2h` or `1h30m` of training. None: no limit. The first limit reached ends the run.
        accumulate: Batches whose gradients make one step.
        batch: Samples that a device computes at once; `accumulate` then follows from `batch_size`, which stays
            the step. `auto`: as many as fit in its memory. None: as `accumulate` says.
        precision: Arithmetic of the matrix products. Weights, positions and statistics stay float32.
        ema: Decay of the running mean of the weights, which is then evaluated and saved. None: off.
        compile: Use `torch.compile`.
        grad_checkpointing: Recompute activations in the backward pass instead of keeping them.
        mlp_checkpointing: Recompute only those of each MLP with its norm: less is saved, and nearly nothing slower.
        early_stopping: Validations without a better result after which the run ends. None: never.
        seed: Of weights, order and augmentation.
        permute: Seed of one fixed permutation of the elements of every input. None: their own order.
        device: Where to compute. `auto` takes an accelerator if there is one.
        devices: How many devices on each node.
        nodes: How many machines.
        strategy: `auto`, `ddp` or `fsdp`.
        logger: Loggers beside `metrics.jsonl` and TensorBoard.
        progress: Show the live progress bar.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    batch_size: int = 128
    max_epochs: int | None = None
    max_steps: int | None = None
    max_time: str | None = None
    accumulate: int = 1
    batch: int | Literal["auto"] | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    ema: float | None = None
    compile: bool = False
    grad_checkpointing: bool = False
    mlp_checkpointing: bool = False
    early_stopping: int | None = None
    seed: int = 0
    permute: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    logger: tuple[Literal["wandb", "mlflow"], ...] = ()
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run is.

    Attributes:
        name: The recipe that this one began as.
        inputs: An adapter for each modality.
        encoder: What reads the elements.
        output: What turns latents into predictions.
        task: Loss and metrics. Its kind follows the target of the data.
        preprocess: For each modality, what turns a file into the model's array. What is None there is taken from the
            data. Pictures need nothing: their size is that of their input, their statistics those of the data. Also for
            the modality that the task's `answer` names, which is read to be learned and is no input.
        fusion: How several modalities are read together.
        init: How weights begin, as `PerceiverConfig` says.
        data: Which data, and how they are read.
        augment: What is random in training, for each modality.
        optim: How weights follow the gradient.
        training: How long, how large and on what.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    inputs: dict[str, InputConfig]
    encoder: EncoderConfig
    output: ReadoutConfig
    task: TaskConfig
    preprocess: dict[str, PreprocessConfig] = field(default_factory=dict)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    init: Literal["papers", "local"] = "papers"
    data: DataConfig = field(default_factory=DataConfig)
    augment: dict[str, AugmentConfig] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def model_config(self) -> PerceiverConfig:
        """Return what determines the model's weights."""
        return PerceiverConfig(
            inputs=dict(self.inputs),
            encoder=self.encoder,
            output=self.output,
            fusion=self.fusion,
            permute=self.training.permute,
            init=self.init,
        )


_RECIPES: dict[str, Callable[..., Recipe]] = {}


def recipe(function: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """List a function under its own name. Its docstring states Run, Expected and Source."""
    _RECIPES[function.__name__] = function
    return function


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(_RECIPES)


def sizes_of(name: str) -> tuple[str, ...]:
    """Return the sizes in which a recipe comes. `paper` alone if it has only the published one."""
    return getattr(_RECIPES[name], "sizes", ("paper",))


def get_recipe(name: str, *, size: str | None = None) -> Recipe:
    """Return the recipe called `name`.

    Args:
        name: One of `list_recipes()`.
        size: `tiny`, `small` or `base`, for the recipes that come in sizes; `paper` for those that do not.

    Raises:
        KeyError: If there is no such recipe. The message names the nearest.
        ValueError: If the recipe does not come in this size.
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        msg = f"No recipe is called '{name}'.{hint} There are: {', '.join(list_recipes())}."
        raise KeyError(msg)
    function = _RECIPES[name]
    if size is None:
        return function()
    sizes = sizes_of(name)
    if size not in sizes:
        msg = f"Recipe '{name}' comes in the sizes {', '.join(sizes)}; got '{size}'."
        raise ValueError(msg)
    return function() if size == "paper" else function(size=size)
