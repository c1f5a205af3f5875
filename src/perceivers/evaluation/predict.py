"""Prediction: a trained model with its preprocessing and its task."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import numpy as np
import torch

from perceivers.console import tracked
from perceivers.data.base import Batch, DataConfig, nearest
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import value_fingerprint, weights_fingerprint
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleRng, SampleTransform
from perceivers.data.loading.transform import Sample as ReadSample
from perceivers.data.modalities.base import error_reason
from perceivers.data.sources.samples import Sample, samples_of
from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation.embeddings import Embedding, Embeddings
from perceivers.hub import checkpoint
from perceivers.hub.checkpoint import Saved, config_json
from perceivers.hub.device import pick_device
from perceivers.hub.quantize import Int8Plan, Quantize, plan_int8, quantize_int8
from perceivers.models.ensemble import Ensemble
from perceivers.models.generate import GenerationConfig
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.averaging import combine_clips, infer_views
from perceivers.tasks.base import PredictionRequest, TaskBatch
from perceivers.tasks.prediction import NonFiniteOutputError, Prediction, finite_rows
from perceivers.tasks.registry import build_task
from perceivers.wording import counted, names_text

if TYPE_CHECKING:
    from perceivers.evaluation.forecast import Forecast

Result = TypeVar("Result", Prediction, Embedding)
Compute = Callable[[Sequence[ReadSample]], Sequence[Result | Exception]]


class Predictor:
    """Decodes, preprocesses and batches samples as in training, and predicts. Arguments: see `load_predictor`.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, or is to be quantized on another
            device than the CPU, or `quantize` is unknown; if no modality is left.
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
        tta: bool = True,
    ) -> None:
        config = saved.config
        if config.task is None or not config.preprocess:
            raise ValueError(
                f"The model in {saved.folder} was saved without its labels or its preprocessing, so it "
                "cannot read files: pv.save(predictor, folder) or `perceivers fit` save both."
            )
        self.config = config
        self.folder = saved.folder
        is_free = device == "auto" and quantize is not None  # int8 weights are for the CPU
        self.device = pick_device("cpu" if is_free else device)
        self.model = saved.model.to(self.device).eval()
        self.quantization = None if quantize is None else self._quantize(quantize)
        without = modality_names(without, config.input_columns())
        left = _without(config.preprocess, without, config.target_modalities)
        self.preprocess, is_whole = uncut(left)
        self.views = config.views() if tta else {}
        self.batch_size = 1 if is_whole else batch_size  # each frame in its own size
        self.columns: Mapping[str, InputColumn] = {
            name: part for name, part in config.input_columns().items() if name in self.preprocess
        }
        self.task = build_task(config.task)
        self.label_names = self.task.names
        self.clips = (
            DataConfig(**config.columns.get("config", {})).clips if clips is None else clips
        )
        if not config.task.supports_clips and self.clips != 1:
            raise ValueError(
                f"Predictions of this run have no mean over clips: expected --clips 1, got {self.clips}."
            )
        settings = LoaderSettings(batch_size=self.batch_size, num_clips=self.clips)
        self.reader = SampleTransform(self.columns, self.preprocess, None, settings)

    @property
    def fingerprint(self) -> str:
        """Identity of the model: its weights, and the configuration that its predictions depend on."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        config = replace(self.config, columns={})
        settings = config_json(config)
        columns = repr(sorted(self.columns.items()))
        weights = weights_fingerprint(self.model.state_dict())
        views = sorted(self.views)
        return value_fingerprint(
            [weights, settings, columns, sorted(self.preprocess), self.clips, views]
        )

    def __repr__(self) -> str:
        """Return the folder, task, inputs and size of the model."""
        names = self.label_names
        labels = f", {counted(len(names), 'output')}: {names_text(names)}" if names else ""
        kind = getattr(self.config.task, "kind", "")
        count = sum(weight.numel() for weight in self.model.parameters())
        return (
            f"Predictor('{self.folder}', {kind} of {', '.join(self.columns)}{labels}; {count:,} parameters on "
            f"{self.device})"
        )

    def member(self, index: int) -> "Predictor":
        """Return the predictor with one member of its ensemble only, which shares the weights."""
        found = copy.copy(self)
        found.model = self.model.members[index]
        return found

    def predict(
        self,
        items: Any,
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
        on_skip: Callable[[str], None] | None = None,
    ) -> list[Prediction]:
        """Return one prediction for each sample.

        Args:
            items: A file, an address, a folder or a glob of the model's input; a table with its columns (parquet, csv,
                jsonl, tar, npz, a pandas `DataFrame`, a `Dataset` of `datasets`); an array, a text, a PIL image; a dict
                with one of these for each modality or column, where missing ones may be left out and further keys are
                ignored; or a list of these. A string given to a model of texts is a text unless it names an existing
                file.
            top: Number of best labels that each prediction lists.
            on_error: Called with the name and the error of a sample that cannot be decoded, which is then
                left out. By default the first such error is raised.
            on_skip: Called with a sentence about the files of a folder that are skipped.

        Raises:
            ValueError: If a sample cannot be decoded, or nothing is found. The message names it. A
                `NonFiniteOutputError` if the model has no finite output for it.
            OSError: If a file cannot be opened.
        """
        samples = samples_of(items, self.columns, on_error=on_error, on_skip=on_skip)
        samples, total = _counted_samples(samples)
        each = tracked(self._each(samples, self._predicted(top)), total)
        return list(_good(each, on_error))

    def stream(
        self,
        samples: Iterable[Sample],
        *,
        top: int = 5,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions batch by batch, so that a folder of any size fits in memory."""
        yield from _good(self._each(samples, self._predicted(top)), on_error)

    def predict_rows(
        self, rows: Iterable[Mapping[str, Any]], *, top: int = 1
    ) -> Iterator[Prediction | Exception]:
        """Yield the prediction, or the error, of each row of a table with the model's columns."""
        samples = (Sample(name=f"row {i}", row=dict(row)) for i, row in enumerate(tracked(rows)))
        for found in self._each(samples, self._predicted(top)):
            yield found if isinstance(found, Prediction) else found[1]

    def embed(
        self,
        items: Any,
        *,
        latents: bool = False,
        on_error: Callable[[str, Exception], None] | None = None,
        on_skip: Callable[[str], None] | None = None,
    ) -> Embeddings:
        """Return a vector for each sample, by which samples can be compared: `Perceiver.embed`, of all members.

        Args:
            items: As for `predict`.
            latents: Return all latents of a sample, N x D, instead of one vector.
            on_error: As for `predict`.
            on_skip: As for `predict`.

        Raises:
            ValueError: As for `predict`; also if `latents` are of several members.
        """
        members = self.model.members
        if latents and len(members) > 1:
            raise ValueError(
                f"Expected a single model for its latents, got an ensemble of {len(members)}: take the vectors of "
                "samples, or one member (`Predictor.member`)."
            )
        samples = samples_of(items, self.columns, on_error=on_error, on_skip=on_skip)
        samples, total = _counted_samples(samples)
        compute = partial(self._embedded, latents=latents)
        found = list(_good(tracked(self._each(samples, compute), total), on_error))
        vectors = np.stack([one.vector for one in found]) if found else np.zeros((0, 0), np.float32)
        return Embeddings(names=tuple(one.name for one in found), vectors=vectors)

    def generate(self, prompts: Any = "", *, length: int | None = None, **settings: Any) -> Any:
        """Return the continuation of a prompt, or of each of several, by a run of the next token (recipe `text_ar`).

        For texts, `perceivers.generate_text` yields it character by character.

        Args:
            prompts: Beginning of a sequence, or a list of several; an empty one begins a sequence. For texts a string,
                for music the path of a MIDI file, its bytes or a `MusicScore`.
            length: Number of tokens: bytes of texts, events of music. None: 256; images are completed.
            settings: Fields of `GenerationConfig`: `temperature`, `top_p`, `top_k`, `seed`, `num_latents`.

        Returns:
            The continuation in the form of the run's vocabulary, or a list of them: for texts a string, for music a
            `MusicScore`, which has the prompt, too.

        Raises:
            ValueError: If the run is another one, a prompt cannot be read, or a number is out of range.
        """
        from perceivers.evaluation.generate import generate

        is_several = isinstance(prompts, list | tuple)
        each = cast("list[Any]", list(prompts) if is_several else [prompts])
        found = generate(self, each, length=length, config=GenerationConfig(**settings))
        return found if is_several else found[0]

    def forecast(
        self,
        series: Any,
        length: int | None = None,
        *,
        samples: int = 100,
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        **settings: Any,
    ) -> "Forecast":
        """Return sampled paths of the next values of a series, by a run of the recipe `series_ar`.

        Args:
            series: A file, an array of L or L x C values, or a mapping of columns; NaN where a value is missing.
            length: Number of steps. None: those that the model was trained to predict at once.
            samples: Number of paths.
            quantiles: Quantiles for the table and the figure of the forecast.
            settings: Fields of `GenerationConfig`: `temperature`, `top_p`, `top_k`, `seed`, `num_latents`.

        Raises:
            ValueError: If the run is another one, the series cannot be read, or a number is out of range.
            OSError: If the file cannot be read.
        """
        from perceivers.evaluation.forecast import forecast

        config = GenerationConfig(**settings)
        return forecast(self, series, length, samples=samples, quantiles=quantiles, config=config)

    def read(self, samples: Sequence[Sample]) -> Batch:
        """Return samples as the model's tensors; the error of one that cannot be decoded is raised."""
        read: list[ReadSample] = []
        for sample in samples:
            one = self._attempt(sample)
            if isinstance(one, Exception):
                raise one
            read.append(one)
        batch = self.reader.collate(read)
        assert batch is not None  # nothing is mixed
        return batch

    def predict_read(self, read: Sequence[ReadSample], *, top: int = 5) -> list[Prediction]:
        """Return one prediction for each of at least one decoded and preprocessed sample of equally many clips.

        Raises:
            NonFiniteOutputError: If the model has no finite output for a sample.
        """
        found: list[Prediction] = []
        for one in self._predictions(read, top):
            if isinstance(one, NonFiniteOutputError):
                raise one
            found.append(one)
        return found

    @torch.inference_mode()
    def outputs(self, batch: Batch) -> Any:
        """Return the model's outputs, one row for each sample; for several tasks, by name. Clips are averaged."""
        moved = batch.to(self.device)
        outputs = self.infer(self.task.prediction_batch(moved.inputs, moved.masks))
        return combine_clips(self.task, outputs, batch.num_clips)

    @torch.inference_mode()
    def infer(self, batch: TaskBatch) -> Any:
        """Return the model's outputs for a batch, averaged over its views.

        Those of frames larger than its window are blended from tiles.
        """
        return infer_views(self.task, partial(self.task.infer, self.model), batch, self.views)

    def _predicted(self, top: int) -> "Compute[Prediction]":
        """Return a function from decoded samples to their predictions."""
        return partial(self._predictions, top=top)

    def _each(
        self, samples: Iterable[Sample], compute: "Compute[Result]"
    ) -> Iterator[Result | tuple[str, Exception]]:
        """Yield the result of each sample, or its name and error, in order."""
        remaining = iter(samples)
        with ThreadPoolExecutor(max_workers=4) as pool:  # decoders release the GIL
            while batch := list(islice(remaining, self.batch_size)):
                read = list(pool.map(self._attempt, batch))
                good = [one for one in read if not isinstance(one, Exception)]
                results = iter(self._attempt_all(good, compute) if good else ())
                for sample, one in zip(batch, read, strict=True):
                    found = one if isinstance(one, Exception) else next(results)
                    yield (sample.name, found) if isinstance(found, Exception) else found

    def _quantize(self, how: str) -> Int8Plan:
        if how not in get_args(Quantize):
            raise ValueError(
                f"Expected quantize to be one of {', '.join(get_args(Quantize))}, or None; got {how!r}."
            )
        if self.device.type != "cpu":
            raise ValueError(
                f"int8 weights are for prediction on the CPU, and this is on '{self.device.type}'. Choose "
                "the device cpu, or predict without quantizing: there it would not be faster."
            )
        plan = plan_int8(self.model, always=how == "int8-always")
        quantize_int8(self.model, plan)
        return plan

    def _attempt(self, sample: Sample) -> ReadSample | Exception:
        """Return a decoded sample, or the error of one that cannot be decoded, whatever it is."""
        try:
            read, _ = self.reader.sample(sample.row, SampleRng())
            self.task.config.check_sample(read.clips[0], sample.name)
            return replace(read, name=sample.name)
        except BadRowError as error:
            return ValueError(error.reason)
        except ImportError:  # a package is missing, for every sample
            raise
        except Exception as error:
            return ValueError(error_reason(sample.name, error))

    def _attempt_all(
        self, read: Sequence[ReadSample], compute: "Compute[Result]"
    ) -> "list[Result | Exception]":
        """Return the result of each decoded sample, or its error; one sample fails no other."""
        try:
            return list(compute(read))
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
        ) as error:  # samples that cannot be one batch
            if len(read) == 1:
                return [ValueError(error_reason(read[0].name, error))]
            return [found for one in read for found in self._attempt_all([one], compute)]

    @torch.inference_mode()
    def _embedded(
        self, read: Sequence[ReadSample], *, latents: bool
    ) -> "list[Embedding | NonFiniteOutputError]":
        """Return the vector of each decoded sample, or the error of one without a finite vector. Clips are averaged."""
        batch = self.reader.collate(read)
        assert batch is not None  # nothing is mixed
        moved = batch.to(self.device)
        prepared = self.task.prediction_batch(moved.inputs, moved.masks)
        parts = [
            (member.encode if latents else member.embed)(prepared.inputs, prepared.masks)
            for member in self.model.members
        ]
        vectors = torch.cat(parts, dim=1).float().unflatten(0, (len(read), -1)).mean(dim=1)
        are_finite = vectors.flatten(1).isfinite().all(dim=1).tolist()
        return [
            Embedding(one.name, vector) if is_finite else self.not_finite(one.name)
            for one, is_finite, vector in zip(read, are_finite, vectors.cpu().numpy(), strict=True)
        ]

    @torch.inference_mode()
    def _predictions(
        self, read: Sequence[ReadSample], top: int
    ) -> list[Prediction | NonFiniteOutputError]:
        """Return the prediction of each decoded sample, or the error of one without a finite output."""
        batch = self.reader.collate(read)
        assert batch is not None  # nothing is mixed
        moved = batch.to(self.device)
        prepared = self.task.prediction_batch(moved.inputs, moved.masks)
        outputs = combine_clips(self.task, self.infer(prepared), batch.num_clips)
        names = [one.name for one in read]
        request = PredictionRequest(
            names=names, batch=prepared, preprocess=self.config.preprocess, top=top
        )
        are_finite = finite_rows(outputs, len(read))
        found = self.task.predict(outputs, request)
        return [
            one if is_finite and one.is_finite else self.not_finite(name)
            for name, is_finite, one in zip(names, are_finite, found, strict=True)
        ]

    def not_finite(self, name: str) -> NonFiniteOutputError:
        """Return the error of a sample without a finite output, with its cause."""
        return NonFiniteOutputError(name, in_weights=not self._has_finite_weights)

    @cached_property
    def _has_finite_weights(self) -> bool:
        weights = self.model.state_dict().values()
        return all(bool(x.isfinite().all()) for x in weights if x.is_floating_point())


def _good(
    found: Iterable[Result | tuple[str, Exception]],
    on_error: Callable[[str, Exception], None] | None,
) -> Iterator[Result]:
    """Yield the results; errors go to `on_error`, or are raised."""
    for one in found:
        if not isinstance(one, tuple):
            yield one
        elif on_error is None:
            raise one[1]
        else:
            on_error(*one)


def _counted_samples(samples: Iterator[Sample]) -> tuple[Iterable[Sample], int | None]:
    """Return the samples and their number, if they are files: rows with content are not kept in memory."""
    files: list[Sample] = []
    for sample in samples:
        files.append(sample)
        cells = sample.row.values()
        if not all(isinstance(cell, EncodedItem) and cell.path is not None for cell in cells):
            return chain(files, samples), None
    return files, len(files)


def uncut(preprocess: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return preprocessing that leaves frames and flow uncut, and whether some modality is affected."""
    found = {
        name: replace(part, whole=True) if hasattr(part, "whole") else part
        for name, part in preprocess.items()
    }
    return found, any(hasattr(part, "whole") for part in found.values())


def modality_names(names: Sequence[str], columns: Mapping[str, InputColumn]) -> list[str]:
    """Return the names of modalities, some of which may be given by the name of their only column."""
    of_column = {
        part.column: name
        for name, part in columns.items()
        if [one.column for one in columns.values()].count(part.column) == 1 and not part.columns
    }
    return [name if name in columns else of_column.get(name, name) for name in names]


def _without(
    preprocess: Mapping[str, Any], without: Sequence[str], targets: Sequence[str]
) -> dict[str, Any]:
    """Return the preprocessing of the inputs that are left, and of the targets, which only evaluation needs."""
    inputs = [name for name in preprocess if name not in targets]
    for name in without:
        if name not in inputs:
            raise ValueError(
                f"The model has no modality '{name}'.{nearest(name, inputs)} It reads {', '.join(inputs)}."
            )
    left = {name: part for name, part in preprocess.items() if name not in without}
    if not set(left) - set(targets):
        raise ValueError(
            f"The model reads {', '.join(inputs)}: without {', '.join(without)} nothing is left."
        )
    return left


def load_predictor(
    folder: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 64,
    quantize: str | None = None,
    clips: int | None = None,
    without: Sequence[str] = (),
    tta: bool = True,
) -> Predictor:
    """Return the predictor of a run folder, or of a model on the Hugging Face hub.

    Args:
        folder: A run folder, or `user/name` on the hub.
        device: `auto`, `cpu`, `cuda` or `mps`. With `quantize`, `auto` is the CPU.
        batch_size: Samples that are predicted at once.
        quantize: `int8` gives wide layers int8 weights, where that is faster on this CPU; `int8-always` also where it
            is not. The decision is in the predictor's `quantization`.
        clips: Number of overlapping clips of a longer sample whose scores are averaged. Default: that of the run.
        without: Modalities that are dropped, for a model of several.
        tta: Average predictions over mirrored images (test-time augmentation), if the run has found that this helps.

    Raises:
        OSError: If the folder is no run folder, or its weights are damaged.
        ValueError: If the model was saved without preprocessing, or cannot be quantized on this device.
    """
    return Predictor(
        checkpoint.load(folder),
        device=device,
        batch_size=batch_size,
        quantize=quantize,
        clips=clips,
        without=without,
        tta=tta,
    )


def save(model: Perceiver | Ensemble | Predictor, folder: str | Path) -> None:
    """Write a model's weights and configuration into a folder that `pv.load` reads.

    Args:
        model: A predictor is saved with its labels and preprocessing, a model alone without.
        folder: Created if it does not exist.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If the model has int8 weights, or was made without a configuration.
    """
    if not isinstance(model, Predictor):
        checkpoint.save(folder, model)
        return
    config = model.config
    settings: dict[str, Any] = {"preprocess": config.preprocess, "columns": config.columns}
    settings["mirrored"] = config.mirrored
    checkpoint.save(folder, model.model, task=config.task, **settings)


load = load_predictor  # the public name
