from __future__ import annotations

import gzip
import zlib

import orjson
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.exchange import Call, Reply
from guard.proxy.messages import (
    clean_reply,
    clean_status,
    connection_tokens,
    decode_content,
    inflate,
    original_response,
    upstream_refusal,
)


def call(body: bytes, coding: bytes) -> Call:
    return Call("/", {}, "", body, [(b"content-encoding", coding)], body, b"/")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(b"hello", mtime=0)),
        (b"GZIP", gzip.compress(b"hello", mtime=0)),
        (b"deflate", zlib.compress(b"hello")),
        (b"deflate", zlib.compress(b"hello")[2:-4]),
        (b"identity", b"hello"),
    ],
)
def test_request_encodings_are_undone(coding: bytes, body: bytes) -> None:
    asked = call(body, coding)
    decode_content(asked, 100)
    assert asked.body == b"hello"


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        (b"br", b"hello", 415),
        (b"gzip, gzip", b"hello", 415),
        (b"gzip", b"hello", 400),
        (b"gzip", gzip.compress(b"hello", mtime=0)[:-3], 400),
        (b"gzip", gzip.compress(b"hello", mtime=0) + b"more", 400),
        (b"gzip", gzip.compress(bytes(10**6), mtime=0), 413),
    ],
)
def test_bad_request_encodings_are_refused(coding: bytes, body: bytes, status: int) -> None:
    with pytest.raises(ClientError) as caught:
        decode_content(call(body, coding), 100)
    assert caught.value.status == status


def test_a_bomb_is_not_unpacked_beyond_the_limit() -> None:
    with pytest.raises(OverflowError):
        inflate(gzip.compress(bytes(10**7), mtime=0), 1000)


@pytest.mark.parametrize(
    ("coding", "body"), [(b"br", b"x"), (b"gzip", b"x"), (b"gzip", gzip.compress(bytes(10**4), mtime=0))]
)
def test_answers_that_cannot_be_undone_are_withheld(coding: bytes, body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        clean_reply(Reply(200, [(b"content-encoding", coding)], body), 1000)
    assert caught.value.code == "unreadable_answer"


def test_shadow_gives_back_what_it_cannot_undo() -> None:
    made = original_response(
        Reply(200, [(b"content-encoding", b"br"), (b"connection", b"x-hop"), (b"x-hop", b"1")], b"??"), 100
    )
    assert made.headers == [(b"content-encoding", b"br"), (b"content-length", b"2")]
    undone = original_response(Reply(200, [(b"content-encoding", b"gzip")], gzip.compress(b"hello", mtime=0)), 100)
    assert (undone.headers, undone.body) == ([(b"content-length", b"5")], b"hello")
    assert original_response(Reply(204, [], b""), 100).headers == []


def test_connection_header_names_hop_by_hop_headers() -> None:
    assert connection_tokens([(b"connection", b"close, X-Debug"), (b"a", b"b")]) == {b"close", b"x-debug"}


@pytest.mark.parametrize(
    ("status", "given", "code"),
    [
        (400, 400, "upstream_rejected"),
        (422, 422, "upstream_rejected"),
        (401, 502, "upstream_failed"),
        (500, 502, "upstream_failed"),
        (302, 502, "upstream_failed"),
        (429, 503, "upstream_busy"),
        (503, 503, "upstream_busy"),
    ],
)
def test_the_models_errors_become_clean_ones(status: int, given: int, code: str) -> None:
    error = upstream_refusal(Reply(status, [(b"retry-after", b"7")], b"Traceback"))
    assert (error.status, error.code) == (given, code)
    assert error.retry_after_s == (7 if code == "upstream_busy" else None)
    assert "Traceback" not in error.message


def test_a_retry_after_that_is_no_number_is_left_out() -> None:
    assert upstream_refusal(Reply(503, [(b"retry-after", b"Mon, 1 Jan")], b"")).retry_after_s is None


def test_status_answers_say_little() -> None:
    body = orjson.dumps(
        {
            "name": "m",
            "ready": True,
            "weights": [1.5],
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "host": "x", "status": {"error_code": "OK", "trace": 1}},
                7,
            ],
        }
    )
    made = clean_status(Reply(200, [], body))
    assert orjson.loads(made.body) == {
        "name": "m",
        "ready": True,
        "model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}],
    }
    assert clean_status(Reply(503, [], b"<html>down at node-7")).body == b""
    assert clean_status(Reply(200, [], b"[1]")).body == b""
