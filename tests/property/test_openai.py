"""OpenAI's API and vLLM's: no number leaves that nobody asked for; whatever is said is read, refused or withheld."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.defences.label_only import LabelOnly
from guard.defences.round import Round
from guard.errors import ClientError, UpstreamError
from guard.model.outputs import Kind
from guard.wire.base import Event, Streams
from tests.support.generated import Word
from tests.support.openai_answers import (
    LISTS,
    TOOLS,
    chat,
    chunk,
    completion,
    entry,
    message,
    moderation,
    response,
    response_events,
    vectors,
)
from tests.support.talks import allowed, ask, codec, let_out, places, planted, replaced, streamed, whole

Json = Any  # Any: JSON of the API, deliberately wrong
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
LOGPROBS: Json = {"content": [entry("hi", -0.5, ("yo", -1.5))], "refusal": None}
MESSAGE: Json = {"content": "hi", "refusal": None, "reasoning_content": "hm", "audio": None}
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


@dataclass(frozen=True)
class Case:
    """A request, an answer to it, and events that say the same."""

    path: str
    body: Json
    answer: Json
    events: tuple[Json, ...] = ()
    kind: Kind = "logprobs"
    api: str = "openai"

    def asked(self, **more: Json) -> Any:
        return ask(self.codec, self.path, {**self.body, **more})

    @property
    def codec(self) -> Any:
        return codec(self.api, *allowed("token_ids", "echo"), kind=self.kind)

    @property
    def defence(self) -> Any:
        return Round(decimals=1) if self.kind in ("logprobs", "embedding") else LabelOnly()


CHUNKS = (
    chunk({"role": "assistant", "content": "hi"}, logprobs=LOGPROBS),
    chunk({"tool_calls": [{"index": 0, **CALL}]}),
    chunk({}, "stop"),
    {**chunk(), "usage": chat()["usage"]},
)
TEXT: Json = {"model": "m", "prompt": "a"}
RESPONDED = response(message("hi", logprobs=[entry("hi", -0.5)]))
SAID = response_events("hi you", "hi", " you")
INCLUDED: Json = {"model": "m", "input": "a", "include": ["message.output_text.logprobs"], "top_logprobs": 1}
CLASSES: Json = {"data": [{"index": 0, "label": "joy", "probs": [0.6, 0.4], "num_classes": 2}]}
CASES = {
    "chat": Case("/v1/chat/completions", {**CHAT, "tools": TOOLS}, chat({**MESSAGE, "tool_calls": [CALL]}), CHUNKS),
    "chat-logprobs": Case(
        "/v1/chat/completions",
        {**CHAT, "logprobs": True, "top_logprobs": 1},
        chat({"content": "hi"}, logprobs=LOGPROBS),
        CHUNKS[:1],
    ),
    "completion": Case("/v1/completions", TEXT, completion("hi", logprobs=LISTS), (completion("hi", None),)),
    "completion-logprobs": Case(
        "/v1/completions",
        {**TEXT, "logprobs": 1},
        completion("Hello", logprobs=LISTS),
        (completion("hi", None, logprobs=LOGPROBS), completion("", "stop")),
    ),
    "responses": Case("/v1/responses", {"model": "m", "input": "a"}, RESPONDED, tuple(SAID)),
    "responses-logprobs": Case("/v1/responses", INCLUDED, RESPONDED, (SAID[8],)),
    "embeddings": Case("/v1/embeddings", {"input": "a"}, vectors([0.5, -0.25]), kind="embedding"),
    "moderations": Case("/v1/moderations", {"input": ["a", "b"]}, moderation(), kind="probabilities"),
    "classify": Case("/classify", {"input": "a"}, CLASSES, kind="probabilities", api="vllm"),
    "score": Case(
        "/score",
        {"text_1": "a", "text_2": "b"},
        {"data": [{"index": 0, "object": "score", "score": 0.5}]},
        kind="probabilities",
        api="vllm",
    ),
    "rerank": Case(
        "/rerank",
        {"query": "a", "documents": ["b"]},
        {"results": [{"index": 0, "document": {"text": "b"}, "relevance_score": 0.5}]},
        kind="probabilities",
        api="vllm",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_number_that_is_planted_anywhere_does_not_leave(name: str) -> None:
    case, tried = CASES[name], 0
    for digits, answer in planted(case.answer):
        assert digits not in let_out(partial(whole, case.codec, case.asked(), answer, case.defence)), answer
        tried += 1
    for at, event in enumerate(case.events):
        for digits, wrong in planted(event):
            said = [*case.events[:at], wrong, *case.events[at + 1 :]]
            assert digits not in let_out(partial(streamed, case.codec, case.asked(stream=True), said, case.defence))
            tried += 1
    assert tried > 15


JUNK: list[Json] = [
    *(None, True, -1, 0, 7, 0.5, -0.5, 1e308, 10**30, "", "x", "a SECRET", "[DONE]"),
    *([], {}, [[]], [0.5], ["a"], {"a": {}}),
]
SCALARS = st.sampled_from(JUNK)


def mutated(document: Json, data: st.DataObject) -> Json:
    """Return a document with one to three values replaced, or members added."""
    for _ in range(data.draw(st.integers(1, 3))):
        at, value = data.draw(st.sampled_from([*places(document)]))
        junk = data.draw(SCALARS)
        if isinstance(value, dict) and data.draw(st.booleans()):
            member = data.draw(
                st.sampled_from(["index", "content", "logprobs", "text", "id", "type", "surplus", "delta"])
            )
            document = replaced(document, at, {**value, member: junk})
        else:
            document = replaced(document, at, junk)
    return document


@given(data=st.data())
def test_any_request_is_read_or_refused(data: st.DataObject) -> None:
    case = CASES[data.draw(st.sampled_from([*CASES]))]
    extra = {"n": 2, "tools": TOOLS, "stop": ["x"], "stream": True, "stream_options": {}, "logit_bias": {"5": 1}}
    body = mutated({**extra, **case.body} if case.kind == "logprobs" else case.body, data)
    try:
        reading = ask(case.codec, case.path, body)
    except ClientError:
        return
    assert len(reading.queries.row_bytes()) == reading.queries.rows
    json.loads(reading.body)
    if reading.most is not None:
        assert min(reading.most) >= 0
        assert reading.most.choices >= 1
        assert reading.most.tokens >= 1


@given(data=st.data())
def test_any_answer_is_read_or_withheld(data: st.DataObject) -> None:
    case = CASES[data.draw(st.sampled_from([*CASES]))]
    answer = mutated(case.answer, data)
    try:
        got = whole(case.codec, case.asked(), answer, *([Word()] if case.kind == "logprobs" else []))
    except UpstreamError:
        return
    if case.kind == "logprobs":
        assert "SECRET" not in json.dumps(got)


@given(data=st.data())
def test_any_events_in_any_order_are_read_or_withheld(data: st.DataObject) -> None:
    case = CASES[data.draw(st.sampled_from([name for name, one in CASES.items() if one.events]))]
    picked = data.draw(st.lists(st.sampled_from(case.events), min_size=1, max_size=8))
    events = [mutated(event, data) if data.draw(st.booleans()) else event for event in picked]
    events += [b"[DONE]"] * data.draw(st.integers(0, 1))
    got = let_out(partial(streamed, case.codec, case.asked(stream=True), events, Word()))
    assert "SECRET" not in got


@given(st.binary(max_size=64), st.sampled_from(["chat", "completion", "responses"]))
def test_any_bytes_of_an_event_are_read_or_withheld(data: bytes, name: str) -> None:
    case = CASES[name]
    api = case.codec
    assert isinstance(api, Streams)
    try:
        for answer in api.event(Event(data), case.asked(stream=True)):
            api.write_event(answer)
    except UpstreamError:
        return


PIECES = st.lists(st.text("SECRT xé🙂", max_size=4), max_size=12)


@given(pieces=PIECES, path=st.sampled_from(["chat", "completion", "responses"]), end=st.booleans())
def test_a_text_is_the_same_in_any_pieces(pieces: list[str], path: str, end: bool) -> None:
    """Whole, and in pieces, with and without an end said: the same text leaves."""
    case, text = CASES[path], "".join(pieces)
    if path == "responses":
        bare = whole(case.codec, case.asked(), response(message(text)), Word())["output"][0]["content"][0]["text"]
        events = response_events(text, *pieces)
    elif path == "chat":
        bare = whole(case.codec, case.asked(), chat({"content": text}), Word())["choices"][0]["message"]["content"]
        events = [chunk({"content": piece}) for piece in pieces] + ([chunk({}, "stop")] if end else [])
    else:
        bare = whole(case.codec, case.asked(), completion(text), Word())["choices"][0]["text"]
        events = [completion(piece, None) for piece in pieces] + ([completion("", "stop")] if end else [])
    got = streamed(case.codec, case.asked(stream=True), [*events, b"[DONE]"], Word()).decode()
    said = ""
    for line in got.splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        said += event.get("delta", "") if event.get("type") == "response.output_text.delta" else ""
        for choice in event.get("choices", ()):
            said += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    assert said == (bare or "")
