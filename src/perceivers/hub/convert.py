"""DeepMind's published weights, in their Hugging Face form, become a run folder; and a run folder becomes that form.

Nothing here runs code from a file: weights are safetensors, or a pickle that holds nothing but tensors.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file

from perceivers.data.modalities.audio.modality import WavePreprocessConfig
from perceivers.data.modalities.flow.frame_pairs import FramePairPreprocessConfig
from perceivers.data.modalities.flow.modality import FlowPreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.hub.checkpoint import (
    WEIGHTS_FILE,
    compare_weights,
    find_folder,
    load,
    read_weights,
    save,
)
from perceivers.hub.huggingface import architecture_of, config_from, num_labels
from perceivers.hub.huggingface_back import config_to
from perceivers.hub.names import from_huggingface, to_huggingface
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import MaskedBytesConfig
from perceivers.tasks.reconstruction import ReconstructionConfig
from perceivers.tasks.registry import TaskConfig
from perceivers.typing import Tensor

__all__ = ["Converted", "convert", "export_huggingface"]

_THEIR_CONFIG, _THEIR_IMAGES, _INDEX = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
)

# Where pairs of frames and their flow lie in data for the model of flow, as the published data sets are read.
_PAIR_COLUMNS = {
    "frames": InputColumn("first", "frame_pair", ("first", "second"), ("image", "image")),
    "flow": InputColumn("flow", "flow"),
}
# Of the films and their sound in DeepMind's notebook.
_THEIR_FRAME_RATE, _THEIR_SAMPLE_RATE = 25.0, 48_000

# What Hugging Face's picture processor does where its file says nothing else.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was converted.

    Attributes:
        architecture: The name of the model at Hugging Face.
        num_parameters: Its weights.
        predicts: Whether `perceivers predict` can read files with it.
    """

    architecture: str
    num_parameters: int
    predicts: bool


def convert(source: str | Path, out: str | Path) -> Converted:
    """Write one of the six Perceiver models of Hugging Face as a run folder.

    Args:
        source: A folder that `save_pretrained` has written, or the id of such a model on the hub.
        out: The run folder, new or empty.

    Raises:
        OSError: If there is no such folder, or a file is missing or damaged.
        ValueError: If it is another model, a weight is missing or too much, or `out` holds something.
    """
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        msg = f"{out} is not empty. Give a new folder for the converted model (--out)."
        raise ValueError(msg)
    expected = "the folder that `save_pretrained` has written"
    folder = find_folder(source, expected, ("*.json", "*.safetensors", "*.bin"))
    theirs = _read_json(folder / _THEIR_CONFIG)
    name = architecture_of(theirs)
    config = config_from(theirs)
    weights = from_huggingface(_read_all(folder), name, config)
    with torch.device("meta"):
        model = build(config)
    expected = {key: tuple(t.shape) for key, t in model.state_dict().items()}
    compare_weights(expected, {key: tuple(t.shape) for key, t in weights.items()}, folder)
    model.load_state_dict(weights, assign=True)
    preprocess, task = _how_to_use(config, theirs, folder)
    save(out, model, preprocess=preprocess, task=task, columns=_columns(preprocess))
    count = sum(parameter.numel() for parameter in model.parameters())
    return Converted(architecture=name, num_parameters=count, predicts=task is not None)


def export_huggingface(run: str | Path, out: str | Path) -> str:
    """Write a run as a folder that `transformers` loads, and return the name of the model there.

    Args:
        run: A run folder whose model has the shape of one of the six.
        out: The folder, made if need be.

    Raises:
        ValueError: If none of the six has its shape. The message says where it differs.
        OSError: If a file cannot be written.
    """
    saved = load(run)
    names = getattr(saved.config.task, "label_names", ())
    name, theirs = config_to(saved.config.model, label_names=names)
    weights = to_huggingface(saved.model.state_dict(), name, saved.config.model)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    contiguous = {key: tensor.contiguous() for key, tensor in weights.items()}
    save_file(contiguous, out / WEIGHTS_FILE, {"format": "pt"})
    (out / _THEIR_CONFIG).write_text(json.dumps(theirs, indent=2) + "\n")
    image = saved.config.preprocess.get("image")
    if isinstance(image, ImagePreprocessConfig):
        (out / _THEIR_IMAGES).write_text(json.dumps(_their_images(image), indent=2) + "\n")
    return name


def _how_to_use(
    config: PerceiverConfig, theirs: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], TaskConfig | None]:
    """Return how files are prepared for a model and what it was trained for, as far as this is known here."""
    if "image" in config.inputs:
        size: Any = getattr(config.inputs["image"], "size", None)
        path = folder / _THEIR_IMAGES
        told = _read_json(path) if path.is_file() else {}
        return {"image": _our_images(told, size)}, ClassificationConfig(label_names=_labels(theirs))
    if "text" in config.inputs:
        length = getattr(config.inputs["text"], "max_length", None)
        return {"text": TextPreprocessConfig(max_length=length, marks=True)}, MaskedBytesConfig()
    if "frames" in config.inputs:
        size = getattr(config.inputs["frames"], "size", None)
        preprocess = {
            "frames": FramePairPreprocessConfig(size=size),
            "flow": FlowPreprocessConfig(size=size),
        }
        return preprocess, FlowConfig(modality="frames")
    if "video" in config.inputs:
        return _films(config, _labels(theirs))
    return {}, None


def _films(
    config: PerceiverConfig, labels: tuple[str, ...]
) -> tuple[dict[str, Any], AutoencodeConfig]:
    """Return how films with their sound are prepared for the autoencoder, and what it gives back.

    Pixels in [0, 1] and samples in [-1, 1] as they are; 25 frames a second, 1,920 samples of sound at 48 kHz for each.

    Source: the notebook on video autoencoding of DeepMind's release; the weights of the loss: Perceiver IO
    (arXiv:2107.14795), appendix I.
    """
    film: Any = config.inputs["video"]
    sound: Any = config.inputs["audio"]
    preprocess: dict[str, Any] = {
        "audio": WavePreprocessConfig(
            sample_rate=_THEIR_SAMPLE_RATE,
            seconds=sound.num_samples / _THEIR_SAMPLE_RATE,
            scale=1.0,
        ),
        "video": VideoPreprocessConfig(
            num_frames=film.num_frames,
            frame_rate=_THEIR_FRAME_RATE,
            size=film.size,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
    }
    parts = {
        "audio": ReconstructionConfig(
            weight=1.0,
            patch=(sound.patch,),
            size=(sound.num_samples,),
            num_channels=1,
            low=-1.0,
            high=1.0,
        ),
        "video": ReconstructionConfig(
            weight=0.03,
            patch=(1, 1, 1),
            size=(film.num_frames, *film.size),
            num_channels=3,
            low=0.0,
            high=1.0,
        ),
    }
    return preprocess, AutoencodeConfig(parts=parts, label_weight=1e-4, label_names=labels)


def _columns(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return where modalities lie that are no columns of their own: a pair of frames, both parts of a film."""
    if set(preprocess) == {"audio", "video"}:
        columns = {name: InputColumn("video", name) for name in preprocess}
    else:
        columns = {name: column for name, column in _PAIR_COLUMNS.items() if name in preprocess}
    return {"inputs": {name: asdict(column) for name, column in columns.items()}} if columns else {}


def _labels(theirs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes, which their file tells, or made-up ones."""
    names = theirs.get("id2label") or {}
    told = tuple(str(names[key]) for key in sorted(names, key=int))
    return told or tuple(f"class {i}" for i in range(num_labels(theirs)))


def _our_images(told: Mapping[str, Any], size: tuple[int, int]) -> ImagePreprocessConfig:
    crop, kept = _side(told.get("crop_size"), 256), _side(told.get("size"), 224)
    return ImagePreprocessConfig(
        size=size,
        num_channels=3,
        mean=tuple(told.get("image_mean") or _MEAN),
        std=tuple(told.get("image_std") or _STD),
        crop_fraction=kept / crop if told.get("do_center_crop", True) else 1.0,
    )


def _their_images(image: ImagePreprocessConfig) -> dict[str, Any]:
    """Return the file of their picture processor: a central crop of the short side, resized to the model's size."""
    height, width = image.known_size
    crop = round(height / image.crop_fraction)
    return {
        "image_processor_type": "PerceiverImageProcessor",
        "do_center_crop": image.crop_fraction < 1.0,
        "crop_size": {"height": crop, "width": crop},
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean or ()),
        "image_std": list(image.std or ()),
    }


def _side(told: Any, usual: int) -> int:
    if isinstance(told, Mapping):
        return int(cast("Mapping[str, Any]", told).get("height", usual))
    return usual if told is None else int(told)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        msg = f"{path.parent} has no {path.name}. Expected the folder that `save_pretrained` has written."
        raise OSError(msg) from error
    except ValueError as error:
        msg = f"{path} is not JSON ({error}). Copy it again from where it came from."
        raise OSError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path} holds no settings: expected a JSON object."
        raise OSError(msg)
    return found


def _read_all(folder: Path) -> dict[str, Tensor]:
    """Return all weights of a folder, in one file or several."""
    index = folder / _INDEX
    if not index.is_file():
        return read_weights(folder)
    found: dict[str, Tensor] = {}
    for name in sorted(set(_read_json(index).get("weight_map", {}).values())):
        if Path(name).name != name:  # a path that leads elsewhere
            msg = f"{index} names the file '{name}', which does not lie beside it."
            raise ValueError(msg)
        found |= read_weights(folder, name)
    return found
