"""Completions: several prompts, both shapes of log-probabilities, whole and in chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guard.defences.round import Round
from guard.errors import UpstreamError
from guard.model.parameters import Parameter
from tests.support.codecs import reply
from tests.support.generated import Word
from tests.support.openai_answers import LISTS, USAGE, completion, entry
from tests.support.talks import ask, codec, streamed, whole

Json = Any  # Any: JSON of the API
PATH = "/v1/completions"
TEXT: Json = {"model": "m", "prompt": "hello"}


def answered(answer: Json, *defences: Any, **more: Json) -> Json:
    api = codec("openai", Parameter(name="echo"))
    return whole(api, ask(api, PATH, {**TEXT, **more}), answer, *defences)


def chunks(events: list[Json], *defences: Any, **more: Json) -> list[Json]:
    api = codec("openai")
    got = streamed(api, ask(api, PATH, {**TEXT, "stream": True, **more}), [*events, b"[DONE]"], *defences)
    lines = [line.removeprefix("data: ") for line in got.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_whole_answer_holds_what_the_api_defines_and_nothing_else() -> None:
    assert answered(completion("hi")) == {
        **{"id": "chatcmpl-1", "object": "text_completion", "created": 1795720000, "model": "m-2026"},
        "choices": [{"index": 0, "text": "hi", "logprobs": None, "finish_reason": "stop"}],
        "usage": {name: USAGE[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    }


def test_lists_of_log_probabilities_are_defended_in_their_own_shape() -> None:
    got = answered(completion("Hello\ufffd", logprobs=LISTS), Round(decimals=1), logprobs=1)["choices"][0]["logprobs"]
    assert got == {
        "tokens": ["Hel", "lo", "bytes:\\xf0\\x9f"],
        "token_logprobs": [None, -0.5, -1.2],
        "top_logprobs": [None, {"lo": -0.5, "p": -2.5}, {" x": -0.8, "bytes:\\xf0\\x9f": -1.2}],
        "text_offset": [0, 3, 5],
    }
    assert answered(completion("Hello", logprobs=LISTS), logprobs=0)["choices"][0]["logprobs"]["top_logprobs"] is None
    assert answered(completion("Hello", logprobs=LISTS))["choices"][0]["logprobs"] is None


def test_chat_s_shape_stays_chat_s_shape() -> None:
    said = {"content": [entry("hi", -0.1234, ("yo", -2.5), ("oh", -3.5))]}
    got = answered(completion("hi", logprobs=said), Round(decimals=1), logprobs=1)["choices"][0]["logprobs"]
    assert [one["logprob"] for one in got["content"]] == [-0.1]
    assert [one["token"] for one in got["content"][0]["top_logprobs"]] == ["hi"]
    assert got.keys() == {"content"}


def test_what_waits_of_a_stream_leaves_at_its_end_with_its_tokens_in_their_shape() -> None:
    said = [completion(text, None, logprobs={"content": [entry(text, -0.5)]}) for text in ("a", "SEC")]
    found = chunks([*said, completion("", "stop")], Word(), logprobs=1)
    assert [one["choices"][0]["text"] for one in found] == ["a", "SEC"]
    assert found[1]["choices"][0]["finish_reason"] == "stop"
    assert found[1]["choices"][0]["logprobs"]["content"][0]["token"] == "SEC"
    assert "usage" not in json.dumps(found)


def test_every_prompt_s_choices_go_on_from_that_prompt() -> None:
    prompts = ["my SEC", "hello"]
    choices = [completion("RET", index=i)["choices"][0] for i in range(4)]
    got = answered({**completion("x"), "choices": choices}, Word(), prompt=prompts, n=2)
    assert [one["text"] for one in got["choices"]] == ["[-]", "[-]", "RET", "RET"]
    events = [completion("RET", None, i) for i in (2, 0)] + [completion("", "stop", i) for i in (2, 0)]
    found = chunks(events, Word(), prompt=prompts, n=2)
    texts = {one["choices"][0]["index"]: one["choices"][0]["text"] for one in found if one["choices"][0]["text"]}
    assert texts == {0: "[-]", 2: "RET"}


def test_an_echo_is_looked_through_from_the_prompt_on() -> None:
    got = answered(completion("my SECRET"), Word(), prompt="my SEC", echo=True)
    assert got["choices"][0]["text"] == "my [-]"


def test_counts_are_believed_for_one_choice_alone() -> None:
    api = codec("openai")
    one = api.answer(reply(completion("hi")), ask(api, PATH, TEXT))
    two = api.answer(reply(completion("hi")), ask(api, PATH, {**TEXT, "prompt": ["a", "b"]}))
    assert (one.usage, two.usage) == (3, None)
    assert (one.rows, two.rows) == (1, 2)


WRONG: Json = [
    {"tokens": "hi"},
    {"tokens": [5]},
    {**LISTS, "token_logprobs": [-0.5]},
    {**LISTS, "token_logprobs": [0.5, -0.5, -0.5]},
    {**LISTS, "top_logprobs": [[], [], []]},
    {**LISTS, "top_logprobs": [{"a": "x"}, None, None]},
    {"content": "hi"},
    [0.5],
    "x",
]


@pytest.mark.parametrize("logprobs", WRONG)
def test_log_probabilities_that_cannot_be_read_are_withheld(logprobs: Json) -> None:
    with pytest.raises(UpstreamError):
        answered(completion("hi", logprobs=logprobs), logprobs=1)


BROKEN: Json = [{}, {"choices": []}, completion("a", index=1), {"choices": [{"text": 5}]}, []]


@pytest.mark.parametrize("answer", BROKEN)
def test_answers_that_cannot_be_read_are_withheld(answer: Json) -> None:
    with pytest.raises(UpstreamError):
        answered(answer)
