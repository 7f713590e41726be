from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.prediction import Release
from guard.wire.base import Codec
from guard.wire.kserve_v1 import KServeV1
from tests.support import recorded
from tests.support.codecs import asked, call, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
PATH = "/v1/models/m:predict"
KNOWN: Codec = KServeV1(reader())
ALL: Codec = KServeV1(reader("all"))
TWO = {"instances": [[1.0, 2.0], [3.0, 4.0]]}
P, Q = [0.2, 0.5, 0.3], [0.7, 0.1, 0.2]
MALFORMED: list[Json] = [
    b"{",
    b"[]",
    {},
    {"instances": []},
    {"instances": {}},
    {"instances": "a"},
    {"instances": [1], "inputs": [2]},
    {"instances": [{"b64": "!"}]},
    {"instances": [{"b64": 7}]},
    {"instances": [[{"b64": "QQ="}]]},
]
UNREADABLE: list[Json] = [
    b"",
    b"oops",
    [],
    {},
    {"predictions": []},
    {"predictions": {"p": P}},
    {"predictions": [[5.0, 7.0], [1.0, 2.0]]},
    {"predictions": ["0.93", "0.95"]},
    {"predictions": [P]},
    {"error": "no"},
    b'{"predictions":' + b"[" * 500 + b"]" * 500 + b"}",
]


def refused(document: Json, codec: Codec = KNOWN) -> ClientError:
    with pytest.raises(ClientError) as caught:
        codec.read(call(PATH, document))
    return caught.value


@pytest.mark.parametrize("document", MALFORMED)
@pytest.mark.parametrize("codec", [KNOWN, ALL])
def test_malformed_request_is_400(codec: Codec, document: Json) -> None:
    assert refused(document, codec).status == 400


def test_both_members_together_would_let_the_model_see_other_rows() -> None:
    # KServe's servers take `inputs` where both are present.
    assert "instances" in refused({**TWO, "inputs": [[9.0]]}, ALL).message
    assert KNOWN.read(call(PATH, {"inputs": [[9.0]]})).queries.place(0, 0) == "inputs[0][0]"


def test_plain_request_is_forwarded_as_it_came() -> None:
    asked_ = call(PATH, b'{ "instances" : [[1, 2.0], [3, 4]] }')
    reading = KNOWN.read(asked_)
    assert reading.body is asked_.body
    np.testing.assert_array_equal(reading.queries.matrix(), [[1, 2], [3, 4]])


def test_duplicate_and_unknown_members_are_left_out() -> None:
    assert KNOWN.read(call(PATH, b'{"instances":[[1]],"instances":[[2]]}')).body == b'{"instances":[[2]]}'
    body = b'{"instances":[[NaN]],"parameters":{"explain":true}}'
    assert KNOWN.read(call(PATH, body)).body == b'{"instances":[[NaN]]}'
    assert ALL.read(call(PATH, body)).body == body
    assert "case" in refused({**TWO, "INPUTS": [[1]]}, ALL).message


@pytest.mark.parametrize(
    ("instances", "feature", "place"),
    [
        ([[1, 9], [1, 2]], 1, "instances[0][1]"),
        ([[[1, 2], [1, 2]], [[1, 2], [9, 2]]], 2, "instances[1][1][0]"),
        ([1, 9], 0, "instances[1]"),
        ([{"b": 1, "a": 2}, {"a": 9, "b": 1}], 0, "instances[1].a"),
        ([{"a": [1, 2], "b": 1}, {"a": [2, 9], "b": 1}], 1, "instances[1].a[1]"),
    ],
)
def test_offending_number_is_named_by_its_path(instances: Json, feature: int, place: str) -> None:
    queries = KNOWN.read(call(PATH, {"instances": instances})).queries
    with pytest.raises(ClientError) as caught:
        Inputs(high=5).admit(queries)
    assert caught.value.path == place
    assert queries.place(int(place[10]), feature) == place


@pytest.mark.parametrize(
    ("instances", "place"),
    [
        ([[1, None], [1, 2]], "instances[0][1]"),
        ([[1, None, 3], [1, 2]], "instances[0][1]"),
        ([{"a": 1, "b": None}], "instances[0].b"),
    ],
)
def test_missing_number_is_named_by_its_path(instances: Json, place: str) -> None:
    with pytest.raises(ClientError) as caught:
        Inputs(kind="vector").admit(KNOWN.read(call(PATH, {"instances": instances})).queries)
    assert caught.value.path == place


def test_objects_are_features_in_the_order_of_their_names() -> None:
    queries = KNOWN.read(call(PATH, {"instances": [{"b": 1, "a": 2}, {"a": 3, "b": 4.5}]})).queries
    assert queries.names == ("a", "b")
    np.testing.assert_array_equal(queries.matrix(), [[2, 1], [3, 4.5]])
    assert queries.place(0, -1) == "instances"


@pytest.mark.parametrize(
    "instances",
    [
        [{"a": 1, "t": "x"}, {"a": 2, "t": "y"}],
        [{"a": 1}, {"b": 2}],
        [{}],
        ["text", "more"],
        [[1, 2], [3]],
        [{"a": 1}, 2],
        [None],
    ],
)
def test_other_rows_are_rows_of_their_own(instances: Json) -> None:
    queries = KNOWN.read(call(PATH, {"instances": instances})).queries
    assert queries.rows == len(instances)
    assert queries.matrix() is None
    assert len(set(queries.row_bytes())) == len(instances)


def test_spelling_does_not_make_another_query() -> None:
    bodies = [
        b'{"instances":[{"x":1,"t":"a"}]}',
        b'{"instances":[{"t":"a","x":1.0}]}',
        b'{"instances":[{"t":"\\u0061","x":1e0}]}',
    ]
    assert len({KNOWN.read(call(PATH, body)).queries.row_bytes()[0] for body in bodies}) == 1
    opaque = [b'{"instances":[{"b64":"QQ=="}]}', b'{"instances":[{"b\\u00364":"QR=="}]}']
    assert len({KNOWN.read(call(PATH, body)).queries.row_bytes()[0] for body in opaque}) == 1


@pytest.mark.parametrize(
    ("instances", "snapped", "sent"),
    [
        ([[1.2, 2.2], [3.2, 4.2]], [[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 5]], [[1, 2], [3, 5]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4.5]], [[1.0, 2.0], [3.0, 4.5]]),
        ([[[1.5], [2]], [[3], [4]]], [[1, 2], [3, 4]], [[[1.0], [2.0]], [[3.0], [4.0]]]),
        ([1.4, 2.4], [[1], [2]], [1.0, 2.0]),
        ([{"b": 1, "a": 2.2}, {"a": 3.2, "b": 4}], [[2, 1], [3, 4]], [{"b": 1, "a": 2.0}, {"a": 3.0, "b": 4}]),
    ],
)
def test_rewrite_keeps_the_form(instances: Json, snapped: Json, sent: Json) -> None:
    reading = KNOWN.read(call(PATH, {"instances": instances}))
    found = rewritten(KNOWN, reading, np.array(snapped, dtype=np.float64))
    assert json.dumps(found, sort_keys=True) == json.dumps({"instances": sent}, sort_keys=True)


def test_answer_of_lists_and_of_objects() -> None:
    read = asked(KNOWN, PATH, TWO, {"predictions": [P, Q], "model": "m", "time": 0.5})
    assert (read.rows, read.dropped) == (2, ["model", "time"])
    release_labels(read)
    assert rendered(KNOWN, read) == {"predictions": [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]}
    rows = [{"label": 1, "probabilities": P, "leaf": 0.7}, {"label": 0, "probabilities": Q, "leaf": 0.1}]
    read = asked(KNOWN, PATH, TWO, {"predictions": rows})
    assert [slot.name for slot in read.labels] == ["label"]
    assert rendered(KNOWN, read)["predictions"][0] == {"label": 1, "probabilities": P}


def test_answer_of_two_class_numbers_and_of_labels() -> None:
    read = asked(KNOWN, PATH, TWO, {"predictions": [0.2, 0.9]})
    assert read.predictions[0].shape == "two_class"
    release_labels(read)
    assert rendered(KNOWN, read) == {"predictions": [0.0, 1.0]}
    assert len(asked(KNOWN, PATH, TWO, {"predictions": ["cat", "dog"]}).labels) == 1


def test_all_keeps_members_without_floats() -> None:
    read = asked(ALL, PATH, TWO, {"predictions": [P, Q], "model": "m", "time": 0.5})
    assert rendered(ALL, read) == {"predictions": [P, Q], "model": "m"}
    assert read.dropped == ["time"]


def test_bare_nan_stays_bare() -> None:
    body = b'{"predictions": [[NaN, 0.5], [0.5, 0.5]]}'
    read = KNOWN.answer(reply(body), KNOWN.read(call(PATH, TWO)))
    read.predictions[0].write(Release(read.predictions[0].scores))
    assert KNOWN.render(read)[1] == b'{"predictions":[[NaN,0.5],[0.5,0.5]]}'


def test_more_rows_than_asked_are_reported() -> None:
    assert asked(KNOWN, PATH, TWO, {"predictions": [P, Q, P]}).rows == 3


@pytest.mark.parametrize("document", UNREADABLE)
@pytest.mark.parametrize("codec", [KNOWN, ALL])
def test_unreadable_answer_is_withheld(codec: Codec, document: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        asked(codec, PATH, TWO, document)
    assert caught.value.code == "unreadable_answer"


def test_error_envelope() -> None:
    assert KNOWN.error(ClientError("no")) == (b"application/json", b'{"error":"no"}')


@pytest.mark.parametrize("name", [case for case in recorded.cases("kserve") if case.startswith("v1-")])
def test_recorded_kserve(name: str) -> None:
    method, asked_ = recorded.request("kserve", name)
    upstream = recorded.reply("kserve", name)
    access = [e.access for e in KNOWN.endpoints if e.template.endswith(asked_.path[asked_.path.rfind(":") :])]
    if method == "GET" or asked_.path.endswith(":explain"):
        assert "scoring" not in access
    elif upstream.status == 200:
        reading = KNOWN.read(asked_)
        assert reading.body is asked_.body
        read = KNOWN.answer(upstream, reading)
        assert json.loads(KNOWN.render(read)[1]) == json.loads(upstream.body)
        release_labels(read)
        assert b"0.9" not in KNOWN.render(read)[1]
