"""The Perceiver family in PyTorch: one architecture that reads any kind of input.

    import perceivers as pv

    run = pv.fit("birds/", max_time="10m")
    pv.evaluate(run.folder)
    pv.load(run.folder).predict("robin.jpg")

A name is imported when it is first used: `import perceivers` alone does not even import torch, and only
`pv.fit` imports the training engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perceivers.data.base import DataConfig as DataConfig
    from perceivers.data.base import ImageAugmentConfig as ImageAugmentConfig
    from perceivers.data.base import ImagePreprocessConfig as ImagePreprocessConfig
    from perceivers.evaluation.models import create as create
    from perceivers.evaluation.predict import Prediction as Prediction
    from perceivers.evaluation.predict import Predictor as Predictor
    from perceivers.evaluation.predict import load_predictor as load
    from perceivers.evaluation.predict import save_model as save
    from perceivers.evaluation.protocols import Evaluation as Evaluation
    from perceivers.evaluation.protocols import evaluate_run as evaluate
    from perceivers.explain.attention import watch_attention as watch_attention
    from perceivers.hub.checkpoint import push_to_hub as push_to_hub
    from perceivers.inputs.elements import Elements as Elements
    from perceivers.inputs.image import ConvInput as ConvInput
    from perceivers.inputs.image import ConvInputConfig as ConvInputConfig
    from perceivers.inputs.image import PatchInput as PatchInput
    from perceivers.inputs.image import PatchInputConfig as PatchInputConfig
    from perceivers.inputs.image import PixelInput as PixelInput
    from perceivers.inputs.image import PixelInputConfig as PixelInputConfig
    from perceivers.inputs.positions import FourierPositionsConfig as FourierPositionsConfig
    from perceivers.inputs.positions import LearnedPositionsConfig as LearnedPositionsConfig
    from perceivers.models.encoder import PerceiverEncoder as PerceiverEncoder
    from perceivers.models.encoder import PerceiverEncoderConfig as PerceiverEncoderConfig
    from perceivers.models.perceiver import Perceiver as Perceiver
    from perceivers.models.perceiver import PerceiverConfig as PerceiverConfig
    from perceivers.models.perceiver import build as build
    from perceivers.outputs.heads import MeanPool as MeanPool
    from perceivers.outputs.heads import MeanPoolConfig as MeanPoolConfig
    from perceivers.recipes import get_recipe as get_recipe
    from perceivers.recipes import list_recipes as list_recipes
    from perceivers.recipes.base import OptimConfig as OptimConfig
    from perceivers.recipes.base import Recipe as Recipe
    from perceivers.recipes.base import TrainingConfig as TrainingConfig
    from perceivers.tasks.classification import ClassificationConfig as ClassificationConfig
    from perceivers.training.run import fit as fit

    __version__: str

# Public name -> module, and the name there where it is another.
_HOMES = {
    "ClassificationConfig": "tasks.classification",
    "ConvInput": "inputs.image",
    "ConvInputConfig": "inputs.image",
    "DataConfig": "data.base",
    "Elements": "inputs.elements",
    "Evaluation": "evaluation.protocols",
    "FourierPositionsConfig": "inputs.positions",
    "ImageAugmentConfig": "data.base",
    "ImagePreprocessConfig": "data.base",
    "LearnedPositionsConfig": "inputs.positions",
    "MeanPool": "outputs.heads",
    "MeanPoolConfig": "outputs.heads",
    "OptimConfig": "recipes.base",
    "PatchInput": "inputs.image",
    "PatchInputConfig": "inputs.image",
    "Perceiver": "models.perceiver",
    "PerceiverConfig": "models.perceiver",
    "PerceiverEncoder": "models.encoder",
    "PerceiverEncoderConfig": "models.encoder",
    "PixelInput": "inputs.image",
    "PixelInputConfig": "inputs.image",
    "Prediction": "evaluation.predict",
    "Predictor": "evaluation.predict",
    "Recipe": "recipes.base",
    "TrainingConfig": "recipes.base",
    "build": "models.perceiver",
    "create": "evaluation.models",
    "evaluate": "evaluation.protocols:evaluate_run",
    "fit": "training.run",
    "get_recipe": "recipes",
    "list_recipes": "recipes",
    "load": "evaluation.predict:load_predictor",
    "push_to_hub": "hub.checkpoint",
    "save": "evaluation.predict:save_model",
    "watch_attention": "explain.attention",
}

__all__ = [
    "ClassificationConfig",
    "ConvInput",
    "ConvInputConfig",
    "DataConfig",
    "Elements",
    "Evaluation",
    "FourierPositionsConfig",
    "ImageAugmentConfig",
    "ImagePreprocessConfig",
    "LearnedPositionsConfig",
    "MeanPool",
    "MeanPoolConfig",
    "OptimConfig",
    "PatchInput",
    "PatchInputConfig",
    "Perceiver",
    "PerceiverConfig",
    "PerceiverEncoder",
    "PerceiverEncoderConfig",
    "PixelInput",
    "PixelInputConfig",
    "Prediction",
    "Predictor",
    "Recipe",
    "TrainingConfig",
    "build",
    "create",
    "evaluate",
    "fit",
    "get_recipe",
    "list_recipes",
    "load",
    "push_to_hub",
    "save",
    "watch_attention",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("perceivers")
    if name not in _HOMES:
        msg = f"module 'perceivers' has no attribute '{name}'"
        raise AttributeError(msg)
    module, _, there = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"perceivers.{module}"), there or name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return [*__all__, "__version__"]
