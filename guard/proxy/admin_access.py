"""Who may reach the admin listener: a wrapper around its application, for a browser reaches loopback too.

* Host: without a token, only localhost, IP addresses and configured names. A page of another site can make its own name
  resolve to 127.0.0.1 (DNS rebinding), but it cannot make the browser send an address in place of its name. Probes and
  scrapes inside a cluster do send addresses.
* Cross-site: what changes anything is refused when a browser says that another site asks (Sec-Fetch-Site, Origin).
* Token: when there is one, everything but `/healthz`, `/readyz` and the console's own files, which hold no data, needs
  `Authorization: Bearer TOKEN`.
* Answers are never cached, sniffed, framed or scripted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset(("/healthz", "/readyz"))
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Access:
    """Checks every request before the application sees it.

    Args:
        app: the application.
        token: secret that callers must bring, not empty; None for none.
        hosts: names beside localhost that the Host header may hold.
        opened: paths that need no token.

    Raises:
        ValueError: the token is empty, which everybody could bring.
    """

    def __init__(
        self, app: ASGIApp, token: str | None = None, hosts: Iterable[str] = (), opened: Iterable[str] = OPEN
    ) -> None:
        if token is not None and not token.strip():
            raise ValueError("the admin token is empty")
        self._app = app
        self._token = None if token is None else _digest(token.strip().encode())
        self._opened = frozenset(opened)
        self._hosts = frozenset(("localhost", *(host.lower() for host in hosts)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refused or self._app)(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        if self._token is None and not self._own_host(headers.getlist("host")):
            return refusal(403, "host_refused", "this Host is not the admin listener's")
        if method not in _SAFE_METHODS and _is_cross_site(headers):
            return refusal(403, "cross_site", "another site's pages may not do this")
        if (
            self._token is not None
            and path not in self._opened
            and not self._has_token(headers.getlist("authorization"))
        ):
            response = refusal(401, "unknown_credential", "a token is needed")
            response.headers["www-authenticate"] = "Bearer"
            return response
        return None

    def _own_host(self, values: list[str]) -> bool:
        found = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if found is None:
            return False
        name = found["name"].lower()
        return name in self._hosts or _is_address(name.strip("[]"))

    def _has_token(self, values: list[str]) -> bool:
        if len(values) != 1 or values[0][:7].lower() != "bearer ":
            return False
        return hmac.compare_digest(_digest(values[0][7:].strip().encode()), self._token or b"")


def refusal(status: int, code: str, message: str) -> JSONResponse:
    """Return an error as RFC 9457 describes it."""
    body = {"type": "about:blank", "status": status, "code": code, "title": message}
    return JSONResponse(body, status, media_type="application/problem+json")


def _is_cross_site(headers: Headers) -> bool:
    """Say whether a browser tells that another site asks; what is not a browser sends neither header."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
