"""`perceivers serve`: predictions and explanations over HTTP."""

import os
from collections.abc import Sequence

from perceivers.cli.parsing import parse, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.server.access import AccessError, with_token
from perceivers.server.environment import VariableError, settings_from, unknown_text
from perceivers.server.settings import ServerSettings

_EXAMPLES = """
  perceivers serve runs/birds                            then open http://127.0.0.1:8000
  perceivers serve runs/birds --port 8080 --workers 2    two processes, each with the model
  PERCEIVERS_TOKEN=secret perceivers serve runs/birds --host 0.0.0.0
  PERCEIVERS_SERVE_PORT=8080 perceivers serve runs/birds every flag has an environment variable
  curl -F file=@robin.jpg http://127.0.0.1:8000/predict
"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    try:
        default, unknown = settings_from(os.environ)
    except VariableError as error:
        wrong_arguments("serve", str(error))
    if unknown:
        echo(f"perceivers serve: {unknown_text(unknown)}", err=True)
    settings: ServerSettings = parse(
        ServerSettings, args, command="serve", examples=_EXAMPLES, default=default
    )
    for name in ("workers", "decoders", "max_batch"):
        if (value := getattr(settings, name)) < 1:
            flag = name.replace("_", "-")
            wrong_arguments("serve", f"Expected --{flag} of at least 1, got {value}.")
    if not 0 <= settings.port < 2**16:
        wrong_arguments("serve", f"Expected --port from 0 to 65535, got {settings.port}.")
    try:
        with_token(settings)
    except AccessError as error:
        wrong_arguments("serve", str(error))
    from perceivers.optional import require

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from perceivers.server.runner import serve

    return serve(settings, lambda sentence: echo(sentence, err=True))
