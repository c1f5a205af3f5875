"""Comparison of an exported model with the original, on samples prepared as in prediction."""

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.base import DataConfig
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleRng,
    SampleTransform,
)
from perceivers.data.sources.open import open_data
from perceivers.data.sources.samples import Sample as RawSample
from perceivers.data.sources.samples import samples_of
from perceivers.exporting.graph import ExportGraph, one_window
from perceivers.hub.checkpoint import Saved
from perceivers.models.perceiver import Perceiver
from perceivers.typing import Float, Tensor
from perceivers.wording import counted

PRECISIONS = ("float32", "float16", "int8")
"""Precisions of exported models: their weights, and the arithmetic with them."""

TOLERANCES = {"float32": 1e-4, "float16": 0.02, "int8": 0.1}
"""Largest allowed difference by precision.

Of any output in float32, else of a probability; of outputs that are none, relative to the largest absolute value.
"""

COUNT = 4  # samples that are compared in float32
REDUCED_COUNT = 16  # those in other precisions, whose differences vary more
_SPLITS = ("test", "validation", "train")  # of the run's own data, in order of preference
_PIXELS_AT_ONCE = 6272  # queries of a video that are decoded at once, as in DeepMind's release

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Any]]
"""An exported model: inputs by name -> outputs by name."""

Pairs = list[tuple[Tensor, Tensor]]
"""Outputs of transformers and of this library."""

_Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # actual and expected output


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Inputs of the exported graph as one batch, outputs of the original model by name, and a description of both."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    samples: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of an exported model to the original.

    Attributes:
        largest: Largest absolute difference of an output, see `TOLERANCES`.
        samples: Description of the compared samples.
        precision: Precision of the exported model.
        same_top: Number of compared answers whose most probable label is that of the model. None: not counted.
        answers: Number of compared answers.
    """

    largest: float
    samples: str
    precision: str = "float32"
    same_top: int | None = None
    answers: int = 0

    @property
    def tolerance(self) -> float:
        """Largest allowed difference."""
        return TOLERANCES[self.precision]

    @property
    def fits(self) -> bool:
        """Whether it is small enough."""
        return self.largest <= self.tolerance

    def sentence(self) -> str:
        """Return the difference in words, and the samples."""
        if self.precision == "float32":
            return f"{self.largest:.1e}, on {self.samples}"
        if self.same_top is None:
            return f"{self.largest:.1e} of the largest output, on {self.samples}"
        same = f"the same best label in {self.same_top:,} of {counted(self.answers, 'answer')}"
        return f"{self.largest:.1e} of a probability and {same}, on {self.samples}"


def make_reference(
    saved: Saved, graph: ExportGraph, samples: Sequence[Any] | None = None, count: int = COUNT
) -> Reference:
    """Return samples and the outputs of the model, before the graph is exported.

    Without `samples`, up to `count` of the run's own data are used where they are found, else random inputs.
    """
    config = saved.config
    columns = config.input_columns()
    preprocess = {name: one_window(config.preprocess[name]) for name in columns}
    reader = SampleTransform(columns, preprocess, None, LoaderSettings(batch_size=count))
    if samples is not None:
        try:
            rows: Iterable[RawSample] = list(samples_of(list(samples), columns))
        except (KeyError, TypeError) as error:
            raise ValueError(error.args[0]) from error
        origin = "given with --samples"
    else:
        split, rows = _open_run_data(saved, count)
        origin = f"of the run's {split} split"
    values, decoded = _decode(reader, rows, count if samples is None else None)
    if not decoded:
        inputs = graph.made(max(3, count // 2))
        description = (
            f"{next(iter(inputs.values())).shape[0]} made-up samples, since the run's data were not found "
            "(--samples FILE... compares real ones)"
        )
        with torch.inference_mode():
            return Reference(inputs=inputs, outputs=graph(inputs), samples=description)
    batch = reader.collate(decoded)
    assert batch is not None  # nothing is mixed
    each = [graph.arrays(one) for one in values]
    inputs = {name: torch.cat([one[name] for one in each]) for name in each[0]}
    with torch.inference_mode():
        outputs = graph.outputs(batch.inputs, batch.masks)
        if isinstance(outputs, Tensor) and outputs.ndim > 2:
            # The graph also has outputs at the padding of a text, which mean nothing.
            padded = graph(inputs)["logits"].clone()
            padded[:, : outputs.shape[1]] = outputs
            outputs = padded
    description = f"{len(decoded)} sample{'s' if len(decoded) > 1 else ''} {origin}"
    return Reference(inputs=inputs, outputs=graph.named_outputs(outputs), samples=description)


def compare(reference: Reference, run: Run, precision: str = "float32") -> Difference:
    """Return the difference of an exported model to the original, for batches and for a single sample.

    Values in their own units are left out: they are the standardized ones times a constant.
    """
    total = next(iter(reference.inputs.values())).shape[0]
    found = [_run_rows(reference, run, first, COUNT) for first in range(0, total, COUNT)]
    found.append(_run_rows(reference, run, 0, 1))
    if precision == "float32":
        each = [
            _largest(actual - expected)
            for pairs in found
            for name, (actual, expected) in pairs.items()
            if not name.endswith("values")
        ]
        return Difference(largest=max(each), samples=reference.samples)
    return _reduced_difference(found, reference.samples, precision)


def _reduced_difference(
    found: Sequence[Mapping[str, "_Pair"]], samples: str, precision: str
) -> Difference:
    """Return the difference of probabilities, or else of the other outputs relative to their largest values."""
    names = [name for name in found[0] if name.endswith("probabilities")]
    if not names:
        scores = [pair for pairs in found for name, pair in pairs.items() if "logits" in name]
        each = [_largest(a - e) / max(1.0, float(np.abs(e).max())) for a, e in scores]
        return Difference(largest=max(each), samples=samples, precision=precision)
    pairs = [pair for one in found[:-1] for pair in (one[name] for name in names)]
    largest = max(_largest(a - e) for one in found for a, e in (one[name] for name in names))
    same = [(a.argmax(axis=-1) == e.argmax(axis=-1)).ravel() for a, e in pairs]
    return Difference(
        largest=largest,
        samples=samples,
        precision=precision,
        same_top=int(sum(one.sum() for one in same)),
        answers=sum(map(len, same)),
    )


def _run_rows(reference: Reference, run: Run, first: int, count: int) -> "dict[str, _Pair]":
    """Return the outputs of an exported model and the expected ones, by name, of some rows of the reference."""
    rows = slice(first, first + count)
    with torch.inference_mode():
        got = run({name: tensor[rows] for name, tensor in reference.inputs.items()})
    return {
        name: (np.asarray(got[name], dtype=np.float64), outputs[rows].double().numpy())
        for name, outputs in reference.outputs.items()
    }


def _largest(difference: npt.NDArray[np.float64]) -> float:
    return float(np.nan_to_num(np.abs(difference), nan=math.inf).max())


def _decode(
    reader: SampleTransform, rows: Iterable[RawSample], count: int | None
) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Return values and clips of all rows, or of the first `count` rows that can be decoded."""
    decoded: list[dict[str, Any]] = []
    samples: list[Sample] = []
    for row in rows:
        try:
            values, name, _ = reader.decode(row.row, clip_position=0.5)
            clips = reader.clips(values, SampleRng(), name)
        except (BadRowError, ValueError, OSError, KeyError) as error:
            if count is not None:
                continue
            reason = error.reason if isinstance(error, BadRowError) else str(error)
            raise ValueError(reason) from error
        decoded.append(values)
        samples.append(Sample(clips, None, name))
        if len(samples) == count:
            break
    return decoded, samples


def _open_run_data(saved: Saved, wanted: int) -> tuple[str, Iterable[RawSample]]:
    """Return a split of the run's own data and some of its rows; none where the data are not found."""
    columns = saved.config.columns
    data = columns.get("data")
    try:
        config = replace(DataConfig(**columns.get("config", {})), stream=False)
        source = open_data(data, config, inputs=saved.config.input_columns())
        split = next(name for name in _SPLITS if name in source.splits)
    except (ValueError, OSError, KeyError, TypeError, ImportError, RuntimeError, StopIteration):
        return "", []
    records = source.splits[split]
    # Far apart, so that they are of several classes; more than needed, since some may not be readable.
    count = min(4 * wanted, len(records))
    indices = np.linspace(0, len(records) - 1, count).astype(int)[::-1]
    rows = ((int(index), records.row(int(index))) for index in indices)
    return split, (RawSample(name=f"row {index}", row=dict(row)) for index, row in rows)


@torch.no_grad()
def compare_transformers(name: str, folder: Path, model: Perceiver) -> Difference | None:
    """Return the difference between `transformers` and this library on random input, or None without `transformers`."""
    if find_spec("transformers") is None:
        return None
    import transformers

    with warnings.catch_warnings(), _quiet(transformers):
        warnings.simplefilter("ignore")
        loaded = getattr(transformers, name).from_pretrained(folder).eval()
        generator = torch.Generator().manual_seed(0)
        pairs = transformers_outputs(name, loaded, model.cpu().eval(), generator)
    largest = max(float((theirs.reshape(ours.shape) - ours).abs().max()) for theirs, ours in pairs)
    return Difference(largest=largest, samples="made-up input")


def transformers_outputs(
    name: str, theirs: Any, ours: Perceiver, generator: torch.Generator | None = None
) -> Pairs:
    """Run a model of transformers and its equivalent on the same random input; return paired outputs.

    The configuration and precision of `theirs` determine the input.
    """
    settings, dtype = theirs.config, theirs.dtype

    def normal(*shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=generator, dtype=dtype)

    if "ImageClassification" in name:
        side = settings.image_size if "Learned" in name else 224
        image = normal(1, 3, side, side)
        scores = ours({"image": image})
        assert isinstance(scores, Tensor)  # of one output
        return [(theirs(inputs=image).logits, scores)]
    length = settings.max_position_embeddings
    if name == "PerceiverForMaskedLM":
        ids = torch.randint(6, 262, (2, length), generator=generator)
        mask = torch.arange(length) < torch.tensor([[length], [length * 3 // 5]])  # padding
        found = theirs(inputs=ids, attention_mask=mask.long()).logits
        return [(found[mask], _tensor(ours({"text": ids}, {"text": mask}))[mask])]
    if name == "PerceiverForSequenceClassification":
        ids = torch.randint(6, 262, (2, length), generator=generator)
        mask = torch.arange(length) < torch.tensor([[length], [length * 3 // 5]])
        found = theirs(inputs=ids, attention_mask=mask.long()).logits
        return [(found, _tensor(ours({"text": ids}, {"text": mask})))]
    if name == "PerceiverForOpticalFlow":
        height, width = settings.train_size
        frames = normal(1, 2, 3, height, width).tanh()
        around = torch.nn.functional.pad(frames, (1, 1, 1, 1)).unfold(3, 3, 1).unfold(4, 3, 1)
        patches = around.permute(0, 1, 5, 6, 2, 3, 4).reshape(1, 2, 27, height, width)
        return [
            (theirs(inputs=patches).logits.flatten(1, 2), _tensor(ours({"frame_pair": frames})))
        ]
    return _autoencoder_outputs(theirs, ours, normal)


def _autoencoder_outputs(theirs: Any, ours: Perceiver, normal: Any) -> Pairs:
    """Return paired outputs for the first and last chunk of a video and its audio, and the label."""
    settings = theirs.config
    frames, height, width = settings.output_shape[1:]
    samples = frames * settings.audio_samples_per_frame
    video, audio = normal(1, frames, 3, height, width), normal(1, samples, 1)
    latents = ours.encode({"video": video, "audio": audio})
    given = {"image": video, "audio": audio, "label": normal(1, settings.num_labels) * 0}
    count = max(1, frames * height * width // _PIXELS_AT_ONCE)
    pixels = torch.arange(frames * height * width).chunk(count)
    patches = torch.arange(samples // settings.samples_per_patch).chunk(count)
    pairs: Pairs = []
    for part in (0, -1)[:count]:
        parts = {"image": pixels[part], "audio": patches[part]}
        found = theirs(inputs=given, subsampled_output_points={**parts, "label": None}).logits
        got = ours.decode(latents, index={"video": parts["image"], "audio": parts["audio"]})
        assert isinstance(got, dict)
        pairs += [
            (found["image"], got["video"]),
            (found["audio"], got["audio"].flatten(1)),
            (found["label"], got["label"]),
        ]
    return pairs


def _tensor(outputs: Any) -> Tensor:
    assert isinstance(outputs, Tensor)
    return outputs


@contextmanager
def _quiet(transformers: Any) -> Generator[None]:
    """Hide progress bars, and warnings that concern training."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
