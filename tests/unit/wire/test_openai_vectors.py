"""Embeddings in both forms, and moderations."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from guard.defences.label_only import LabelOnly
from guard.defences.round import Round
from guard.errors import ClientError, UpstreamError
from guard.model.outputs import Kind
from guard.model.parameters import Parameter
from tests.support.codecs import release_labels, reply
from tests.support.openai_answers import CATEGORIES, MODERATED, moderation, vectors
from tests.support.talks import ask, codec, whole

Json = Any  # Any: JSON of the API
EMBED, MODERATE = "/v1/embeddings", "/v1/moderations"
ROWS = [[0.125, -0.5, 0.25], [0.0625, 0.75, -0.875]]


def packed(row: list[float]) -> str:
    return base64.b64encode(np.array(row, dtype="<f4").tobytes()).decode()


def unpacked(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(float).tolist()


def embedded(answer: Json, *defences: Any, **more: Json) -> Json:
    api = codec("openai", kind="embedding")
    return whole(api, ask(api, EMBED, {"model": "m", "input": ["a", "b"], **more}), answer, *defences)


def moderated(answer: Json, *defences: Any, kind: Kind = "probabilities") -> Json:
    api = codec("openai", kind=kind)
    return whole(api, ask(api, MODERATE, {"input": ["a", "b"]}), answer, *defences)


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("packs", [False, True])
def test_vectors_leave_in_the_form_asked_for_whatever_they_came_in(form: str, packs: bool) -> None:
    answer = vectors(*(packed(row) if packs else row for row in ROWS))
    got = embedded(answer, Round(decimals=1), encoding_format=form)
    said = [one["embedding"] if form == "float" else unpacked(one["embedding"]) for one in got["data"]]
    np.testing.assert_allclose(said, np.round(ROWS, 1), atol=1e-6)
    assert [one["index"] for one in got["data"]] == [0, 1]
    assert {name: got[name] for name in ("object", "model", "usage")} == {
        "object": "list",
        "model": "m-2026",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def test_an_untouched_vector_leaves_as_it_came() -> None:
    assert [one["embedding"] for one in embedded(vectors(*ROWS))["data"]] == ROWS
    assert [one["embedding"] for one in embedded(vectors(*ROWS), encoding_format="base64")["data"]] == [
        *map(packed, ROWS)
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        vectors(ROWS[0]),
        vectors(*ROWS, ROWS[0]),
        vectors(ROWS[0], [0.5]),
        vectors(ROWS[0], []),
        vectors(ROWS[0], None),
        vectors(ROWS[0], ["a", 0.5, 0.5]),
        vectors(ROWS[0], [[0.5], [0.5], [0.5]]),
        vectors(ROWS[0], "AAA"),
        vectors(ROWS[0], "no base64!"),
        {**vectors(*ROWS), "data": [{"index": 0, "embedding": row} for row in ROWS]},
        {**vectors(*ROWS), "data": ROWS},
        [],
    ],
)
def test_vectors_that_cannot_be_read_are_withheld(answer: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        embedded(answer)
    assert caught.value.code == "unreadable_answer"


def test_inputs_are_texts_and_parameters_follow_the_policy() -> None:
    api = codec("openai", Parameter(name="dimensions", action="drop"), kind="embedding")
    reading = ask(api, EMBED, {"model": "m", "input": "a", "dimensions": 8})
    assert json.loads(reading.body) == {"model": "m", "input": "a"}
    assert reading.most is None
    wrong: Json = [
        {"input": [1, 2]},
        {"input": []},
        {"input": None},
        {"encoding_format": "bytes"},
        {"embed_dtype": "float16"},
    ]
    for more in wrong:
        with pytest.raises(ClientError):
            ask(api, EMBED, {"model": "m", "input": "a", **more})
    opened = codec("openai", Parameter(name="token_ids"), kind="embedding")
    assert ask(opened, EMBED, {"input": [[1, 2], [3]]}).queries.rows == 2


def test_moderations_scores_are_defended_each_by_itself_and_their_labels_stay() -> None:
    got = moderated(moderation(), Round(decimals=1))
    for one, row in zip(got["results"], MODERATED, strict=True):
        assert one["category_scores"] == pytest.approx(dict(zip(CATEGORIES, np.round(row, 1), strict=True)))
        assert one["categories"] == {name: score > 0.5 for name, score in zip(CATEGORIES, row, strict=True)}
        assert one["category_applied_input_types"] == {name: ["text"] for name in CATEGORIES}
    assert [one["flagged"] for one in got["results"]] == [True, False]
    assert (got["id"], got["model"]) == ("modr-1", "omni")


def test_where_only_labels_leave_scores_say_what_the_booleans_say() -> None:
    for got in (moderated(moderation(), LabelOnly()), moderated(moderation(), kind="labels")):
        for one in got["results"]:
            assert one["category_scores"] == {name: float(said) for name, said in one["categories"].items()}


def test_parts_of_one_input_are_one_row() -> None:
    api = codec("openai", kind="probabilities")
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "http://x"}}]
    reading = ask(api, MODERATE, {"input": parts})
    assert reading.queries.rows == 1
    assert json.loads(reading.body) == {"input": parts}


BROKEN: Json = [
    {"results": []},
    {"results": moderation()["results"][:1]},
    {"results": [{**one, "flagged": 0.6231} for one in moderation()["results"]]},
    {"results": [{**one, "categories": {"hate": 0.6231}} for one in moderation()["results"]]},
    {"results": [{**one, "category_scores": {"hate": 7.5}} for one in moderation()["results"]]},
    {"results": [{**one, "category_scores": {"hate": "0.5"}} for one in moderation()["results"]]},
    {"results": [{**one, "category_scores": {}} for one in moderation()["results"]]},
    {"results": [moderation()["results"][0], {**moderation()["results"][1], "category_scores": {"hate": 0.5}}]},
    {"results": [{**one, "category_scores": {"0.6231 {": 0.5}} for one in moderation()["results"]]},
]


@pytest.mark.parametrize("broken", BROKEN)
def test_moderations_that_cannot_be_read_are_withheld(broken: Json) -> None:
    with pytest.raises(UpstreamError):
        moderated({**moderation(), **broken})


def test_an_answer_holds_nothing_but_labels_once_they_are_written_alone() -> None:
    api = codec("openai", kind="probabilities")
    answer = api.answer(reply(moderation()), ask(api, MODERATE, {"input": ["a", "b"]}))
    release_labels(answer)
    assert b"0.6231" not in api.render(answer)[1]
