# Data, recipes and runs
from .checks.check import CheckReport as CheckReport
from .checks.check import check_data as check_data
from .checks.finding import Finding as Finding
from .data.base import DataConfig as DataConfig
from .evaluation.evaluate import Evaluation as Evaluation
from .evaluation.embeddings import Embeddings as Embeddings
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.predict import Predictor as Predictor
from .evaluation.generate import generate_text as generate_text
from .evaluation.predict import load as load
from .evaluation.predict import save as save
from .evaluation.probe import ProbeResult as ProbeResult
from .evaluation.probe import probe as probe
from .explain.attribution.attention import watch_attention as watch_attention
from .explain.attribution.explain import explain_sample as explain_sample
from .explain.contents.base import register_view as register_view
from .explain.render.write import explain_file as explain_file
from .exporting.export import export as export
from .hub.checkpoint import from_pretrained as from_pretrained
from .hub.hip import hip_from_weights as hip_from_weights
from .hub.perceiver_ar import perceiver_ar_from_weights as perceiver_ar_from_weights
from .hub.resampler import resampler_from_weights as resampler_from_weights
from .recipes.files import create_model as create_model
from .recipes.registry import OptimConfig as OptimConfig
from .recipes.registry import Recipe as Recipe
from .recipes.registry import TrainingConfig as TrainingConfig
from .recipes.registry import get_recipe as get_recipe
from .recipes.registry import list_recipes as list_recipes
from .recipes.registry import recipe as recipe
from .report.publish import push_to_hub as push_to_hub
from .tasks.prediction import Prediction as Prediction
from .tasks.prediction import Reconstruction as Reconstruction
from .training.fit import Run as Run
from .training.fit import finetune as finetune
from .training.fit import fit as fit

# Preprocessing and augmentation
from .data.modalities.image.modality import ImageAugmentConfig as ImageAugmentConfig
from .data.modalities.image.modality import ImagePreprocessConfig as ImagePreprocessConfig
from .data.modalities.array.modality import ArrayAugmentConfig as ArrayAugmentConfig
from .data.modalities.array.modality import ArrayPreprocessConfig as ArrayPreprocessConfig
from .data.modalities.audio.modality import AudioAugmentConfig as AudioAugmentConfig
from .data.modalities.audio.modality import MelPreprocessConfig as MelPreprocessConfig
from .data.modalities.audio.modality import WavePreprocessConfig as WavePreprocessConfig
from .data.modalities.flow.modality import PairAugmentConfig as PairAugmentConfig
from .data.modalities.flow.modality import FramePairPreprocessConfig as FramePairPreprocessConfig
from .data.modalities.flow.modality import FlowPreprocessConfig as FlowPreprocessConfig
from .data.modalities.image.modality import (
    ClassMapPreprocessConfig as ClassMapPreprocessConfig,
)
from .data.modalities.image.modality import PixelsPreprocessConfig as PixelsPreprocessConfig
from .data.modalities.points.modality import PointsAugmentConfig as PointsAugmentConfig
from .data.modalities.points.modality import PointsPreprocessConfig as PointsPreprocessConfig
from .data.modalities.series.modality import SeriesAugmentConfig as SeriesAugmentConfig
from .data.modalities.series.modality import SeriesPreprocessConfig as SeriesPreprocessConfig
from .data.modalities.table.modality import TableAugmentConfig as TableAugmentConfig
from .data.modalities.table.modality import TablePreprocessConfig as TablePreprocessConfig
from .data.modalities.text.modality import TextAugmentConfig as TextAugmentConfig
from .data.modalities.text.modality import TextPreprocessConfig as TextPreprocessConfig
from .data.modalities.video.modality import VideoAugmentConfig as VideoAugmentConfig
from .data.modalities.video.modality import VideoPreprocessConfig as VideoPreprocessConfig

# Registration of modalities
from .data.encoded_item import EncodedItem as EncodedItem
from .data.modalities.base import BasePreprocessConfig as BasePreprocessConfig
from .data.modalities.base import DecodedValue as DecodedValue
from .data.modalities.base import Modality as Modality
from .data.modalities.base import stack_padded as stack_padded
from .data.registry import ColumnKind as ColumnKind
from .data.registry import ModalitySpec as ModalitySpec
from .data.registry import Preprocessing as Preprocessing
from .data.registry import UploadSize as UploadSize
from .data.registry import register_modality as register_modality

# Input adapters
from .inputs.array import ArrayInputConfig as ArrayInputConfig
from .inputs.audio import ConvWaveInputConfig as ConvWaveInputConfig
from .inputs.audio import ResidualSpectrogramInputConfig as ResidualSpectrogramInputConfig
from .inputs.audio import SpectrogramInputConfig as SpectrogramInputConfig
from .inputs.audio import WaveInputConfig as WaveInputConfig
from .inputs.elements import Elements as Elements
from .inputs.elements import GridPositions as GridPositions
from .inputs.elements import InputAdapter as InputAdapter
from .inputs.frame_pair import ConvFramePairInputConfig as ConvFramePairInputConfig
from .inputs.frame_pair import FramePairInputConfig as FramePairInputConfig
from .inputs.fusion import FusionConfig as FusionConfig
from .inputs.hashed_units import HashedUnitsConfig as HashedUnitsConfig
from .inputs.image import ConvInput as ConvInput
from .inputs.image import ConvInputConfig as ConvInputConfig
from .inputs.image import PatchInput as PatchInput
from .inputs.image import PatchInputConfig as PatchInputConfig
from .inputs.image import PixelInput as PixelInput
from .inputs.image import PixelInputConfig as PixelInputConfig
from .inputs.image import ResidualInput as ResidualInput
from .inputs.image import ResidualInputConfig as ResidualInputConfig
from .inputs.label import LabelInputConfig as LabelInputConfig
from .inputs.points import NeighborPointsInputConfig as NeighborPointsInputConfig
from .inputs.points import PointsInputConfig as PointsInputConfig
from .inputs.positions import FourierPositionsConfig as FourierPositionsConfig
from .inputs.positions import LearnedPositionsConfig as LearnedPositionsConfig
from .inputs.registry import register_input as register_input
from .inputs.series import ConvSeriesInputConfig as ConvSeriesInputConfig
from .inputs.series import SeriesInputConfig as SeriesInputConfig
from .inputs.stems import ResidualStemConfig as ResidualStemConfig
from .inputs.table import TableInputConfig as TableInputConfig
from .inputs.text import ConvTextInputConfig as ConvTextInputConfig
from .inputs.text import HashedTextInputConfig as HashedTextInputConfig
from .inputs.text import TextInputConfig as TextInputConfig
from .inputs.video import ResidualVideoInputConfig as ResidualVideoInputConfig
from .inputs.video import VideoInputConfig as VideoInputConfig

# Models, output queries and heads
from .models.decoder import DecoderConfig as DecoderConfig
from .models.decoder import OutputConfig as OutputConfig
from .models.decoder import PerceiverDecoder as PerceiverDecoder
from .models.encoder import PerceiverEncoder as PerceiverEncoder
from .models.encoder import PerceiverEncoderConfig as PerceiverEncoderConfig
from .models.autoregressive import NextTokenConfig as NextTokenConfig
from .models.generate import GenerationConfig as GenerationConfig
from .models.generate import TokenGenerator as TokenGenerator
from .models.generate import sample_tokens as sample_tokens
from .models.perceiver import Perceiver as Perceiver
from .models.perceiver import PerceiverConfig as PerceiverConfig
from .models.perceiver import build_model as build_model
from .models.causal_layers import ARCache as ARCache
from .models.hip import HierarchicalPerceiver as HierarchicalPerceiver
from .models.hip import HiPOutput as HiPOutput
from .models.hip_config import HiPBlockConfig as HiPBlockConfig
from .models.hip_config import HiPConfig as HiPConfig
from .models.hip_config import hip_config as hip_config
from .models.hip_encoder import ElementDecoderConfig as ElementDecoderConfig
from .models.hip_encoder import ElementOutputConfig as ElementOutputConfig
from .models.perceiver_ar import PerceiverAR as PerceiverAR
from .models.perceiver_ar_config import PerceiverARConfig as PerceiverARConfig
from .models.perceiver_ar_config import krasserm_perceiver_ar as krasserm_perceiver_ar
from .models.resampler import Resampler as Resampler
from .models.resampler import ResamplerConfig as ResamplerConfig
from .models.resampler import idefics2_resampler as idefics2_resampler
from .models.transformer import TransformerEncoderConfig as TransformerEncoderConfig
from .nn.rotary import RotaryConfig as RotaryConfig
from .outputs.heads import LinearHeadConfig as LinearHeadConfig
from .outputs.heads import MeanPool as MeanPool
from .outputs.heads import MeanPoolConfig as MeanPoolConfig
from .outputs.heads import TiedHeadConfig as TiedHeadConfig
from .outputs.queries import FourierQueriesConfig as FourierQueriesConfig
from .outputs.queries import InputQueriesConfig as InputQueriesConfig
from .outputs.queries import LearnedQueriesConfig as LearnedQueriesConfig

# Tasks
from .tasks.autoencode import AutoencodeConfig as AutoencodeConfig
from .tasks.base import ExportOutput as ExportOutput
from .tasks.base import PredictionRequest as PredictionRequest
from .tasks.base import SupervisedTask as SupervisedTask
from .tasks.base import Task as Task
from .tasks.base import TaskBatch as TaskBatch
from .tasks.classification import ClassificationConfig as ClassificationConfig
from .tasks.classification import ClassificationTask as ClassificationTask
from .tasks.config import BaseTaskConfig as BaseTaskConfig
from .tasks.config import OutputPart as OutputPart
from .tasks.config import TargetInfo as TargetInfo
from .tasks.dense import ImageToImageConfig as ImageToImageConfig
from .tasks.dense import SegmentationConfig as SegmentationConfig
from .tasks.flow import FlowConfig as FlowConfig
from .tasks.masked import MaskedBytesConfig as MaskedBytesConfig
from .tasks.meters import ConfusionMeter as ConfusionMeter
from .tasks.meters import Meter as Meter
from .tasks.multilabel import MultiLabelConfig as MultiLabelConfig
from .tasks.multitask import MultiTaskConfig as MultiTaskConfig
from .tasks.reconstruction import ReconstructionConfig as ReconstructionConfig
from .tasks.regression import RegressionConfig as RegressionConfig

# Registries
from .tasks.registry import register_task as register_task

__version__: str
