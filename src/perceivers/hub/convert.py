"""Conversion of Perceivers at Hugging Face, krasserm's included, and of DeepMind's checkpoints to runs and back.

No code from a file is run: weights are safetensors, or a pickle of nothing but tensors or arrays.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file

from perceivers.data.base import atomic_write, atomic_write_text
from perceivers.data.modalities.audio.modality import WavePreprocessConfig
from perceivers.data.modalities.flow.modality import FlowPreprocessConfig, FramePairPreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.music.modality import MusicPreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.hub.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Saved,
    SavedConfig,
    build_with_weights,
    find_folder,
    load,
    read_weights,
)
from perceivers.hub.haiku import from_haiku, haiku_config
from perceivers.hub.huggingface import architecture_of, config_from, config_to, num_labels
from perceivers.hub.huggingface_weights import from_huggingface, to_huggingface
from perceivers.hub.perceiver_ar import KRASSERM_MODELS, from_krasserm, krasserm_config
from perceivers.hub.pystate import is_pystate, read_pystate
from perceivers.inputs.music import MusicTokenInputConfig
from perceivers.inputs.tokens import SubwordInputConfig, TokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import MaskedBytesConfig
from perceivers.tasks.midi_tokens import MidiWindowVocabulary
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.reconstruction import ReconstructionConfig
from perceivers.tasks.registry import TaskConfig
from perceivers.tasks.subword_vocabulary import SubwordVocabulary, read_tokenizer
from perceivers.tasks.vocabulary import LineVocabulary
from perceivers.typing import Tensor

_THEIR_CONFIG, _THEIR_IMAGES = "config.json", "preprocessor_config.json"
_INDEX = "model.safetensors.index.json"
TOKENIZER_FILE = "tokenizer.json"
"""Name of the file of a tokenizer beside a published model."""

_TOKENIZER_SETTINGS = "tokenizer_config.json"
# Of the texts that are prepared; those of more tokens than the context are read from their ends.
_BYTES_PER_TOKEN = 4
_FILES = ("*.json", "*.safetensors", "*.bin")

# Where pairs of frames and their flow lie in data for the model of flow, as the published data sets are read.
_PAIR_COLUMNS = {
    "frame_pair": InputColumn("first", "frame_pair", ("first", "second"), ("image", "image")),
    "flow": InputColumn("flow", "flow"),
}
# Of the videos and their audio in DeepMind's notebook.
_THEIR_FRAME_RATE, _THEIR_SAMPLE_RATE = 25.0, 48_000

# Defaults of Hugging Face's image processor.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_any(source: str | Path) -> Saved:
    """Return a saved model: of a run, or a published one, converted in memory.

    Args:
        source: A run folder, a folder of `save_pretrained` with a Perceiver of transformers or a Perceiver AR of
            krasserm's library, the id of any on the hub, or a checkpoint of DeepMind's release (`.pystate`).

    Raises:
        OSError: If there is no such folder, or a file is missing or damaged.
        ValueError: If it is another model, or files do not fit each other.
    """
    if is_pystate(Path(source)):
        return read_published(source)[1]
    expected = f"a run folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or the folder that `save_pretrained` has written"
    folder = find_folder(source, expected, _FILES)
    if not (folder / CONFIG_FILE).is_file():
        raise OSError(f"{folder} has no {CONFIG_FILE}. Expected {expected}.")
    found = _read_json(folder / CONFIG_FILE)
    if "architectures" in found or ("model_type" in found and "model" not in found):
        return read_published(folder)[1]
    return load(folder)


def read_published(source: str | Path) -> tuple[str, Saved]:
    """Return the name of a published model at Hugging Face, and the same model as ours, in evaluation mode.

    Args:
        source: A folder of `save_pretrained` with a Perceiver of transformers or a Perceiver AR of krasserm's library,
            its id on the hub, or a checkpoint of DeepMind's release (`.pystate`, or `.pickle` of the language model).

    Raises:
        OSError: If there is no such folder, or a file is missing or damaged.
        ValueError: If it is another model, or a weight is missing or too much.
    """
    path = Path(source)
    if is_pystate(path):
        arrays = read_pystate(path)
        with _naming(path):
            theirs, weights = from_haiku(arrays, path)
            config = haiku_config(theirs)
        return _converted(theirs, config, weights, path)
    expected = (
        "the folder that `save_pretrained` has written, or a checkpoint of DeepMind's (.pystate)"
    )
    folder = find_folder(source, expected, _FILES)
    theirs = _read_json(folder / _THEIR_CONFIG)
    is_krasserm = architecture_of(theirs) in KRASSERM_MODELS
    with _naming(folder / _THEIR_CONFIG):
        config = _krasserm(theirs, folder) if is_krasserm else config_from(theirs)
    return _converted(theirs, config, _read_all(folder), folder)


@contextmanager
def _naming(path: Path) -> Generator[None]:
    """Raise errors of values in a file as one that names the file.

    Raises:
        ValueError: If a value has another type or form than expected.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(
            f"{path} holds a value from which no model can be built: {str(error).rstrip('.')}. Expected the files as "
            "they were published or as `save_pretrained` has written them, unchanged."
        ) from error


def _converted(
    theirs: Mapping[str, Any], config: PerceiverConfig, weights: Mapping[str, Tensor], place: Path
) -> tuple[str, Saved]:
    """Return the name of a model of Hugging Face's, and the same model with our configuration, in evaluation mode."""
    name = architecture_of(theirs)
    if name in KRASSERM_MODELS:
        renamed = {f"encoder.model.{key}": w for key, w in from_krasserm(weights).items()}
        preprocess, task = _how_to_generate(config, name, place)
    else:
        renamed = from_huggingface(weights, name, config)
        with _naming(place):
            preprocess, task = _how_to_use(config, theirs, place)
    model = build_with_weights(config, renamed, place)
    saved = SavedConfig(
        model=config, preprocess=preprocess, task=task, columns=_columns(preprocess)
    )
    return name, Saved(model=model.eval(), config=saved, folder=place)


def export_huggingface(run: str | Path, out: str | Path) -> str:
    """Write a run as a folder that `transformers` loads, made if need be, and return the name of the model there.

    Raises:
        ValueError: If none has its shape. The message names the differences.
        OSError: If a file cannot be written.
    """
    saved = load(run)
    if saved.config.num_members > 1:
        raise ValueError(
            f"transformers has no counterpart to the average of {saved.config.num_members} models in {run}: expected "
            "a run without --folds, or another format of `perceivers export`."
        )
    names = getattr(saved.config.task, "label_names", ())
    name, theirs = config_to(saved.config.model, label_names=names)
    weights = to_huggingface(saved.model.state_dict(), name, saved.config.model)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    contiguous = {key: tensor.contiguous() for key, tensor in weights.items()}
    with atomic_write(out / WEIGHTS_FILE) as new:
        save_file(contiguous, new, {"format": "pt"})
    atomic_write_text(out / _THEIR_CONFIG, json.dumps(theirs, indent=2) + "\n")
    image = saved.config.preprocess.get("image")
    if isinstance(image, ImagePreprocessConfig):
        text = json.dumps(_their_images(image), indent=2) + "\n"
        atomic_write_text(out / _THEIR_IMAGES, text)
    return name


def _krasserm(theirs: Mapping[str, Any], folder: Path) -> PerceiverConfig:
    """Return our configuration of a Perceiver AR of krasserm's, from the content of its config.json in a folder."""
    settings = theirs.get("model_config")
    if not isinstance(settings, Mapping):
        raise ValueError("model_config is missing: expected an object with the sizes of the model")
    encoder = krasserm_config(cast("Mapping[str, Any]", settings))
    length = encoder.max_length - 1  # behind the start
    if _is_music(encoder, architecture_of(theirs)):
        events = MusicTokenInputConfig(max_length=length)
        return PerceiverConfig(inputs={"music": events}, encoder=encoder, output=NextTokenConfig())
    tokens: Any = TokenInputConfig(max_length=length, vocab_size=encoder.vocab_size)
    if encoder.vocab_size != LineVocabulary().size and (folder / TOKENIZER_FILE).is_file():
        tokens = SubwordInputConfig(
            max_length=_BYTES_PER_TOKEN * length, num_tokens=length, vocab_size=encoder.vocab_size
        )
    return PerceiverConfig(inputs={"text": tokens}, encoder=encoder, output=NextTokenConfig())


def _is_music(encoder: PerceiverARConfig, name: str) -> bool:
    """Return whether the tokens of a Perceiver AR of krasserm's are events of MIDI files."""
    return name == KRASSERM_MODELS[1] and encoder.vocab_size == MidiWindowVocabulary().size


def _how_to_generate(
    config: PerceiverConfig, name: str, folder: Path
) -> tuple[dict[str, Any], TaskConfig | None]:
    """Return the preprocessing and the task of a Perceiver AR in a folder, as far as those of its tokens are known."""
    vocabulary: Any = LineVocabulary()
    encoder = cast("PerceiverARConfig", config.encoder)
    if _is_music(encoder, name):
        crop = min(encoder.num_latents, encoder.max_length - 1)
        task = NextTokenTaskConfig(
            modality="music", vocabulary=MidiWindowVocabulary(), shortest_crop=crop, z_loss=0.0
        )
        length = encoder.max_length - 1
        return {"music": MusicPreprocessConfig(max_length=length, repeat_velocity=True)}, task
    if name != KRASSERM_MODELS[0]:
        return {}, None
    length = encoder.max_length - 1
    if encoder.vocab_size != vocabulary.size:
        vocabulary = _subwords(folder, encoder)
        if vocabulary is None:
            return {}, None
        length *= _BYTES_PER_TOKEN
    crop = min(encoder.num_latents, encoder.max_length - 1)
    task = NextTokenTaskConfig(vocabulary=vocabulary, shortest_crop=crop, z_loss=0.0)
    return {"text": TextPreprocessConfig(max_length=length)}, task


def _subwords(folder: Path, encoder: PerceiverARConfig) -> SubwordVocabulary | None:
    """Return the vocabulary of the tokenizer in a folder, whose texts begin behind its end of a document.

    Raises:
        ValueError: If the tokenizer cannot be read, or has more tokens than the model. The message names the file.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        content = path.read_text(encoding="utf-8")
        start = read_tokenizer(content).token_to_id(_end_of_document(folder))
        found = SubwordVocabulary(tokenizer=content, start=start)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if found.size > encoder.vocab_size:
        raise ValueError(
            f"{path} has {found.size:,} tokens, and the model {encoder.vocab_size:,}. Expected the tokenizer that was "
            "published with the model."
        )
    return found


def _end_of_document(folder: Path) -> str:
    """Return the token that ends a document by the settings of the tokenizer in a folder, "" if they name none."""
    path = folder / _TOKENIZER_SETTINGS
    known = _read_json(path).get("eos_token") if path.is_file() else None
    found: Any = known.get("content") if isinstance(known, dict) else known
    return found if isinstance(found, str) else ""


def _how_to_use(
    config: PerceiverConfig, theirs: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], TaskConfig | None]:
    """Return the preprocessing of files for a model and its task, as far as these are known here."""
    if "image" in config.inputs:
        size: Any = getattr(config.inputs["image"], "size", None)
        path = folder / _THEIR_IMAGES
        known = _read_json(path) if path.is_file() else {}
        crop, kept = _side(known.get("crop_size"), 256), _side(known.get("size"), 224)
        if min(crop, kept) < 1:
            raise ValueError(f"{_THEIR_IMAGES} has a size of {min(crop, kept)} pixels")
        images = ImagePreprocessConfig(
            size=size,
            num_channels=3,
            mean=tuple(known.get("image_mean") or _MEAN),
            std=tuple(known.get("image_std") or _STD),
            crop_fraction=kept / crop if known.get("do_center_crop", True) else 1.0,
            resize="tensorflow",  # as the weights were trained
        )
        return {"image": images}, ClassificationConfig(label_names=_labels(theirs))
    if "text" in config.inputs:
        length = getattr(config.inputs["text"], "max_length", None)
        if architecture_of(theirs) == "PerceiverForSequenceClassification":
            texts = TextPreprocessConfig(max_length=length)
            return {"text": texts}, ClassificationConfig(label_names=_labels(theirs))
        return {"text": TextPreprocessConfig(max_length=length, marks=True)}, MaskedBytesConfig()
    if "frame_pair" in config.inputs:
        size = getattr(config.inputs["frame_pair"], "size", None)
        preprocess = {
            "frame_pair": FramePairPreprocessConfig(size=size),
            "flow": FlowPreprocessConfig(size=size),
        }
        return preprocess, FlowConfig(tiles="fixed")
    if "video" in config.inputs:
        return _autoencoding(config, _labels(theirs))
    return {}, None


def _autoencoding(
    config: PerceiverConfig, labels: tuple[str, ...]
) -> tuple[dict[str, Any], AutoencodeConfig]:
    """Return the preprocessing of videos with their audio for the autoencoder, and its task.

    Pixels in [0, 1] and samples in [-1, 1] as they are; 25 frames a second, 1,920 samples of audio at 48 kHz for each.

    Reference: the notebook on video autoencoding of DeepMind's release; the weights of the loss: Perceiver IO
    (arXiv:2107.14795), appendix I.
    """
    video: Any = config.inputs["video"]
    audio: Any = config.inputs["audio"]
    rate = _THEIR_SAMPLE_RATE
    preprocess: dict[str, Any] = {
        "audio": WavePreprocessConfig(
            sample_rate=rate, seconds=audio.num_samples / rate, scale=1.0
        ),
        "video": VideoPreprocessConfig(
            num_frames=video.num_frames,
            frame_rate=_THEIR_FRAME_RATE,
            size=video.size,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
    }
    parts = {
        "audio": ReconstructionConfig(
            weight=1.0,
            patch=(audio.patch,),
            size=(audio.num_samples,),
            num_channels=1,
            low=-1.0,
            high=1.0,
        ),
        "video": ReconstructionConfig(
            weight=0.03,
            patch=(1, 1, 1),
            size=(video.num_frames, *video.size),
            num_channels=3,
            low=0.0,
            high=1.0,
        ),
    }
    return preprocess, AutoencodeConfig(parts=parts, label_weight=1e-4, label_names=labels)


def _columns(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of modalities that have none of their own: a pair of frames, both parts of a video."""
    if set(preprocess) == {"audio", "video"}:
        columns = {name: InputColumn("video", name) for name in preprocess}
    else:
        columns = {name: column for name, column in _PAIR_COLUMNS.items() if name in preprocess}
    return {"inputs": {name: asdict(column) for name, column in columns.items()}} if columns else {}


def _labels(theirs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes from their file, or else numbers."""
    names = theirs.get("id2label") or {}
    found = tuple(str(names[key]) for key in sorted(names, key=int))
    return found or tuple(f"class {i}" for i in range(num_labels(theirs)))


def _their_images(image: ImagePreprocessConfig) -> dict[str, Any]:
    """Return the settings of their image processor: a central crop of the short side, resized to the model's size."""
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


def _side(size: Any, default: int) -> int:
    if isinstance(size, Mapping):
        sides = cast("Mapping[str, Any]", size)
        return int(sides.get("height", sides.get("shortest_edge", default)))
    return default if size is None else int(size)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OSError(
            f"{path.parent} has no {path.name}. Expected the folder that `save_pretrained` has written."
        ) from error
    except ValueError as error:
        raise OSError(
            f"{path} is not JSON ({error}). Copy it again from where it came from."
        ) from error
    if not isinstance(found, dict):
        raise OSError(f"{path} holds no settings: expected a JSON object.")
    return found


def _read_all(folder: Path) -> dict[str, Tensor]:
    """Return all weights of a folder, in one file or several."""
    index = folder / _INDEX
    if not index.is_file():
        return read_weights(folder)
    found: dict[str, Tensor] = {}
    files = _read_json(index).get("weight_map")
    names = set(files.values()) if isinstance(files, dict) else set[Any]()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{index} names no files of weights. Expected the file that `save_pretrained` has written, unchanged."
        )
    for name in sorted(names):
        if Path(name).name != name:  # a path that leads elsewhere
            raise ValueError(f"{index} names the file '{name}', which does not lie beside it.")
        found |= read_weights(folder, name)
    return found
