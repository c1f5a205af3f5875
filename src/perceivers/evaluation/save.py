"""Files and images of predictions: dense outputs, optical flow and reconstructions."""

import re
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.base import atomic_write
from perceivers.data.modalities.flow.decode import write_flo
from perceivers.escaping import encode_text
from perceivers.evaluation.drawings import draw_reconstruction, side_by_side
from perceivers.optional import require
from perceivers.tasks.flow_colors import flow_colors
from perceivers.tasks.prediction import Prediction, Reconstruction


def save_predictions(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write the flow, the images or the reconstructions of predictions of one run, and return the files.

    Raises:
        ValueError: If the predictions have none of these.
        OSError: If a file cannot be written.
        ImportError: If PyAV is needed for a video and not installed.
    """
    if any(one.reconstructions for one in predictions):
        return [path for one in predictions for path in save_reconstructions(one, folder)]
    if any(one.flow is not None for one in predictions):
        return save_flows(predictions, folder)
    return save_images(predictions, folder)


def save_images(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write the image of each prediction as PNG, named like the input file, and return the paths.

    Files of one name get numbers.
    """
    if any(one.image is None for one in predictions):
        raise ValueError(
            "--save is for runs that predict images, flow or reconstructions, and this one does not. Use --out for a "
            "table of the predictions."
        )
    written: list[Path] = []
    for number, one in enumerate(predictions):
        stem = Path(one.name).stem
        path = folder / f"{stem}.png"
        if path in written:
            path = folder / f"{stem}-{number}.png"
        image: Any = one.image
        _write_png(path, image)
        written.append(path)
    return written


def save_flows(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write the flow of each prediction as `.flo` and as a color image, and return the files.

    They are named like the first frame of each pair; pairs of one name get numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    used: set[str] = set()
    for one in predictions:
        if one.flow is None:
            continue
        stem = base = Path(one.name.partition(" -> ")[0]).stem or "flow"
        number = 1
        while stem in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem)
        paths = [folder / f"{stem}.flo", folder / f"{stem}.png"]
        write_flo(paths[0], one.flow)
        _write_png(paths[1], Image.fromarray(flow_colors(one.flow)))
        written += paths
    return written


def save_reconstructions(prediction: Prediction, folder: Path) -> list[Path]:
    """Write the reconstructions of one sample, and return the files.

    A video becomes an .mp4 and an image a .png, the original on the left and the reconstruction on the right, what was
    visible between them if parts were hidden; audio two .wav files; any other modality an .npz of `original` and
    `reconstruction`. Where parts were hidden, the .npz has them as `hidden`, and there is a drawing (.png), or lines of
    text (.txt).
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
            both = Image.fromarray(side_by_side(pair))
            written.append(path.with_name(path.name + ".png"))
            _write_png(written[-1], both)
        elif pair.kind == "video":
            written.append(path.with_name(path.name + ".mp4"))
            _write_video(written[-1], pair)
        elif pair.kind == "wave":
            for suffix, samples in ((".original.wav", pair.original), (".wav", pair.restored)):
                written.append(path.with_name(path.name + suffix))
                _write_audio(written[-1], samples, round(pair.rate or 1))
        else:
            written.append(path.with_name(path.name + ".npz"))
            arrays = {"original": pair.original, "reconstruction": pair.restored}
            if pair.hidden is not None:
                arrays["hidden"] = pair.hidden
            with atomic_write(written[-1]) as new, new.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
        if pair.hidden is not None and pair.kind not in ("image", "video"):
            written += _save_drawing(pair, path)
    return written


def _save_drawing(pair: Reconstruction, path: Path) -> list[Path]:
    """Write the drawing of a reconstruction, if it can be drawn here, and return its file."""
    try:
        drawing = draw_reconstruction(pair)
    except ImportError:  # matplotlib is optional
        return []
    if isinstance(drawing, str):
        file = path.with_name(path.name + ".txt")
        with atomic_write(file) as new:
            new.write_bytes(encode_text(drawing + "\n"))
        return [file]
    file = path.with_name(path.name + ".png")
    _write_png(file, drawing)
    return [file]


def _write_png(path: Path, image: Image.Image) -> None:
    with atomic_write(path) as new:
        image.save(new, format="PNG")


def _write_video(path: Path, pair: Reconstruction) -> None:
    av = require("av", "video")
    frames = side_by_side(pair)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")  # H.264 needs even sides
    rate = Fraction(pair.rate or 1).limit_denominator(1000)
    with atomic_write(path) as new, av.open(str(new), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            output.mux(stream.encode(image))
        output.mux(stream.encode(None))


def _write_audio(path: Path, samples: npt.NDArray[np.float32], rate: int) -> None:
    steps = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    with atomic_write(path) as new, wave.open(str(new), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(steps.tobytes())
