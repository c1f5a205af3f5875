"""HTTP routes of a served run."""

import hmac
import html
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from perceivers.escaping import json_text
from perceivers.explain.render import explanation_json
from perceivers.server.access import AccessRules
from perceivers.server.batching import ModelGoneError
from perceivers.server.connections import STATE_KEY, ConnectionTable
from perceivers.server.forms import parse_form, read_form
from perceivers.server.middleware import RequestGuard
from perceivers.server.service import Service
from perceivers.tasks.prediction import NonFiniteOutputError


class JsonResponse(JSONResponse):
    """JSON as every answer is written: names of files of any bytes can be encoded."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json_text(content).encode()


STATIC = Path(__file__).with_name("static")
SHARED = Path(explanation_json.__file__).with_name("static")  # views and style of every page
_FORM_RESPONSES = {
    "400": "The form cannot be read.",
    "408": "The form arrives too slowly.",
    "413": "Larger than a limit.",
    "415": "Another kind of file.",
    "422": "The file cannot be read.",
    "503": "The queue is full: try again after the seconds in Retry-After.",
    "504": "The time limit is over.",
}
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
    _add_other_routes(app, service, protected)
    _add_docs_routes(app, protected)
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

    @app.post("/predict", dependencies=protected, openapi_extra=_form_schema(service))
    async def predict(request: Request) -> Response:
        """Return the answer of the model for one sample."""
        started = time.monotonic()
        service.check_room()
        sample = parse_form(await read_form(request, service.limits), service.inputs)
        with service.admit(started) as deadline:
            answer = await service.predict(sample, deadline)
        return JsonResponse({"answers": [answer], "milliseconds": _milliseconds(started)})

    @app.post("/explain", dependencies=protected, openapi_extra=_form_schema(service, counts))
    async def explain(request: Request) -> Response:
        """Return the answer of the model for one sample, and attention maps of each of its reads."""
        started = time.monotonic()
        service.check_room()
        form = await read_form(request, service.limits)
        sample = parse_form(form, service.inputs, counts=counts)
        with service.admit(started) as deadline:
            answer, found = await service.explain(sample, deadline)
            read = "all" if sample.read is None else sample.read
            views = explanation_json.views_json(found, cross_attention=read)
        shown = {name: service.description[name] for name in ("reads", "latents", "heads")}
        shown |= {"answers": [answer], "missing": list(found.missing), "views": views}
        return JsonResponse({**shown, "milliseconds": _milliseconds(started)})

    del predict, explain  # registered by the decorators


def _add_other_routes(app: FastAPI, service: Service, protected: list[Any]) -> None:
    @app.get("/run", dependencies=protected)
    async def run() -> dict[str, Any]:
        """Return inputs, outputs and limits of the run."""
        return service.description

    @app.get("/health")
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


def _add_docs_routes(app: FastAPI, protected: list[Any]) -> None:
    """Add the API's description, which names inputs and classes of the run and needs the token, too."""

    @app.get("/docs", include_in_schema=False, dependencies=protected)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/openapi.json", include_in_schema=False, dependencies=protected)
    async def schema() -> dict[str, Any]:
        return app.openapi()

    del docs, schema


def _milliseconds(started: float) -> float:
    return round(1000 * (time.monotonic() - started), 1)


def _form_schema(service: Service, counts: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of a form with the inputs of a run."""
    fields = {one.name: one.schema() for one in service.inputs}
    for name, count in (counts or {}).items():
        default = "all" if name == "read" else "mean"
        text = f"`{default}` (as if it were left out), or a number from 0 to {count - 1}."
        fields[name] = {"type": "string", "description": text}
    content = {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}
    responses = {status: {"description": text} for status, text in _FORM_RESPONSES.items()}
    return {"requestBody": {"required": True, "content": content}, "responses": responses}


def docs_page(schema: Mapping[str, Any]) -> str:
    """Return an OpenAPI description as HTML without scripts; FastAPI's page loads its own from another host."""
    title = html.escape(schema["info"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><h1>{title}</h1>'
        "<p>The same as data: <a href='openapi.json'>openapi.json</a></p>"
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation.get('description', ''))}</p>")
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                parts.append(f"<p>A form, <code>{html.escape(kind)}</code>:</p>")
                parts.append(_definitions(body["schema"].get("properties", {})))
            parts.append(f"<p>Responses:</p>{_definitions(operation.get('responses', {}))}")
    return "".join([*parts, "</html>"])


def _definitions(described: Mapping[str, Any]) -> str:
    rows = [
        f"<dt><code>{html.escape(name)}</code></dt><dd>{html.escape(text)}</dd>"
        for name, one in described.items()
        for text in [one.get("description") or " or ".join(one.get("enum", [one.get("type", "")]))]
    ]
    return f"<dl>{''.join(rows)}</dl>"


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
