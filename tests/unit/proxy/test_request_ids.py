from __future__ import annotations

import re

import pytest

from guard.proxy.messages import request_id_of


def ids(*values: bytes) -> str:
    return request_id_of([(b"x-request-id", value) for value in values])


@pytest.mark.parametrize("given", [b"request1", b"7f3c_9.A:b-c", b"x" * 128])
def test_a_plain_id_of_the_clients_is_kept(given: bytes) -> None:
    assert ids(given) == given.decode()


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"a b c d e",
        b"a-plain-id\nforged=line",
        b'a","x":"',
        b"a\x1b[31m",
        "ä".encode(),
        b"short",
        b"x" * 129,
        b"<script>alert",
    ],
)
def test_an_id_that_could_forge_a_line_is_replaced(given: bytes) -> None:
    made = ids(given)

    assert made != given.decode("latin-1")
    assert re.fullmatch(r"[0-9a-f]{16,}", made)


def test_requests_without_an_id_get_different_ones() -> None:
    assert len({request_id_of([]) for _ in range(1000)}) == 1000
