"""HTTP routes of a served run."""

import hmac
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from perceivers.escaping import json_text
from perceivers.explain.render import explanation_json
from perceivers.server.access import AccessRules
from perceivers.server.batching import ModelGoneError
from perceivers.server.bodies import read_samples
from perceivers.server.connections import STATE_KEY, ConnectionTable
from perceivers.server.generation import EventStream, events_of, read_generation
from perceivers.server.middleware import RequestGuard
from perceivers.server.openapi import docs_page
from perceivers.server.service import Service
from perceivers.tasks.prediction import NonFiniteOutputError


class JsonResponse(JSONResponse):
    """JSON as every answer is written: names of files of any bytes can be encoded."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json_text(content).encode()


STATIC = Path(__file__).with_name("static")
SHARED = Path(explanation_json.__file__).with_name("static")  # views and style of every page
_TOO_LONG = "The request took longer than the limit. Send something smaller, or try again later."
_ERRORS = {
    ModelGoneError: 503,
    TimeoutError: 504,
    ClientDisconnect: 400,
    NonFiniteOutputError: 422,
}
_HTTP_REASONS = {
    404: "There is nothing at this address. /docs lists all addresses.",
    405: "This address has another method. /docs lists them.",
}


def create_app(
    service: Service, *, token: str | None = None, access: AccessRules | None = None
) -> "RequestGuard":
    """Return the application of a run.

    Args:
        service: The run. Started and stopped with the application.
        token: Bearer token required of requests, but for the page, its files and the status in /health. None: none.
        access: Accepted Host and Origin headers. None: any host, and forms of no other page.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        service.start()
        limits, closed = service.connection_limits, service.metrics.count_closed
        async with ConnectionTable(limits, service.limits.wait, closed) as table:
            yield {STATE_KEY: table}
        service.stop()

    app = FastAPI(title=f"perceivers: {service.name}", lifespan=lifespan, openapi_url=None)
    _handle_errors(app)
    protected = [] if token is None else [Depends(_require(token))]
    _add_model_routes(app, service, protected)
    if service.generation_fields:
        _add_generation_route(app, service, protected)
    _add_other_routes(app, service, protected)
    _add_docs_routes(app, service, protected)
    if access is not None and access.origins:
        _allow_origins(app, access.origins)
    app.mount("/static/shared", StaticFiles(directory=SHARED), name="shared")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return RequestGuard(app, service, access or AccessRules())


def _require(token: str) -> Callable[..., None]:
    """Return a dependency that requires a bearer token."""
    bearer = HTTPBearer(auto_error=False)

    def check(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if shown is None or not hmac.compare_digest(shown.credentials.encode(), token.encode()):
            reason = "This server requires a token: send the header `Authorization: Bearer TOKEN`."
            raise HTTPException(401, reason, headers={"www-authenticate": "Bearer"})

    return check


def _add_model_routes(app: FastAPI, service: Service, protected: list[Any]) -> None:
    counts = service.counts

    @app.post("/predict", dependencies=protected)
    async def predict(request: Request) -> Response:
        """Return the answer of the model for each sample."""
        started = time.monotonic()
        service.check_room()
        samples = await read_samples(request, service.inputs, service.limits)
        with service.admit(started, len(samples)) as deadline:
            answers = await service.predict_all(samples, deadline)
        return JsonResponse({"answers": answers, "milliseconds": _milliseconds(started)})

    @app.post("/explain", dependencies=protected)
    async def explain(request: Request) -> Response:
        """Return the answer of the model for one sample, and attention maps of each of its reads."""
        started = time.monotonic()
        service.check_room()
        samples = await read_samples(request, service.inputs, service.limits, counts=counts)
        if len(samples) > 1:
            reason = f"Expected one sample to explain, got {len(samples)}. Send one at a time."
            raise HTTPException(422, reason)
        sample = samples[0]
        with service.admit(started) as deadline:
            answer, found = await service.explain(sample, deadline)
            read = "all" if sample.read is None else sample.read
            views = explanation_json.views_json(found, cross_attention=read)
        shown = {name: service.description[name] for name in ("reads", "latents", "heads")}
        shown |= {"answers": [answer], "missing": list(found.missing), "views": views}
        return JsonResponse({**shown, "milliseconds": _milliseconds(started)})

    del predict, explain  # registered by the decorators


def _add_generation_route(app: FastAPI, service: Service, protected: list[Any]) -> None:
    @app.post("/generate", dependencies=protected)
    async def generate(request: Request) -> Response:
        """Return the continuation of a sequence: a text, a stream of events with its parts, or a file."""
        started = time.monotonic()
        service.check_room()
        fields, file = service.generation_fields, service.prompt_file
        wanted = await read_generation(request, fields, service.limits, file)
        wanted = await service.decode_prompt(wanted, started)
        parts = service.generate(wanted, started)

        def end() -> dict[str, Any]:
            facts = {"tokens": wanted.length, "prompt_is_cut": service.is_cut(wanted)}
            return {**facts, "milliseconds": _milliseconds(started)}

        if wanted.stream:
            return EventStream(await events_of(parts, end))
        found: list[Any] = []
        async with aclosing(parts):
            async for part in parts:
                found.append(part)
                if await request.is_disconnected():
                    raise ClientDisconnect
        if file is None:
            return JsonResponse({"text": "".join(found), **end()})
        if wanted.format == "json":
            return JsonResponse({**found[-1], **end()})
        return _file_response(found[-1], service.media_types[wanted.format], wanted.format, end())

    del generate  # registered by the decorator


def _file_response(
    content: bytes, media_type: str, suffix: str, facts: Mapping[str, Any]
) -> Response:
    """Return a file to save, with facts of its generation as headers."""
    headers = {f"x-{name.replace('_', '-')}": json_text(value) for name, value in facts.items()}
    headers["content-disposition"] = f'attachment; filename="generated.{suffix}"'
    return Response(content, media_type=media_type, headers=headers)


def _add_other_routes(app: FastAPI, service: Service, protected: list[Any]) -> None:
    @app.get("/run", dependencies=protected)
    async def run() -> dict[str, Any]:
        """Return inputs, outputs and limits of the run."""
        return service.description

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> JSONResponse:
        """Return 200, or 503 while the server stops or after its model has ended. Without a token, also the run."""
        name = {} if protected else {"run": service.name}
        status = service.status
        return JSONResponse({"status": status, **name}, 200 if status == "ok" else 503)

    @app.get("/metrics", dependencies=protected)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(service.metrics_text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    del run, health, metrics, page


def _allow_origins(app: FastAPI, origins: frozenset[str]) -> None:
    """Let the scripts of pages of these origins send requests and read responses (CORS)."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
    )


def _add_docs_routes(app: FastAPI, service: Service, protected: list[Any]) -> None:
    """Add the API's description, which names inputs and classes of the run and needs the token, too."""
    document = service.openapi(has_token=bool(protected))

    @app.get("/docs", include_in_schema=False, dependencies=protected)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(document))

    @app.get("/openapi.json", include_in_schema=False, dependencies=protected)
    async def schema() -> dict[str, Any]:
        return document

    del docs, schema


def _milliseconds(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)


def _handle_errors(app: FastAPI) -> None:
    """Make every error a JSON response with one sentence."""

    def handle(_: Request, error: Exception) -> JSONResponse:
        status = next(status for kind, status in _ERRORS.items() if isinstance(error, kind))
        return _error(status, " ".join(str(error).split()) or _TOO_LONG)

    def handle_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        reason = _HTTP_REASONS.get(error.status_code, error.detail)
        return _error(error.status_code, reason, error.headers)

    for kind in _ERRORS:
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(HTTPException, handle_http)


def _error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers=headers)
