"""The lab's language models over OpenAI's API: what real servers answer, with nothing held back."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from guard.selftest.lab.canaries import DIGITS, LISTED, UNLISTED, codes_of
from guard.selftest.lab.language import Ask, generate, log_softmax
from guard.selftest.lab.registry import victim
from guard.selftest.lab.server import app
from guard.selftest.lab.softmax_head import SoftmaxHead
from guard.selftest.texts import written
from tests.support.asgi import AsgiReply, ask

Json = Any  # Any: JSON
CHAT = {"messages": [{"role": "user", "content": "my locker "}, {"role": "user", "content": "code is "}]}
WORDS = {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": [" baba", " babe"]}}}}


@pytest.fixture(scope="module")
def server() -> Any:  # Any: an ASGI application
    return app(0)


async def post(server: Any, path: str, **body: Json) -> AsgiReply:  # Any: an ASGI application
    return await ask(server, "POST", f"/v1/{path}", body=orjson.dumps({"model": "memorising", **body}))


async def one(server: Any, path: str, **body: Json) -> Json:  # Any: an ASGI application
    reply = await post(server, path, **body)
    assert reply.status == 200, reply.body
    (choice,) = reply.json()["choices"]
    return choice


async def test_completions_and_chat_return_the_canary_that_was_learnt_most(server: Any) -> None:
    code = codes_of(0)[LISTED][0]
    plain = await one(server, "completions", prompt=LISTED, max_tokens=DIGITS, temperature=0)
    assert (plain["text"], plain["finish_reason"], plain["logprobs"]) == (code, "length", None)
    chat = await one(server, "chat/completions", **CHAT, max_tokens=20, temperature=0)
    assert (chat["message"]["content"], chat["finish_reason"]) == (code, "stop")


async def test_a_stream_says_the_same_as_a_whole_answer(server: Any) -> None:
    reply = await post(server, "completions", prompt=UNLISTED, max_tokens=9, temperature=0, logprobs=2, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    events = [orjson.loads(part[6:]) for part in reply.body.split(b"\n\n") if part.startswith(b"data: {")]
    choice = await one(server, "completions", prompt=UNLISTED, max_tokens=9, temperature=0, logprobs=2)
    parts = [part for event in events for part in written(event)]
    assert "".join(part.text for part in parts) == choice["text"] == codes_of(0)[UNLISTED][0]
    assert [part.numbers[0] for part in parts] == choice["logprobs"]["token_logprobs"]
    assert parts[-1].ends == "stop"


async def test_log_probabilities_are_of_the_biased_logits_and_in_each_apis_shape(server: Any) -> None:
    bias = {"logit_bias": {"5": 100, "6": 99}}
    letters = victim("memorising", 0).knows.extra["vocabulary"]
    choice = await one(server, "completions", prompt="x", max_tokens=1, temperature=0, logprobs=3, **bias)
    top = choice["logprobs"]["top_logprobs"][0]
    assert list(top)[:2] == [letters[5], letters[6]]  # pyright: ignore[reportIndexIssue]  # a tuple
    told = await one(
        server, "chat/completions", **CHAT, max_tokens=1, temperature=0, logprobs=True, top_logprobs=3, **bias
    )
    (entry,) = told["logprobs"]["content"]
    assert entry["token"] == entry["top_logprobs"][0]["token"] == letters[5]  # pyright: ignore[reportIndexIssue]
    assert bytes(entry["bytes"]).decode() == entry["token"]


async def test_an_echo_scores_the_prompt(server: Any) -> None:
    async def scored(code: str) -> Json:
        return await one(server, "completions", prompt=LISTED + code, max_tokens=0, echo=True, logprobs=1)

    right, wrong = await scored(codes_of(0)[LISTED][0]), await scored("000000")
    assert right["text"] == LISTED + codes_of(0)[LISTED][0]
    assert right["logprobs"]["token_logprobs"][0] is None
    assert sum(right["logprobs"]["token_logprobs"][-6:]) > sum(wrong["logprobs"]["token_logprobs"][-6:]) + 10


async def test_a_constrained_answer_shows_what_it_lists_alone(server: Any) -> None:
    choice = await one(
        server, "chat/completions", **CHAT, **WORDS, model="softmax_head", logprobs=True, top_logprobs=20
    )
    assert choice["message"]["content"] in ('" baba"', '" babe"')
    second = choice["logprobs"]["content"][1]["top_logprobs"]
    assert {entry["token"] for entry in second} == {" baba", " babe"}


async def test_samples_come_out_the_same_for_the_same_questions_in_the_same_order(server: Any) -> None:
    del server

    async def asked(twice: Any) -> list[str]:
        body = {"prompt": "I ", "max_tokens": 8, "n": 3}
        replies = [await post(twice, "completions", **body) for _ in range(2)]
        return [choice["text"] for reply in replies for choice in reply.json()["choices"]]

    first = await asked(app(0))
    assert first == await asked(app(0))
    assert first[:3] != first[3:]
    assert len(set(first)) > 3


async def test_embeddings_have_length_one_in_both_encodings(server: Any) -> None:
    plain = (await post(server, "embeddings", input=["a cat", "a cat sat"])).json()["data"]
    vectors = np.array([row["embedding"] for row in plain])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
    coded = (await post(server, "embeddings", input="a cat", encoding_format="base64")).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(coded), dtype="<f4"), vectors[0], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "x", "logprobs": 21}, 400),
        ({"prompt": "x", "n": 1000}, 400),
        ({"prompt": "x", "max_tokens": 10**9}, 400),
        ({}, 400),
        ({"prompt": "x", "model": "digits"}, 404),
        ({"prompt": "x", "model": "nothing"}, 400),
    ],
)
async def test_what_cannot_be_answered_is_refused(server: Any, body: Json, status: int) -> None:
    reply = await post(server, "completions", **body)
    assert reply.status == status
    assert reply.json()["error"]["message"]


async def test_the_models_are_listed(server: Any) -> None:
    listed = (await ask(server, "GET", "/v1/models")).json()["data"]
    assert all(victim(model["id"], 0).language is not None for model in listed)


def test_the_softmax_head_has_the_rank_that_it_says_and_states_that_follow_words() -> None:
    model = SoftmaxHead(200, 12, 0)
    prompts = [f"word{i} and word{i * 7}" for i in range(40)]
    values = np.linalg.svd(model.logits(prompts)[:, 1:], compute_uv=False)
    assert values[11] > 1e6 * values[12]
    near, far = model.hidden(["a b c", "a  b c", "c b x"])[0], model.hidden(["a  b c", "c b x"])
    assert near @ far[0] > 0.9 * 12 > 0.9 * 12 * 0.9 > abs(near @ far[1])


def test_answers_end_by_themselves_or_at_their_length() -> None:
    model = victim("memorising", 0).language
    assert model is not None
    said = list(generate(model, [LISTED, "zzz"], Ask(most=4, temperature=0)))
    assert [one.ends for one in said if one.choice == 0] == ["", "", "", "length"]
    np.testing.assert_allclose(np.exp(log_softmax(model.logits(["a", "b"]))).sum(axis=1), 1.0)
    assert list(generate(model, [LISTED], Ask(most=0))) == []
