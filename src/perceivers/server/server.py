"""The routes of a run that is served: a page, its description, predictions, explanations, health and metrics."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from perceivers.explain.render import explanation_json
from perceivers.server.batching import ModelGoneError
from perceivers.server.decoders import DecoderDiedError
from perceivers.server.docs import docs_page, schema_of
from perceivers.server.middleware import Gate, TooMuchError
from perceivers.server.service import BusyError, RefusedError, Service
from perceivers.server.uploads import asked_of, read_form

__all__ = ["application", "create_app"]

STATIC = Path(__file__).with_name("static")
SHARED = Path(explanation_json.__file__).with_name("static")  # scripts and style of every page
ROUTES = frozenset(
    ("/", "/docs", "/openapi.json", "/health", "/metrics", "/run", "/predict", "/explain")
)


def application(
    service: Service, *, token: str | None = None, hosts: frozenset[str] | None = None
) -> Gate:
    """Return the whole application, as a server runs it.

    Args:
        service: The run. Started and stopped with the application.
        token: What every request must show. None: nothing.
        hosts: By which names the server may be called. None: any.
    """
    return Gate(
        create_app(service),
        metrics=service.metrics,
        routes=ROUTES,
        most=service.limits.bytes,
        seconds=service.limits.wait,
        token=token,
        hosts=hosts,
    )


def create_app(service: Service) -> FastAPI:
    """Return the routes of a run.

    Args:
        service: The run.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title=f"perceivers: {service.name}", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    _handle_errors(app)
    _add_answers(app, service)
    _add_state(app, service)
    if STATIC.is_dir():
        app.mount("/static/shared", StaticFiles(directory=SHARED), name="shared")
        app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    """Add what answers for a sample."""

    @app.post("/predict", openapi_extra=schema_of(service.inputs))
    async def predict(request: Request) -> Response:
        """Return what the model says about one sample."""
        started = time.monotonic()
        with service.admitted() as due:
            asked = asked_of(await read_form(request, service.limits), service.inputs)
            answers = await service.predict(asked.job, due, asked.top)
        return JSONResponse({"answers": answers, "milliseconds": _since(started)})

    counts = service.counts()

    @app.post("/explain", openapi_extra=schema_of(service.inputs, counts))
    async def explain(request: Request) -> Response:
        """Return what the model says about one sample, and where each of its reads looked."""
        started = time.monotonic()
        with service.admitted() as due:
            form = await read_form(request, service.limits)
            asked = asked_of(form, service.inputs, counts=counts)
            answers, found = await service.explain(
                asked.job, due, latent=asked.latent, head=asked.head
            )
            drawn = explanation_json.views_json(
                found, cross_attend="all" if asked.read is None else asked.read
            )
        told = {name: service.describe()[name] for name in ("reads", "latents", "heads")}
        told |= {"answers": answers, "missing": list(found.missing), "views": drawn}
        return JSONResponse({**told, "milliseconds": _since(started)})

    del predict, explain  # the application has them


def _add_state(app: FastAPI, service: Service) -> None:
    """Add what tells about the server and its run."""

    @app.get("/run")
    async def run() -> dict[str, Any]:
        """Return what the run reads and answers, and what is accepted."""
        return service.describe()

    @app.get("/health")
    async def health() -> JSONResponse:
        """Return whether the server answers: 503 while it stops, or when its model has gone."""
        if service.is_well:
            return JSONResponse({"status": "ok", "run": service.name})
        why = "stopping" if service.stopping else "the model has gone"
        return JSONResponse({"status": why, "run": service.name}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return what was counted, as Prometheus reads it."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(docs_page(app.openapi()), media_type="text/html")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        index = STATIC / "index.html"
        if not index.is_file():
            return Response(docs_page(app.openapi()), media_type="text/html")
        return FileResponse(index)

    del run, health, metrics, docs, page


def _handle_errors(app: FastAPI) -> None:
    """Make every error a sentence in JSON."""

    def answer(status: int, **headers: str) -> Callable[[Request, Exception], JSONResponse]:
        def handle(_: Request, error: Exception) -> JSONResponse:
            code = error.status if isinstance(error, RefusedError) else status
            words = " ".join(str(error).split()) or _TOO_LONG
            return JSONResponse({"error": words}, code, headers=headers)

        return handle

    def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        words = _WORDS.get(error.status_code, str(error.detail))
        return JSONResponse({"error": words}, error.status_code, headers=error.headers)

    app.add_exception_handler(RefusedError, answer(422))
    app.add_exception_handler(TooMuchError, answer(413, connection="close"))
    app.add_exception_handler(BusyError, answer(503, **{"retry-after": "1"}))
    app.add_exception_handler(ModelGoneError, answer(503))
    app.add_exception_handler(DecoderDiedError, answer(500))
    app.add_exception_handler(TimeoutError, answer(504))
    app.add_exception_handler(ClientDisconnect, answer(400))
    app.add_exception_handler(HTTPException, of_http)


_TOO_LONG = (
    "It took longer than a request may take here. Send something smaller, or try again later."
)
_WORDS = {
    404: "There is nothing at this address. /docs lists what there is.",
    405: "This address takes another method. /docs lists them.",
}


def _since(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)
