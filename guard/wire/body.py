"""JSON bodies: decoding with bounds, encoding, and the rule that what is forwarded is what was read."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import numpy as np
import orjson

from guard.errors import ClientError, UpstreamError
from guard.model.exchange import Call

MAX_DEPTH = 100
"""Deepest nesting of a body; far beyond any model API's, far below what breaks a recursive function."""
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_CHARSET = re.compile(rb";\s*charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)
_UTF8 = frozenset({b"", b"utf-8", b"utf8", b"us-ascii", b"ascii"})


def require_utf8(call: Call) -> None:
    """Refuse a request that declares another character set than UTF-8: it would be read as something else than it says.

    Raises:
        ClientError: 415.
    """
    declared = call.header(b"content-type")
    if declared is None or b";" not in declared:
        return
    for charset in _CHARSET.findall(declared):
        if charset.lower() not in _UTF8:
            raise ClientError("the request must be in UTF-8", code="unsupported_charset", status=415)


def too_deep(body: bytes, limit: int = MAX_DEPTH) -> bool:
    """Say whether the brackets of valid JSON nest deeper than `limit`; takes linear time on any bytes.

    >>> too_deep(b"[" * 101 + b"]" * 101), too_deep(b"[[1],[2]]"), too_deep(b'["' + b"[" * 101 + b'"]')
    (True, False, False)
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    brackets = np.frombuffer(_STRING.sub(b"", body).translate(None, _NOT_BRACKETS), dtype=np.uint8)
    # Opening brackets ("[" and "{") have the bit of value 2, closing ones do not.
    return bool(np.cumsum((brackets & 2).astype(np.int8) - 1, dtype=np.int64).max(initial=0) > limit)


def decode_request(body: bytes) -> Any:  # Any: decoded JSON
    """Decode a request's JSON; bare NaN and Infinity are read, so that the domain check can name their place.

    Raises:
        ClientError: 400, not JSON or nested too deeply.
    """
    value, ok, _ = _decode(body)
    if not ok:
        raise ClientError("the request is not valid JSON", code="bad_json")
    if too_deep(body):
        raise ClientError("the request is nested too deeply", code="too_deep")
    return value


def decode_reply(body: bytes) -> tuple[Any, bool]:  # Any: decoded JSON
    """Decode an answer's JSON. Returns (value, whether it held bare NaN or Infinity).

    Raises:
        UpstreamError: code `unreadable_answer`.
    """
    value, ok, bare_nan = _decode(body)
    if not ok:
        raise unreadable("it is not valid JSON")
    if too_deep(body):
        raise unreadable("it is nested too deeply")
    return value, bare_nan


def _decode(body: bytes) -> tuple[Any, bool, bool]:  # Any: decoded JSON
    """Return (value, whether it is JSON, whether it holds bare NaN or Infinity)."""
    try:
        return orjson.loads(body), True, False
    except orjson.JSONDecodeError:
        if b"NaN" not in body and b"Infinity" not in body:
            return None, False, False
    try:
        # From text, since from bytes `json` would take UTF-16 too; and no lone surrogates, which orjson cannot encode.
        value = json.loads(body.decode(), parse_int=_integer)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None, False, False
    return value, True, True


def _integer(digits: str) -> int | float:
    """Read an integer as orjson does: a float where 64 bits do not hold it."""
    value = int(digits) if len(digits) < 40 else float(digits)
    return value if -(2**63) <= value < 2**64 else float(value)


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
    """Count object members in decoded JSON; too few, since lists whose first item is a scalar are not looked into."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value)
        return len(items) + sum([members(cast("object", v)) for v in items.values() if isinstance(v, dict | list)])
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return sum([members(v) for v in cast("list[object]", value)])
    return 0


def forwardable(body: bytes, document: object) -> bytes:
    """Return the body to forward: the client's bytes if every `:` in them is a member that was read, else re-encoded.

    Parsers disagree on which of two members of the same name wins. Forwarding the bytes of such a body would let the
    model answer another query than the one that was charged and that keys the noise. A body whose colons are all
    accounted for has no duplicate member; any other (a string with a colon in it, say) is re-encoded, always safe.

    >>> forwardable(b'{"a": 1}', {"a": 1})
    b'{"a": 1}'
    >>> forwardable(b'{"a": 1, "a": 2}', {"a": 2})
    b'{"a":2}'
    """
    if body.count(b":") == members(document):
        return body
    return encoded_anew(body, document)


def encoded_anew(body: bytes, document: object) -> bytes:
    """Return the body to forward where a codec has changed members: a count of colons would vouch for nothing then."""
    return encode(document, bare_nan=b"NaN" in body or b"Infinity" in body)


def too_many_rows() -> ClientError:
    """Return the refusal of a request with more rows than the policy takes."""
    return ClientError("too many rows in one request", code="too_many_rows", status=413)


def unreadable(reason: str) -> UpstreamError:
    """Return the error for an answer that cannot be let out; `reason` is a clause such as "it is not valid JSON"."""
    return UpstreamError(f"the model's answer was withheld: {reason}", code="unreadable_answer")
