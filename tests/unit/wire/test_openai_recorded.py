"""What llama.cpp's server answered, taken through: `tests/recorded/llama`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from guard.defences.round import Round
from guard.wire.base import Codec, Streams
from guard.wire.body import decode_request
from guard.wire.events import splitter
from tests.support import recorded
from tests.support.generated import Word
from tests.support.talks import codec, streamed, whole

Json = Any  # Any: JSON of the API
CASES = [one for one in recorded.cases("llama") if one not in ("health", "chat-error")]
STREAMS = [one for one in CASES if "stream" in one]
TEXTS = {
    "chat-end": ["794772"],
    "chat-two": ["7947"] * 2,
    "chat-stream-two": ["7947"] * 2,
    "completion-list": ["7947", "! Will be"],
    "completion-stream-list": ["7947", "! Will be"],
}
"""What is said, where that is not one text, `7947`."""
INNER = re.compile(r"fingerprint|timings|cached|_per_|_ms|predicted|tokens_details\":|\"id\": ?\d")


def taken(case: str, *defences: Any, api: Codec | None = None) -> str:
    """Return what the client gets of a recorded answer."""
    api = api or codec("openai")
    _, call = recorded.request("llama", case)
    reading, reply = api.read(call), recorded.reply("llama", case)
    if case not in STREAMS:
        return json.dumps(whole(api, reading, json.loads(reply.body), *defences))
    found = splitter("sse", 1 << 20).feed(reply.body)
    return streamed(api, reading, [event.data for event in found], *defences).decode()


def said(case: str, got: str) -> list[str]:
    """Return the texts of an answer, by choice."""
    if case not in STREAMS:
        answer = json.loads(got)
        if "output" in answer:
            return [answer["output"][0]["content"][0]["text"]]
        return [one["text"] if "text" in one else one["message"]["content"] for one in answer["choices"]]
    texts: dict[int, str] = {}
    for line in got.splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("type") == "response.output_text.delta":
            texts[0] = texts.get(0, "") + event["delta"]
        for one in event.get("choices", ()):
            added = one["text"] if "text" in one else one["delta"].get("content") or ""
            texts[one["index"]] = texts.get(one["index"], "") + added
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize("case", CASES)
def test_the_same_text_and_nothing_of_the_server(case: str) -> None:
    got = taken(case)
    assert said(case, got) == TEXTS.get(case, ["7947"])
    assert not INNER.search(got)


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_leave_where_they_were_asked_for_and_as_the_defences_made_them(case: str) -> None:
    exact, rounded = taken(case), taken(case, Round(decimals=1))
    found = [float(one) for one in re.findall(r'"logprob": ?(-?[\d.e-]+)', rounded)]
    assert bool(found) == ("logprobs" in case or case in ("chat-end", "completion-list", "completion-stream"))
    assert all(abs(one * 10 - round(one * 10)) < 1e-9 for one in found)
    assert said(case, exact) == said(case, rounded)
    assert len(found) == len(re.findall(r'"logprob"', exact))


@pytest.mark.parametrize("case", CASES)
def test_a_word_that_must_not_leave_is_struck_out_though_it_comes_digit_by_digit(case: str) -> None:
    got = taken(case, Word(word="7947"))
    assert said(case, got) == [text.replace("7947", "[-]") for text in TEXTS.get(case, ["7947"])]
    assert "7947" not in re.sub(r'"(id|item_id)": ?"[^"]*"|"created(_at)?": ?\d+', "", got)


@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_a_filter_ends_says_so(case: str) -> None:
    got = taken(case, Word(word="7947", ends=True))
    assert "content_filter" in got
    assert all("7947" not in text for text in said(case, got))
    if case in STREAMS:
        assert got.endswith("data: [DONE]\n\n") or "event: response.incomplete" in got


@pytest.mark.parametrize("case", STREAMS)
def test_counts_of_tokens_leave_at_the_end_and_where_they_were_asked_for(case: str) -> None:
    api = codec("openai")
    _, call = recorded.request("llama", case)
    document = decode_request(call.body)
    assert "usage" in taken(case)
    document.pop("stream_options", None)
    call.body = json.dumps(document).encode()
    reading = api.read(call)
    assert "responses" in case or json.loads(reading.body)["stream_options"] == {"include_usage": True}
    events = [event.data for event in splitter("sse", 1 << 20).feed(recorded.reply("llama", case).body)]
    assert isinstance(api, Streams)
    assert "responses" in case or b"usage" not in streamed(api, reading, events)


def test_what_is_forwarded_is_what_was_sent_but_for_what_guard_adds() -> None:
    for case in CASES:
        _, call = recorded.request("llama", case)
        sent, forwarded = json.loads(call.body), json.loads(codec("openai").read(call).body)
        assert forwarded.pop("store", False) is False
        assert forwarded == sent, case
