"""A run that answers: what it reads and says, and from an upload to an answer."""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from PIL import Image

from perceivers.data.base import Batch
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import Reader
from perceivers.evaluation.predict import Predictor
from perceivers.explain.attribution.explain import explain
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.sample import ReadSample
from perceivers.hub.checkpoint import Saved, load
from perceivers.server.batching import Batcher
from perceivers.server.decoders import Decoders
from perceivers.server.decoding import Job, Prepared, Refusal, Setup
from perceivers.server.inputs import Input, inputs_of
from perceivers.server.limits import Limits
from perceivers.server.metrics import Metrics
from perceivers.server.responses import answers_of, described

__all__ = ["BusyError", "RefusedError", "Service"]


class BusyError(RuntimeError):
    """There is no room for another request."""


class RefusedError(ValueError):
    """What was sent cannot be read.

    Args:
        status: Of the answer, as HTTP counts.
        reason: One paragraph.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Service:
    """A run with its model, its batches and its decoding processes.

    Args:
        run: A run folder, or a model on the Hugging Face hub.
        limits: What is accepted.
        device: Where to compute.
        largest_batch: Samples that go through the model at once.
        wait: Seconds that a sample waits for others.
        decoders: Processes that decode.

    Raises:
        OSError: If the folder is not a run's, or its weights are damaged.
        ValueError: If the model cannot read files.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        limits: Limits | None = None,
        device: str = "auto",
        largest_batch: int = 32,
        wait: float = 0.004,
        decoders: int = 1,
    ) -> None:
        self.limits = limits or Limits()
        self.saved: Saved = load(run)
        self.name = self.saved.folder.resolve().name
        self.predictor = Predictor(self.saved, device=device, batch_size=largest_batch)
        self.config = self.saved.config
        self.inputs: list[Input] = inputs_of(self.predictor.columns, self.predictor.preprocess)
        self.stopping = False
        self.num_inside = 0
        assert self.config.task is not None  # the predictor has refused that
        self.task = self.config.task
        explaining = {name: self.config.preprocess[name] for name in self.predictor.columns}
        setup = Setup(
            columns=dict(self.predictor.columns),
            predicting={name: self.predictor.preprocess[name] for name in self.predictor.columns},
            explaining=explaining,
            task=self.task,
            num_clips=self.predictor.clips,
            limits=self.limits,
        )
        self.decoders = Decoders(setup, decoders)
        self.metrics = Metrics(lambda: self.num_inside, lambda: self.decoders.restarts)
        self.batcher = Batcher(
            self._predicted,
            largest=self.predictor.batch_size,
            wait=wait,
            expected=lambda: self.num_inside,
            on_batch=self.metrics.batch,
        )
        settings = LoaderSettings(batch_size=1)
        self._explaining = Reader(self.predictor.columns, explaining, None, settings)
        self._described: dict[str, Any] = {}

    @property
    def is_well(self) -> bool:
        """Whether it answers: not while it stops, nor when its model has gone."""
        return not self.stopping and self.batcher.is_alive

    def start(self) -> None:
        """Start the decoding processes and the model's thread."""
        self.decoders.start()
        self.batcher.start()

    def stop(self) -> None:
        """Finish what waits, and end all of them."""
        self.stopping = True
        self.batcher.stop()
        self.decoders.stop()

    @contextmanager
    def admitted(self) -> Generator[float]:
        """Take one place among the requests that are worked on, and say when the answer is due.

        Raises:
            BusyError: If there is none.
        """
        if self.num_inside >= self.limits.queue:
            self.metrics.rejected()
            msg = f"The server works on {self.limits.queue} requests already, and takes no more. Try again in a second."
            raise BusyError(msg)
        self.num_inside += 1
        try:
            yield time.monotonic() + self.limits.wait
        finally:
            self.num_inside -= 1

    async def prepared(self, job: Job, deadline: float) -> Prepared:
        """Return what was sent, decoded and prepared.

        Raises:
            RefusedError: If it cannot be read.
            DecoderDiedError: If its decoding ended the process.
            TimeoutError: If it took too long.
        """
        found = await self.decoders.decode(job, deadline)
        if isinstance(found, Refusal):
            raise RefusedError(found.status, found.reason)
        return found

    async def predict(self, job: Job, deadline: float, top: int = 5) -> list[dict[str, Any]]:
        """Return the answers to what was sent. Raises what `prepared` and `Batcher.submit` raise."""
        prepared = await self.prepared(job, deadline)
        prediction = await self.batcher.submit(prepared, deadline)
        return answers_of(prediction, self.task, top)

    async def explain(
        self, job: Job, deadline: float, *, latent: int | None, head: int | None
    ) -> tuple[list[dict[str, Any]], Explanation]:
        """Return the answers to what was sent, and where the model looked.

        Args:
            job: What was sent, decoded as a whole.
            deadline: When it must be done.
            latent: Whose attention is wanted. None: the mean of all.
            head: Likewise.

        Raises:
            RefusedError: If it cannot be read, or nothing can be drawn of this run.
        """
        prepared = await self.prepared(job, deadline)
        work = lambda: self._explained(prepared, latent, head)  # noqa: E731
        return await self.batcher.alone(work, deadline)

    def describe(self) -> dict[str, Any]:
        """Return what the run reads and says, and what is accepted, as JSON."""
        if not self._described:
            encoder = self.config.model.encoder
            self._described = {
                "name": self.name,
                "recipe": _recipe_of(self.saved.folder),
                "parameters": sum(p.numel() for p in self.saved.model.parameters()),
                "task": self.task.kind,
                "inputs": [one.told() for one in self.inputs],
                "answers": described(self.task),
                "latents": getattr(encoder, "num_latents", None),
                "reads": len(_heads_of(encoder)),
                "heads": _heads_of(encoder),
                "limits": asdict(self.limits),
            }
        return self._described

    def counts(self) -> dict[str, int]:
        """Return how many reads, latents and heads an explanation can choose from."""
        told = self.describe()
        return {"read": told["reads"], "latent": told["latents"] or 1, "head": max(told["heads"])}

    def _predicted(self, prepared: Sequence[Prepared]) -> Sequence[Any]:
        """Return one prediction for each sample. Runs in the model's thread."""
        return self.predictor.predict_read([one.sample() for one in prepared])

    def _explained(
        self, prepared: Prepared, latent: int | None, head: int | None
    ) -> tuple[list[dict[str, Any]], Explanation]:
        sample = prepared.sample()
        batch: Batch | None = self._explaining.collate([sample])
        assert batch is not None  # nothing is mixed
        values = dict(zip(prepared.modalities, prepared.values, strict=True))
        for name, value in values.items():  # pictures were sent as arrays
            if self.config.preprocess[name].kind == "image" and value is not None:
                values[name] = Image.fromarray(value)
        there = [name for name, value in values.items() if value is not None]
        read = ReadSample(
            name=prepared.name,
            values={name: values[name] for name in there},
            inputs={name: batch.inputs[name] for name in there},
            masks={name: batch.masks[name] for name in there if name in batch.masks},
            missing=tuple(name for name in values if name not in there),
        )
        try:
            # Of one latent or head, what speaks for the class is not known.
            which = None if latent is None and head is None else "mean"
            found = explain(self.saved, read, latents=1, map=which, alone=(latent, head))
        except ValueError as error:
            raise RefusedError(422, str(error)) from error
        with torch.inference_mode():
            prediction = self.predictor.predict_read([sample])[0]
        return answers_of(prediction, self.task), found


def _heads_of(encoder: Any) -> list[int]:
    """Return the heads of each read of the input; a Transformer reads it in every layer."""
    if hasattr(encoder, "num_cross_attends"):
        return [encoder.num_cross_attend_heads] * encoder.num_cross_attends
    return [encoder.num_self_attend_heads] * encoder.num_self_attends


def _recipe_of(folder: Path) -> str | None:
    """Return what the run's recipe is called. None if it lies beside no recipe."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return None
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    return cast("Any", told).get("name") if isinstance(told, dict) else None
