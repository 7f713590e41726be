from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from guard.defences.label_only import LabelOnly
from guard.defences.round import Round
from guard.errors import ClientError, Denied, UpstreamError
from guard.model.outputs import Kind
from guard.model.parameters import Parameter
from tests.support.talks import allowed, ask, codec, let_out, planted, whole
from tests.support.text_models import tei

Json = Any  # Any: JSON of the API
EMBED: Json = {"inputs": ["one", "two"]}
RANK: Json = {"query": "q", "texts": ["a", "b", "c", "d"]}
COMPARE: Json = {"inputs": {"source_sentence": "q", "sentences": ["a", "b", "c"]}}
CASES: list[tuple[str, Kind, Json]] = [
    ("/embed", "embedding", EMBED),
    ("/", "embedding", EMBED),
    ("/embed_sparse", "value", EMBED),
    ("/similarity", "value", COMPARE),
    ("/predict", "probabilities", {"inputs": [["one"], ["two", "three"]]}),
    ("/predict", "labels", {"inputs": "one"}),
    ("/rerank", "probabilities", RANK),
    ("/rerank", "logits", {**RANK, "raw_scores": True}),
    ("/", "probabilities", RANK),
    ("/", "logits", {"inputs": "one", "raw_scores": True}),
]


def answer_of(path: str, body: Json) -> Json:
    return tei("/rerank" if "texts" in body else "/predict" if path == "/" and body is not EMBED else path, body)


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("embedding", {"/embed", "/"}),
        ("value", {"/similarity", "/embed_sparse"}),
        ("probabilities", {"/predict", "/rerank", "/"}),
        ("labels", {"/predict"}),
        ("logprobs", set[str]()),
    ],
)
def test_what_answers_the_declared_kind_is_guarded_and_the_rest_closed(kind: Kind, paths: set[str]) -> None:
    endpoints = codec("tei", kind=kind).endpoints
    assert {e.template for e in endpoints if e.access == "scoring"} == paths
    closed = {e.template for e in endpoints if e.access == "closed"}
    assert {"/embed_all", "/tokenize", "/decode", "/vertex", "/invocations", "/v1/embeddings", "/info"} <= closed


@pytest.mark.parametrize(("path", "kind", "body"), CASES)
def test_no_number_leaves_but_rounded(path: str, kind: Kind, body: Json) -> None:
    """A number is planted in each place of an answer: none may leave, or only rounded."""
    api = codec("tei", kind=kind)
    answer = answer_of(path, body)
    step = LabelOnly() if kind == "labels" else Round(decimals=1)
    assert let_out(partial(whole, api, ask(api, path, body), answer, step))
    for digits, broken in planted(answer):
        assert digits not in let_out(partial(whole, api, ask(api, path, body), broken, step))


@pytest.mark.parametrize(("path", "kind", "body"), CASES)
def test_an_answer_that_was_not_asked_for_is_withheld(path: str, kind: Kind, body: Json) -> None:
    api = codec("tei", kind=kind)
    answer = answer_of(path, body)
    row: Json = answer[0] if isinstance(answer[0], list | dict) else 0.5
    for wrong in ({}, None, [], "x", [None] * len(answer), [*answer, row], [[row]], {"error": "x"}):
        with pytest.raises(UpstreamError):
            whole(api, ask(api, path, body), wrong)


def test_a_list_of_two_texts_to_classify_is_one_pair() -> None:
    api = codec("tei", kind="probabilities")
    assert ask(api, "/predict", {"inputs": ["a", "b"]}).queries.rows == 1
    assert ask(api, "/predict", {"inputs": [["a"], ["b"]]}).queries.rows == 2
    assert ask(api, "/predict", {"inputs": "a"}).queries.row_values() == ["a"]
    wrongs: list[Json] = [[], [[]], [["a", "b", "c"]], ["a", ["b"]], [["a"], "b"], 3, None, {"a": 1}]
    for wrong in wrongs:
        with pytest.raises(ClientError):
            ask(api, "/predict", {"inputs": wrong})


def test_labels_and_scores_of_one_row_and_of_several() -> None:
    api = codec("tei", kind="probabilities")
    body = {"inputs": "one"}
    read = whole(api, ask(api, "/predict", body), tei("/predict", body), Round(decimals=1))
    assert read == [{"label": "joy", "score": 0.6}, {"label": "fear", "score": 0.3}, {"label": "awe", "score": 0.1}]
    body = {"inputs": [["one"], ["two"]]}
    assert whole(api, ask(api, "/predict", body), tei("/predict", body), Round(decimals=1)) == [read, read]
    labels = codec("tei", kind="labels")
    assert whole(labels, ask(labels, "/predict", body), tei("/predict", body)) == [[{"label": "joy"}]] * 2


def test_ranks_are_ordered_by_what_is_released() -> None:
    api = codec("tei", kind="probabilities")
    asked = {**RANK, "return_text": True}
    answer = tei("/rerank", asked)
    assert [rank["index"] for rank in answer] == [2, 0, 3, 1]
    answer[1]["text"] = "SECRET of upstream's"
    read = whole(api, ask(api, "/rerank", asked), answer, Round(decimals=0))
    assert read == [
        {"index": 0, "text": "a", "score": 1.0},
        {"index": 2, "text": "c", "score": 1.0},
        {"index": 3, "text": "d", "score": 1.0},
        {"index": 1, "text": "b", "score": 0.0},
    ]
    for broken in (answer[:3], [*answer[:3], answer[0]], [*answer[:3], {"index": 9, "score": 0.5}]):
        with pytest.raises(UpstreamError):
            whole(api, ask(api, "/rerank", asked), broken)
    with pytest.raises(UpstreamError):  # a raw score is no probability
        whole(api, ask(api, "/rerank", asked), [*answer[:3], {"index": 1, "score": 4.5}])


def test_each_pair_of_texts_is_a_query_of_its_own() -> None:
    ranks, compares = codec("tei", kind="probabilities"), codec("tei", kind="value")
    assert ask(ranks, "/rerank", RANK).queries.rows == 4
    rows = ask(compares, "/similarity", COMPARE).queries.row_bytes()
    assert len(set(rows)) == 3
    turned = {"inputs": {"source_sentence": "a", "sentences": ["q"]}}
    assert ask(compares, "/similarity", turned).queries.row_bytes()[0] not in rows


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/rerank", "probabilities", {"texts": ["a"]}),
        ("/rerank", "probabilities", {"query": "q", "texts": []}),
        ("/rerank", "probabilities", {"query": "q", "texts": "a"}),
        ("/rerank", "probabilities", {**RANK, "raw_scores": True}),
        ("/predict", "probabilities", {"inputs": "a", "raw_scores": True}),
        ("/similarity", "value", {"inputs": ["a"]}),
        ("/similarity", "value", {"inputs": {"source_sentence": "q", "sentences": ["a"], "more": 1}}),
        ("/similarity", "value", {**COMPARE, "parameters": {"surplus": 1}}),
        ("/similarity", "value", {**COMPARE, "parameters": [1]}),
        ("/embed", "embedding", {"inputs": []}),
        ("/embed", "embedding", {"inputs": [[1, 2]]}),
        ("/embed", "embedding", {"inputs": "a", "normalize": False}),
        ("/embed", "embedding", {"inputs": "a", "surplus": 1}),
        ("/embed", "embedding", {"inputs": "a", "dimensions": -1}),
    ],
)
def test_what_cannot_be_read_or_reveals_more_is_refused(path: str, kind: Kind, body: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("tei", kind=kind), path, body)


def test_the_policy_opens_by_name() -> None:
    api = codec("tei", *allowed("token_ids", "normalize"), kind="embedding")
    reading = ask(api, "/embed", {"inputs": [[1, 2], [3]], "normalize": False, "truncate": True})
    assert reading.queries.rows == 2
    assert json.loads(reading.body)["normalize"] is False
    capped = codec("tei", Parameter(name="dimensions", max=64), kind="embedding")
    assert json.loads(ask(capped, "/embed", {"inputs": "a", "dimensions": 512}).body)["dimensions"] == 64


def test_a_sparse_vector_may_be_empty() -> None:
    api = codec("tei", kind="value")
    answer: Json = [[], [{"index": 3, "value": 1.26}]]
    assert whole(api, ask(api, "/embed_sparse", EMBED), answer, Round(decimals=1)) == [[], [{"index": 3, "value": 1.3}]]


def test_errors_are_of_types_that_clients_know() -> None:
    api = codec("tei", kind="embedding")
    errors = (Denied("spent", status=429), ClientError("bad"), UpstreamError("failed"))
    said = [json.loads(api.error(error)[1]) for error in errors]
    assert [one["error_type"] for one in said] == ["overloaded", "validation", "backend"]
