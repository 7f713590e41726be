"""What travels: a client's call, and the upstream's reply."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """One HTTP request as a codec sees it: bounded, content-decoded, routed.

    Args:
        path: the raw path, percent-encoded, without query string.
        params: what the endpoint's template captured, for example `{"model": "digits"}`.
        content_type: value of Content-Type, lower case, without parameters; empty when absent.
        body: the whole body, content encoding undone once the `read` phase began.
        headers: all request headers, names lower case.
        sent: the body as the client sent it.
        target: path and query string as the client sent them.
        max_rows: most rows that the policy takes; a codec for which rows are dear to read stops beyond them.
    """

    path: str
    params: dict[str, str]
    content_type: str
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    sent: bytes = b""
    target: bytes = b""
    max_rows: int = 10**6

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of header `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(slots=True)
class Reply:
    """The upstream's whole answer.

    Args:
        status: HTTP status, 200 to 599.
        headers: names lower case, in order.
        body: the whole body, transfer coding undone, content encoding as sent.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of header `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
