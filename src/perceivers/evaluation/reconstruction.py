"""What an autoencoder gives back, beside what it was given: in numbers, and as files that people can look at."""

import re
import wave
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.base import Batch, require
from perceivers.evaluation.prediction import Prediction, Reconstruction
from perceivers.nn.patches import depth_to_space
from perceivers.tasks.autoencode import LABEL, AutoencodeTask
from perceivers.tasks.base import Question
from perceivers.tasks.reconstruction import ReconstructionConfig, cells_of, in_units, psnr
from perceivers.typing import Float, Tensor

__all__ = ["reconstructions", "write_reconstruction"]

_SHOWN_ROWS = (
    192  # smaller pictures and films are enlarged to about so many rows, each pixel a square
)
_GAP = 2  # pixels between the original and its reconstruction, before they are enlarged


def reconstructions(
    task: AutoencodeTask,
    preprocess: Mapping[str, Any],
    names: Sequence[str],
    batch: Batch,
    question: Question,
    outputs: Mapping[str, Tensor],
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield what a model has given back of each sample of a batch, how near it is, and which class it tells.

    Args:
        task: Which the model has learned.
        preprocess: For each modality, in what units its values are.
        names: Of the samples.
        batch: As the model has read it.
        question: What was asked.
        outputs: Of the model, to all queries.
        top: How many of the best labels each prediction lists.
    """
    targets = question.targets
    decibels: dict[str, list[float | None]] = {}
    pairs: dict[str, list[Reconstruction]] = {}
    for name, part in task.config.parts.items():
        if name not in targets.values:
            continue
        errors, there = task.errors(name, outputs[name], targets)
        found = psnr(errors, part.peak).tolist()
        decibels[name] = [d if is_there else None for d, is_there in zip(found, there, strict=True)]
        pairs[name] = _pairs(part, preprocess[name], batch, name, outputs[name])
    shares = outputs[LABEL].float().softmax(dim=-1).cpu() if LABEL in outputs else None
    for row, name in enumerate(names):
        label: dict[str, Any] = {}
        if shares is not None:
            order = shares[row].argsort(descending=True).tolist()
            told = [(task.names[index], shares[row, index].item()) for index in order]
            label = {
                "label": told[0][0],
                "probability": told[0][1],
                "top": tuple(told[: max(top, 1)]),
                "probabilities": dict(told),
            }
        yield Prediction(
            name=name,
            values={f"{key}_psnr": d[row] for key, d in decibels.items() if d[row] is not None},  # pyright: ignore[reportArgumentType]
            reconstructions={
                key: found[row] for key, found in pairs.items() if decibels[key][row] is not None
            },
            **label,
        )


def _pairs(
    part: ReconstructionConfig,
    preprocess: Any,
    batch: Batch,
    name: str,
    answers: Float[Tensor, "B O V"],
) -> list[Reconstruction]:
    """Return each sample of a modality and what was given back, in the units of the data, channels last."""
    mask = batch.masks.get(name)
    given, _ = cells_of(part, batch.inputs[name], None)
    shown = [_whole(part, in_units(part, x.float().cpu())) for x in (given, answers)]
    found: list[Reconstruction] = []
    for row in range(answers.shape[0]):
        original, restored = (_scaled(x[row].numpy(), preprocess) for x in shown)
        if mask is not None and mask.shape[1] > 1:  # what is padded was never there
            end = int(mask[row].nonzero()[-1]) + 1 if mask[row].any() else 0
            original, restored = original[:end], restored[:end]
        rate = getattr(preprocess, "frame_rate", None) or getattr(preprocess, "sample_rate", None)
        kind = preprocess.kind
        found.append(Reconstruction(kind=kind, original=original, restored=restored, rate=rate))
    return found


def _whole(part: ReconstructionConfig, cells: Float[Tensor, "B O V"]) -> Float[Tensor, "B ..."]:
    """Return what all queries together answer for, channels last: the inverse of `cells_of`."""
    assert part.size is not None
    x = depth_to_space(cells.unflatten(1, part.grid), part.patch)
    return x[(..., *(slice(n) for n in part.size))].movedim(1, -1)


def _scaled(values: npt.NDArray[np.float32], preprocess: Any) -> npt.NDArray[Any]:
    """Return pixels as bytes, and other values in the units of the data."""
    if preprocess.kind in ("image", "video"):
        return np.round(values * 255).astype(np.uint8)
    if preprocess.kind in ("series", "array") and preprocess.mean and preprocess.std:
        return values * np.float32(preprocess.std) + np.float32(preprocess.mean)
    return values


def write_reconstruction(prediction: Prediction, folder: Path) -> list[Path]:
    """Write what was given back of one sample into a folder, which is made if need be, and return the files.

    A film becomes an .mp4 and a picture a .png, the original on the left and what was given back on the right; a
    sound two .wav files; anything else an .npz of `original` and `reconstruction`.

    Raises:
        OSError: If a file cannot be written.
        ImportError: If PyAV is needed for a film and not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = prediction.name.partition(" + ")[0]
    stem = re.sub(r"[^\w.-]+", "_", Path(first).stem).strip("._") or "sample"
    number = 1
    while any(folder.glob(f"{stem}.*")):  # of another folder, or of an earlier call
        number += 1
        stem = f"{re.sub(r'-[0-9]+$', '', stem)}-{number}"
    written: list[Path] = []
    for name, pair in prediction.reconstructions.items():
        path = folder / f"{stem}.{name}"
        if pair.kind == "image":
            both = Image.fromarray(_side_by_side(pair.original, pair.restored))
            written.append(path.with_name(path.name + ".png"))
            both.save(written[-1])
        elif pair.kind == "video":
            written.append(path.with_name(path.name + ".mp4"))
            _write_film(written[-1], pair)
        elif pair.kind == "wave":
            for suffix, samples in ((".original.wav", pair.original), (".wav", pair.restored)):
                written.append(path.with_name(path.name + suffix))
                _write_sound(written[-1], samples, round(pair.rate or 1))
        else:
            written.append(path.with_name(path.name + ".npz"))
            np.savez(written[-1], original=pair.original, reconstruction=pair.restored)
    return written


def _side_by_side(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return two pictures, or films frame by frame, next to each other; small ones are enlarged."""
    gap = np.full_like(left[..., :_GAP, :], 255)
    both = np.concatenate([left, gap, right], axis=-2)
    times = max(1, _SHOWN_ROWS // both.shape[-3])
    both = both.repeat(times, axis=-3).repeat(times, axis=-2)
    return both[..., 0] if both.shape[-1] == 1 else both


def _write_film(path: Path, pair: Reconstruction) -> None:
    av = require("av", "video")
    frames = _side_by_side(pair.original, pair.restored)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")  # H.264 wants even sides
    rate = Fraction(pair.rate or 1).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))


def _write_sound(path: Path, samples: npt.NDArray[np.float32], rate: int) -> None:
    steps = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(steps.tobytes())
