"""SageMaker: JSON, JSON lines and CSV, both ways."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.prediction import Answer
from guard.wire.base import Codec
from guard.wire.sagemaker import Sagemaker
from tests.support.codecs import asked, call, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API
PATH = "/invocations"
KNOWN: Codec = Sagemaker(reader())
ALL: Codec = Sagemaker(reader("all"))
TWO = {"instances": [[1, 2], [3, 4]]}
LINES = "application/jsonlines"


def answered(body: bytes, content_type: str, codec: Codec = KNOWN, request: Json = TWO) -> Answer:
    return codec.answer(reply(body, content_type=content_type), codec.read(call(PATH, request)))


@pytest.mark.parametrize(
    ("body", "kind", "matrix", "place"),
    [
        (TWO, "application/json", [[1, 2], [3, 4]], "instances[0][1]"),
        ({"instances": [{"features": [1, 2]}]}, "application/json", [[1, 2]], "instances[0].features[1]"),
        ({"instances": [{"b": 2, "a": 1}]}, "", [[1, 2]], "instances[0].b"),
        ([[1, 2], [3, 4]], "application/json", [[1, 2], [3, 4]], "$[0][1]"),
        ([1, 2], "application/json", [[1, 2]], "$[1]"),
        ({"inputs": ["a", "b"]}, "application/json", None, "inputs[0]"),
        (b"1,2\n3,4\n", "text/csv", [[1, 2], [3, 4]], "line 1, column 2"),
        (b'{"f":[1,2]}\n\n{"f":[3,4]}', LINES, [[1, 2], [3, 4]], "$[0].f[1]"),
    ],
)
def test_every_form_of_a_request(body: Json, kind: str, matrix: Json, place: str) -> None:
    queries = KNOWN.read(call(PATH, body, content_type=kind)).queries
    found = queries.matrix()
    assert (None if found is None else found.tolist()) == matrix
    assert queries.place(0, 1) == place


def test_snapped_numbers_go_back_in_the_clients_form() -> None:
    snapped = np.array([[1.0, 2.5], [3.5, 4.0]])
    assert rewritten(KNOWN, KNOWN.read(call(PATH, TWO)), snapped) == {"instances": [[1, 2.5], [3.5, 4]]}
    table = KNOWN.read(call(PATH, b"1,2\n3,4.0\n", content_type="text/csv"))
    assert KNOWN.rewrite(table, snapped) == b"1,2.5\n3.5,4.0\n"
    lines = KNOWN.read(call(PATH, b"[1,2]\n[3,4]\n", content_type=LINES))
    assert KNOWN.rewrite(lines, snapped) == b"[1,2.5]\n[3.5,4]\n"
    bare = KNOWN.read(call(PATH, [1.2, 2]))
    assert rewritten(KNOWN, bare, np.array([[1.0, 2.0]])) == [1.0, 2]


def test_lines_with_repeated_members_are_written_anew() -> None:
    plain = b'{"a":1}\n{"a":2}\n'
    assert KNOWN.read(call(PATH, plain, content_type=LINES)).body is plain
    repeated = KNOWN.read(call(PATH, b'{"a":1,"a":3}\n{"a":2}', content_type=LINES))
    assert repeated.body == b'{"a":3}\n{"a":2}\n'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        ([], "application/json"),
        ({"instances": 3}, "application/json"),
        ({"instances": []}, "application/json"),
        ({"instances": [1], "signature_name": "raw"}, "application/json"),
        ({"inputs": "a", "parameters": {"function_to_apply": "none"}}, "application/json"),
        (b"", "text/csv"),
        (b"1,2\n3\n", "text/csv"),
        (b"\n", LINES),
        (b"{}\n{", LINES),
    ],
)
def test_what_cannot_be_read_is_a_client_error(body: Json, kind: str) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, body, content_type=kind))
    assert refused.value.status == 400


@pytest.mark.parametrize("kind", ["application/x-recordio-protobuf", "application/x-npy", "multipart/form-data"])
def test_unknown_content_is_refused(kind: str) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, b"\x00", content_type=kind))
    assert refused.value.status == 415


def test_an_image_is_one_row() -> None:
    reading = KNOWN.read(call(PATH, b"\xff\xd8", content_type="image/jpeg"))
    assert (reading.queries.rows, reading.body, reading.content_type) == (1, b"\xff\xd8", b"image/jpeg")


def test_all_fields_lets_parameters_through() -> None:
    body = {"instances": [1], "signature_name": "raw"}
    assert json.loads(ALL.read(call(PATH, body)).body) == body


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ({"predictions": [{"score": 0.75, "predicted_label": 1}, {"score": 0.25, "predicted_label": 0}]}, 2),
        ({"predictions": [{"score": [0.25, 0.75], "predicted_label": 1}] * 2}, 2),
        ({"predictions": [{"score": [0.25, 0.75], "predicted_label": 1.0}] * 2}, 2),
        ({"predictions": [[0.25, 0.75], [0.5, 0.5]]}, 2),
        ([{"label": "a", "score": 0.75}, {"label": "b", "score": 0.5}], 2),
        ([[0.25, 0.75], [0.5, 0.5]], 2),
        (0.75, 1),
    ],
)
def test_json_answers_go_through_unchanged(answer: Json, rows: int) -> None:
    for codec in (KNOWN, ALL):
        read = asked(codec, PATH, TWO, answer)
        assert (read.rows, rendered(codec, read)) == (rows, answer)


def test_scalar_scores_are_the_second_classes() -> None:
    answer = {"predictions": [{"score": 0.9, "predicted_label": 1}, {"score": 0.2, "predicted_label": 0}]}
    read = asked(KNOWN, PATH, TWO, answer)
    assert [p.shape for p in read.predictions] == ["two_class"]
    assert [slot.name for slot in read.labels] == ["predicted_label"]
    release_labels(read)
    assert [row["score"] for row in rendered(KNOWN, read)["predictions"]] == [1.0, 0.0]


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "text/html", ""])
def test_csv_answers_whatever_their_content_type(kind: str) -> None:
    read = answered(b"0.25,0.75\n0.5,0.5\n", kind)
    assert (read.rows, KNOWN.render(read)) == (2, (b"text/csv", b"0.25,0.75\n0.5,0.5\n"))
    release_labels(read)
    assert KNOWN.render(read)[1] == b"0.0,1.0\n1.0,0.0\n"


def test_csv_with_one_score_a_row() -> None:
    for body in (b"0.75\n0.25\n", b"0.75,0.25\n"):
        read = answered(body, "text/csv")
        assert (read.rows, read.predictions[0].shape, KNOWN.render(read)[1]) == (2, "two_class", body)
    assert answered(b"0.75,0.25\n", "text/csv", request={"instances": [1]}).rows == 1


@pytest.mark.parametrize("kind", [LINES, "application/json", ""])
def test_json_lines_answers_whatever_their_content_type(kind: str) -> None:
    body = b'{"score":0.75,"predicted_label":1}\n{"score":0.25,"predicted_label":0}\n'
    read = answered(body, kind)
    assert (read.rows, KNOWN.render(read)) == (2, (b"application/jsonlines", body))
    nan = answered(b"[0.25, 0.75]\n[NaN, NaN]\n", LINES)
    assert KNOWN.render(nan)[1] == b"[0.25,0.75]\n[NaN,NaN]\n"


@pytest.mark.parametrize(
    "body", [b"", b"[0.1, 0.9", b"\xff", b'"a', b"0.5,x\n7.5,y", b"\n\n", b'{"error":"cat"}', b"a\n0.5"]
)
@pytest.mark.parametrize("kind", ["text/csv", LINES, "application/json"])
def test_what_cannot_be_read_is_withheld(body: bytes, kind: str) -> None:
    for codec in (KNOWN, ALL):
        with pytest.raises(UpstreamError) as withheld:
            answered(body, kind, codec)
        assert withheld.value.code == "unreadable_answer"


def test_words_are_labels_only_where_csv_is_declared() -> None:
    read = answered(b"cat\ndog\n", "text/csv")
    assert (read.rows, len(read.labels), KNOWN.render(read)[1]) == (2, 1, b"cat\ndog\n")
    for kind in ("", "text/html", LINES):
        with pytest.raises(UpstreamError):
            answered(b"cat\ndog\n", kind)


def test_errors_are_problems() -> None:
    kind, body = KNOWN.error(ClientError("no", status=422, path="instances[0]"))
    assert kind == b"application/problem+json"
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "no",
        "code": "bad_request",
        "path": "instances[0]",
    }
    assert json.loads(KNOWN.error(GuardError("x", status=599))[1])["title"] == "Error"
