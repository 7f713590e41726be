"""Input tensors: what a datatype cuts off does not make another query."""

from __future__ import annotations

from typing import Any

import pytest

from guard.errors import ClientError
from guard.wire.open_inference import OpenInference
from tests.support.codecs import call, reader

Data = list[Any]  # Any: decoded JSON


def key(datatype: str, data: Data) -> list[bytes]:
    tensor = {"name": "x", "shape": [1, len(data)], "datatype": datatype, "data": data}
    codec = OpenInference(reader())
    return codec.read(call("/v2/models/m/infer", {"inputs": [tensor]})).queries.row_bytes()


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("INT64", [1, 2.5]), ("UINT8", [0.1, 2]), ("BOOL", [2, 0]), ("BOOL", [True, 0.5])],
    ids=str,
)
def test_a_number_that_the_datatype_cannot_hold_is_refused(datatype: str, data: Data) -> None:
    with pytest.raises(ClientError) as refused:
        key(datatype, data)
    assert refused.value.status == 400


def test_whole_numbers_have_one_key_however_they_are_written() -> None:
    assert key("INT64", [1.0, 2]) == key("INT64", [1, 2]) == key("FP32", [1, 2])
    assert key("BOOL", [True, False]) == key("BOOL", [1, 0])


def test_half_precision_has_one_key_for_what_it_cannot_tell_apart() -> None:
    assert key("FP16", [10.001, 20]) == key("FP16", [10.002, 20]) == key("FP16", [10, 20])
    assert key("FP16", [10.02, 20]) != key("FP16", [10, 20])
    assert key("FP32", [10.001, 20]) != key("FP32", [10.002, 20])
