"""Any JSON API by RFC 9535 paths."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.wire.base import Codec, Fields, Reader
from guard.wire.json_api import JsonApi, check_select
from guard.wire.registry import API_NAMES, codec_class
from guard.wire.selectors import compile_path
from tests.support import recorded
from tests.support.codecs import call, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API
PATH = "/score"
FIELDS: tuple[Fields, ...] = ("known", "all")


def api(fields: Fields = "known", outputs: Json = None, **select: str) -> Codec:
    return JsonApi(Reader(Outputs.model_validate(outputs or {}), fields, select))


def answered(codec: Codec, answer: Json, body: Json = None) -> Answer:
    return codec.answer(reply(answer), codec.read(call(PATH, body)))


@pytest.mark.parametrize(
    ("path", "body", "rows", "matrix", "place"),
    [
        ("$.x[*]", {"x": [[1, 2], [3, 4]]}, 2, [[1, 2], [3, 4]], "$.x[0][1]"),
        ("$.x", {"x": [[1, 2], [3, 4]]}, 2, [[1, 2], [3, 4]], "$.x[0][1]"),
        ("$.x", {"x": [1, 2]}, 1, [[1, 2]], "$.x[1]"),
        ("$.rows[*].v", {"rows": [{"v": 1}, {"v": 2}]}, 2, [[1], [2]], "$.rows[0].v"),
        ("$", [[1, 2]], 1, [[1, 2]], "$[0][1]"),
        ("$", 3, 1, [[3]], "$"),
        ("$['a b']", {"a b": [1, 2]}, 1, [[1, 2]], "$['a b'][1]"),
    ],
)
def test_queries_stand_where_the_policy_says(path: str, body: Json, rows: int, matrix: Json, place: str) -> None:
    queries = api(queries=path, scores="$").read(call(PATH, body)).queries
    found = queries.matrix()
    assert found is not None
    assert (queries.rows, found.tolist(), queries.place(0, 1)) == (rows, matrix, place)


def test_without_a_path_the_body_is_one_row_however_it_is_spelled() -> None:
    codec = api(scores="$")
    one = codec.read(call(PATH, b'{"a": 1, "b": [1, 2]}')).queries
    other = codec.read(call(PATH, b'{"b":[1.0,2],"a":1}')).queries
    assert (one.rows, one.matrix()) == (1, None)
    assert one.row_bytes() == other.row_bytes()
    assert codec.rewrite(codec.read(call(PATH, b"[1]")), np.array([[1.0]])) == b"[1]"


def test_snapped_numbers_go_back_to_their_places() -> None:
    snapped = np.array([[1.0, 2.5], [3.5, 4.0]])
    for path in ("$.x", "$.x[*]"):
        codec = api(queries=path, scores="$")
        reading = codec.read(call(PATH, {"x": [[1, 2], [3, 4]], "y": 1}))
        assert rewritten(codec, reading, snapped) == {"x": [[1, 2.5], [3.5, 4]], "y": 1}
        assert json.loads(reading.body)["x"] == [[1, 2], [3, 4]]
    codec = api(queries="$", scores="$")
    assert rewritten(codec, codec.read(call(PATH, [[1, 2], [3, 4]])), snapped) == [[1, 2.5], [3.5, 4]]


@pytest.mark.parametrize("body", [b"", b"{", {}, {"x": []}, [], 3])
def test_requests_without_queries_are_refused(body: Json) -> None:
    with pytest.raises(ClientError) as refused:
        api(queries="$.x[*]", scores="$").read(call(PATH, body))
    assert refused.value.status == 400


def test_overlapping_queries_and_foreign_content_are_refused() -> None:
    with pytest.raises(ClientError):
        api(queries="$..x", scores="$").read(call(PATH, {"x": {"x": 1}}))
    with pytest.raises(ClientError) as refused:
        api(scores="$").read(call(PATH, b"--", content_type="multipart/form-data"))
    assert refused.value.status == 415
    api(scores="$").read(call(PATH, b"{}", content_type="application/vnd.x+json"))


@pytest.mark.parametrize(
    ("select", "answer", "rows"),
    [
        ({"scores": "$[*]"}, [[0.25, 0.75], [0.5, 0.5]], 2),
        ({"scores": "$"}, [[0.25, 0.75], [0.5, 0.5]], 2),
        ({"scores": "$"}, [0.25, 0.75], 1),
        ({"scores": "$"}, [0.75, 0.75], 2),
        ({"scores": "$"}, 0.75, 1),
        ({"scores": "$"}, {"cat": 0.75, "dog": 0.25}, 1),
        ({"scores": "$"}, [{"cat": 0.75}, {"dog": 0.25, "eel": 0.5}], 2),
        ({"scores": "$.y[*].p"}, {"y": [{"p": 0.75}, {"p": 1}]}, 2),
        ({"scores": "$.y[*].p", "labels": "$.y[*].l"}, {"y": [{"p": [0.25, 0.75], "l": "dog"}]}, 1),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [0.25, 0.75], "l": 1}, 1),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [[0.25, 0.75]], "l": [1.0]}, 1),
    ],
)
def test_answers_go_through_unchanged_and_know_their_rows(select: dict[str, str], answer: Json, rows: int) -> None:
    for fields in FIELDS:
        codec = api(fields, **select)
        read = answered(codec, answer)
        assert (read.rows, rendered(codec, read)) == (rows, answer)


def test_known_fields_are_scores_labels_and_the_way_to_them() -> None:
    answer = {"y": [{"p": 0.75, "leaf": 7}, {"p": 0.25}], "n": [1, {"p": [0.5]}], "time": 0.03}
    codec = api(scores="$.y[*].p")
    read = answered(codec, answer)
    assert rendered(codec, read) == {"y": [{"p": 0.75}, {"p": 0.25}]}
    assert sorted(read.dropped) == ["leaf", "n", "time"]
    first = api(scores="$.y[0].p")
    assert rendered(first, answered(first, answer)) == {"y": [{"p": 0.75}, None]}


def test_all_fields_keeps_what_is_no_score() -> None:
    codec = api("all", scores="$.y[*].p")
    answer = {"y": [{"p": 0.75, "leaf": 7}, {"p": 0.25}], "time": 0.03, "names": ["a"]}
    assert rendered(codec, answered(codec, answer)) == answer
    for leak in ({"hidden": [0.5, 7.5]}, {"confidence": 0.75}, {"deep": {"x": [{"y": [[1.5]]}]}}):
        with pytest.raises(UpstreamError, match="beside"):
            answered(codec, {**answer, **leak})


def test_releases_and_labels_are_written_where_they_were_read() -> None:
    codec = api(outputs={"classes": ["cat", "dog"]}, scores="$.y[*].p", labels="$.y[*].l")
    read = answered(codec, {"y": [{"p": [0.25, 0.75], "l": "dog"}]})
    release_labels(read)
    read.labels[0].write(np.array([0]))
    assert rendered(codec, read) == {"y": [{"p": [0.0, 1.0], "l": "cat"}]}
    root = api(scores="$")
    read = answered(root, [[0.25, 0.75]])
    release_labels(read)
    assert rendered(root, read) == [[0.0, 1.0]]
    maps = api(scores="$[*]")
    read = answered(maps, [{"cat": 0.25, "dog": 0.75}])
    release_labels(read)
    assert rendered(maps, read) == [{"dog": 1.0}]


def test_a_lone_score_is_judged_by_its_label() -> None:
    codec = api(scores="$.y[*].p", labels="$.y[*].l")
    assert answered(codec, {"y": [{"p": 0.9, "l": 1}]}).predictions[0].shape == "two_class"
    assert answered(codec, {"y": [{"p": 0.9, "l": "cat"}]}).predictions[0].shape == "fixed"


def test_other_kinds() -> None:
    value = api(outputs={"kind": "value"}, scores="$.y")
    assert answered(value, {"y": [1.5, 2]}).rows == 2
    vector = api(outputs={"kind": "embedding"}, scores="$.v")
    assert answered(vector, {"v": [1.5, -2]}).rows == 1
    labels = api(outputs={"kind": "labels"}, scores="$.p", labels="$.l")
    read = answered(labels, {"p": [0.25, 0.75], "l": ["dog"]})
    assert (read.rows, rendered(labels, read), read.predictions) == (1, {"l": ["dog"]}, [])


@pytest.mark.parametrize(
    ("select", "answer"),
    [
        ({"scores": "$.p"}, {}),
        ({"scores": "$.p"}, {"p": []}),
        ({"scores": "$.p"}, {"p": "0.97"}),
        ({"scores": "$.p"}, {"p": [7.5, 2.5]}),
        ({"scores": "$.p"}, {"p": {"a": 7.5}}),
        ({"scores": "$.p"}, {"p": {"a": [0.5]}}),
        ({"scores": "$.p"}, b"{"),
        ({"scores": "$..p"}, {"p": {"p": 0.5}}),
        ({"scores": "$.p[*]"}, {"p": [0.5, [0.5, 0.5]]}),
        ({"scores": "$.p", "labels": "$.p"}, {"p": [0.25, 0.75]}),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [0.25, 0.75], "l": [1, 2]}),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [0.25, 0.75], "l": 0.93}),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [0.25, 0.75], "l": {"a": 1}}),
        ({"scores": "$.p", "labels": "$.l"}, {"p": [0.25, 0.75], "l": [[1]]}),
    ],
)
def test_what_cannot_be_read_is_withheld(select: dict[str, str], answer: Json) -> None:
    for fields in FIELDS:
        with pytest.raises(UpstreamError) as withheld:
            answered(api(fields, **select), answer)
        assert withheld.value.code == "unreadable_answer"


@pytest.mark.parametrize(
    "path", ["", "y", "$.y[", "$['", "$.~", "$.a | $.b", "^.a", "$[99999999999999999999]", "$.a ~ b"]
)
def test_bad_paths_are_named_at_construction(path: str) -> None:
    assert check_select({"scores": path})
    with pytest.raises(ValueError, match="scores"):
        api(scores=path)


def test_select_must_know_its_names() -> None:
    assert check_select({}) == ["select must say where scores or labels are"]
    assert check_select({"score": "$"})[0].startswith("score is not one of")
    assert check_select({"labels": "$.l"}) == []


def test_documents_too_deep_for_a_path_have_no_matches() -> None:
    deep: Json = {"x": 1}
    for _ in range(300):
        deep = [deep]
    assert compile_path("$..x").nodes(deep) == []


def test_errors_are_problems() -> None:
    kind, body = api(scores="$").error(ClientError("no"))
    assert (kind, json.loads(body)["title"]) == (b"application/problem+json", "Bad Request")


@pytest.mark.parametrize(
    ("server", "case", "select"),
    [
        ("bentoml", "classify-batch", {"queries": "$.x", "scores": "$[*]"}),
        ("bentoml", "classify-single", {"queries": "$.x[*]", "scores": "$[*]"}),
        ("bentoml", "classify-gzip-asked", {"queries": "$.x", "scores": "$"}),
        (
            "bentoml",
            "classify-json-batch",
            {"queries": "$.rows[*]", "scores": "$[*].probabilities", "labels": "$[*].label"},
        ),
        (
            "ray",
            "single",
            {"queries": "$.instances[*]", "scores": "$.predictions[*].probs", "labels": "$.predictions[*].label"},
        ),
        (
            "ray",
            "batch",
            {"queries": "$.instances", "scores": "$.predictions[*].probs", "labels": "$.predictions[*].label"},
        ),
    ],
)
def test_recorded_exchanges(server: str, case: str, select: dict[str, str]) -> None:
    codec: Codec = JsonApi(Reader(Outputs(), "known", select))
    reading = codec.read(recorded.request(server, case)[1])
    matrix = reading.queries.matrix()
    assert matrix is not None
    assert matrix.shape == (reading.queries.rows, 64)
    answer = recorded.reply(server, case)
    read = codec.answer(answer, reading)
    document = json.loads(answer.body)
    if server == "ray":
        assert read.dropped == ["score"]
        document = {"predictions": [{k: v for k, v in row.items() if k != "score"} for row in document["predictions"]]}
    assert (read.rows, rendered(codec, read)) == (reading.queries.rows, document)
    with pytest.raises(UpstreamError):
        # Under fields: all, Ray's copy of the top score would go out beside the released ones.
        api("all", scores="$.predictions[*].probs").answer(recorded.reply("ray", "single"), reading)


def test_the_registry_imports_what_is_named() -> None:
    assert codec_class("json") is JsonApi
    for api_name in API_NAMES:
        if api_name != "json":
            assert codec_class(api_name)(reader()).endpoints
    with pytest.raises(KeyError):
        codec_class("soap")
