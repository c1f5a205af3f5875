"""A trained model with all that it needs: give it files, get labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import torch

from perceivers.data.base import Batch, DataConfig, nearest
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleRng, SampleTransform
from perceivers.data.loading.transform import Sample as ReadSample
from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation.dense_output import pixel_predictions
from perceivers.evaluation.fill_mask import filled_texts
from perceivers.evaluation.flow import flow_field, flow_predictions, uncut
from perceivers.evaluation.inputs import Sample, samples_of
from perceivers.evaluation.prediction import Prediction, predictions_of
from perceivers.evaluation.reconstruction import reconstructions
from perceivers.hub.checkpoint import Saved, load, save
from perceivers.hub.device import pick_device
from perceivers.hub.quantize import Int8Plan, Quantize, plan_int8, quantize_int8
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.autoencode import AutoencodeConfig, AutoencodeTask, by_name
from perceivers.tasks.base import Question, ask, combine_clips
from perceivers.tasks.dense import DenseConfig
from perceivers.tasks.flow import FlowTask
from perceivers.tasks.masked import MaskedBytesConfig, check_blanks
from perceivers.tasks.registry import build_task

__all__ = ["Prediction", "Predictor", "load_predictor", "save_model"]


class Predictor:
    """Decodes, prepares and batches what it is given exactly as in training, and predicts.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        device: `auto`, `cpu`, `cuda` or `mps`. With `quantize`, `auto` is the CPU.
        batch_size: Samples that go through the model at once.
        quantize: `int8` gives wide layers int8 weights, where that is faster on this CPU; `int8-always`
            also where it is not. What was decided is in the predictor's `quantization`.
        clips: Overlapping clips of a longer recording whose scores are averaged. By default as the run says.
        without: Modalities that are not read, of a model that reads several.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, or is to be quantized on another
            device than the CPU, or `quantize` is unknown; if no modality is left to be read.
    """

    def __init__(
        self,
        saved: Saved,
        *,
        device: str = "auto",
        batch_size: int = 64,
        quantize: str | None = None,
        clips: int | None = None,
        without: Sequence[str] = (),
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
        is_free = device == "auto" and quantize is not None  # int8 weights are for the CPU
        self.device = pick_device("cpu" if is_free else device)
        self.model = saved.model.to(self.device).eval()
        self.quantization = None if quantize is None else self._quantize(quantize)
        left = _without(config.preprocess, without, config.answers)
        self.preprocess, is_whole = uncut(left)
        batch_size = 1 if is_whole else batch_size  # each frame in its own size
        self.columns: Mapping[str, InputColumn] = {
            name: part for name, part in config.input_columns().items() if name in self.preprocess
        }
        self.batch_size = batch_size
        self.task = build_task(config.task)
        self.label_names = self.task.names
        self.clips = (
            DataConfig(**config.columns.get("config", {})).clips if clips is None else clips
        )
        if isinstance(config.task, AutoencodeConfig) and self.clips != 1:
            msg = f"A reconstruction is of one clip: expected --clips 1 of a run that autoencodes, got {self.clips}."
            raise ValueError(msg)
        settings = LoaderSettings(batch_size=batch_size, num_clips=self.clips)
        self.reader = SampleTransform(self.columns, self.preprocess, None, settings)

    def predict(
        self,
        items: Any,
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> list[Prediction]:
        """Return one prediction for each sample.

        Args:
            items: A file, a folder or a glob of what the model reads; a table (parquet, csv, jsonl, tar, npz) with
                its columns; an array, a text, a PIL image; a dict with one of these for each modality, where what is
                missing may be left out; or a list of these.
            top: How many of the best labels each prediction lists.
            on_error: Called with the name and the error of a sample that cannot be read, which is then
                left out. By default the first such error is raised.

        Raises:
            ValueError: If a sample cannot be decoded, or nothing is found. The message names it.
            OSError: If a file cannot be opened.
        """
        samples = samples_of(items, self.columns, on_error=on_error)
        return list(self.stream(samples, top=top, on_error=on_error))

    def stream(
        self,
        samples: Iterable[Sample],
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions batch by batch, so that a folder of any size fits in memory."""
        for found in self._each(samples, top):
            if isinstance(found, Prediction):
                yield found
            elif on_error is None:
                raise found[1]
            else:
                on_error(*found)

    def predict_rows(
        self, rows: Iterable[Mapping[str, Any]], *, top: int = 1
    ) -> Iterator[Prediction | Exception]:
        """Yield, for each row of a table with the model's columns, its prediction or why there is none."""
        samples = (Sample(name=f"row {i}", row=dict(row)) for i, row in enumerate(rows))
        for found in self._each(samples, top):
            yield found if isinstance(found, Prediction) else found[1]

    def read(self, samples: Sequence[Sample]) -> Batch:
        """Return samples as the model's tensors.

        Raises:
            ValueError: If one of them cannot be read. The message names it.
        """
        read = [self._attempt(sample) for sample in samples]
        for one in read:
            if isinstance(one, Exception):
                raise one
        batch = self.reader.collate([one for one in read if not isinstance(one, Exception)])
        assert batch is not None  # nothing is mixed
        return batch

    def predict_read(self, read: Sequence[ReadSample], *, top: int = 5) -> list[Prediction]:
        """Return one prediction for each sample that a reader like this predictor's has decoded and prepared.

        Args:
            read: At least one, all with the same number of clips.
            top: How many of the best labels each prediction lists.
        """
        batch = self.reader.collate(read)
        assert batch is not None  # nothing is mixed
        return list(self._said([one.name for one in read], batch, top))

    @torch.inference_mode()
    def outputs(self, batch: Batch) -> Any:
        """Return the model's outputs, one row for each sample, B x K, of several tasks by name: clips are averaged."""
        moved = batch.to(self.device)
        outputs = self.model(moved.inputs, moved.masks or None)
        if isinstance(outputs, dict):
            outputs = {name: part.float() for name, part in outputs.items()}
        else:
            outputs = outputs.float()
        return combine_clips(self.task, outputs, batch.num_clips)

    @torch.inference_mode()
    def answer(self, question: Question) -> Any:
        """Return the model's answers, those on frames larger than its window put together from tiles."""
        if not isinstance(self.task, FlowTask):
            return ask(self.model, question)
        field = flow_field(self.model, self.task, question.inputs, question.masks)
        return self.task.outputs_of(field)

    def _each(
        self, samples: Iterable[Sample], top: int
    ) -> Iterator[Prediction | tuple[str, Exception]]:
        """Yield for each sample, in order, its prediction, or its name and why there is none."""
        remaining = iter(samples)
        with ThreadPoolExecutor(max_workers=4) as pool:  # decoders work outside of Python's lock
            while batch := list(islice(remaining, self.batch_size)):
                read = list(pool.map(self._attempt, batch))
                good = [one for one in read if not isinstance(one, Exception)]
                predictions = iter(self.predict_read(good, top=top) if good else ())
                for sample, one in zip(batch, read, strict=True):
                    yield (sample.name, one) if isinstance(one, Exception) else next(predictions)

    def _said(self, names: Sequence[str], batch: Batch, top: int) -> Iterator[Prediction]:
        """Return what the model says of the samples of a batch, in order."""
        if isinstance(self.task, FlowTask):
            moved = batch.to(self.device)
            with torch.inference_mode():
                field = flow_field(self.model, self.task, moved.inputs, moved.masks)
            return flow_predictions(names, field)
        if isinstance(self.task, AutoencodeTask):
            return self._restored(self.task, names, batch, top)
        outputs, task = self.outputs(batch), self.config.task
        assert task is not None
        if isinstance(task, DenseConfig):
            palette = getattr(self.config.preprocess[task.answer], "palette", ())
            return pixel_predictions(names, cast("Any", self.task), outputs, palette)
        if isinstance(task, MaskedBytesConfig):
            text, mask = batch.inputs[task.modality], batch.masks.get(task.modality)
            return filled_texts(names, text, mask, outputs.cpu(), top)
        return predictions_of(task, self.task, names, outputs, top)

    @torch.inference_mode()
    def _restored(
        self, task: AutoencodeTask, names: Sequence[str], batch: Batch, top: int
    ) -> Iterator[Prediction]:
        """Return what an autoencoder gives back of the samples of a batch."""
        moved = batch.to(self.device)
        question = task.pose(moved.inputs, moved.masks, None, training=False)
        outputs = by_name(task.config, ask(self.model, question))
        return reconstructions(task, self.preprocess, names, moved, question, outputs, top)

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

    def _attempt(self, sample: Sample) -> ReadSample | Exception:
        try:
            read, _ = self.reader.sample(sample.row, SampleRng())
            if isinstance(self.config.task, MaskedBytesConfig):
                check_blanks(read.clips[0][self.config.task.modality], sample.name)
            return replace(read, name=sample.name)
        except BadRowError as error:
            return ValueError(error.reason)
        except (ValueError, OSError, KeyError, TypeError) as error:
            return error


def _without(
    preprocess: Mapping[str, Any], without: Sequence[str], answers: Sequence[str]
) -> dict[str, Any]:
    """Return the modalities that are read, and the answers, which only measuring needs.

    Raises:
        ValueError: If one that is not to be read does not exist, or none is left.
    """
    inputs = [name for name in preprocess if name not in answers]
    for name in without:
        if name not in inputs:
            msg = f"The model has no modality '{name}'.{nearest(name, inputs)} It reads {', '.join(inputs)}."
            raise ValueError(msg)
    left = {name: part for name, part in preprocess.items() if name not in without}
    if not set(left) - set(answers):
        msg = f"The model reads {', '.join(inputs)}: without {', '.join(without)} nothing is left."
        raise ValueError(msg)
    return left


def load_predictor(
    folder: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 64,
    quantize: str | None = None,
    clips: int | None = None,
    without: Sequence[str] = (),
) -> Predictor:
    """Return the predictor of a run folder, or of a model on the Hugging Face hub.

    Args:
        folder: A run folder, or `user/name` on the hub.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: Samples that go through the model at once.
        quantize: `int8` or `int8-always`, as `Predictor` says.
        clips: Clips of a longer recording whose scores are averaged, as `Predictor` says.
        without: Modalities that are not read.

    Raises:
        OSError: If the folder is not a run's, or its weights are damaged.
        ValueError: If the model cannot read files, or cannot be quantized on this device.
    """
    return Predictor(
        load(folder),
        device=device,
        batch_size=batch_size,
        quantize=quantize,
        clips=clips,
        without=without,
    )


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
