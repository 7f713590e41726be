"""JSON bodies: decoding with bounds, encoding, and the rule that what is forwarded is what was read."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import orjson

from guard.errors import ClientError, UpstreamError

MAX_DEPTH = 100
"""Deepest nesting of a request; far beyond any model API's, far below what breaks a recursive parser."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(body: bytes, limit: int = MAX_DEPTH) -> bool:
    """Say whether brackets nest deeper than `limit`; brackets inside strings count, so this errs on the strict side.

    >>> too_deep(b"[" * 101 + b"]" * 101), too_deep(b"[[1],[2]]")
    (True, False)
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    skeleton = body.translate(None, _NOT_BRACKETS)
    for _ in range(limit):
        shorter = skeleton.replace(b"[]", b"").replace(b"{}", b"")
        if len(shorter) == len(skeleton):
            break
        skeleton = shorter
    return bool(skeleton)


def decode_request(body: bytes) -> Any:  # Any: decoded JSON
    """Decode a request's JSON; bare NaN and Infinity are read, so that the domain check can name their place.

    Raises:
        ClientError: 400, not JSON or nested too deeply.
    """
    if too_deep(body):
        raise ClientError("the request is nested too deeply", code="too_deep")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        value, ok = _lenient(body)
        if not ok:
            raise ClientError("the request is not valid JSON", code="bad_json") from None
        return value


def decode_reply(body: bytes) -> tuple[Any, bool]:  # Any: decoded JSON
    """Decode an answer's JSON. Returns (value, whether it held bare NaN or Infinity).

    Raises:
        UpstreamError: code `unreadable_answer`.
    """
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        value, ok = _lenient(body)
        if not ok:
            raise unreadable("it is not valid JSON") from None
        return value, True


def _lenient(body: bytes) -> tuple[Any, bool]:  # Any: decoded JSON
    if b"NaN" not in body and b"Infinity" not in body:
        return None, False
    try:
        return json.loads(body), True
    except (ValueError, RecursionError):
        return None, False


def encode(document: object, *, bare_nan: bool = False) -> bytes:
    """Encode JSON, numpy arrays included; NaN is null, or bare as the upstream wrote it."""
    if bare_nan:
        return json.dumps(document, default=_plain, separators=(",", ":")).encode()
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return cast("object", value.tolist())
    raise TypeError(type(value).__name__)


def members(value: object) -> int:
    """Count object members in decoded JSON; lists whose first item is a scalar are not looked into, so it may count too few."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        return len(items) + sum(members(v) for v in items.values() if isinstance(v, dict | list))
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return sum(members(v) for v in cast("list[object]", value))
    return 0


def forwardable(body: bytes, document: object) -> bytes:
    """Return the body to forward: the client's bytes if every `:` in them is a member that was read, otherwise re-encoded.

    Parsers disagree on which of two members of the same name wins. Forwarding the bytes of such a body would let the model
    answer another query than the one that was charged and that keys the noise. A body whose colons are all accounted for
    has no duplicate member; any other (a string with a colon in it, say) is re-encoded, which is always safe.

    >>> forwardable(b'{"a": 1}', {"a": 1})
    b'{"a": 1}'
    >>> forwardable(b'{"a": 1, "a": 2}', {"a": 2})
    b'{"a":2}'
    """
    if body.count(b":") == members(document):
        return body
    return encode(document, bare_nan=b"NaN" in body or b"Infinity" in body)


def unreadable(reason: str) -> UpstreamError:
    """Return the error for an answer that cannot be let out; `reason` is a clause such as "it is not valid JSON"."""
    return UpstreamError(f"the model's answer was withheld: {reason}", code="unreadable_answer")
