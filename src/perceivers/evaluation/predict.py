"""A trained model with all that it needs: give it files, get labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import torch

from perceivers.data.images import decode_image, preprocess_image
from perceivers.evaluation.items import Sample, samples_of
from perceivers.hub.checkpoint import Saved, load, save
from perceivers.hub.device import pick_device
from perceivers.hub.quantize import Int8Plan, Quantize, plan_int8, quantize_int8
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.classification import ClassificationTask
from perceivers.typing import Float, Tensor

__all__ = ["Prediction", "Predictor", "load_predictor", "save_model"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says about one sample.

    Attributes:
        name: The file, or the sample's place in what was given.
        label: The most probable label.
        probability: Its probability, in [0, 1].
        top: The most probable labels and their probabilities, best first.
        probabilities: The probability of every label.
    """

    name: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: dict[str, float]


class Predictor:
    """Decodes, prepares and batches what it is given exactly as in training, and predicts.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: Samples that go through the model at once.
        quantize: `int8` gives wide layers int8 weights, where that is faster on this CPU; `int8-always`
            also where it is not. What was decided is in the predictor's `quantization`.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, or is to be quantized on another
            device than the CPU, or `quantize` is unknown.
    """

    def __init__(
        self,
        saved: Saved,
        *,
        device: str = "auto",
        batch_size: int = 64,
        quantize: str | None = None,
    ) -> None:
        config = saved.config
        if config.task is None or not config.preprocess:
            msg = (
                f"The model in {saved.folder} was saved without its labels or its preprocessing, so it "
                "cannot read files: pv.save(predictor, folder) or `perceivers fit` save both."
            )
            raise ValueError(msg)
        self.config = config
        self.folder = saved.folder
        self.device = pick_device(device)
        self.model = saved.model.to(self.device).eval()
        self.quantization = None if quantize is None else self._quantize(quantize)
        self.preprocess = config.preprocess
        self.label_names = config.task.label_names
        self.batch_size = batch_size
        self.task = ClassificationTask(config.task)

    def predict(
        self,
        items: Any,
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> list[Prediction]:
        """Return one prediction for each sample.

        Args:
            items: A file, a folder, a glob, an H x W x Ci array of uint8, a PIL image, a list of these,
                or a dict with one of these for each modality.
            top: How many of the best labels each prediction lists.
            on_error: Called with the name and the error of a sample that cannot be read, which is then
                left out. By default the first such error is raised.

        Raises:
            ValueError: If a sample cannot be decoded, or nothing is found. The message names it.
            OSError: If a file cannot be opened.
        """
        samples = samples_of(items, tuple(self.preprocess), on_error=on_error)
        return list(self.stream(samples, top=top, on_error=on_error))

    def stream(
        self,
        samples: Iterable[Sample],
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions batch by batch, so that a folder of any size fits in memory."""
        remaining = iter(samples)
        with ThreadPoolExecutor(max_workers=4) as pool:  # Pillow decodes outside of Python's lock
            while batch := list(islice(remaining, self.batch_size)):
                names: list[str] = []
                arrays: list[dict[str, Tensor]] = []
                for sample, read in zip(batch, pool.map(self._attempt, batch), strict=True):
                    if not isinstance(read, Exception):
                        names.append(sample.name)
                        arrays.append(read)
                    elif on_error is None:
                        raise read
                    else:
                        on_error(sample.name, read)
                if names:
                    yield from self._label(names, self.probabilities(_stack(arrays)), top)

    def read(self, sample: Sample) -> dict[str, Float[Tensor, "..."]]:
        """Return the model's array of each modality of one sample, without a batch axis."""
        arrays: dict[str, Tensor] = {}
        for name, config in self.preprocess.items():
            image = decode_image(sample.media[name], num_channels=config.num_channels)
            arrays[name] = preprocess_image(image, config)
        return arrays

    @torch.inference_mode()
    def probabilities(self, inputs: Mapping[str, Float[Tensor, "..."]]) -> Float[Tensor, "B K"]:
        """Return the probability of every label for prepared inputs with a batch axis."""
        outputs = self.model({name: x.to(self.device) for name, x in inputs.items()})
        return self.task.probabilities(outputs).float().cpu()

    def _quantize(self, how: str) -> Int8Plan:
        if how not in get_args(Quantize):
            msg = f"Expected quantize to be one of {', '.join(get_args(Quantize))}, or None; got {how!r}."
            raise ValueError(msg)
        if self.device.type != "cpu":
            msg = (
                f"int8 weights are for prediction on the CPU, and this is on '{self.device.type}'. Choose "
                "the device cpu, or predict without quantizing: there it would not be faster."
            )
            raise ValueError(msg)
        plan = plan_int8(self.model, always=how == "int8-always")
        quantize_int8(self.model, plan)
        return plan

    def _attempt(self, sample: Sample) -> dict[str, Tensor] | Exception:
        try:
            return self.read(sample)
        except (ValueError, OSError) as error:
            return error

    def _label(
        self, names: Sequence[str], probabilities: Float[Tensor, "B K"], top: int
    ) -> Iterator[Prediction]:
        labels = self.label_names
        best = probabilities.topk(min(max(top, 1), len(labels)), dim=-1).indices.tolist()
        for name, row, order in zip(names, probabilities.tolist(), best, strict=True):
            yield Prediction(
                name=name,
                label=labels[order[0]],
                probability=row[order[0]],
                top=tuple((labels[index], row[index]) for index in order),
                probabilities=dict(zip(labels, row, strict=True)),
            )


def load_predictor(
    folder: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 64,
    quantize: str | None = None,
) -> Predictor:
    """Return the predictor of a run folder, or of a model on the Hugging Face hub.

    Args:
        folder: A run folder, or `user/name` on the hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: Samples that go through the model at once.
        quantize: `int8` or `int8-always`, as `Predictor` says.

    Raises:
        OSError: If the folder is not a run's, or its weights are damaged.
        ValueError: If the model cannot read files, or cannot be quantized on this device.
    """
    return Predictor(load(folder), device=device, batch_size=batch_size, quantize=quantize)


def save_model(model: Perceiver | Predictor, folder: str | Path) -> None:
    """Write a model's weights and configuration into a folder that `pv.load` reads.

    Args:
        model: A predictor is saved with its labels and preprocessing, a bare model without.
        folder: Made if need be.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the model holds int8 weights: only those it was made of can be saved.
    """
    if isinstance(model, Perceiver):
        save(folder, model)
        return
    config = model.config
    save(
        folder,
        model.model,
        preprocess=config.preprocess,
        task=config.task,
        columns=config.columns,
    )


def _stack(arrays: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([array[name] for array in arrays]) for name in arrays[0]}
