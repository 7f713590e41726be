"""Messages of Open Inference over gRPC under hypothesis: what is broken is an error, what is read goes on as read."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import ClientError, UpstreamError
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Release
from guard.wire.base import Reader
from guard.wire.open_inference_grpc import OpenInferenceGrpc
from guard.wire.raw_tensors import DTYPES
from tests.support.grpc_messages import answer, asked, request, told

CODECS = [OpenInferenceGrpc(Reader(Outputs(), fields)) for fields in ("known", "all")]
SECRET = 0.61743
"""A score as the model said it, which no answer may hold."""
SCORES = [[SECRET, 0.31257, 0.07], [0.2, 0.1, 0.7]]
DIMENSIONS = st.one_of(st.integers(-2, 4), st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1]))
DATATYPES = st.sampled_from([*DTYPES, "BYTES", "FP128", "fp32", ""])
VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=4))
NAMES = st.sampled_from(
    ["classification", "content_type", "sequence_id", "shared_memory_region", "binary_data_size", "binary_data", "x"]
)
MOST_MEMORY = 8 * 2**20


def call(body: bytes) -> Call:
    return Call("/v2/models/m/infer", {}, "application/grpc", body)


@st.composite
def changed(draw: st.DrawFn, message: Any, tensors: str, behind: str) -> bytes:
    """Draw a message that something is wrong with, mostly."""
    for _ in range(draw(st.integers(1, 3))):
        places = getattr(message, tensors)
        tensor = draw(st.sampled_from(list(places))) if len(places) else places.add()
        raw = getattr(message, behind)
        match draw(st.sampled_from(["shape", "datatype", "raw", "typed", "tensor", "name", "parameter", "more_raw"])):
            case "shape":
                tensor.shape[:] = draw(st.lists(DIMENSIONS, max_size=4))
            case "datatype":
                tensor.datatype = draw(DATATYPES)
            case "raw" if len(raw):
                raw[draw(st.integers(0, len(raw) - 1))] = draw(st.binary(max_size=40))
            case "more_raw":
                raw.append(draw(st.binary(max_size=16)))
            case "typed":
                if draw(st.booleans()):
                    message.ClearField(behind)
                tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=7)))
                tensor.contents.int_contents.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
                tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))
            case "tensor":
                places.add().CopyFrom(tensor)
            case "name":
                tensor.name = draw(st.text(max_size=3))
            case _:
                parameter = draw(st.sampled_from([tensor, message])).parameters[draw(NAMES)]
                value = draw(VALUES)
                if isinstance(value, bool):
                    parameter.bool_param = value
                elif isinstance(value, int):
                    parameter.int64_param = value
                elif isinstance(value, float):
                    parameter.double_param = value
                else:
                    parameter.string_param = value
    body = message.SerializeToString()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 2)) :]
    return body


@given(data=st.data(), raw=st.booleans())
def test_a_broken_request_is_refused_or_goes_on_as_it_was_read(data: st.DataObject, raw: bool) -> None:
    message: Any = asked(request(("x", "FP32", [[1.0, 2.0]]), ("y", "BYTES", [["a"]]), raw=raw, outputs={"p": {}}))
    body = data.draw(changed(message, "inputs", "raw_input_contents"))
    for codec in CODECS:
        with contextlib.suppress(ClientError):
            found = codec.read(call(body))
            again = codec.read(call(found.body))
            assert again.queries.rows == found.queries.rows
            assert again.queries.row_bytes() == found.queries.row_bytes()
            # As messages: the members of a map are written in any order.
            assert asked(again.body) == asked(found.body)
            assert b"shared_memory" not in found.body
            numbers = found.queries.matrix()
            if numbers is not None:
                snapped = codec.read(call(codec.rewrite(found, np.zeros(numbers.shape))))
                assert not np.any(snapped.queries.matrix())


@given(data=st.data(), raw=st.booleans())
def test_a_broken_answer_is_withheld_or_written_through(data: st.DataObject, raw: bool) -> None:
    message: Any = told(answer(("p", "FP32", SCORES), ("label", "INT64", [0, 2]), raw=raw))
    body = data.draw(changed(message, "outputs", "raw_output_contents"))
    for codec in CODECS:
        reading = codec.read(call(request(("x", "FP32", [[1.0], [2.0]]))))
        with contextlib.suppress(UpstreamError):
            found = codec.answer(Reply(200, [], body), reading)
            for prediction in found.predictions:
                prediction.write(Release(np.full(prediction.scores.shape, 0.25)))
            _, written = codec.render(found)
            held = told(written)
            # Under `all`, whole numbers go through, also those that a lying datatype makes of scores.
            assert codec.reader.fields == "all" or np.float32(SECRET).tobytes() not in written
            assert len(held.raw_output_contents) in (0, len(held.outputs))
            assert codec.answer(Reply(200, [], written), reading).rows == found.rows


@given(body=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for codec in CODECS:
        with contextlib.suppress(ClientError):
            codec.read(call(body))
        reading = codec.read(call(request(("x", "FP32", [[1.0]]))))
        with contextlib.suppress(UpstreamError):
            codec.answer(Reply(200, [], body), reading)


def test_gigantic_shapes_cost_nothing() -> None:
    codec = CODECS[0]
    reading = codec.read(call(request(("x", "FP32", [[1.0]]))))
    tracemalloc.start()
    try:
        for datatype in [*DTYPES, "BYTES"]:
            for shape in ([2**62, 4], [2**40], [4096, 2**50], [1] * 40, [2**31, 2**31, 2**31]):
                message: Any = asked(request(("x", datatype, [[1]])))
                message.inputs[0].shape[:] = shape
                with contextlib.suppress(ClientError):
                    codec.read(call(message.SerializeToString()))
                reply: Any = told(answer(("p", datatype, [[1]])))
                reply.outputs[0].shape[:] = shape
                with contextlib.suppress(UpstreamError):
                    codec.answer(Reply(200, [], reply.SerializeToString()), reading)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
