"""Codecs of rows and maps: any bytes are read or refused, nothing else; what is let out is what was released."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.wire.base import Codec, Fields, Reader, Reading
from guard.wire.huggingface import Huggingface
from guard.wire.json_api import JsonApi
from guard.wire.mlflow import Mlflow
from guard.wire.sagemaker import Sagemaker
from guard.wire.torchserve import Torchserve
from tests.support.codecs import call, one_hot, reply

Json = Any  # JSON of a foreign API
PATH = "/invocations"
KINDS = ("probabilities", "logits", "logprobs", "value", "embedding", "labels")
FIELDS: tuple[Fields, ...] = ("known", "all")
SELECTS = [
    {"queries": "$.inputs[*]", "scores": "$.predictions[*]", "labels": "$.label"},
    {"queries": "$..inputs", "scores": "$..score", "labels": "$..label"},
    {"scores": "$"},
    {"queries": "$", "scores": "$[*]"},
]
READERS = [Reader(Outputs(kind=kind), fields) for kind in KINDS for fields in FIELDS]
MAKERS = (Torchserve, Mlflow, Sagemaker, Huggingface)
CODECS: list[Codec] = [
    *(make(reader) for reader in READERS for make in MAKERS),
    *(JsonApi(Reader(reader.outputs, reader.fields, select)) for reader in READERS for select in SELECTS),
]
CONTENT_TYPES = ["application/json", "", "text/csv", "application/jsonlines", "image/png", "text/plain"]
# fmt: off
NAMES = st.sampled_from([
    "inputs", "instances", "instance", "data", "dataframe_split", "dataframe_records", "columns", "index", "params",
    "parameters", "options", "top_k", "predictions", "label", "labels", "score", "scores", "probabilities", "a", "b",
])
# fmt: on
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["cat", "0.5:1", "0.97", "", "LABEL_0"])
    | st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=25
)
UNIT = st.floats(0, 1)


@st.composite
def distributions(draw: st.DrawFn, k: int) -> list[float]:
    """Draw k numbers that sum to 1."""
    weights = np.array(draw(st.lists(st.floats(0.01, 1), min_size=k, max_size=k)))
    return (weights / weights.sum()).tolist()


@st.composite
def row_lists(draw: st.DrawFn) -> list[Json]:
    """Draw answers of the forms that these APIs have."""
    n, k = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    rows = [draw(distributions(k)) for _ in range(n)]
    names = ["ant", "bee", "cat", "dog"][:k]
    forms: list[list[Json]] = [
        [*rows],
        [row[0] for row in rows],
        [dict(zip(names, row, strict=True)) for row in rows],
        [{"label": row.index(max(row)), "probabilities": row} for row in rows],
        [{"label": names[row.index(max(row))], "score": max(row)} for row in rows],
        [{"label": 0, **dict(zip(names, row, strict=True))} for row in rows],
        [[{"label": name, "score": p} for name, p in zip(names, row, strict=True)] for row in rows],
        [{"labels": names, "scores": row} for row in rows],
        [{"probabilities": dict(zip(names, row, strict=True))} for row in rows],
    ]
    return draw(st.sampled_from(forms))


def around(rows: Json) -> Json:
    return {"predictions": rows}


ANSWERS: st.SearchStrategy[Json] = VALUES | row_lists() | row_lists().map(around)


def encoded(value: Json) -> bytes:
    return json.dumps(value).encode()


def read(codec: Codec, body: bytes, kind: str) -> Reading | None:
    try:
        return codec.read(call(PATH, body, content_type=kind))
    except ClientError as error:
        if not 400 <= error.status < 500:
            raise
        return None


def check_reading(codec: Codec, reading: Reading, kind: str) -> None:
    """Whatever was read can be keyed, checked, rewritten, and read again as the same queries."""
    queries = reading.queries
    assert queries.rows >= 1
    keys = queries.row_bytes()
    assert len(keys) == queries.rows
    try:
        Inputs(kind="vector").admit(queries)
    except ClientError as error:
        if error.status != 422:
            raise
    again = read(codec, reading.body, reading.content_type.decode())
    assert again is not None
    assert again.queries.row_bytes() == keys
    matrix = queries.matrix()
    if matrix is not None and np.isfinite(matrix).all():
        whole = np.clip(np.rint(matrix), -9, 9)
        rewritten = read(codec, codec.rewrite(reading, whole), reading.content_type.decode() or kind)
        assert rewritten is not None
        found = rewritten.queries.matrix()
        assert found is not None
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("make", [Torchserve, Mlflow, Sagemaker, Huggingface, JsonApi])
@given(body=st.binary(max_size=60) | VALUES.map(encoded), kind=st.sampled_from(CONTENT_TYPES), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_request_is_read_or_refused(make: type[Codec], body: bytes, kind: str, data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from([codec for codec in CODECS if isinstance(codec, make)]))
    reading = read(codec, body, kind)
    if reading is not None:
        check_reading(codec, reading, kind)


def answered(codec: Codec, body: bytes, kind: str, rows: int) -> tuple[Answer, Reading] | None:
    request: Json = {"instances" if isinstance(codec, Torchserve) else "inputs": [[1.0, 2.0]] * rows}
    reading = codec.read(call(PATH, request))
    try:
        return codec.answer(reply(body, content_type=kind), reading), reading
    except UpstreamError as error:
        if error.code != "unreadable_answer":
            raise
        return None


@pytest.mark.parametrize("make", [Torchserve, Mlflow, Sagemaker, Huggingface, JsonApi])
@given(
    body=st.binary(max_size=60) | ANSWERS.map(encoded),
    kind=st.sampled_from(CONTENT_TYPES),
    rows=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_answer_is_read_or_withheld(
    make: type[Codec], body: bytes, kind: str, rows: int, data: st.DataObject
) -> None:
    codecs = [codec for codec in CODECS if isinstance(codec, make)]
    found = answered(data.draw(st.sampled_from(codecs)), body, kind, rows)
    if found is None:
        return
    answer, _ = found
    assert answer.rows >= 1
    assert answer.predictions or answer.labels
    for prediction in answer.predictions:
        assert prediction.scores.dtype == np.float64
        assert len(prediction.scores) == (answer.rows if prediction.rows is None else len(prediction.rows))


@given(rows=row_lists(), whole=st.booleans(), fields=st.sampled_from(FIELDS), data=st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_not_changed_goes_through_unchanged(
    rows: list[Json], whole: bool, fields: Fields, data: st.DataObject
) -> None:
    makers = [Mlflow] if not whole else [Torchserve, Sagemaker, Huggingface]
    codec = data.draw(st.sampled_from(makers))(Reader(Outputs(), fields))
    document = rows if whole else around(rows)
    found = answered(codec, encoded(document), "application/json", len(rows))
    assert found is not None
    assert json.loads(codec.render(found[0])[1]) == document


@given(rows=row_lists())
@settings(max_examples=150, deadline=None)
def test_no_score_but_the_released_goes_out(rows: list[Json]) -> None:
    codec = Mlflow(Reader(Outputs()))
    found = answered(codec, encoded({"predictions": rows}), "application/json", len(rows))
    assert found is not None
    answer, _ = found
    released = [one_hot(prediction.scores) for prediction in answer.predictions]
    for prediction, release in zip(answer.predictions, released, strict=True):
        top = prediction.shape == "top_score"
        prediction.write(type(release)(np.ones_like(release.scores)) if top else release)

    def floats(value: Json) -> set[float]:
        if isinstance(value, dict):
            return floats([*cast("dict[str, Json]", value).values()])
        if isinstance(value, list):
            return {number for item in cast("list[Json]", value) for number in floats(item)}
        return {value} if isinstance(value, float) else set()

    assert floats(json.loads(codec.render(answer)[1])) <= {0.0, 1.0}
