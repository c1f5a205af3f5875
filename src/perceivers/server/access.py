"""Access to the server: its token, and the Host and Origin headers that it accepts.

The command checks these before it imports torch: keep this module light.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from perceivers.server.settings import ServerSettings

TOKEN_VARIABLE = "PERCEIVERS_TOKEN"
LOOPBACK_NAMES = frozenset(("127.0.0.1", "localhost", "[::1]", "::1"))
_ANY = "*"
_SAME_PAGE = {"same-origin", "none"}  # values of Sec-Fetch-Site


class AccessError(ValueError):
    """Settings that would leave the server open by mistake, or that no request can fulfill."""


def with_token(settings: ServerSettings) -> ServerSettings:
    """Return the settings with the token of the environment, unless they have one.

    Raises:
        AccessError: If the token is empty or cannot be sent, or an address of other machines has none.
    """
    source = "--token" if settings.token is not None else TOKEN_VARIABLE
    token = settings.token if settings.token is not None else os.environ.get(TOKEN_VARIABLE)
    if settings.no_token and settings.token is not None:
        raise AccessError("Expected --token or --no-token, got both. Leave out one of the two.")
    if settings.no_token:
        token = None
    elif token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        got = "an empty one" if not token.strip() else "other characters"
        raise AccessError(
            f"Expected a token of printable ASCII characters in {source}, got {got}. For example: "
            f"export {TOKEN_VARIABLE}=$(openssl rand -hex 24)"
        )
    elif token is None and not is_loopback(settings.host):
        raise AccessError(
            f"Other machines can reach --host {settings.host or '(all addresses)'}. Expected a token in "
            f"{TOKEN_VARIABLE}, got none. For example: export {TOKEN_VARIABLE}=$(openssl rand -hex 24). --no-token "
            "serves everybody without one."
        )
    for origin in settings.allowed_origins:
        _check_origin(origin)
    return replace(settings, token=token)


def is_loopback(host: str) -> bool:
    """Return whether a server at this address is reachable from this machine only."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_origin(origin: str) -> None:
    parts = urlsplit(origin)
    if origin != _ANY and (not parts.scheme or not parts.netloc or parts.path not in ("", "/")):
        raise AccessError(
            f"Expected --allowed-origins as https://birds.example, got '{origin}'. Give scheme, name and port of the "
            "page, without a path."
        )


@dataclass(frozen=True, kw_only=True)
class AccessRules:
    """Accepted Host and Origin headers.

    The rule of hosts keeps a page elsewhere from reaching this server by a name of its own (DNS rebinding), the rule of
    origins from sending forms to it (cross-site request forgery).

    Attributes:
        hosts: Accepted names. None: any.
        addresses: Whether IP addresses are accepted besides the names. No page elsewhere can have one as its name.
        origins: Origins of other pages that may send requests; `*` for all.
    """

    hosts: frozenset[str] | None = None
    addresses: bool = False
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: ServerSettings) -> Self:
        """Return the rules of a server. With a token and without `allowed_hosts`, any name is accepted."""
        given = frozenset(name.lower() for name in settings.allowed_hosts)
        origins = frozenset(one.lower().rstrip("/") for one in settings.allowed_origins)
        if _ANY in given or (settings.token is not None and not given):
            return cls(origins=origins)
        is_local = is_loopback(settings.host)
        machine = frozenset(() if is_local else (socket.gethostname().lower(),))
        hosts = LOOPBACK_NAMES | {settings.host.lower()} | machine | given
        return cls(hosts=hosts, addresses=not is_local, origins=origins)

    def refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return status and reason for a request that is not accepted, else None."""
        host = headers.get("host", "").lower()
        if not self._accepts_host(host):
            reason = (
                "This server accepts requests to its own names and addresses only. Start it with --allowed-hosts NAME "
                "for another name, or with a token for any name."
            )
            return 421, reason
        if method == "POST" and not self._accepts_origin(host, headers):
            reason = (
                "This server accepts forms of its own page only, and of programs. Start it with --allowed-origins "
                "ORIGIN for another page; behind a proxy, pass on the Host header."
            )
            return 403, reason
        return None

    def _accepts_host(self, host: str) -> bool:
        if self.hosts is None:
            return True
        name, _, port = host.rpartition(":")
        name = name if port.isdigit() and name else host
        return name in self.hosts or (self.addresses and _is_address(name.strip("[]")))

    def _accepts_origin(self, host: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request is from a program, the server's page or an accepted page."""
        origin = headers.get("origin", "").lower()
        if origin and (origin in self.origins or _ANY in self.origins):
            return True
        site = headers.get("sec-fetch-site", "").lower()
        if site:  # sent by browsers to https and localhost, and not settable by pages
            return site in _SAME_PAGE
        return not origin or urlsplit(origin).netloc == host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
