"""TorchServe: any body in, labels as keys and no Content-Type out."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pytest

from guard.errors import ClientError, GuardError, UpstreamError
from guard.wire.base import Codec
from guard.wire.torchserve import Torchserve
from tests.support import recorded
from tests.support.codecs import asked, call, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API
PATH = "/predictions/digits"
KNOWN: Codec = Torchserve(reader())
ALL: Codec = Torchserve(reader("all"))
RECORDED = [
    case for case in recorded.cases("torchserve") if case.startswith(("single", "list", "version", "gzip-asked"))
]


@pytest.mark.parametrize(
    ("body", "rows", "matrix", "place"),
    [
        ([1, 2.5], 1, [[1, 2.5]], "$[1]"),
        ([[1, 2], [3, 4]], 2, [[1, 2], [3, 4]], "$[0][1]"),
        ([[[1], [2]], [[3], [4]]], 2, [[1, 2], [3, 4]], "$[0][1][0]"),
        ({"instance": [1, 2]}, 1, [[1, 2]], "instance[1]"),
        ({"instance": [[1, 2], [3, 4]]}, 1, [[1, 2, 3, 4]], "instance[0][1]"),
        ({"data": [1, 2]}, 1, [[1, 2]], "data[1]"),
        ({"data": [[1, 2], [3, 4]]}, 2, [[1, 2], [3, 4]], "data[0][1]"),
        ({"instances": [[1, 2], [3, 4]]}, 2, [[1, 2], [3, 4]], "instances[0][1]"),
        ({"instances": [1, 2]}, 2, [[1], [2]], "instances[0]"),
        ({"instances": [{"b": 2, "a": 1}]}, 1, [[1, 2]], "instances[0].b"),
        ({"a": 1, "b": 2}, 1, None, "$.b"),
        (["x", "y"], 2, None, "$[0]"),
        ("text", 1, None, "$"),
        (7, 1, [[7]], "$"),
        ({"data": [1], "instance": [2]}, 1, None, "$.instance"),
    ],
)
def test_rows_are_charged_by_what_the_body_holds(body: Json, rows: int, matrix: Json, place: str) -> None:
    queries = KNOWN.read(call(PATH, body)).queries
    found = queries.matrix()
    assert queries.rows == rows
    assert (None if found is None else found.tolist()) == matrix
    assert queries.place(0, 1) == place


def test_spelling_does_not_make_another_query() -> None:
    bodies = [b'{"a": 1, "b": "x"}', b'{ "b":"x","a":1.0}', b'{"a": 5, "a": 1, "b": "x"}']
    assert len({KNOWN.read(call(PATH, body)).queries.row_bytes()[0] for body in bodies}) == 1


@pytest.mark.parametrize("kind", ["image/jpeg", "", "application/octet-stream", "text/plain", "application/x-whatever"])
def test_other_bytes_are_one_row_of_their_own(kind: str) -> None:
    reading = KNOWN.read(call(PATH, b"\xff\xd8{", content_type=kind))
    assert (reading.queries.rows, reading.queries.matrix(), reading.body) == (1, None, b"\xff\xd8{")
    assert reading.content_type == kind.encode()
    other = KNOWN.read(call(PATH, b"\xff\xd9{", content_type=kind))
    assert reading.queries.row_bytes() != other.queries.row_bytes()


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/mixed", "application/x-www-form-urlencoded"])
def test_forms_are_refused_since_one_query_has_many_spellings(kind: str) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, b"--cut--", content_type=kind))
    assert refused.value.status == 415


@pytest.mark.parametrize(
    "body", [b"{", b"", [], {"instances": []}, {"instances": 3}, {"data": []}, b"[" * 200 + b"]" * 200]
)
def test_what_cannot_be_read_is_a_client_error(body: Json) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, body))
    assert refused.value.status == 400


def test_depth_is_bounded_without_a_content_type() -> None:
    with pytest.raises(ClientError, match="nested"):
        KNOWN.read(call(PATH, b"[" * 200 + b"]" * 200, content_type=""))


def test_snapped_numbers_go_back_to_their_places() -> None:
    for body, snapped, expected in (
        ({"instance": [1, 2.2]}, [[1.0, 2.0]], {"instance": [1, 2.0]}),
        ([[1, 2], [3, 4]], [[1.5, 2.0], [3.0, 4.0]], [[1.5, 2], [3, 4]]),
        ({"instances": [{"b": 2, "a": 1}]}, [[0.5, 3.0]], {"instances": [{"b": 3, "a": 0.5}]}),
    ):
        assert rewritten(KNOWN, KNOWN.read(call(PATH, body)), np.array(snapped)) == expected


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ({"cat": 0.75, "dog": 0.25}, 1),
        ([{"cat": 0.75, "dog": 0.25}], 1),
        ([{"cat": 0.75}, {"dog": 0.5, "eel": 0.25}], 2),
        ([0.25, 0.75], 1),
        ([[0.25, 0.75], [0.5, 0.5]], 2),
        ([0.75, 0.75], 2),
        (0.75, 1),
        ([{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.25}], 1),
        ([[{"label": "cat", "score": 0.75}]], 1),
        ({"predictions": [[0.25, 0.75]]}, 1),
        ([{"label": 1, "score": 0.75}], 1),
    ],
)
def test_answers_go_through_unchanged_and_know_their_rows(answer: Json, rows: int) -> None:
    for codec in (KNOWN, ALL):
        read = asked(codec, PATH, {"instance": [1, 2]}, answer)
        assert read.rows == rows
        assert rendered(codec, read) == answer


def test_a_batch_cannot_pass_for_one_row() -> None:
    read = asked(KNOWN, PATH, b'"three rows, for all a proxy knows"', [0.9, 0.2, 0.8])
    assert read.rows == 3


def test_labels_are_keys_and_leave_with_their_scores() -> None:
    read = asked(KNOWN, PATH, [1, 2], [{"cat": 0.75, "dog": 0.25}])
    release_labels(read)
    assert rendered(KNOWN, read) == [{"cat": 1.0}]


def test_what_stands_around_predictions() -> None:
    answer = {"predictions": [[0.25, 0.75]], "model": "m"}
    read = asked(KNOWN, PATH, [1, 2], answer)
    assert (read.dropped, rendered(KNOWN, read)) == (["model"], {"predictions": [[0.25, 0.75]]})
    assert rendered(ALL, asked(ALL, PATH, [1, 2], answer)) == answer
    with pytest.raises(UpstreamError, match="hidden"):
        asked(ALL, PATH, [1, 2], {**answer, "hidden": [0.5]})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"cat",
        [],
        [[]],
        {},
        {"predictions": []},
        {"code": 500, "message": "x"},
        "0.97",
        [7.5, 2.5],
        [{"a": 2.5}],
        None,
    ],
)
def test_what_cannot_be_read_is_withheld(answer: Json) -> None:
    for codec in (KNOWN, ALL):
        with pytest.raises(UpstreamError) as withheld:
            asked(codec, PATH, [1, 2], answer)
        assert withheld.value.code == "unreadable_answer"


def test_explanations_and_management_are_closed() -> None:
    access = {(e.method, e.template): e.access for e in KNOWN.endpoints}
    assert access["POST", "/explanations/{model}"] == "closed"
    assert access["PUT", "/models/{model}"] == "closed"
    assert access["GET", "/ping"] == "status"
    assert {t for (_, t), a in access.items() if a == "scoring"} == {
        "/predictions/{model}",
        "/predictions/{model}/{version}",
    }


def test_errors_have_torchserves_envelope() -> None:
    kind, body = KNOWN.error(ClientError("no"))
    assert kind == b"application/json"
    assert json.loads(body) == {"code": 400, "type": "BadRequestException", "message": "no"}
    assert json.loads(KNOWN.error(GuardError("x"))[1])["type"] == "InternalServerException"


@pytest.mark.parametrize("case", RECORDED)
def test_recorded_exchanges_without_a_content_type(case: str) -> None:
    _, request = recorded.request("torchserve", case)
    answer = recorded.reply("torchserve", case)
    assert answer.header(b"content-type") is None
    if request.content_type.startswith("multipart/"):
        with pytest.raises(ClientError):
            KNOWN.read(request)
        return
    reading = KNOWN.read(request)
    matrix = reading.queries.matrix()
    assert reading.body == request.body
    assert matrix is not None
    assert matrix.shape == (reading.queries.rows, 64)
    read = KNOWN.answer(answer, reading)
    assert read.rows == reading.queries.rows
    assert all(p.shape == "sparse" and p.scores.shape[1] == 10 for p in read.predictions)
    assert rendered(KNOWN, read) == json.loads(answer.body)
    release_labels(read)
    labels = rendered(KNOWN, read)
    rows = cast("list[Json]", labels) if isinstance(labels, list) else [labels]
    assert all(list(row.values()) == [1.0] for row in rows)


def test_recorded_errors_are_no_answers() -> None:
    for case in recorded.cases("torchserve"):
        if case.startswith("error-"):
            answer = recorded.reply("torchserve", case)
            with pytest.raises(UpstreamError):
                KNOWN.answer(reply(answer.body), KNOWN.read(call(PATH, [1])))
