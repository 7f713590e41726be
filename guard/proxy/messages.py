"""HTTP messages at Guard's two edges: what goes upstream, what comes back, and what an error looks like."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from typing import cast

import orjson

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.exchange import Call, Reply
from guard.proxy.exchange import Exchange, Response
from guard.proxy.marks import HEADER
from guard.wire.base import Codec
from guard.wire.body import unreadable

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"host",
        b"expect",
        b"accept-encoding",
        HEADER,
    )
)
"""Headers that end at Guard, in either direction: they belong to one connection, or were meant for Guard alone."""
_ALWAYS_FORWARDED = frozenset((b"traceparent", b"tracestate", b"user-agent", b"accept"))
"""Request headers that go upstream in enforce; `x-request-id` is written afresh. Everything else could change what the
model reveals."""
_REQUEST_ID = b"x-request-id"
_TRACE_CONTEXT = frozenset((b"traceparent", b"tracestate"))
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:-]{8,128}")
_STATUS_MEMBERS = ("name", "ready", "live", "status")
_VERSION_MEMBERS = ("version", "state", "status", "error_code", "error_message")


def request_id_of(call_headers: list[tuple[bytes, bytes]]) -> str:
    """Return the client's own `X-Request-Id` where it is plain, otherwise 16 random hexadecimal digits.

    Random, since a count would tell each client how many requests all others have made.
    """
    for name, value in call_headers:
        if name == _REQUEST_ID and _PLAIN_ID.fullmatch(value):
            return value.decode("ascii")
    return os.urandom(8).hex()


def upstream_headers(x: Exchange) -> list[tuple[bytes, bytes]]:
    """Return the end-to-end headers of the request to the model.

    Enforce: an allow-list. Shadow: all but hop-by-hop headers. Credentials go only where the policy says so, in
    either mode.
    """
    active, headers = x.active, x.call.headers
    strip = active.identity.strip
    if x.route.mode == "shadow":
        dropped = connection_tokens(headers)
        made = [h for h in headers if h[0] not in HOP_BY_HOP and h[0] not in strip and h[0] not in dropped]
    else:
        allowed = active.forwarded
        made = [h for h in headers if (h[0] in _ALWAYS_FORWARDED or h[0] in allowed) and h[0] not in strip]
        made.append((_REQUEST_ID, x.id.encode("ascii")))
        if x.reading is not None and x.reading.content_type:
            made.append((b"content-type", x.reading.content_type))
        if x.reading is not None:
            made += x.reading.headers
    if x.trace is not None:
        made = [h for h in made if h[0] not in _TRACE_CONTEXT]
        made += x.trace.headers()
    made += active.added
    return made


def connection_tokens(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the header names that a Connection header declares hop-by-hop."""
    return frozenset(
        token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    )


def decode_content(call: Call, limit: int) -> None:
    """Undo the request's content encoding in place.

    Raises:
        ClientError: 415 for an encoding other than gzip and deflate, 413 when it unpacks to more than `limit` bytes.
    """
    coding = (call.header(b"content-encoding") or b"").strip().lower()
    if coding in (b"", b"identity"):
        return
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise ClientError("this content encoding is not supported", code="unsupported_encoding", status=415)
    try:
        call.body = inflate(call.sent, limit)
    except zlib.error:
        raise ClientError("the body does not match its content encoding", code="bad_encoding") from None
    except OverflowError:
        raise ClientError("the body is too large", code="body_too_large", status=413) from None


def inflate(data: bytes, limit: int) -> bytes:
    """Unpack gzip or zlib data.

    Raises:
        zlib.error: it is neither, is cut off, or goes on behind its end.
        OverflowError: it unpacks to more than `limit` bytes.
    """
    unpacker = zlib.decompressobj(wbits=47)
    try:
        body = unpacker.decompress(data, limit + 1)
    except zlib.error:
        # Some clients send deflate without its zlib header.
        unpacker = zlib.decompressobj(wbits=-15)
        body = unpacker.decompress(data, limit + 1)
    if len(body) > limit:
        raise OverflowError
    if not unpacker.eof or unpacker.unused_data:
        raise zlib.error("incomplete")
    return body


def clean_reply(reply: Reply, limit: int) -> Reply:
    """Return the reply with its content encoding undone.

    Raises:
        UpstreamError: an encoding that cannot be undone, or a body that unpacks to more than `limit` bytes.
    """
    coding = (reply.header(b"content-encoding") or b"").strip().lower()
    if coding in (b"", b"identity"):
        return reply
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        raise unreadable("its content encoding is unknown")
    try:
        body = inflate(reply.body, limit)
    except (zlib.error, OverflowError):
        raise unreadable("its content encoding is broken") from None
    return Reply(reply.status, [h for h in reply.headers if h[0] != b"content-encoding"], body)


def original_response(reply: Reply, limit: int) -> Response:
    """Return what the model said, in shadow: every end-to-end header, content decoded where it can be."""
    with contextlib.suppress(UpstreamError):  # an encoding that Guard cannot undo goes through with its header
        reply = clean_reply(reply, limit)
    dropped = connection_tokens(reply.headers)
    headers = [h for h in reply.headers if h[0] not in HOP_BY_HOP and h[0] not in dropped]
    if reply.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(reply.body)))
    return Response(reply.status, headers, reply.body)


def clean_status(reply: Reply) -> Response:
    """Return a health or readiness answer: the status, and of the body only what says whether the model is ready."""
    kept: dict[str, object] = {}
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        members = cast("dict[str, object]", document)
        kept = {key: members[key] for key in _STATUS_MEMBERS if isinstance(members.get(key), str | bool)}
        versions = members.get("model_version_status")
        if isinstance(versions, list):
            kept["model_version_status"] = [
                _version(cast("dict[str, object]", v)) for v in cast("list[object]", versions) if isinstance(v, dict)
            ]
    body = orjson.dumps(kept) if kept else b""
    headers = [(b"content-type", b"application/json")] if kept else []
    return Response(reply.status, [*headers, (b"content-length", b"%d" % len(body))], body)


def _version(members: dict[str, object]) -> dict[str, object]:
    kept: dict[str, object] = {k: members[k] for k in _VERSION_MEMBERS if isinstance(members.get(k), str)}
    status = members.get("status")
    if isinstance(status, dict):
        inner = cast("dict[str, object]", status)
        kept["status"] = {k: inner[k] for k in _VERSION_MEMBERS if isinstance(inner.get(k), str)}
    return kept


def upstream_refusal(reply: Reply) -> GuardError:
    """Return the clean error that stands for a model's own error answer, whose body may hold tracebacks and inputs."""
    if reply.status in (400, 404, 405, 409, 413, 415, 422):
        return UpstreamError("the model refused this request", code="upstream_rejected", status=reply.status)
    if reply.status in (429, 503):
        retry = reply.header(b"retry-after") or b""
        seconds = int(retry) if retry.isdigit() and len(retry) < 6 else None
        return UpstreamError("the model is busy", code="upstream_busy", status=503, retry_after_s=seconds)
    return UpstreamError("the model failed", code="upstream_failed", status=502)


def error_response(error: GuardError, codec: Codec) -> Response:
    """Return an error in the API's own envelope."""
    content_type, body = codec.error(error)
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Response(error.status, headers, body)
