"""The console's page: static files of `guard.console`, and the two documents that its script asks for.

The files hold no data, so a browser gets them without a token; the script brings the token for the documents. Nothing
of them may run or be styled inline, come from elsewhere, or be made from a string: the policy below holds the browser
to that, whatever the script does with a client's or a route's name.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from guard.proxy.admin_live import Checks, Live

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
FILES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "charts.js": "text/javascript",
    "page.js": "text/javascript",
    "sections.js": "text/javascript",
    "details.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": CSP,
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
}


class Console:
    """The console's routes.

    Args:
        live: what it shows.
        check: returns what is wrong with policy, state and model, by name.
    """

    def __init__(self, live: Live, check: Callable[[], Awaitable[Checks]]) -> None:
        self._live = live
        self._check = check
        folder = files("guard.console")
        page = Response((folder / "index.html").read_bytes(), headers=_HEADERS, media_type="text/html")
        static = {
            f"/console/{name}": Response((folder / name).read_bytes(), headers=_HEADERS, media_type=kind)
            for name, kind in FILES.items()
        }
        self._static = {"/": page, **static}
        self.opened = frozenset(self._static)
        """Paths that need no token."""
        self.routes = [Route(path, self._file) for path in self._static]
        self.routes += [Route("/live", self._document), Route("/live/policy", self._policy)]

    async def _file(self, request: Request) -> Response:
        return self._static[request.scope["path"]]

    async def _document(self, request: Request) -> Response:
        del request
        return Response(await self._live.document(self._check), media_type="application/json")

    async def _policy(self, request: Request) -> Response:
        del request
        return Response(await self._live.policy(), media_type="application/json")
