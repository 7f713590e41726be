"""A codec for which rows are dear to read stops beyond the policy's bound: one request must not hold the loop."""

from __future__ import annotations

import time

import pytest

from guard.errors import ClientError
from guard.model.exchange import Call
from guard.model.outputs import Outputs
from guard.wire.base import Reader
from guard.wire.registry import codec_class

CASES = {
    "json": ("application/json", b'{"x":[' + b"1," * 1_000_000 + b"1]}"),
    "mlflow": ("text/csv", b"a\n" + b"1\n" * 1_000_000),
    "sagemaker": ("application/jsonlines", b"[1]\n" * 1_000_000),
}


@pytest.mark.parametrize("api", CASES)
def test_too_many_rows_are_refused_before_they_are_read(api: str) -> None:
    kind, body = CASES[api]
    select = {"queries": "$.x[*]", "scores": "$.y"} if api == "json" else {}
    codec = codec_class(api)(Reader(Outputs(), select=select))
    began = time.perf_counter()
    with pytest.raises(ClientError) as refused:
        codec.read(Call("/invocations", {}, kind, body, max_rows=100))
    assert refused.value.code == "too_many_rows"
    assert time.perf_counter() - began < 1.0
