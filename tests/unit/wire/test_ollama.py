from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from guard.defences.round import Round
from guard.defences.top_k import TopK
from guard.errors import ClientError, Denied, UpstreamError
from guard.model.outputs import Kind
from guard.model.parameters import Parameter
from guard.model.text import Most
from guard.wire.base import Event, Streams
from guard.wire.openai_requests import UNBOUNDED
from tests.support.codecs import call
from tests.support.generated import Word
from tests.support.talks import allowed, ask, codec, events_of, let_out, planted, streamed, whole
from tests.support.text_models import ollama

Json = Any  # Any: JSON of the API
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "think of it"}]}
GENERATE: Json = {"model": "m", "prompt": "think of it"}
LOGPROBS: Json = {"logprobs": True, "top_logprobs": 2}


def lines_of(path: str, body: Json) -> list[Json]:
    return [json.loads(line) for line in ollama(path, {**body, "stream": True})]


def forwarded(path: str, body: Json, *parameters: Parameter, kind: Kind = "logprobs") -> Json:
    return json.loads(ask(codec("ollama", *parameters, kind=kind), path, body).body)


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("logprobs", {"/api/generate", "/api/chat"}),
        ("embedding", {"/api/embed", "/api/embeddings"}),
        ("probabilities", set[str]()),
    ],
)
def test_what_answers_the_declared_kind_is_guarded_and_the_rest_closed(kind: Kind, paths: set[str]) -> None:
    endpoints = codec("ollama", kind=kind).endpoints
    assert {e.template for e in endpoints if e.access == "scoring"} == paths
    assert {e.template for e in endpoints if e.access == "status"} == {"/"}
    closed = {e.template for e in endpoints if e.access == "closed"}
    assert {"/api/show", "/api/pull", "/api/delete", "/v1/chat/completions", "/api/version"} <= closed


def test_a_request_asks_for_events_unless_it_says_that_it_does_not() -> None:
    api = codec("ollama")
    for said, framing in (({}, "ndjson"), ({"stream": None}, "ndjson"), ({"stream": True}, "ndjson")):
        assert ask(api, "/api/chat", {**CHAT, **said}).stream == framing
    assert ask(api, "/api/chat", {**CHAT, "stream": False}).stream is None
    for wrong in (0, 1, "false", {"a": 1}):
        with pytest.raises(ClientError):
            ask(api, "/api/chat", {**CHAT, "stream": wrong})


def test_a_form_s_content_type_is_read_as_json_as_the_server_reads_it() -> None:
    reading = codec("ollama").read(call("/api/chat", CHAT, content_type="application/x-www-form-urlencoded"))
    assert reading.content_type == b"application/json"


@pytest.mark.parametrize("most", [-1, -2, 0, 0.5, -0.5, -7])
def test_every_way_to_ask_for_no_end_is_bounded(most: float) -> None:
    reading = ask(codec("ollama"), "/api/generate", {**GENERATE, "options": {"num_predict": most}})
    assert json.loads(reading.body)["options"]["num_predict"] == 64
    assert reading.most == Most(1, 64, 0)
    assert forwarded("/api/generate", GENERATE)["options"] == {"num_predict": 64}


def test_log_probabilities_are_counted_with_their_candidates() -> None:
    api = codec("ollama")
    asked = {**GENERATE, **LOGPROBS, "options": {"num_predict": 5}}
    assert ask(api, "/api/generate", asked).most == Most(1, 5, 15)
    unbounded = codec("ollama", Parameter(name="max_tokens"))
    assert ask(unbounded, "/api/generate", {**GENERATE, **LOGPROBS}).most == Most(1, 0, UNBOUNDED)


@pytest.mark.parametrize(
    "smuggled",
    [
        {"Logprobs": True},
        {"LOGPROBS": True},
        {"Options": {"num_predict": 9999}},
        {"prom\u017ft": "x"},
        {"\u212aeep_alive": 1},
        {"_debug_render_only": True},
        {"raw": True},
        {"template": "{{ .Prompt }}"},
        {"context": [1, 2, 3]},
        {"options": {"num_gpu": 1}},
        {"width": 64},
        {"surplus": 1},
    ],
)
def test_what_the_server_may_read_otherwise_or_reveals_more_is_refused(smuggled: Json) -> None:
    with pytest.raises(ClientError) as caught:
        ask(codec("ollama"), "/api/generate", {**GENERATE, **smuggled})
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize("name", ["Logprobs", "_debug_render_only", "raw"])
def test_unknown_fields_let_through_do_not_open_those(name: str) -> None:
    with pytest.raises(ClientError):
        ask(codec("ollama", fields="all"), "/api/generate", {**GENERATE, name: True})


def test_the_policy_opens_by_name() -> None:
    named = allowed("raw", "template", "token_ids", "keep_alive", "num_gpu")
    more = {"raw": True, "template": "t", "context": [1], "keep_alive": 3, "options": {"num_gpu": 1}}
    body = forwarded("/api/generate", {**GENERATE, **more}, *named)
    assert {name: body[name] for name in more if name != "options"} == {
        name: more[name] for name in more if name != "options"
    }
    assert "keep_alive" not in forwarded("/api/generate", {**GENERATE, "keep_alive": 0})


def test_a_schema_and_log_probabilities_never_go_together() -> None:
    schema = {"format": {"type": "object", "properties": {"a": {"const": "x"}}}}
    forwarded("/api/chat", {**CHAT, **schema})
    with pytest.raises(ClientError):
        forwarded("/api/chat", {**CHAT, **schema, **LOGPROBS})


def test_a_message_s_unknown_members_do_not_make_other_queries_of_one_prompt() -> None:
    api = codec("ollama")
    plain = ask(api, "/api/chat", CHAT)
    message: Json = {**CHAT["messages"][0], "role": "USER", "ignored": "1", "images": []}
    reading = ask(api, "/api/chat", {**CHAT, "messages": [message]})
    assert reading.queries.row_bytes() == plain.queries.row_bytes()
    assert json.loads(reading.body)["messages"] == CHAT["messages"]
    made: Json = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}, "ignored": 1}}
    body = forwarded("/api/chat", {**CHAT, "messages": [{"role": "assistant", "tool_calls": [made]}]})
    assert body["messages"][0]["tool_calls"] == [{"id": "1", "function": {"name": "f", "arguments": {}}}]
    for wrong in ("x", [1], [{"function": 1}], [{"function": {"Name": "f"}}]):
        with pytest.raises(ClientError):
            ask(api, "/api/chat", {**CHAT, "messages": [{"role": "assistant", "tool_calls": wrong}]})
    with pytest.raises(ClientError):
        ask(api, "/api/chat", {**CHAT, "messages": [{**message, "Content": "other"}]})


def test_what_shapes_the_prompt_is_part_of_the_query() -> None:
    api = codec("ollama")
    rows = {
        bytes(ask(api, "/api/generate", {**GENERATE, **more}).queries.row_bytes()[0])
        for more in ({}, {"system": "s"}, {"suffix": "s"}, {"images": ["aaaa"]})
    }
    assert len(rows) == 4
    warm, cold = (ask(api, "/api/generate", {**GENERATE, "options": {"temperature": t}}).queries for t in (0, 1))
    assert warm.row_bytes() == cold.row_bytes()
    assert warm.context != cold.context


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m"},
        {**GENERATE, "prompt": ""},
        {**GENERATE, "prompt": 7},
        {**GENERATE, "options": [1]},
        {**GENERATE, "options": {"num_predict": "many"}},
        {**GENERATE, "logprobs": "yes"},
        [GENERATE],
    ],
)
def test_what_is_no_prompt_is_refused(body: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("ollama"), "/api/generate", body)


@pytest.mark.parametrize("messages", [[], None, "hi", [1], [{"role": "user", "content": 3}], [{"content": "x"}]])
def test_what_is_no_chat_is_refused(messages: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("ollama"), "/api/chat", {**CHAT, "messages": messages})


@pytest.mark.parametrize(("path", "body"), [("/api/generate", GENERATE), ("/api/chat", CHAT)])
def test_text_and_thought_arrive_whole_and_in_lines(path: str, body: Json) -> None:
    api = codec("ollama")
    answer = ollama(path, {**body, "stream": False})
    read = whole(api, ask(api, path, {**body, "stream": False}), answer)
    place = read["message"] if path == "/api/chat" else read
    text = place["content" if path == "/api/chat" else "response"]
    assert (text, place["thinking"]) == ("The code is 4172, dear.", "Let me see")
    assert (read["done"], read["done_reason"], read["eval_count"]) == (True, "stop", 10)
    lines = events_of(streamed(api, ask(api, path, body), lines_of(path, body)))
    places = [line["message"] if path == "/api/chat" else line for line in lines]
    assert "".join(p["content" if path == "/api/chat" else "response"] for p in places) == text
    assert "".join(p.get("thinking", "") for p in places) == "Let me see"
    assert [line["done"] for line in lines] == [False] * 10 + [True]


def test_log_probabilities_stand_beside_their_text_whole_and_in_lines() -> None:
    api = codec("ollama")
    body = {**CHAT, **LOGPROBS}
    reading = ask(api, "/api/chat", {**body, "stream": False})
    read = whole(api, reading, ollama("/api/chat", {**body, "stream": False}), Round(decimals=1))
    assert [entry["token"] for entry in read["logprobs"]][:4] == ["Let", " me", " see", "The"]
    assert read["logprobs"][0]["top_logprobs"][1] == {"token": "~", "logprob": -3.2, "bytes": [126]}
    lines = events_of(streamed(api, ask(api, "/api/chat", body), lines_of("/api/chat", body), Round(decimals=1)))
    assert [entry for line in lines for entry in line.get("logprobs", [])] == read["logprobs"]


def test_candidates_beyond_what_was_asked_never_leave() -> None:
    api = codec("ollama")
    reading = ask(api, "/api/chat", {**CHAT, "logprobs": True, "stream": False})
    answer = ollama("/api/chat", {**CHAT, **LOGPROBS, "stream": False})
    assert all(entry["top_logprobs"] == [] for entry in whole(api, reading, answer)["logprobs"])
    reading = ask(api, "/api/chat", {**CHAT, **LOGPROBS, "stream": False})
    kept = whole(api, reading, answer, TopK(k=1))["logprobs"]
    assert all(len(entry["top_logprobs"]) == 1 for entry in kept)


def test_tokens_of_marks_that_the_server_cut_out_are_left_out() -> None:
    api = codec("ollama")
    reading = ask(api, "/api/chat", {**CHAT, "logprobs": True, "stream": False})
    texts = ("<think>", "Hm", "</think>", "\n\n", "Yes", " so")
    entries = [{"token": text, "logprob": -0.5, "bytes": [*text.encode()]} for text in texts]
    message = {"role": "assistant", "content": "Yes so", "thinking": "Hm"}
    read = whole(api, reading, {"model": "m", "message": message, "done": True, "logprobs": entries})
    assert [entry["token"] for entry in read["logprobs"]] == ["Hm", "Yes", " so"]


def test_tokens_that_come_before_their_text_wait_for_it() -> None:
    api = codec("ollama")
    reading = ask(api, "/api/generate", {**GENERATE, "logprobs": True})
    halves = [{"token": "\ufffd", "logprob": -0.5, "bytes": [byte]} for byte in "é".encode()]
    events = [{"response": "", "done": False, "logprobs": [half]} for half in halves[:1]]
    events += [{"response": "é", "done": False, "logprobs": halves[1:]}, {"response": "", "done": True}]
    lines = events_of(streamed(api, reading, events))
    assert [entry["bytes"] for line in lines for entry in line.get("logprobs", [])] == [[0xC3], [0xA9]]


def test_text_that_waits_leaves_with_a_later_line_or_the_last() -> None:
    api = codec("ollama")
    events = [{"response": text, "done": False} for text in ("a SEC", "RE", "T b SE")] + [
        {"response": "", "done": True}
    ]
    lines = events_of(streamed(api, ask(api, "/api/generate", GENERATE), events, Word()))
    assert "".join(line["response"] for line in lines) == "a [-] b SE"
    assert [line["done"] for line in lines] == [False, False, True]
    assert lines[-1]["response"] == "SE"


def test_a_filter_ends_the_answer_with_a_last_line() -> None:
    api = codec("ollama")
    events = [{"response": text, "done": False} for text in ("a ", "SECRET", " b")] + [{"response": "", "done": True}]
    lines = events_of(streamed(api, ask(api, "/api/generate", GENERATE), events, Word(ends=True)))
    assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "content_filter")
    assert "".join(line["response"] for line in lines).strip() == "a [-]"


def test_secrets_in_a_tool_call_are_struck_out() -> None:
    api = codec("ollama")
    function = {"name": "pay", "index": 0, "arguments": {"card": "xSECRETx", "n": 1.5, "deep": [{"a": "SECRET"}]}}
    message: Json = {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", "function": function}]}
    reading = ask(api, "/api/chat", {**CHAT, "stream": False})
    read = whole(api, reading, {"message": message, "done": True}, Word())
    made = read["message"]["tool_calls"][0]
    assert made["function"] == {
        "index": 0,
        "name": "pay",
        "arguments": {"card": "x[-]x", "n": 1.5, "deep": [{"a": "[-]"}]},
    }
    # What is struck out may leave no JSON: then nothing of the arguments is left.
    message["tool_calls"][0]["function"] = {"name": "pay", "arguments": {"n": 1234567}}
    reading = ask(api, "/api/chat", {**CHAT, "stream": False})
    read = whole(api, reading, {"message": message, "done": True}, Word(word="1234567"))
    assert read["message"]["tool_calls"][0]["function"] == {"name": "", "arguments": {}}


def test_token_numbers_leave_only_if_opened_and_nothing_was_struck_out() -> None:
    answer = ollama("/api/generate", {**GENERATE, "stream": False})
    assert answer["context"] == [1, 2, 3]
    closed, opened = codec("ollama"), codec("ollama", *allowed("token_ids"))
    asked = {**GENERATE, "stream": False}
    assert "context" not in whole(closed, ask(closed, "/api/generate", asked), answer)
    assert whole(opened, ask(opened, "/api/generate", asked), answer)["context"] == [1, 2, 3]
    struck = whole(opened, ask(opened, "/api/generate", asked), answer, Word(word="4172"))
    assert "context" not in struck


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("asked", [{}, LOGPROBS])
def test_no_number_but_what_was_asked_leaves(path: str, asked: Json) -> None:
    """A number is planted in each place of an answer and of every line: none may leave, or only rounded."""
    api = codec("ollama", *allowed("token_ids"))
    body = {**(CHAT if path == "/api/chat" else GENERATE), **asked}
    tried = 0
    for digits, answer in planted(ollama(path, {**body, "stream": False})):
        reading = ask(api, path, {**body, "stream": False})
        assert digits not in let_out(partial(whole, api, reading, answer, Round(decimals=1)))
        tried += 1
    for line in (lines_of(path, body)[3], lines_of(path, body)[-1]):
        for digits, event in planted(line):
            reading = ask(api, path, body)
            assert digits not in let_out(partial(streamed, api, reading, [event], Round(decimals=1)))
            tried += 1
    assert tried > 60


def test_an_error_in_a_line_ends_the_stream_and_is_not_passed_on() -> None:
    api = codec("ollama")
    assert isinstance(api, Streams)
    reading = ask(api, "/api/generate", GENERATE)
    with pytest.raises(UpstreamError) as caught:
        api.event(Event(b'{"error":"llama runner at /usr/lib"}'), reading)
    assert json.loads(api.end(reading, caught.value)) == {"error": caught.value.message}
    assert "/usr" not in caught.value.message
    assert api.end(reading, None) == b""
    assert api.error(Denied("budget spent", status=429)) == (b"application/json", b'{"error":"budget spent"}')


def test_nothing_follows_the_last_line() -> None:
    api = codec("ollama")
    reading = ask(api, "/api/generate", GENERATE)
    events = [{"response": "a", "done": True}, {"response": "b", "done": False}, b""]
    assert len(events_of(streamed(api, reading, events))) == 1


@pytest.mark.parametrize(
    ("path", "member", "answer"),
    [("/api/embed", "input", "embeddings"), ("/api/embeddings", "prompt", "embedding")],
)
def test_vectors_are_defended(path: str, member: str, answer: str) -> None:
    api = codec("ollama", kind="embedding")
    reading = ask(api, path, {"model": "m", member: "one"})
    read = whole(api, reading, ollama(path, {"model": "m", member: "one"}), Round(decimals=1))
    assert set(read) <= {"model", answer}
    row = read[answer] if path == "/api/embeddings" else read[answer][0]
    assert all(value * 10 == pytest.approx(round(value * 10)) for value in row)


def test_each_text_to_embed_is_a_row() -> None:
    api = codec("ollama", kind="embedding")
    reading = ask(api, "/api/embed", {"model": "m", "input": ["a", "b"], "dimensions": 4, "keep_alive": 1})
    assert reading.queries.rows == 2
    assert "keep_alive" not in json.loads(reading.body)
    for values in ([[0.5, 1.5]], [[0.5], [0.5, 1.5]], [], [[0.5, None], [1.0, 2.0]], "x", [[[0.1]], [[0.2]]], None):
        with pytest.raises(UpstreamError):
            whole(api, reading, {"model": "m", "embeddings": values})
    for wrong in ([], "", [1], None, [["a"]]):
        with pytest.raises(ClientError):
            ask(api, "/api/embed", {"model": "m", "input": wrong})
    with pytest.raises(ClientError):
        ask(api, "/api/embeddings", {"model": "m", "prompt": ["a"]})
