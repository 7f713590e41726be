"""Bodies: bounded, in UTF-8, and forwarded as they were read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.exchange import Call
from guard.wire.body import decode_reply, decode_request, encode, forwardable, require_utf8, too_deep


def test_brackets_inside_strings_are_no_nesting() -> None:
    assert not too_deep(json.dumps({"inputs": ["([" * 200]}).encode())
    assert not too_deep(json.dumps(['say "[" ' * 200, [1]]).encode())


def test_closing_brackets_inside_strings_do_not_hide_nesting() -> None:
    assert too_deep(b'["' + b"]" * 500 + b'",' + b"[" * 120 + b"]" * 120 + b"]")


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 200_000 + b"[" * 200, b'{"' * 100_000, b"[" * 100_000])
def test_depth_of_hostile_bytes_takes_linear_time(body: bytes) -> None:
    too_deep(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        '\ufeff{"a": NaN}'.encode(),
        '{"a": "慎N", "b": NaN}'.encode("utf-16"),
        b'{"a": NaN, "b": "\\ud800"}',
        b'{"a": NaN',
        b"[NaN," + b"[" * 5000 + b"]" * 5000 + b"]",
        b"[1e999]",
    ],
)
def test_what_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(ClientError) as refused:
        decode_request(body)
    assert refused.value.status == 400
    with pytest.raises(UpstreamError):
        decode_reply(body)


@pytest.mark.parametrize("depth", [101, 400, 1000])
def test_deep_nesting_is_refused(depth: int) -> None:
    body = b"[" * depth + b"]" * depth
    with pytest.raises(ClientError, match="nested"):
        decode_request(body)
    with pytest.raises(UpstreamError, match="nested"):
        decode_reply(body)


def test_bare_nan_is_read_and_written_back() -> None:
    value, bare = decode_reply(b'{"p": [NaN, -Infinity, 1.5]}')
    assert bare
    assert np.isnan(value["p"][0])
    assert encode(value, bare_nan=bare) == b'{"p":[NaN,-Infinity,1.5]}'
    assert encode(value) == b'{"p":[null,null,1.5]}'


def test_integers_beyond_64_bits_are_floats_in_both_parsers() -> None:
    digits = "9" * 30
    assert decode_request(f"[{digits}]".encode()) == [1e30]
    assert decode_request(f"[{digits}, NaN]".encode())[0] == 1e30
    assert decode_request(b"[-9223372036854775809, 18446744073709551615, NaN]")[:2] == [-(2.0**63), 2**64 - 1]


def test_surrogate_pairs_beside_nan_are_text() -> None:
    assert decode_request(b'{"a": NaN, "b": "\\ud83d\\ude00"}')["b"] == "\U0001f600"


def test_arrays_are_encoded() -> None:
    assert encode({"a": np.array([1.5]), "b": np.float64(2.5)}) == b'{"a":[1.5],"b":2.5}'
    assert json.loads(encode({"a": np.array([1.5, np.nan]), "b": np.float64(2.5)}, bare_nan=True))["b"] == 2.5
    with pytest.raises(TypeError):
        encode({"a": object()})


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": [{"x": 1, "x": 2}]}',
        b'{"a": [[{"x": 1}, {"x": 1, "x": 2}]]}',
        b'{"a": [1, {"x": 1, "x": 2}]}',
        b'{"\\u0061": 1, "a": 2}',
        b'{"a": NaN, "a": 2, "b": NaN}',
    ],
)
def test_a_repeated_member_is_never_forwarded(body: bytes) -> None:
    document = decode_request(body)
    forwarded = forwardable(body, document)
    assert forwarded != body

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    json.loads(forwarded, object_pairs_hook=once)


def test_plain_bodies_are_forwarded_byte_for_byte() -> None:
    for body in (b'{ "a" : [1, 2.50], "b": [{}] }', b"[ 1 ]", b"3", b'{"a": "x"}'):
        assert forwardable(body, decode_request(body)) is body
    assert forwardable(b'{"t": "a:b"}', {"t": "a:b"}) == b'{"t":"a:b"}'


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"utf-7"', "utf-8;charset=utf-16"])
def test_other_character_sets_are_refused(charset: str) -> None:
    header = f"application/json; charset={charset}".encode()
    with pytest.raises(ClientError) as refused:
        require_utf8(Call("/", {}, "application/json", b"{}", [(b"content-type", header)]))
    assert refused.value.status == 415


@pytest.mark.parametrize("header", ["application/json", "application/json; charset=UTF-8", 'a/b;x=y; charset="utf8"'])
def test_utf8_is_accepted_however_it_is_spelled(header: str) -> None:
    require_utf8(Call("/", {}, "application/json", b"{}", [(b"content-type", header.encode())]))
    require_utf8(Call("/", {}, "application/json", b"{}"))
