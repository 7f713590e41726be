"""Chat completions: whole answers and chunks, with everything that may stand in them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from guard.defences.base import Defence
from guard.defences.round import Round
from guard.errors import Denied, UpstreamError
from guard.wire.base import Event, Streams
from tests.support.generated import Word
from tests.support.openai_answers import TOOLS, USAGE, chat, chunk, entry
from tests.support.talks import ask, codec, streamed, whole

Json = Any  # Any: JSON of the API
PATH = "/v1/chat/completions"
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM: Json = {**CHAT, "stream": True}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": '{"pin": "SECRET"}'}}


def answered(answer: Json, *defences: Defence, **more: Json) -> Json:
    api = codec("openai")
    return whole(api, ask(api, PATH, {**CHAT, **more}), answer, *defences)


def chunks(events: Sequence[Json], *defences: Defence, **more: Json) -> list[Json]:
    """Return the choices and counts of the chunks that leave, and `[DONE]` as it is."""
    api = codec("openai")
    got = streamed(api, ask(api, PATH, {**STREAM, **more}), [*events, b"[DONE]"], *defences)
    lines = [line.removeprefix("data: ") for line in got.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def text_of(found: list[Json], member: str = "content", index: int = 0) -> str:
    choices = [one for event in found for one in event["choices"] if one["index"] == index]
    return "".join(one["delta"].get(member) or "" for one in choices)


def test_a_whole_answer_holds_what_the_api_defines_and_nothing_else() -> None:
    got = answered(
        chat({"content": "hi", "refusal": None, "annotations": [], "audio": None, "note": 0.5}, seed=4, timings={})
    )
    assert got == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1795720000,
        "model": "m-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {name: USAGE[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    }


@pytest.mark.parametrize("member", ["content", "refusal", "reasoning_content", "reasoning"])
def test_every_text_of_a_message_is_looked_through(member: str) -> None:
    got = answered(chat({member: "a SECRET b"}), Word())
    assert got["choices"][0]["message"][member] == "a [-] b"
    found = chunks([chunk({member: piece}) for piece in "a SECRET b"] + [chunk({}, "stop")], Word())
    assert text_of(found, member) == "a [-] b"


def test_calls_of_tools_are_looked_through_and_the_client_s_own_names_are_not() -> None:
    got = answered(chat({"tool_calls": [CALL, {**CALL, "id": "call_2"}]}), Word(), tools=TOOLS)
    calls = got["choices"][0]["message"]["tool_calls"]
    said = {"name": "pay", "arguments": '{"pin": "[-]"}'}
    assert [{**call, "id": ""} for call in calls] == [{"id": "", "type": "function", "function": said}] * 2
    strange = {**CALL, "function": {"name": "SECRET", "arguments": "{}"}}
    got = answered(chat({"tool_calls": [strange]}), Word(), tools=TOOLS)
    assert got["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "[-]", "arguments": "{}"}
    old = answered(chat({"function_call": CALL["function"]}), Word(), functions=[{"name": "pay"}])
    assert old["choices"][0]["message"]["function_call"] == said
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "run", "input": "say SECRET"}}
    got = answered(chat({"tool_calls": [custom]}), Word(), tools=[{"type": "custom", "custom": {"name": "run"}}])
    assert got["choices"][0]["message"]["tool_calls"][0]["custom"] == {"name": "run", "input": "say [-]"}


def test_identifiers_of_calls_are_guard_s_own_since_some_models_write_them() -> None:
    asked = chat({"tool_calls": [{**CALL, "id": "4111111111111111"}, {**CALL, "id": "SECRET"}]})
    first, second = answered(asked, Word(), tools=TOOLS)["choices"][0]["message"]["tool_calls"]
    assert re.fullmatch("[a-z0-9]{9}", first["id"])
    assert first["id"] != second["id"]
    begun = {"index": 0, "id": "SECRET", "type": "function", "function": {"name": "pay", "arguments": ""}}
    found = chunks([chunk({"tool_calls": [begun]}), chunk({}, "tool_calls")], tools=TOOLS)
    assert found[0]["choices"][0]["delta"]["tool_calls"][0]["id"] == first["id"]
    other = answered({**asked, "id": "chatcmpl-2"}, tools=TOOLS)["choices"][0]["message"]["tool_calls"]
    assert other[0]["id"] != first["id"]


def test_calls_of_tools_come_in_pieces_and_what_waits_of_them_leaves_at_the_end() -> None:
    def called(index: int, **function: str) -> Json:
        return chunk({"tool_calls": [{"index": index, "function": function}]})

    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "pay", "arguments": ""}}
    events = [chunk({"role": "assistant", "content": None}), chunk({"tool_calls": [first]})]
    events += [called(0, arguments=piece) for piece in ('{"a": "SEC', 'RET"}')]
    events += [called(1, name="pay", arguments='"SECR'), chunk({}, "tool_calls")]
    found = chunks(events, Word(), tools=TOOLS)
    texts: dict[int, str] = {}
    for event in found:
        for call in event["choices"][0]["delta"].get("tool_calls", ()):
            texts[call["index"]] = texts.get(call["index"], "") + call["function"].get("arguments", "")
    assert texts == {0: '{"a": "[-]"}', 1: '"SECR'}
    (begun,) = found[1]["choices"][0]["delta"]["tool_calls"]
    assert {**begun, "id": "call_1"} == first
    last = found[-1]["choices"][0]
    assert last["finish_reason"] == "tool_calls"
    assert last["delta"]["tool_calls"] == [{"index": 1, "function": {"arguments": "SECR"}}]


def test_a_call_that_comes_twice_in_one_chunk_loses_nothing() -> None:
    calls = [{"index": 0, "function": {"arguments": text}} for text in ("a", "b")]
    found = chunks([chunk({"tool_calls": calls}), chunk({}, "tool_calls")])
    assert found[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": "ab"}}]


def test_what_waits_leaves_with_the_closing_chunk() -> None:
    found = chunks([chunk({"role": "assistant"}), chunk({"content": "a SEC"}), chunk({}, "length")], Word())
    assert [event["choices"][0]["delta"] for event in found] == [
        {"role": "assistant"},
        {"content": "a "},
        {"content": "SEC"},
    ]
    assert found[-1]["choices"][0]["finish_reason"] == "length"


def test_a_stream_that_never_says_its_end_gives_what_waits_all_the_same() -> None:
    found = chunks([chunk({"content": "a SEC"}), chunk({"content": "b"}, index=1)], Word(), n=2)
    assert text_of(found) == "a SEC"
    assert [one["finish_reason"] for one in found[-1]["choices"]] == ["stop", "stop"]
    assert found[-1]["id"] == "chatcmpl-1"


def test_chunks_that_say_nothing_do_not_leave() -> None:
    events = [
        chunk({"content": "SEC"}),
        chunk({"content": ""}),
        chunk({}),
        chunk(),
        chunk({"content": "x"}),
        chunk({}, "stop"),
    ]
    found = chunks(events, Word())
    assert [event["choices"][0]["delta"] for event in found] == [{"content": "SECx"}, {}]


def test_choices_come_interleaved_and_keep_apart() -> None:
    pieces = [("0", 0), ("SEC", 1), ("SEC", 0), ("RET", 1), ("OND", 0)]
    events = [chunk({"content": text}, index=index) for text, index in pieces]
    found = chunks([*events, chunk({}, "stop", 1), chunk({}, "stop")], Word(), n=2)
    assert text_of(found) == "0SECOND"
    assert text_of(found, index=1) == "[-]"


def test_counts_leave_where_they_were_asked_for() -> None:
    events = [chunk({"content": "a"}), chunk({}, "stop"), {**chunk(), "usage": USAGE}]
    assert "usage" not in json.dumps(chunks(events))
    asked = chunks(events, stream_options={"include_usage": True})
    assert asked[-1] == {
        **{name: asked[0][name] for name in ("id", "model", "created", "object")},
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def test_log_probabilities_are_defended_and_only_what_was_asked_for_leaves() -> None:
    said = {"content": [entry("a", -0.1234, ("b", -2.3456), ("c", -5.6789)), entry("b", -1.2345)], "refusal": None}
    answer = chat({"content": "ab"}, logprobs=said)
    got = answered(answer, Round(decimals=1), logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert got["refusal"] is None
    assert got["content"][0] == {
        "token": "a",
        "logprob": -0.1,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.1, "bytes": [97]},
            {"token": "b", "logprob": -2.3, "bytes": [98]},
        ],
    }
    assert answered(answer, logprobs=True)["choices"][0]["logprobs"]["content"][1]["top_logprobs"] == []
    assert answered(answer)["choices"][0]["logprobs"] is None
    assert "0.1234" not in json.dumps(answered(answer))


def test_log_probabilities_of_a_stream_wait_with_their_text() -> None:
    events = [
        chunk({"content": piece}, logprobs={"content": [entry(piece, -0.5)]}) for piece in ("SE", "CR", "ET", "SE", "x")
    ]
    found = chunks([*events, chunk({}, "stop")], Word(), logprobs=True)
    tokens = [
        one["token"]
        for event in found
        if event["choices"][0]["logprobs"]
        for one in event["choices"][0]["logprobs"]["content"]
    ]
    assert text_of(found) == "[-]SEx"
    assert tokens == ["SE", "x"]


def test_a_tool_s_call_comes_without_log_probabilities() -> None:
    said = {"content": [entry("{", -0.1234)]}
    got = answered(chat({"content": "x", "tool_calls": [CALL]}, logprobs=said), logprobs=True, tools=TOOLS)
    assert got["choices"][0]["logprobs"] is None
    delta = {"tool_calls": [{"index": 0, **CALL}]}
    assert "0.1234" not in json.dumps(
        chunks([chunk(delta, logprobs=said), chunk({}, "stop")], logprobs=True, tools=TOOLS)
    )


def test_a_refusal_s_and_a_thought_s_log_probabilities_stand_in_their_places() -> None:
    answer = chat({"refusal": "no"}, logprobs={"content": None, "refusal": [entry("no", -0.5)]})
    assert answered(answer, logprobs=True)["choices"][0]["logprobs"]["refusal"][0]["token"] == "no"
    thought = chunk({"reasoning_content": "hm"}, logprobs={"content": [entry("hm", -0.5)]})
    found = chunks([thought, chunk({}, "stop")], logprobs=True)
    assert found[0]["choices"][0]["logprobs"]["content"][0]["token"] == "hm"


def test_a_filter_ends_the_answer_and_says_so() -> None:
    got = answered(chat({"content": "a SECRET b"}), Word(ends=True))
    assert got["choices"][0]["finish_reason"] == "content_filter"
    assert got["choices"][0]["message"]["content"] == "a [-]"
    found = chunks([chunk({"content": piece}) for piece in ("a SEC", "RET b", "c")], Word(ends=True))
    assert text_of(found) == "a [-]"
    assert found[-1]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "CUDA error in /opt/model.py", "code": 500}},
        {"error": "out of memory"},
    ],
)
def test_a_failure_in_mid_stream_is_told_without_its_words(event: Json) -> None:
    api = codec("openai")
    reading = ask(api, PATH, STREAM)
    assert isinstance(api, Streams)
    with pytest.raises(UpstreamError) as caught:
        api.event(Event(json.dumps(event).encode()), reading)
    assert caught.value.code == "upstream_failed"
    told = api.end(reading, caught.value)
    assert json.loads(told.removeprefix(b"data: "))["error"]["message"] == "the model failed"
    with pytest.raises(UpstreamError):
        api.event(Event(b"{}", b"error"), reading)


def test_errors_are_what_openai_s_clients_expect() -> None:
    api = codec("openai")
    kind, body = api.error(Denied("budget spent", code="budget_spent", status=429))
    assert kind == b"application/json"
    assert json.loads(body) == {
        "error": {"message": "budget spent", "type": "rate_limit_error", "param": None, "code": "budget_spent"}
    }
    for status, name in (
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (502, "server_error"),
    ):
        assert json.loads(api.error(Denied("no", status=status))[1])["error"]["type"] == name


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": {}},
        {"choices": ["a"]},
        {"choices": [{"index": 0, "message": "hi"}]},
        chat({"content": 5}),
        chat({"content": ["a"]}),
        chat({"content": "a"}, index=-1),
        chat({"content": "a"}, index="0"),
        chat({"content": "a"}, index=1),
        chat({"content": "a"}, {"content": "b"}),
        {"choices": chat({"content": "a"})["choices"] * 2},
        chat({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 0.5}}}]}),
        chat({"tool_calls": [{"function": "f"}]}),
        chat({"tool_calls": {}}),
        chat({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": 0.5}]}),
        chat({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": "-1"}]}),
        chat({"content": "a"}, logprobs={"content": [{"logprob": -1.0}]}),
        chat({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0, "bytes": [999]}]}),
        chat({"content": "a"}, logprobs=[1]),
        [],
        "hi",
        None,
    ],
)
def test_what_cannot_be_read_is_withheld(answer: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        answered(answer, logprobs=True)
    assert caught.value.code in ("unreadable_answer", "too_many_predictions")


def test_text_behind_an_end_is_withheld() -> None:
    events = [chunk({"content": "a"}), chunk({}, "stop"), chunk({"content": "b"})]
    with pytest.raises(UpstreamError):
        chunks(events)
    assert len(chunks([*events[:2], chunk({})])) == 2


def test_a_choice_that_nobody_asked_for_is_withheld() -> None:
    with pytest.raises(UpstreamError) as caught:
        chunks([chunk({"content": "a"}, index=1)])
    assert caught.value.code == "too_many_predictions"
