"""Access log: one line for each request, to read or as JSON."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from starlette.types import Scope

AccessLogFormat = Literal["text", "json", "off"]

Write = Callable[[str], object]


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


class AccessLog:
    """Writes time, client, method, path, status, size and duration of each request; no tokens, names and parameters.

    Args:
        form: `text`, `json` or `off`.
        write: Function that writes a line. Default: to standard error.
    """

    def __init__(self, form: AccessLogFormat, write: Write = _to_stderr) -> None:
        self.form = form
        self._write = write

    def add(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        """Write the line of a request that is answered, with the bytes of its response."""
        if self.form == "off":
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        client = (scope.get("client") or ("-",))[0]
        # As it was sent: percent-encoded, so that no path can end the line.
        raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
        path = raw.decode("ascii", "backslashreplace").encode("unicode_escape").decode()[:500]
        duration = round(1000 * seconds, 1)
        if self.form == "json":
            line = {"time": now, "client": client, "method": scope["method"], "path": path}
            line |= {"status": status, "bytes": size, "milliseconds": duration}
            self._write(json.dumps(line) + "\n")
            return
        request = f'"{scope["method"]} {path}"'
        self._write(f"{now} {client} {request} {status} {size} bytes {duration:g} ms\n")
