"""RFC 9457 `application/problem+json`, the error envelope of APIs that have none of their own."""

from __future__ import annotations

from http import HTTPStatus

import orjson

from guard.errors import GuardError


def title_of(status: int) -> str:
    """Return the reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_json(error: GuardError) -> tuple[bytes, bytes]:
    """Return (Content-Type, body) of an error, with a stable `code`, and a `path` if it has one."""
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": title_of(error.status),
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    if error.path is not None:
        problem["path"] = error.path
    return b"application/problem+json", orjson.dumps(problem)


def envelope(document: dict[str, object]) -> tuple[bytes, bytes]:
    """Return (Content-Type, body) of an API's own JSON error."""
    return b"application/json", orjson.dumps(document)
