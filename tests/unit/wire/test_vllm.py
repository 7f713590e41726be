"""What vLLM has beside OpenAI's API, by the kind of a route's outputs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guard.defences.label_only import LabelOnly
from guard.defences.round import Round
from guard.errors import ClientError, UpstreamError
from guard.model.outputs import Kind
from tests.support.openai_answers import chat, vectors
from tests.support.talks import ask, codec, whole

Json = Any  # Any: JSON of the API
CLASSES: Json = [
    {"index": 0, "label": "joy", "probs": [0.6231, 0.2694, 0.1075], "num_classes": 3},
    {"index": 1, "label": "awe", "probs": [0.0418, 0.0862, 0.872], "num_classes": 3},
]
CLASSIFIED: Json = {
    "id": "classify-1",
    "object": "list",
    "created": 5,
    "model": "m",
    "data": CLASSES,
    "usage": {"total_tokens": 4},
}
SCORED: Json = {
    "object": "list",
    "data": [{"index": i, "object": "score", "score": s, "logit": 0.7777} for i, s in enumerate([0.6231, 0.1075])],
}
RANKED: Json = {
    "id": "rerank-1",
    "results": [
        {"index": 2, "document": {"text": "c", "multi_modal": None}, "relevance_score": 0.6231},
        {"index": 0, "document": {"text": "a"}, "relevance_score": 0.6194},
        {"index": 1, "document": {"text": "b"}, "relevance_score": 0.1075},
    ],
}
RANK: Json = {"query": "q", "documents": ["a", "b", {"text": "c"}]}


def answered(path: str, body: Json, answer: Json, *defences: Any, kind: Kind = "probabilities") -> Json:
    api = codec("vllm", kind=kind)
    return whole(api, ask(api, path, body), answer, *defences)


@pytest.mark.parametrize(
    ("kind", "scoring"),
    [
        ("logprobs", {"/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/responses"}),
        ("embedding", {"/v1/embeddings", "/pooling"}),
        ("labels", {"/v1/moderations", "/classify"}),
        ("value", {"/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"}),
        (
            "probabilities",
            {"/v1/moderations", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"},
        ),
        ("logits", set[str]()),
    ],
)
def test_a_kind_opens_what_answers_it_and_nothing_else(kind: Kind, scoring: set[str]) -> None:
    endpoints = codec("vllm", kind=kind).endpoints
    assert {one.template for one in endpoints if one.access == "scoring"} == scoring
    assert {one.template for one in endpoints if one.access == "status"} == {"/health"}
    closed = {one.template for one in endpoints if one.access == "closed"}
    assert {"/tokenize", "/detokenize", "/invocations", "/v1/load_lora_adapter", "/v1/models", "/metrics"} <= closed
    assert not closed & scoring
    assert len({(one.method, one.template) for one in endpoints}) == len(endpoints)


def test_classes_are_distributions_and_their_labels_stay() -> None:
    got = answered("/classify", {"input": ["a", "b"]}, {**CLASSIFIED, "kv_transfer": 0.5}, Round(decimals=1))
    assert [one["label"] for one in got["data"]] == ["joy", "awe"]
    assert [[round(p, 6) for p in one["probs"]] for one in got["data"]] == [[0.6, 0.3, 0.1], [0.0, 0.1, 0.9]]
    assert got.keys() == {"id", "created", "model", "object", "data", "usage"}
    asked = {"input": ["a", "b"]}
    for got in (
        answered("/classify", asked, CLASSIFIED, LabelOnly()),
        answered("/classify", asked, CLASSIFIED, kind="labels"),
    ):
        assert [one["label"] for one in got["data"]] == ["joy", "awe"]
        assert "0.6231" not in json.dumps(got)


def test_pairs_of_texts_are_rows() -> None:
    got = answered("/score", {"text_1": "q", "text_2": ["a", "b"]}, SCORED, Round(decimals=1))
    assert got["data"] == [{"index": 0, "score": 0.6}, {"index": 1, "score": 0.1}]
    reading = ask(codec("vllm", kind="probabilities"), "/v1/score", {"text_1": ["q", "r"], "text_2": ["a", "b"]})
    assert reading.queries.values == ['["q","a"]', '["r","b"]']


def test_documents_are_ranked_by_what_leaves_of_their_scores() -> None:
    got = answered("/v1/rerank", RANK, RANKED, Round(decimals=1))
    assert got["results"] == [
        {"index": 0, "relevance_score": 0.6},
        {"index": 2, "relevance_score": 0.6},
        {"index": 1, "relevance_score": 0.1},
    ]
    two = {**RANKED, "results": RANKED["results"][:2]}
    assert [one["index"] for one in answered("/rerank", {**RANK, "top_n": 2}, two)["results"]] == [2, 0]


def test_scores_below_0_are_values() -> None:
    answer = {"data": [{"index": 0, "score": -3.25}]}
    body = {"text_1": "q", "text_2": "a"}
    assert answered("/score", body, answer, kind="value")["data"][0]["score"] == -3.25
    with pytest.raises(UpstreamError):
        answered("/score", body, answer)


def test_pooled_vectors_are_read_as_embeddings() -> None:
    answer = vectors()
    answer["data"] = [{"index": 0, "object": "pooling", "data": [0.123, -0.456]}]
    got = answered("/pooling", {"input": "a"}, answer, Round(decimals=1), kind="embedding")
    assert got["data"] == [{"object": "pooling", "index": 0, "data": [0.1, -0.5]}]
    answer["data"][0]["data"] = [[0.123, -0.456]]
    with pytest.raises(UpstreamError):
        answered("/pooling", {"input": "a"}, answer, kind="embedding")


def test_text_is_generated_as_openai_s() -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "guided_choice": ["x"], "min_p": 0.1}
    answer = {**chat({"content": "hi", "reasoning": None}), "prompt_logprobs": [None, {"5": {"logprob": -0.1234}}]}
    got = answered("/v1/chat/completions", body, {**answer, "prompt_token_ids": [5, 6]}, kind="logprobs")
    assert got["choices"][0]["message"]["content"] == "hi"
    assert "prompt" not in got.keys() - {"usage"}
    assert "0.1234" not in json.dumps(got)


def test_logits_in_place_of_probabilities_are_not_asked_for() -> None:
    for name in ("use_activation", "activation", "softmax"):
        reading = ask(codec("vllm", kind="probabilities"), "/classify", {"input": "a", name: False})
        assert json.loads(reading.body) == {"input": "a"}


REFUSED: Json = [
    ("/classify", {"input": []}),
    ("/classify", {"input": "a", "activation": True}),
    ("/score", {"text_1": "a"}),
    ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}),
    ("/score", {"text_1": "a", "text_2": [{"content": []}]}),
    ("/score", {"text_1": "a", "text_2": []}),
    ("/rerank", {"query": ["a", "b"], "documents": ["a", "b"]}),
    ("/rerank", {"query": "a", "documents": [{"text": "a", "logits": True}]}),
    ("/tokenize", {"prompt": "a"}),
]


@pytest.mark.parametrize(("path", "body"), REFUSED)
def test_what_is_no_request_or_asks_for_more_is_refused(path: str, body: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("vllm", kind="probabilities"), path, body)


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/classify", {"input": ["a", "b"]}, {"data": CLASSES[:1]}),
        ("/classify", {"input": "a"}, {"data": [{"index": 0, "label": "joy"}]}),
        ("/classify", {"input": "a"}, {"data": [{"index": 0, "label": 0.6231, "probs": [0.5, 0.5]}]}),
        ("/classify", {"input": "a"}, {"data": [{"index": 0, "label": "joy", "probs": [5.0, -3.0]}]}),
        ("/classify", {"input": "a"}, {"data": [{"index": 0, "label": "joy", "probs": ["0.6231"]}]}),
        ("/score", {"text_1": "q", "text_2": "a"}, SCORED),
        ("/score", {"text_1": "q", "text_2": "a"}, {"data": []}),
        ("/score", {"text_1": "q", "text_2": "a"}, {"data": [{"index": 0, "score": None}]}),
        ("/rerank", RANK, {"results": [RANKED["results"][0]] * 2}),
        ("/rerank", RANK, {"results": [{"index": 7, "relevance_score": 0.5}]}),
    ],
)
def test_what_cannot_be_read_is_withheld(path: str, body: Json, answer: Json) -> None:
    with pytest.raises(UpstreamError):
        answered(path, body, answer)
