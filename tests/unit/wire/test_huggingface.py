"""Hugging Face: labels and scores, flat or nested, and parameters that could ask for more."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.wire.base import Codec
from guard.wire.huggingface import Huggingface
from tests.support.codecs import asked, call, reader, release_labels, rendered, rewritten

Json = Any  # JSON of a foreign API
PATH = "/models/m"
KNOWN: Codec = Huggingface(reader())
ALL: Codec = Huggingface(reader("all"))
PAIRS = [{"label": "POSITIVE", "score": 0.75}, {"label": "NEGATIVE", "score": 0.25}]
TOXIC = [{"label": "toxic", "score": 0.875}, {"label": "insult", "score": 0.75}]


@pytest.mark.parametrize(
    ("inputs", "rows", "place"),
    [
        ("text", 1, "inputs"),
        (["a", "b"], 2, "inputs[0]"),
        ({"question": "q", "context": "c"}, 1, "inputs.context"),
        ([{"text": "a", "text_pair": "b"}], 1, "inputs[0].text_pair"),
        ([[1, 2], [3, 4]], 2, "inputs[0][1]"),
        ([1, 2], 1, "inputs[1]"),
    ],
)
def test_rows_of_inputs(inputs: Json, rows: int, place: str) -> None:
    queries = KNOWN.read(call(PATH, {"inputs": inputs})).queries
    assert (queries.rows, queries.place(0, 1)) == (rows, place)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "a", "parameters": {"function_to_apply": "none"}},
        {"inputs": "a", "parameters": {"output_hidden_states": True}},
        {"inputs": "a", "raw_scores": True},
        {"inputs": "a", "options": {"wait_for_model": True, "debug": 1}},
        {"inputs": "a", "parameters": {"x" * 100: 1}},
    ],
)
def test_what_may_reveal_more_is_refused(body: Json) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, body))
    assert (refused.value.status, refused.value.code) == (400, "unsupported_parameter")
    assert "x" * 100 not in refused.value.message
    assert json.loads(ALL.read(call(PATH, body)).body) == body


def test_harmless_parameters_go_through_and_make_no_other_query() -> None:
    plain = KNOWN.read(call(PATH, {"inputs": "a"}))
    body = {"inputs": "a", "parameters": {"top_k": 5}, "options": {"use_cache": False}}
    reading = KNOWN.read(call(PATH, body))
    assert json.loads(reading.body) == body
    assert reading.queries.row_bytes() == plain.queries.row_bytes()


def test_candidate_labels_are_part_of_the_query() -> None:
    keys = set[bytes]()
    for labels in (["x", "y"], ["x", "z"]):
        reading = KNOWN.read(call(PATH, {"inputs": ["a", "b"], "parameters": {"candidate_labels": labels}}))
        assert (reading.queries.rows, reading.queries.place(1, 0)) == (2, "inputs[1]")
        keys.update(reading.queries.row_bytes())
    assert len(keys) == 4


@pytest.mark.parametrize(
    "body",
    [b"{", [], {}, {"inputs": []}, {"inputs": None}, {"inputs": "a", "parameters": 3}, {"inputs": "a", "options": []}],
)
def test_what_cannot_be_read_is_a_client_error(body: Json) -> None:
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, body))
    assert refused.value.status == 400


def test_content_types() -> None:
    reading = KNOWN.read(call(PATH, b"\xff\xd8", content_type="image/png"))
    assert (reading.queries.rows, reading.content_type, reading.body) == (1, b"image/png", b"\xff\xd8")
    with pytest.raises(ClientError) as refused:
        KNOWN.read(call(PATH, b"--", content_type="multipart/form-data"))
    assert refused.value.status == 415


def test_snapped_numbers_go_back() -> None:
    reading = KNOWN.read(call(PATH, {"inputs": [[1, 2.2]], "options": {}}))
    assert rewritten(KNOWN, reading, np.array([[1.0, 2.0]])) == {"inputs": [[1, 2.0]], "options": {}}
    assert rewritten(KNOWN, KNOWN.read(call(PATH, {"inputs": [1, 2.2]})), np.array([[1.0, 2.0]])) == {
        "inputs": [1, 2.0]
    }


@pytest.mark.parametrize(
    ("inputs", "answer", "rows"),
    [
        ("a", PAIRS, 1),
        ("a", [PAIRS], 1),
        (["a"], PAIRS, 1),
        (["a", "b"], PAIRS, 2),
        (["a", "b"], [PAIRS, PAIRS[:1]], 2),
        ("a", TOXIC, 1),
        ("a", {"labels": ["x", "y"], "scores": [0.75, 0.25]}, 1),
        ("a", PAIRS[0], 1),
        (["a", "b"], [{"labels": ["x", "y"], "scores": [0.75, 0.25]}] * 2, 2),
    ],
)
def test_answers_go_through_unchanged_and_know_their_rows(inputs: Json, answer: Json, rows: int) -> None:
    for codec in (KNOWN, ALL):
        read = asked(codec, PATH, {"inputs": inputs}, answer)
        assert (read.rows, rendered(codec, read)) == (rows, answer)


@pytest.mark.parametrize(
    ("inputs", "answer", "expected"),
    [
        ("a", PAIRS, [{"label": "POSITIVE", "score": 1.0}]),
        ("a", [PAIRS], [[{"label": "POSITIVE", "score": 1.0}]]),
        (["a", "b"], PAIRS, [{"label": "POSITIVE", "score": 1.0}, {"label": "NEGATIVE", "score": 1.0}]),
        ("a", {"sequence": "a", "labels": ["x", "y"], "scores": [0.25, 0.75]}, {"labels": ["y"], "scores": [1.0]}),
    ],
)
def test_dropped_labels_leave_with_their_scores(inputs: Json, answer: Json, expected: Json) -> None:
    read = asked(KNOWN, PATH, {"inputs": inputs}, answer)
    release_labels(read)
    assert rendered(KNOWN, read) == expected


def test_kind_labels_lets_out_the_best_label_alone() -> None:
    codec: Codec = Huggingface(reader(kind="labels"))
    read = asked(codec, PATH, {"inputs": "a"}, [PAIRS[::-1]])
    read.labels[0].write(np.array([0]))
    assert (rendered(codec, read), read.dropped) == ([[{"label": "POSITIVE"}]], ["score"])
    with pytest.raises(UpstreamError):
        asked(codec, PATH, {"inputs": "a"}, [{"label": "x", "score": "0.5"}])


def test_embeddings_are_one_vector_a_row() -> None:
    codec: Codec = Huggingface(reader(kind="embedding"))
    for inputs, answer, rows in (("a", [0.5, -2.5], 1), (["a", "b"], [[0.5, -2.5], [1.5, 2.0]], 2)):
        read = asked(codec, PATH, {"inputs": inputs}, answer)
        assert (read.rows, rendered(codec, read)) == (rows, answer)


def test_one_label_twice_is_a_batch_that_passes_for_one_row() -> None:
    with pytest.raises(UpstreamError, match="twice"):
        asked(KNOWN, PATH, {"inputs": {"text": ["a", "b"]}}, [PAIRS[0], PAIRS[0]])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        [],
        {},
        [[]],
        "0.97",
        [{"label": "a", "score": 7.5}],
        [PAIRS, []],
        [{"label": "a", "score": None}],
        {"error": "x"},
    ],
)
def test_what_cannot_be_read_is_withheld(answer: Json) -> None:
    for codec in (KNOWN, ALL):
        with pytest.raises(UpstreamError) as withheld:
            asked(codec, PATH, {"inputs": "a"}, answer)
        assert withheld.value.code == "unreadable_answer"


def test_neighbouring_endpoints_are_closed() -> None:
    access = {e.template: e.access for e in KNOWN.endpoints}
    assert {access[path] for path in ("/info", "/metrics", "/docs", "/embed", "/tokenize")} == {"closed"}
    assert access["/health"] == "status"


def test_errors_have_the_apis_envelope() -> None:
    assert KNOWN.error(ClientError("no")) == (b"application/json", b'{"error":"no"}')
