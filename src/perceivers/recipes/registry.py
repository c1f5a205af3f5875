"""Recipes: the complete configuration of a run as plain data, and the registry of their names."""

from collections.abc import Callable, Iterable
from dataclasses import field
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, overload

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from perceivers.data.base import DataConfig, nearest
from perceivers.data.registry import AugmentConfig, PreprocessConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.registry import InputConfig
from perceivers.models.perceiver import EncoderConfig, PerceiverConfig, ReadoutConfig
from perceivers.plugins import load_plugins
from perceivers.registry import configclass
from perceivers.tasks.registry import TaskConfig
from perceivers.wording import check_duration

Preset = Literal["quick", "default", "best"]


@configclass
class OptimConfig:
    """Optimizer and learning-rate schedule.

    Attributes:
        name: `lamb` as in DeepMind's release, or `adamw`.
        lr: Peak learning rate.
        betas: Decay rates of the first and second moment.
        eps: Added to the square root of the second moment.
        weight_decay: Decoupled weight decay of all parameters but biases and those of norms.
        clip_norm: Largest global norm of the gradient. None: no clipping.
        schedule: Decay of the learning rate. `steps` multiplies it by `decay` at each milestone; `cosine` decays to
            zero; `constant_cosine` does so after `constant_fraction` of the run; `warmup_cosine` after a warm-up from
            zero, as in DeepMind's release.
        milestones: Fractions of the run, in (0, 1), at which `steps` decays.
        decay: Factor of `steps`.
        constant_fraction: Fraction of the run before the decay of `constant_cosine`.
        warmup_steps: Optimizer steps of linear warm-up.
        warmup_fraction: Warm-up as a fraction of the run, for runs limited by time. The longer of the two holds.
        layer_decay: Factor of the learning rate from each layer to the one before it (arXiv:1801.06146, as in BEiT,
            arXiv:2106.08254). 1: the same rate for all layers.
    """

    name: Literal["lamb", "adamw"] = "lamb"
    lr: NonNegativeFloat = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: NonNegativeFloat = 0.1
    clip_norm: float | None = 10.0
    schedule: Literal["constant", "steps", "cosine", "constant_cosine", "warmup_cosine"] = (
        "constant_cosine"
    )
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    constant_fraction: float = 0.5
    warmup_steps: NonNegativeInt = 0
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


@configclass
class TrainingConfig:
    """Length, batch size, precision and devices of training.

    Attributes:
        batch_size: Samples in one optimizer step, over all devices and accumulated batches.
        max_epochs: Passes over the training split. None: no limit; a run without any limit gets one by its number of
            rows (docs/defaults.md).
        max_steps: Optimizer steps. None: no limit.
        max_time: `45s`, `10m`, `2h` or `1h30m` of training. None: no limit. The first limit reached ends the run.
        accumulate: Batches whose gradients are accumulated in one step.
        batch: Samples that a device computes at once; `accumulate` then follows from `batch_size`. `auto`: as many as
            fit in its memory. None: `batch_size` divided by `accumulate` and the number of devices.
        precision: Arithmetic of the matrix products. Weights, positions and statistics stay float32.
        ema: Decay of the exponential moving average of the weights, which is evaluated and saved. None: off.
        compile: Use `torch.compile`.
        grad_checkpointing: Recompute activations in the backward pass instead of storing them.
        mlp_checkpointing: Recompute only those of each MLP with its norm: saves less memory, at nearly no cost.
        folds: Models of an ensemble, one for each fold. Each is trained without one of as many folds of the training
            rows and validated on it. Limits of epochs and steps hold for each, `max_time` for all together. None or 1:
            one model and one validation split.
        tta: Whether predictions are averaged over mirrored images (test-time augmentation), where the augmentation
            mirrors and the validation loss gets lower by it; prediction then takes twice as long.
        early_stopping: Validations without improvement until the end. None: never.
        freeze: Parts that keep their weights: `encoder` (adapters and encoder), `head`, a module such as
            `encoder.blocks`; `encoder:3` for three epochs; `all-but head` for everything outside of a part.
        lr_scale: Factor of the learning rate of a part, by its name.
        lora: Rank of low-rank updates of all attention projections, which are trained together with the heads while all
            other weights are frozen; they are merged into the saved weights. None: no such updates.
        cache_latents: With a frozen encoder, latents are computed once and read in every epoch: 1 copy of each sample
            without augmentation, or as many augmented ones. None: they are computed in every epoch.
        seed: Seed of weights, sample order and augmentation.
        permute: Seed of one fixed permutation of the elements of every input. None: no permutation.
        device: Where to compute. `auto` uses an accelerator if there is one.
        devices: Number of devices on each node.
        nodes: Number of machines.
        strategy: `auto`, `ddp` or `fsdp`.
        logger: Loggers besides `metrics.jsonl` and TensorBoard.
        progress: Show the progress bar.
        linear_start: Start from a linear model of the training rows where the head averages elements that are sums of
            learned vectors, as those of hashed texts and of tables are (at most half a minute).
        baseline: Fit a simple model of scikit-learn to the same rows after training, for comparison (at most 60 s).
    """

    batch_size: PositiveInt = 128
    max_epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    max_time: Annotated[str, AfterValidator(check_duration)] | None = None
    accumulate: PositiveInt = 1
    batch: PositiveInt | Literal["auto"] | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    compile: bool = False
    grad_checkpointing: bool = False
    mlp_checkpointing: bool = False
    folds: PositiveInt | None = None
    tta: bool = False
    early_stopping: PositiveInt | None = None
    freeze: tuple[str, ...] = ()
    lr_scale: dict[str, NonNegativeFloat] = field(default_factory=dict)
    lora: PositiveInt | None = None
    cache_latents: PositiveInt | None = None
    seed: NonNegativeInt = 0
    permute: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    logger: tuple[Literal["wandb", "mlflow"], ...] = ()
    progress: bool = True
    linear_start: bool = False
    baseline: bool = True


@configclass
class Recipe:
    """The complete configuration of a run.

    Attributes:
        name: Name of the registered recipe that it is based on.
        inputs: Input adapter of each modality.
        encoder: Encoder.
        output: Head or decoder: predictions from latents.
        task: Loss and metrics. Its kind follows the target of the data.
        preprocess: For each modality, the conversion from a file to the model's array. Fields that are None are
            measured on the data; an input without an entry has the defaults of its kind. Also for a target
            modality (the task's `answer`), which is no input.
        fusion: Combination of several modalities.
        init: Weight initialization, see `PerceiverConfig`.
        data: Columns, splits and loading of the data.
        augment: Augmentation of each modality in training.
        optim: Optimizer and learning-rate schedule.
        training: Length, batch size, precision and devices of training.
        preset: Rules that choose by the data in `fit` (docs/defaults.md): `quick` for a first look, `default`, or
            `best` for the highest accuracy. None: every value is taken as it is.
    """

    name: str
    inputs: dict[str, InputConfig]
    encoder: EncoderConfig
    output: ReadoutConfig
    task: TaskConfig
    preprocess: dict[str, PreprocessConfig] = field(default_factory=dict)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    init: Literal["papers", "local_attention"] = "papers"
    data: DataConfig = field(default_factory=DataConfig)
    augment: dict[str, AugmentConfig] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    preset: Preset | None = None

    def model_config(self) -> PerceiverConfig:
        """Return the configuration of the model."""
        return PerceiverConfig(
            inputs=dict(self.inputs),
            encoder=self.encoder,
            output=self.output,
            fusion=self.fusion,
            permute=self.training.permute,
            init=self.init,
        )


Function = TypeVar("Function", bound=Callable[..., Recipe])

_RECIPES: dict[str, tuple[Callable[..., Recipe], tuple[str, ...]]] = {}


@overload
def recipe(function: Function) -> Function: ...
@overload
def recipe(*, sizes: Iterable[str]) -> Callable[[Function], Function]: ...
def recipe(function: Any = None, *, sizes: Iterable[str] = ("paper",)) -> Any:
    """Register a function that returns a `Recipe`, under the function's name: `@pv.recipe`.

    Its docstring begins with one line for the list of recipes and has the sections Run, Expected and Reference.

    Args:
        function: Without arguments, or with the argument `size`.
        sizes: Values of `size`: `@pv.recipe(sizes=("tiny", "small"))`. A published recipe has one size, `paper`.
    """
    if function is None:
        return partial(_register, sizes=tuple(sizes))
    return _register(function, tuple(sizes))


def _register(function: Function, sizes: tuple[str, ...]) -> Function:
    _RECIPES[function.__name__] = function, sizes
    return function


def list_recipes() -> list[str]:
    """Return the names of all recipes, sorted."""
    load_plugins()
    return sorted(_RECIPES)


def recipe_function(name: str) -> Callable[..., Recipe]:
    """Return the registered function of a recipe.

    Raises:
        KeyError: If there is no such recipe. The message names the nearest.
    """
    known = list_recipes()
    if name not in _RECIPES:
        raise KeyError(
            f"No recipe is called '{name}'.{nearest(name, known)} There are: {', '.join(known)}."
        )
    return _RECIPES[name][0]


def sizes_of(name: str) -> tuple[str, ...]:
    """Return the sizes of a recipe. `paper` alone if it has only the published one."""
    recipe_function(name)
    return _RECIPES[name][1]


def get_recipe(name: str, *, size: str | None = None) -> Recipe:
    """Return the recipe called `name`.

    Args:
        name: One of `list_recipes()`.
        size: One of `sizes_of(name)`: `tiny`, `small` or `base`, or `paper`. By default the smallest.

    Raises:
        KeyError: If there is no such recipe. The message names the nearest.
        ValueError: If the recipe does not have this size.
    """
    function, sizes = recipe_function(name), sizes_of(name)
    if size is None:
        return function()
    if size not in sizes:
        raise ValueError(f"Recipe '{name}' comes in the sizes {', '.join(sizes)}; got '{size}'.")
    return function() if size == "paper" else function(size=size)
