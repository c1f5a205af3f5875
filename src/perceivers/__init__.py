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
    from perceivers.data.modalities.array.modality import (
        ArraysPreprocessConfig as ArraysPreprocessConfig,
    )
    from perceivers.data.modalities.audio.augment import AudioAugmentConfig as AudioAugmentConfig
    from perceivers.data.modalities.audio.mel import MelPreprocessConfig as MelPreprocessConfig
    from perceivers.data.modalities.audio.modality import (
        WavePreprocessConfig as WavePreprocessConfig,
    )
    from perceivers.data.modalities.points.modality import (
        PointsPreprocessConfig as PointsPreprocessConfig,
    )
    from perceivers.data.modalities.series.modality import (
        SeriesPreprocessConfig as SeriesPreprocessConfig,
    )
    from perceivers.data.modalities.text.modality import (
        TextPreprocessConfig as TextPreprocessConfig,
    )
    from perceivers.data.modalities.video.modality import (
        VideoPreprocessConfig as VideoPreprocessConfig,
    )
    from perceivers.evaluation.evaluate import Evaluation as Evaluation
    from perceivers.evaluation.evaluate import evaluate_run as evaluate
    from perceivers.evaluation.models import create as create_model
    from perceivers.evaluation.predict import Predictor as Predictor
    from perceivers.evaluation.predict import load_predictor as load
    from perceivers.evaluation.predict import save_model as save
    from perceivers.evaluation.prediction import Prediction as Prediction
    from perceivers.explain.attribution.attention import watch_attention as watch_attention
    from perceivers.exporting.export import export as export
    from perceivers.hub.checkpoint import from_pretrained as from_pretrained
    from perceivers.inputs.array import ArraysInputConfig as ArraysInputConfig
    from perceivers.inputs.audio import ConvSpectrogramInputConfig as ConvSpectrogramInputConfig
    from perceivers.inputs.audio import ConvWaveInputConfig as ConvWaveInputConfig
    from perceivers.inputs.audio import SpectrogramInputConfig as SpectrogramInputConfig
    from perceivers.inputs.audio import WaveInputConfig as WaveInputConfig
    from perceivers.inputs.elements import Elements as Elements
    from perceivers.inputs.fusion import FusionConfig as FusionConfig
    from perceivers.inputs.image import ConvInput as ConvInput
    from perceivers.inputs.image import ConvInputConfig as ConvInputConfig
    from perceivers.inputs.image import PatchInput as PatchInput
    from perceivers.inputs.image import PatchInputConfig as PatchInputConfig
    from perceivers.inputs.image import PixelInput as PixelInput
    from perceivers.inputs.image import PixelInputConfig as PixelInputConfig
    from perceivers.inputs.points import PointsInputConfig as PointsInputConfig
    from perceivers.inputs.positions import FourierPositionsConfig as FourierPositionsConfig
    from perceivers.inputs.positions import LearnedPositionsConfig as LearnedPositionsConfig
    from perceivers.inputs.series import ConvSeriesInputConfig as ConvSeriesInputConfig
    from perceivers.inputs.series import SeriesInputConfig as SeriesInputConfig
    from perceivers.inputs.table import TableInputConfig as TableInputConfig
    from perceivers.inputs.text import ConvTextInputConfig as ConvTextInputConfig
    from perceivers.inputs.text import TextInputConfig as TextInputConfig
    from perceivers.inputs.video import ConvVideoInputConfig as ConvVideoInputConfig
    from perceivers.inputs.video import VideoInputConfig as VideoInputConfig
    from perceivers.models.encoder import PerceiverEncoder as PerceiverEncoder
    from perceivers.models.encoder import PerceiverEncoderConfig as PerceiverEncoderConfig
    from perceivers.models.perceiver import Perceiver as Perceiver
    from perceivers.models.perceiver import PerceiverConfig as PerceiverConfig
    from perceivers.models.perceiver import build as build_model
    from perceivers.outputs.heads import MeanPool as MeanPool
    from perceivers.outputs.heads import MeanPoolConfig as MeanPoolConfig
    from perceivers.recipes import get_recipe as get_recipe
    from perceivers.recipes import list_recipes as list_recipes
    from perceivers.recipes.registry import OptimConfig as OptimConfig
    from perceivers.recipes.registry import Recipe as Recipe
    from perceivers.recipes.registry import TrainingConfig as TrainingConfig
    from perceivers.report.publish import push_to_hub as push_to_hub
    from perceivers.tasks.classification import ClassificationConfig as ClassificationConfig
    from perceivers.tasks.multilabel import MultiLabelConfig as MultiLabelConfig
    from perceivers.tasks.regression import RegressionConfig as RegressionConfig
    from perceivers.training.fit import fit as fit

    __version__: str

# Public name -> module, and the name there where it is another.
_HOMES = {
    "ArraysInputConfig": "inputs.array",
    "ArraysPreprocessConfig": "data.modalities.array.modality",
    "AudioAugmentConfig": "data.modalities.audio.augment",
    "ClassificationConfig": "tasks.classification",
    "ConvInput": "inputs.image",
    "ConvInputConfig": "inputs.image",
    "ConvSeriesInputConfig": "inputs.series",
    "ConvSpectrogramInputConfig": "inputs.audio",
    "ConvTextInputConfig": "inputs.text",
    "ConvVideoInputConfig": "inputs.video",
    "ConvWaveInputConfig": "inputs.audio",
    "DataConfig": "data.base",
    "Elements": "inputs.elements",
    "Evaluation": "evaluation.evaluate",
    "FourierPositionsConfig": "inputs.positions",
    "FusionConfig": "inputs.fusion",
    "ImageAugmentConfig": "data.base",
    "ImagePreprocessConfig": "data.base",
    "LearnedPositionsConfig": "inputs.positions",
    "MeanPool": "outputs.heads",
    "MeanPoolConfig": "outputs.heads",
    "MelPreprocessConfig": "data.modalities.audio.mel",
    "MultiLabelConfig": "tasks.multilabel",
    "OptimConfig": "recipes.registry",
    "PatchInput": "inputs.image",
    "PatchInputConfig": "inputs.image",
    "Perceiver": "models.perceiver",
    "PerceiverConfig": "models.perceiver",
    "PerceiverEncoder": "models.encoder",
    "PerceiverEncoderConfig": "models.encoder",
    "PixelInput": "inputs.image",
    "PixelInputConfig": "inputs.image",
    "PointsInputConfig": "inputs.points",
    "PointsPreprocessConfig": "data.modalities.points.modality",
    "Prediction": "evaluation.prediction",
    "Predictor": "evaluation.predict",
    "Recipe": "recipes.registry",
    "RegressionConfig": "tasks.regression",
    "SeriesInputConfig": "inputs.series",
    "SeriesPreprocessConfig": "data.modalities.series.modality",
    "SpectrogramInputConfig": "inputs.audio",
    "TableInputConfig": "inputs.table",
    "TextInputConfig": "inputs.text",
    "TextPreprocessConfig": "data.modalities.text.modality",
    "TrainingConfig": "recipes.registry",
    "VideoInputConfig": "inputs.video",
    "VideoPreprocessConfig": "data.modalities.video.modality",
    "WaveInputConfig": "inputs.audio",
    "WavePreprocessConfig": "data.modalities.audio.modality",
    "build_model": "models.perceiver:build",
    "create_model": "evaluation.models:create",
    "evaluate": "evaluation.evaluate:evaluate_run",
    "export": "exporting.export",
    "fit": "training.fit",
    "from_pretrained": "hub.checkpoint",
    "get_recipe": "recipes",
    "list_recipes": "recipes",
    "load": "evaluation.predict:load_predictor",
    "push_to_hub": "report.publish",
    "save": "evaluation.predict:save_model",
    "watch_attention": "explain.attribution.attention",
}

__all__ = [
    "ArraysInputConfig",
    "ArraysPreprocessConfig",
    "AudioAugmentConfig",
    "ClassificationConfig",
    "ConvInput",
    "ConvInputConfig",
    "ConvSeriesInputConfig",
    "ConvSpectrogramInputConfig",
    "ConvTextInputConfig",
    "ConvVideoInputConfig",
    "ConvWaveInputConfig",
    "DataConfig",
    "Elements",
    "Evaluation",
    "FourierPositionsConfig",
    "FusionConfig",
    "ImageAugmentConfig",
    "ImagePreprocessConfig",
    "LearnedPositionsConfig",
    "MeanPool",
    "MeanPoolConfig",
    "MelPreprocessConfig",
    "MultiLabelConfig",
    "OptimConfig",
    "PatchInput",
    "PatchInputConfig",
    "Perceiver",
    "PerceiverConfig",
    "PerceiverEncoder",
    "PerceiverEncoderConfig",
    "PixelInput",
    "PixelInputConfig",
    "PointsInputConfig",
    "PointsPreprocessConfig",
    "Prediction",
    "Predictor",
    "Recipe",
    "RegressionConfig",
    "SeriesInputConfig",
    "SeriesPreprocessConfig",
    "SpectrogramInputConfig",
    "TableInputConfig",
    "TextInputConfig",
    "TextPreprocessConfig",
    "TrainingConfig",
    "VideoInputConfig",
    "VideoPreprocessConfig",
    "WaveInputConfig",
    "WavePreprocessConfig",
    "build_model",
    "create_model",
    "evaluate",
    "export",
    "fit",
    "from_pretrained",
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
