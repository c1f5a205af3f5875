"""Size, speed and accuracy of a run's model in PyTorch and of its exports, side by side on the CPU."""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceivers.console import tracked
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, Sample, SampleRng, SampleTransform
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.evaluation.evaluate import choose_split, open_for_run
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.exporting.export import MANIFEST_FILE
from perceivers.exporting.formats import EXPORT_FORMATS, ExportFormat, ExportSource, trace
from perceivers.exporting.graph import ExportGraph, build_graph, one_window
from perceivers.exporting.verify import TOLERANCES, Run
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.meters import Meter
from perceivers.typing import Tensor
from perceivers.wording import counted

MADE = (("onnx", "float32"), ("onnx", "float16"), ("onnx", "int8"), ("openvino", "float32"))
"""Format and precision of the exports that are made where none are given."""

_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 100
_WARM_UPS = 2
_CHUNK = 16  # rows of one forward pass for differences and accuracy


@dataclass(kw_only=True)
class Contestant:
    """A model to measure, and its results.

    Attributes:
        name: Name of the model: `PyTorch`, the folder of an export, or its format and precision.
        format: Format of the export. `pytorch` for the run itself.
        precision: Precision.
        num_bytes: Size of its files.
        run: The model as a function of inputs by name.
        seconds: Times of the forward passes, by batch size.
        difference: Largest absolute difference of a probability to PyTorch; of an output, if there are none.
        same_top: Number of samples whose best label is that of PyTorch. None: there are no labels.
        metric: Main metric of the task. None: not measured.
    """

    name: str
    format: str
    precision: str
    num_bytes: int
    run: Run
    seconds: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    difference: float = 0.0
    same_top: int | None = None
    metric: float | None = None

    def milliseconds(self, batch_size: int) -> float:
        """Return the median time of a forward pass."""
        return 1e3 * statistics.median(self.seconds[batch_size])


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Results of all models.

    Attributes:
        models: The run in PyTorch, then its exports.
        threads: Number of threads of each runtime.
        batch_sizes: Measured batch sizes.
        num_samples: Number of compared samples.
        samples: Description of the compared samples.
        metric: Name of the main metric of the task. None: it was not measured.
        notes: Sentences on what was not measured, and why.
    """

    models: tuple[Contestant, ...]
    threads: int
    batch_sizes: tuple[int, ...]
    num_samples: int
    samples: str
    metric: str | None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the results as plain data for JSON."""
        return {
            "threads": self.threads,
            "batch_sizes": list(self.batch_sizes),
            "samples": self.samples,
            "num_samples": self.num_samples,
            "metric": self.metric,
            "models": [self._model(one) for one in self.models],
            "notes": list(self.notes),
        }

    def _model(self, one: Contestant) -> dict[str, Any]:
        return {
            "name": one.name,
            "format": one.format,
            "precision": one.precision,
            "bytes": one.num_bytes,
            "milliseconds": {size: one.milliseconds(size) for size in self.batch_sizes},
            "rounds": {size: len(one.seconds[size]) for size in self.batch_sizes},
            "difference": one.difference,
            "same_top": one.same_top,
            "metric": one.metric,
        }


def benchmark_run(
    run: str | Path,
    exports: Sequence[str | Path] = (),
    *,
    split: str | None = None,
    num_rows: int = 500,
    batch_size: int = 16,
    threads: int | None = None,
    seconds: float = 10.0,
) -> Benchmark:
    """Measure a run's model in PyTorch and exports of it on the CPU.

    Args:
        run: A run folder, or a model on the Hugging Face hub.
        exports: Folders that `perceivers export` wrote. Without any, some are made in a temporary folder.
        split: Split of the run's data to compare on. By default test, or else validation.
        num_rows: Largest number of its rows.
        batch_size: The larger of the two batch sizes.
        threads: Number of threads of each runtime. By default that of PyTorch.
        seconds: Time after which no new round of measurements starts, for each batch size.

    Raises:
        ImportError: If a runtime is missing. The message has the command to install it.
        OSError: If the run or an export cannot be read.
        ValueError: If an export is that of another model, or the split does not exist.
    """
    predictor = load_predictor(run, device="cpu")
    saved = Saved(model=predictor.model, config=predictor.config, folder=predictor.folder)
    implementation = getattr(saved.model.config.encoder, "attn_implementation", "projected")
    graph = build_graph(saved)
    threads = threads or torch.get_num_threads()
    notes: list[str] = []
    with _torch_threads(threads), tempfile.TemporaryDirectory(prefix="perceivers-") as folder:
        if exports:
            others = [_open_export(Path(one), graph, threads) for one in exports]
        else:
            others = list(_make_exports(saved, graph, Path(folder), threads, notes))
        saved.model.set_attn_implementation(implementation)
        models = [_pytorch(saved, graph), *others]
        rows = _open_rows(predictor, split, num_rows, notes)
        compared = _compare(models, predictor, graph, rows, notes)
        notes += _too_different(others)
        sizes = tuple(dict.fromkeys((1, batch_size)))
        with torch.inference_mode():
            for size in sizes:
                _measure_time(models, _repeated(compared.inputs, size), size, seconds)
    return Benchmark(
        models=tuple(models),
        threads=threads,
        batch_sizes=sizes,
        num_samples=compared.count,
        samples=compared.samples,
        metric=compared.metric,
        notes=tuple(notes),
    )


@contextmanager
def _torch_threads(count: int) -> Generator[None]:
    """Let PyTorch use some threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pytorch(saved: Saved, graph: ExportGraph) -> Contestant:
    size = sum(one.numel() * one.element_size() for one in saved.model.state_dict().values())
    return Contestant(
        name="PyTorch",
        format="pytorch",
        precision="float32",
        num_bytes=size,
        run=lambda inputs: graph(dict(inputs)),
    )


def _open_export(folder: Path, graph: ExportGraph, threads: int) -> Contestant:
    """Return an export of the run.

    Raises:
        OSError: If the folder is none of `perceivers export`.
        ValueError: If it is that of a model with other inputs or outputs.
    """
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        file, precision = manifest["model"], manifest.get("precision", "float32")
        found = {key: list(how["shape"][1:]) for key, how in manifest["inputs"].items()}
        answers = {key: list(how["shape"][1:]) for key, how in manifest["outputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(
            f"Expected a folder that perceivers export wrote, with a {MANIFEST_FILE}; got {folder}."
        ) from error
    by_file = {form.file: name for name, form in EXPORT_FORMATS.items()}
    name = manifest.get("format") or by_file.get(file, "")
    if name not in EXPORT_FORMATS or not (folder / file).is_file():
        raise OSError(
            f"Expected the model '{file}' in {folder}, as its {MANIFEST_FILE} states; there is none that can be "
            "opened. Export the run again."
        )
    expected = {key: list(one.shape) for key, one in graph.signatures().items()}
    free = {key for key, one in graph.signatures().items() if one.free}
    alike = {key: shape[1:] if key in free else shape for key, shape in expected.items()} == {
        key: shape[1:] if key in free else shape for key, shape in found.items()
    }
    with torch.inference_mode():
        is_same = alike and _shapes(graph(graph.made(1))) == answers
    if not is_same:
        raise ValueError(
            f"{folder} is the export of another model than the run's: expected inputs {expected}, got {found}, or "
            "their outputs differ. Export the run again."
        )
    form = EXPORT_FORMATS[name]
    return Contestant(
        name=folder.name,
        format=name,
        precision=precision,
        num_bytes=form.num_bytes(folder),
        run=_opened(form, folder / file, threads),
    )


def _opened(form: ExportFormat, path: Path, threads: int) -> Run:
    """Return a written model; a damaged file raises OSError."""
    try:
        return form.open(path, threads)
    except ImportError:
        raise
    except Exception as error:  # each runtime has its own kinds
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise OSError(f"Cannot open {path}: {reason}. Export the run again.") from error


def _shapes(outputs: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(one.shape[1:]) for key, one in outputs.items()}


def _make_exports(
    saved: Saved, graph: ExportGraph, folder: Path, threads: int, notes: list[str]
) -> Iterator[Contestant]:
    """Yield exports of a model, made in a folder; a note for each that cannot be made."""
    source = ExportSource(saved=saved, graph=graph, program=trace(graph))
    for name, precision in tracked(MADE, len(MADE), "export"):
        form = EXPORT_FORMATS[name]
        if name == "openvino" and find_spec("openvino") is None:
            notes.append(
                'OpenVINO is not measured, as it is not installed: pip install "perceivers[openvino]".'
            )
            continue
        place = folder / f"{name}-{precision}"
        place.mkdir()
        try:
            form.write(replace(source, precision=precision), place / form.file)
            opened = form.open(place / form.file, threads)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")[:300]
            notes.append(f"{name} in {precision} is not measured: {reason}.")
            continue
        yield Contestant(
            name=f"{name} {precision}",
            format=name,
            precision=precision,
            num_bytes=form.num_bytes(place),
            run=opened,
        )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows of a split with their targets, as far as the metric of the task can be measured."""

    source: DatasetBundle
    split: str
    indices: list[int]
    targets: Sequence[Any] | None


def _open_rows(
    predictor: Predictor, split: str | None, num_rows: int, notes: list[str]
) -> _Rows | None:
    """Return rows of the run's data, or None with a note if they are not found."""
    try:
        source = open_for_run(predictor)
    except (ValueError, OSError, KeyError, ImportError) as error:
        if split is not None:
            raise
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        notes.append(
            f"The run's data were not found, so random inputs are compared, without accuracy: {reason}."
        )
        return None
    if source.streams:
        notes.append("The run's data are streamed: random inputs are compared, without accuracy.")
        return None
    try:
        chosen = choose_split(source, split, own=True)
    except ValueError:
        if split is not None:
            raise
        chosen = "train"
    records = source.splits[chosen]
    count = min(num_rows, len(records))
    indices = np.linspace(0, len(records) - 1, count).round().astype(int).tolist()
    reason = _no_metric(predictor, source, chosen)
    if reason:
        notes.append(reason)
    targets = None if reason else source.targets(chosen)
    return _Rows(source=source, split=chosen, indices=indices, targets=targets)


def _no_metric(predictor: Predictor, source: DatasetBundle, split: str) -> str:
    """Return the reason why the metric of the task is not measured on a split; "" if it is."""
    config = predictor.config
    if source.target is None or config.target_modalities or not config.task:
        return "Accuracy is measured for classes, labels and numbers; this task has other targets."
    if split == "train":
        return "The run's data have no test or validation split, so accuracy is not measured."
    if split == "validation" and source.folds:
        return (
            "The run has no test split, and members of its ensemble were trained on the rows of the validation "
            "split, so accuracy is not measured."
        )
    return ""


@dataclass(kw_only=True)
class _Compared:
    """Samples of a comparison: some inputs, number and description."""

    inputs: dict[str, Tensor]
    count: int
    samples: str
    metric: str | None = None


def _compare(
    models: Sequence[Contestant],
    predictor: Predictor,
    graph: ExportGraph,
    rows: _Rows | None,
    notes: list[str],
) -> _Compared:
    """Fill in difference and metric of each model; return the compared samples."""
    task = predictor.task
    meters = [task.meter() for _ in models]
    first: dict[str, Tensor] | None = None
    count = 0
    batches = _random_batch(graph) if rows is None else _batches(predictor, graph, rows, notes)
    total = None if rows is None else len(rows.indices)
    with torch.inference_mode():
        for inputs, targets in tracked(batches, total, "row", size=lambda one: _length(one[0])):
            first = inputs if first is None else first
            count += _length(inputs)
            expected: Mapping[str, Any] | None = None
            for model, meter in zip(models, meters, strict=True):
                found = {key: np.asarray(one) for key, one in model.run(inputs).items()}
                expected = found if expected is None else expected
                _add_difference(model, found, expected)
                if targets is not None:
                    meter.update(_model_outputs(found), targets)
    if first is None:
        raise ValueError(
            "None of the rows of the run's data could be read. Run perceivers check on the data."
        )
    if rows is None:
        return _Compared(inputs=first, count=count, samples=counted(count, "random sample"))
    text = f"{counted(count, 'row')} of the run's {rows.split} split"
    compared = _Compared(inputs=first, count=count, samples=text)
    if rows.targets is not None:
        compared.metric = task.main_metric
        for model, meter in zip(models, meters, strict=True):
            model.metric = _value(meter, task.main_metric)
    return compared


def _too_different(models: Sequence[Contestant]) -> Iterator[str]:
    """Yield a note for each export that differs by more than `perceivers export` allows."""
    for one in models:
        allowed = TOLERANCES.get(one.precision, math.inf)
        if one.difference > allowed:
            yield (
                f"{one.name} differs by more than the {allowed:g} that perceivers export allows on its few samples."
            )


def _value(meter: Meter, name: str) -> float | None:
    found = meter.compute().get(name)
    return None if found is None or not np.isfinite(found) else float(found)


def _length(inputs: Mapping[str, Tensor]) -> int:
    return next(iter(inputs.values())).shape[0]


def _random_batch(graph: ExportGraph) -> Iterator[tuple[dict[str, Tensor], Any]]:
    yield graph.made(_CHUNK), None


def _batches(
    predictor: Predictor, graph: ExportGraph, rows: _Rows, notes: list[str]
) -> Iterator[tuple[dict[str, Tensor], Any]]:
    """Yield inputs of the graph and prepared targets (None: unknown), the middle clip of each sample."""
    config = predictor.config
    columns = config.input_columns()
    preprocess = {name: one_window(config.preprocess[name]) for name in columns}
    reader = SampleTransform(columns, preprocess, None, LoaderSettings(batch_size=_CHUNK))
    records, bad = rows.source.splits[rows.split], 0
    for start in range(0, len(rows.indices), _CHUNK):
        samples: list[Sample] = []
        arrays: list[dict[str, Tensor]] = []
        for index in rows.indices[start : start + _CHUNK]:
            with suppress(BadRowError, ValueError, OSError):
                values, name, _ = reader.decode(dict(records.row(index)), clip_position=0.5)
                clips = reader.clips(values, SampleRng(), name)
                arrays.append(graph.arrays(values))
                target = None if rows.targets is None else rows.targets[index]
                samples.append(Sample(clips, target, name))
        bad += min(_CHUNK, len(rows.indices) - start) - len(samples)
        if samples:
            inputs = {key: torch.cat([one[key] for one in arrays]) for key in arrays[0]}
            yield inputs, _prepared_targets(predictor, reader, samples, rows)
    if bad:
        notes.append(f"{counted(bad, 'row')} could not be read, and {_was(bad)} left out.")


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _prepared_targets(
    predictor: Predictor, reader: SampleTransform, samples: Sequence[Sample], rows: _Rows
) -> Any:
    if rows.targets is None:
        return None
    batch = reader.collate(samples)
    assert batch is not None  # nothing is mixed
    prepare: Callable[..., Any] = predictor.task.prepare_batch
    return prepare(batch.inputs, batch.masks, batch.targets, training=False).targets


def _model_outputs(found: Mapping[str, Any]) -> Any:
    """Return outputs of a graph as those of the model: a tensor, or tensors by task."""
    if "logits" in found:
        return torch.from_numpy(found["logits"])
    return {
        name.removesuffix("_logits"): torch.from_numpy(one)
        for name, one in found.items()
        if name.endswith("_logits")
    }


def _add_difference(
    model: Contestant, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Add some samples to the difference of a model to PyTorch."""
    names = [name for name in expected if name.endswith("probabilities")]
    for name in names or [name for name in expected if name.endswith("logits")]:
        actual = np.asarray(found[name], np.float64)
        gap = np.nan_to_num(np.abs(actual - expected[name]), nan=np.inf)
        model.difference = max(model.difference, float(gap.max()))
    for name in names:
        same = found[name].argmax(axis=-1) == expected[name].argmax(axis=-1)
        model.same_top = (model.same_top or 0) + int(same.sum())


def _repeated(inputs: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """Return inputs of `size` rows, the given ones over and over."""
    index = torch.arange(size) % _length(inputs)
    return {key: one[index] for key, one in inputs.items()}


def _measure_time(
    models: Sequence[Contestant], inputs: Mapping[str, Tensor], size: int, seconds: float
) -> None:
    """Time forward passes of all models, which take turns, so that other work on the machine slows all alike."""
    for model in models:
        model.seconds[size] = []
        for _ in range(_WARM_UPS):
            model.run(inputs)
    end = time.perf_counter() + seconds
    for turn in range(_MOST_ROUNDS):
        if turn >= _FEWEST_ROUNDS and time.perf_counter() > end:
            break
        first = turn % len(models)
        for model in (*models[first:], *models[:first]):
            start = time.perf_counter()
            model.run(inputs)
            model.seconds[size].append(time.perf_counter() - start)
