"""Codecs of lists and tensors: any bytes are read or refused, nothing else; what is let out is what was released."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.wire.base import Codec, Reader
from guard.wire.kserve_v1 import KServeV1
from guard.wire.open_inference import OpenInference
from guard.wire.tensorflow_serving import TensorFlowServing
from tests.support.codecs import call, one_hot, reply

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
V2, V1 = "/v2/models/m/infer", "/v1/models/m:predict"
CLASSIFY, REGRESS = "/v1/models/m:classify", "/v1/models/m:regress"
KINDS = ("probabilities", "logits", "logprobs", "value", "embedding", "labels")
READERS = [Reader(Outputs(kind=kind), fields) for kind in KINDS for fields in ("known", "all")]
MAKERS = [OpenInference, KServeV1, TensorFlowServing]
CODECS: list[Codec] = [make(reader) for reader in READERS for make in MAKERS]

# fmt: off
NAMES = st.sampled_from([
    "inputs", "outputs", "instances", "examples", "context", "predictions", "result", "results", "signature_name",
    "name", "shape", "datatype", "data", "parameters", "id", "classification", "binary_data", "content_type", "b64",
])
# fmt: on
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(width=32)
    | st.sampled_from(
        ["FP32", "INT64", "BOOL", "BYTES", "UINT64", "p", "label", "0.5:1", "0.5:1:cat", "base64", "QQ=="]
    )
    | st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=25
)
NUMBERS = st.integers(-3, 3) | st.floats(width=32) | st.booleans() | st.none()
DATA = st.lists(NUMBERS | st.lists(NUMBERS, max_size=3) | st.sampled_from(["a", "0.5:1", "0.25:0"]), max_size=6)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["p", "label", "x"]),
        "shape": st.lists(st.integers(0, 3), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT64", "UINT64", "BOOL", "BYTES"]),
        "data": DATA,
    },
    optional={"parameters": VALUES},
)
DOCUMENTS = (
    VALUES
    | st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=3)}, optional={"outputs": VALUES, "id": VALUES})
    | st.fixed_dictionaries({"outputs": st.lists(TENSORS, max_size=3)}, optional={"model_name": VALUES})
    | st.dictionaries(NAMES, DATA | VALUES, max_size=3)
)


def encoded(document: Json) -> bytes:
    return json.dumps(document).encode()


BODIES = st.binary(max_size=40) | DOCUMENTS.map(encoded)
PATHS = st.sampled_from([V2, V1, CLASSIFY, REGRESS])
EXAMPLES: dict[str, list[Json]] = {
    V2: [{"inputs": [{"name": "x", "shape": [rows, 1], "datatype": "FP32", "data": [0.5] * rows}]} for rows in (1, 2)],
    V1: [{"instances": [0.5]}, {"instances": [0.5, 1]}],
    CLASSIFY: [{"examples": [{"x": 1}]}, {"examples": [{"x": 1}, {"x": 2}]}],
    REGRESS: [{"examples": [{"x": 1}]}],
}


@settings(max_examples=400, deadline=None)
@given(codec=st.sampled_from(CODECS), path=PATHS, body=BODIES)
def test_any_request_is_read_or_refused(codec: Codec, path: str, body: bytes) -> None:
    try:
        reading = codec.read(Call(path, {}, "application/json", body))
    except ClientError:
        return
    assert reading.queries.rows >= 1
    assert len(reading.queries.row_bytes()) == reading.queries.rows
    # What is forwarded is what was read.
    again = codec.read(Call(path, {}, "application/json", reading.body))
    assert again.body == reading.body
    assert again.queries.row_bytes() == reading.queries.row_bytes()
    for inputs in (Inputs(), Inputs(kind="vector", step=0.5), Inputs(kind="text")):
        try:
            snapped = inputs.admit(reading.queries)
        except ClientError:
            continue
        if snapped is not None:
            sent = codec.read(Call(path, {}, "application/json", codec.rewrite(reading, snapped)))
            matrix = sent.queries.matrix()
            assert matrix is not None
            np.testing.assert_allclose(matrix, snapped, rtol=1e-6)


@settings(max_examples=600, deadline=None)
@given(data=st.data(), codec=st.sampled_from(CODECS), body=BODIES)
def test_any_answer_is_read_or_withheld(data: st.DataObject, codec: Codec, body: bytes) -> None:
    paths = [V2] if isinstance(codec, OpenInference) else [V1, CLASSIFY, REGRESS]
    path = data.draw(st.sampled_from(paths if isinstance(codec, TensorFlowServing) else paths[:1]))
    reading = codec.read(call(path, data.draw(st.sampled_from(EXAMPLES[path]))))
    try:
        answer = codec.answer(Reply(200, [], body), reading)
    except UpstreamError:
        return
    assert answer.rows >= reading.queries.rows
    assert answer.predictions or answer.labels
    for prediction in answer.predictions:
        rows = answer.rows if prediction.rows is None else len(prediction.rows)
        assert prediction.scores.shape[0] == rows
        prediction.write(one_hot(np.nan_to_num(prediction.scores)))
    for slot in answer.labels:
        slot.write(np.zeros(answer.rows, dtype=np.int64))
    assert json.loads(codec.render(answer)[1]) is not None


@st.composite
def distributions(draw: st.DrawFn) -> list[list[float]]:
    rows, width = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    weights = draw(st.lists(st.integers(1, 50), min_size=rows * width, max_size=rows * width))
    table = np.array(weights, dtype=np.float64).reshape(rows, width)
    return (table / table.sum(axis=1, keepdims=True)).tolist()


def shapes(rows: list[list[float]]) -> list[tuple[str, Json, Json]]:
    """Give requests and answers that carry these rows, one per form of each API."""
    n, k = len(rows), len(rows[0])
    flat = [value for row in rows for value in row]
    v2 = {"inputs": [{"name": "x", "shape": [n, 1], "datatype": "FP32", "data": [0.5] * n}]}
    entries = [f"{value}:{i}" for row in rows for i, value in enumerate(row)]

    def tensor(data: Json, datatype: str = "FP64") -> Json:
        return {"model_name": "m", "outputs": [{"name": "p", "shape": [n, k], "datatype": datatype, "data": data}]}

    labels = [row.index(max(row)) for row in rows]
    pairs = [[[str(i), value] for i, value in enumerate(row)] for row in rows]
    objects = [{"label": label, "probabilities": row} for label, row in zip(labels, rows, strict=True)]
    return [
        (V2, v2, tensor(flat)),
        (V2, v2, tensor(rows)),
        (V2, v2, tensor(entries, "BYTES")),
        (V1, {"instances": [0.5] * n}, {"predictions": rows}),
        (V1, {"instances": [0.5] * n}, {"predictions": objects}),
        (V1, {"inputs": [0.5] * n}, {"outputs": rows}),
        (V1, {"inputs": [0.5] * n}, {"outputs": {"p": rows, "label": labels}}),
        (CLASSIFY, {"examples": [{"x": 1}] * n}, {"result": pairs}),
    ]


def codec_of(path: str, answer: Json) -> Codec:
    if path == V2:
        return OpenInference(READERS[0])
    return TensorFlowServing(READERS[0]) if path == CLASSIFY or "outputs" in answer else KServeV1(READERS[0])


@settings(max_examples=60, deadline=None)
@given(rows=distributions())
def test_without_a_write_known_members_come_back(rows: list[list[float]]) -> None:
    for path, request, answer in shapes(rows):
        codec = codec_of(path, answer)
        read = codec.answer(reply(answer), codec.read(call(path, request)))
        np.testing.assert_allclose(read.predictions[0].scores, rows)
        assert json.loads(codec.render(read)[1]) == answer


@settings(max_examples=60, deadline=None)
@given(rows=distributions())
def test_one_hot_keeps_the_shape_and_hides_the_scores(rows: list[list[float]]) -> None:
    top = np.array(rows).argmax(axis=1).tolist()
    for path, request, answer in shapes(rows):
        codec = codec_of(path, answer)
        reading = codec.read(call(path, request))
        read = codec.answer(reply(answer), reading)
        sparse = read.predictions[0].shape == "sparse"
        for prediction in read.predictions:
            prediction.write(one_hot(prediction.scores))
        body = codec.render(read)[1]
        again = codec.answer(Reply(200, [], body), reading)
        scores = again.predictions[0].scores
        assert set(np.unique(scores)) <= {0.0, 1.0}
        if sparse:
            assert scores.shape == (len(rows), 1)
            assert all(str(label) in body.decode() for label in top)
        else:
            assert scores.argmax(axis=1).tolist() == top
            assert scores.shape == (len(rows), len(rows[0]))


@pytest.mark.parametrize("codec", CODECS[:3])
def test_generators_reach_both_ends(codec: Codec) -> None:
    path = V2 if isinstance(codec, OpenInference) else V1
    assert codec.read(call(path, EXAMPLES[path][0])).queries.rows == 1
    with pytest.raises(ClientError):
        codec.read(call(path, {}))
