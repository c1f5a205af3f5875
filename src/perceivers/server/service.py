"""The service of one run: model, batching and decoding processes, and its responses as JSON."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from starlette.exceptions import HTTPException

from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import SampleTransform
from perceivers.evaluation.generate import is_cut
from perceivers.evaluation.predict import Predictor
from perceivers.explain.attribution.explain import explain_sample
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.sample import collate_sample
from perceivers.hub.checkpoint import Saved, load
from perceivers.recipes.files import read_run_recipe
from perceivers.runs.folder import RECIPE_FILE
from perceivers.server.access_log import AccessLog
from perceivers.server.batching import Batcher
from perceivers.server.decoding import DecoderPool, DecoderSettings, Job, PreparedSample, Refusal
from perceivers.server.forms import InputField, SampleRequest, input_fields
from perceivers.server.generation import (
    GeneratedFile,
    GeneratedText,
    GenerationRequest,
    generation_fields,
    served_format,
)
from perceivers.server.metrics import Metrics
from perceivers.server.openapi import Description, openapi
from perceivers.server.settings import ServerSettings
from perceivers.tasks.prediction import ANSWER_VERSION, NonFiniteOutputError, Prediction, Schema
from perceivers.tasks.registry import TaskConfig

_STOP_SECONDS = 10.0  # of the model's thread, when all requests are answered


class Service:
    """A run with its model, its batches and its decoding processes.

    Raises:
        OSError: If the folder is not a run's, or its weights are damaged.
        ValueError: If the model cannot read files.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.limits = settings.limits
        self.connection_limits = settings.connections
        self.saved: Saved = load(settings.run)
        self.name = self.saved.folder.resolve().name
        self.predictor = Predictor(
            self.saved, device=settings.device, batch_size=settings.max_batch
        )
        columns, preprocess = dict(self.predictor.columns), self.predictor.preprocess
        self.config = self.saved.config
        self.inputs: list[InputField] = input_fields(columns, preprocess)
        self.stopping = False
        self.access_log = AccessLog(settings.access_log)
        self.num_requests = self.num_samples = 0
        assert self.config.task is not None  # checked by the predictor
        self.task = self.config.task
        explaining = {name: self.config.preprocess[name] for name in columns}
        decoding = DecoderSettings(
            columns=columns,
            predicting={name: preprocess[name] for name in columns},
            explaining=explaining,
            task=self.task,
            num_clips=self.predictor.clips,
            limits=self.limits,
        )
        self.decoders = DecoderPool(decoding, settings.decoders)
        self.metrics = Metrics()
        self.batcher = Batcher(
            self._predict,
            largest=self.predictor.batch_size,
            wait=settings.batch_wait / 1000,
            expected=lambda: self.num_samples,
            on_batch=self.metrics.batch_size.observe,
        )
        self.generation_fields: dict[str, Schema] = {}
        """Fields of requests to continue a sequence, as JSON schema. Empty: the run does not generate."""
        self.form = served_format(self.predictor)
        if self.form is not None:
            self.generation_fields = generation_fields(self.form, self.limits, self.inputs[0])
        self._explaining = SampleTransform(columns, explaining, None, LoaderSettings(batch_size=1))

    @property
    def status(self) -> str:
        """`ok` while requests are answered, else the reason why they are not."""
        if self.stopping:
            return "stopping"
        if not self.batcher.is_alive:
            return "the model has gone"
        if self.batcher.busy_seconds > 2 * self.limits.wait:
            return "the model does not respond"
        return "ok" if self.decoders.is_alive else "decoding does not respond"

    def start(self) -> None:
        """Start the decoding processes and the model's thread."""
        self.decoders.start()
        self.batcher.start()

    def stop(self) -> None:
        """Finish the queued requests, and stop the model's thread and the decoding processes."""
        self.stopping = True
        self.batcher.stop(_STOP_SECONDS)
        self.decoders.stop()

    def check_room(self) -> None:
        """Raise HTTPException if the queue is full."""
        if self.num_requests >= self.limits.queue:
            self.metrics.rejected.inc()
            reason = f"The queue of {self.limits.queue} requests is full. Try again in a second."
            raise HTTPException(503, reason, headers={"retry-after": "1"})

    @contextmanager
    def admit(self, started: float, num_samples: int = 1) -> Generator[float]:
        """Count a request as being in progress, and yield its deadline. Raise HTTPException if the queue is full.

        Only complete requests are counted: those that still arrive take no place in the queue.
        """
        self.check_room()
        self.num_requests += 1
        self.num_samples += num_samples
        try:
            yield started + self.limits.wait
        finally:
            self.num_requests -= 1
            self.num_samples -= num_samples

    async def predict_all(
        self, requests: Sequence[SampleRequest], deadline: float
    ) -> list[dict[str, Any]]:
        """Return the answer for each sample; of several, the error of one that has none.

        Raises as `predict` does, but for several samples only what concerns all of them.
        """
        if len(requests) == 1:
            return [await self.predict(requests[0], deadline)]
        return await asyncio.gather(*(self._answer_or_error(one, deadline) for one in requests))

    async def _answer_or_error(self, request: SampleRequest, deadline: float) -> dict[str, Any]:
        try:
            return await self.predict(request, deadline)
        except HTTPException as error:
            head = {"version": ANSWER_VERSION, "name": request.name}
            return {**head, "error": error.detail, "status": error.status_code}

    async def predict(self, request: SampleRequest, deadline: float) -> dict[str, Any]:
        """Return the answer for one sample. Raises what `_prepare` and `Batcher.submit` raise."""
        prepared = await self._prepare(request.job, deadline)
        prediction = await self.batcher.submit((prepared, request.top), deadline)
        return _answer(prediction, request)

    async def explain(
        self, request: SampleRequest, deadline: float
    ) -> tuple[dict[str, Any], Explanation]:
        """Return the answer for one sample and its explanation. Raises as `predict` does."""
        prepared = await self._prepare(request.job, deadline)
        prediction, found = await self.batcher.alone(
            lambda: self._explain(prepared, request), deadline
        )
        return _answer(prediction, request), found

    @property
    def media_types(self) -> Mapping[str, str]:
        """Media types of generated files, by their suffixes. Empty: the run generates none."""
        return {} if self.form is None else self.form.media_types

    @property
    def prompt_file(self) -> InputField | None:
        """Input that a file as prompt of a generation is read as. None: prompts are texts."""
        return None if self.form is None or self.form.is_printable else self.inputs[0]

    async def decode_prompt(self, request: GenerationRequest, started: float) -> GenerationRequest:
        """Return a request whose prompt is decoded, if it is a file. Raises as `predict` does."""
        if not isinstance(request.prompt, Job):
            return request
        with self.admit(started, 0) as deadline:
            prepared = await self._prepare(request.prompt, deadline)
        return replace(request, prompt=prepared.values[0])

    async def generate(self, request: GenerationRequest, started: float) -> AsyncGenerator[Any]:
        """Yield parts of the continuation of a sequence, as soon as they are computed.

        Those of a text are strings; of a file they are empty but for the last, which is all of it. Other requests have
        their turn between two parts. Each part of a stream has `limits.wait` seconds, a text that
        is not streamed has them as a whole.

        Raises:
            HTTPException: If the queue is full.
            TimeoutError: If it takes too long.
            NonFiniteOutputError: If the model has no finite output.
        """
        form = self.form
        assert form is not None  # there is no route without
        with self.admit(started, 0) as deadline:
            until = deadline
            found: GeneratedText | GeneratedFile = await self.batcher.alone(
                lambda: (
                    GeneratedText(self.predictor, request)
                    if form.is_printable
                    else GeneratedFile(form, request)
                ),
                until,
            )
            while (part := await self.batcher.alone(found.part, until)) is not None:
                yield part
                until = time.monotonic() + self.limits.wait if request.stream else deadline

    def is_cut(self, request: GenerationRequest) -> bool:
        """Return whether only the end of the prompt is read, since it is longer than the context."""
        assert self.form is not None
        return is_cut(self.predictor, self.form.tokens(request.prompt))

    @cached_property
    def description(self) -> dict[str, Any]:
        """Inputs, outputs and limits of the run as JSON."""
        encoder: Any = self.config.model.encoder
        heads = list(encoder.reading_heads)
        recipe = self.saved.folder / RECIPE_FILE
        return {
            "name": self.name,
            "recipe": read_run_recipe(self.saved.folder).name if recipe.is_file() else None,
            "parameters": sum(p.numel() for p in self.saved.model.parameters()),
            "task": self.task.kind,
            "inputs": [one.as_json() for one in self.inputs],
            "outputs": describe_outputs(self.task),
            "generation": self.generation_fields or None,
            "latents": getattr(encoder, "num_latents", None),
            "reads": len(heads),
            "heads": heads,
            "limits": asdict(self.limits),
        }

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of reads, latents and heads that a request can choose from."""
        found = self.description
        return {
            "read": found["reads"],
            "latent": found["latents"] or 1,
            "head": max(found["heads"]),
        }

    def openapi(self, *, has_token: bool) -> dict[str, Any]:
        """Return the OpenAPI description of the run's server."""
        described = Description(
            name=self.name,
            inputs=self.inputs,
            task=self.predictor.task,
            counts=self.counts,
            generation=self.generation_fields,
            media_types=self.media_types,
            has_token=has_token,
        )
        return openapi(described)

    def metrics_text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self.metrics.text(queue=self.num_requests, restarts=self.decoders.restarts)

    async def _prepare(self, job: Job, deadline: float) -> PreparedSample:
        """Return the prepared sample. Raise HTTPException if it cannot be decoded, TimeoutError after the deadline."""
        found = await self.decoders.decode(job, deadline)
        if isinstance(found, Refusal):
            raise HTTPException(found.status, found.reason)
        return found

    def _predict(self, items: Sequence[tuple[PreparedSample, int]]) -> list[Prediction]:
        """Run in the model's thread: return the prediction of each sample, with the most labels of any."""
        samples = [prepared.sample() for prepared, _ in items]
        return self.predictor.predict_read(samples, top=max(top for _, top in items))

    def _explain(
        self, prepared: PreparedSample, request: SampleRequest
    ) -> tuple[Prediction, Explanation]:
        """Run in the model's thread."""
        sample, latent, head = prepared.sample(), request.latent, request.head
        read = collate_sample(self._explaining, sample, prepared.decoded())
        try:
            # The relevance for the class is not defined for a single latent or head.
            kind = None if latent is None and head is None else "mean"
            found = explain_sample(self.saved, read, latents=1, map=kind, alone=(latent, head))
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        with torch.inference_mode():
            prediction = self.predictor.predict_read([sample], top=request.top)[0]
        return prediction, found


def _answer(prediction: Prediction, request: SampleRequest) -> dict[str, Any]:
    """Return the answer for a sample. Raise HTTPException if its numbers are not finite."""
    if not prediction.is_finite:
        raise HTTPException(422, str(NonFiniteOutputError(request.name)))
    return replace(prediction, name=request.name).answer(top=request.top)


def describe_outputs(task: TaskConfig) -> list[dict[str, Any]]:
    """Return the name ("" of a single task), kind and names of the classes, labels or numbers of each output."""
    parts = task.subtasks or {"": task}
    return [
        {"name": name, "task": part.kind, "names": list(part.output_names)}
        for name, part in parts.items()
    ]
