from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from guard.defences.round import Round
from guard.errors import ClientError, Denied, UpstreamError
from guard.model.parameters import Parameter
from guard.model.text import Most
from guard.wire.base import Event, Streams
from guard.wire.openai_requests import UNBOUNDED
from tests.support.codecs import call, reply
from tests.support.generated import Word
from tests.support.talks import allowed, ask, codec, events_of, let_out, planted, streamed, whole
from tests.support.text_models import TOKENS, tgi

Json = Any  # Any: JSON of the API
PLAIN: Json = {"inputs": "my code?", "parameters": {"max_new_tokens": 9}}
DETAILS: Json = {"inputs": "my code?", "parameters": {"max_new_tokens": 9, "details": True, "top_n_tokens": 2}}
TEXT = "".join(TOKENS)


def event_documents(body: Json) -> list[Json]:
    return events_of(b"".join(tgi("/generate_stream", body)))


def forwarded(path: str, body: Json, *parameters: Parameter) -> Json:
    return json.loads(ask(codec("tgi", *parameters), path, body).body)


def test_only_generated_text_opens_endpoints() -> None:
    scoring = {e.template for e in codec("tgi").endpoints if e.access == "scoring"}
    assert scoring == {"/generate", "/generate_stream", "/"}
    assert not [e for e in codec("tgi", kind="probabilities").endpoints if e.access == "scoring"]
    closed = {e.template for e in codec("tgi").endpoints if e.access == "closed"}
    assert {"/tokenize", "/chat_tokenize", "/info", "/v1/chat/completions", "/invocations", "/vertex"} <= closed


def test_the_root_answers_in_events_where_it_is_told_to() -> None:
    api = codec("tgi")
    assert ask(api, "/generate_stream", PLAIN).stream == "sse"
    assert ask(api, "/", {**PLAIN, "stream": True}).stream == "sse"
    assert ask(api, "/", PLAIN).stream is None
    assert ask(api, "/generate", {**PLAIN, "stream": True}).stream is None, "the server ignores it there"
    with pytest.raises(ClientError):
        ask(api, "/", {**PLAIN, "stream": "true"})


def test_the_prompt_comes_back_only_where_it_is_opened() -> None:
    assert forwarded("/", PLAIN)["parameters"]["return_full_text"] is False
    asked = {**PLAIN, "parameters": {"max_new_tokens": 9, "return_full_text": True}}
    with pytest.raises(ClientError):
        forwarded("/", asked)
    api = codec("tgi", *allowed("echo"))
    answer = tgi("/generate", asked)
    assert whole(api, ask(api, "/generate", asked), answer, Word(word="41")) == {
        "generated_text": "my code?The code is [-]72, dear."
    }
    with pytest.raises(UpstreamError):
        whole(api, ask(api, "/generate", asked), {"generated_text": "other"})
    written = streamed(api, ask(api, "/generate_stream", asked), event_documents(asked))
    assert events_of(written)[-1]["generated_text"] == f"my code?{TEXT}"


def test_what_an_answer_may_hold_is_counted() -> None:
    api = codec("tgi", *allowed("best_of"))
    assert ask(api, "/generate", PLAIN).most == Most(1, 9, 0)
    assert ask(api, "/generate", DETAILS).most == Most(1, 9, 27)
    assert ask(api, "/generate", {"inputs": "x"}).most == Most(1, 64, 0)
    several = {**DETAILS["parameters"], "best_of": 3}
    assert ask(api, "/generate", {**DETAILS, "parameters": several}).most == Most(3, 27, 27 * 3)
    unbounded = codec("tgi", Parameter(name="max_tokens"))
    assert ask(unbounded, "/generate", {"inputs": "x", "parameters": {"details": True}}).most == Most(1, 0, UNBOUNDED)


@pytest.mark.parametrize(
    "parameters",
    [
        {"best_of": 2},
        {"decoder_input_details": True},
        {"return_full_text": True},
        {"adapter_id": "other/model"},
        {"surplus": 1},
        {"details": True, "grammar": {"type": "regex", "value": "a"}},
        {"details": True, "repetition_penalty": 9.0},
        {"details": "yes"},
        {"max_new_tokens": "many"},
        {"top_n_tokens": -1, "details": True},
    ],
)
def test_what_reveals_more_is_refused(parameters: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("tgi"), "/generate", {"inputs": "x", "parameters": parameters})


def test_nothing_opens_the_scores_of_the_prompt() -> None:
    with pytest.raises(ClientError):
        ask(
            codec("tgi", *allowed("prompt_logprobs")),
            "/generate",
            {"inputs": "x", "parameters": {"decoder_input_details": True}},
        )


def test_what_says_nothing_is_let_through() -> None:
    said: Json = {
        "best_of": 1,
        "watermark": False,
        "decoder_input_details": False,
        "seed": None,
        "grammar": None,
        "stop": [],
    }
    parameters = forwarded("/generate", {"inputs": "x", "parameters": {**said, "max_new_tokens": 5}})["parameters"]
    assert parameters == {"watermark": False, "decoder_input_details": False, "stop": [], "max_new_tokens": 5}


@pytest.mark.parametrize("body", [{}, {"inputs": ""}, {"inputs": 3}, [1], {"inputs": "x", "parameters": [1]}])
def test_what_is_no_prompt_is_refused(body: Json) -> None:
    with pytest.raises(ClientError):
        ask(codec("tgi"), "/generate", body)


def test_whole_answers_and_events_say_the_same() -> None:
    api = codec("tgi")
    read = whole(api, ask(api, "/generate", DETAILS), tgi("/generate", DETAILS), Round(decimals=1))
    assert read["generated_text"] == TEXT
    tokens = read["details"]["tokens"]
    assert [token["text"] for token in tokens] == [*TOKENS, "</s>"]
    assert [token["special"] for token in tokens] == [False] * 7 + [True]
    written = streamed(api, ask(api, "/generate_stream", DETAILS), event_documents(DETAILS), Round(decimals=1))
    events = events_of(written)
    assert [event["token"] for event in events] == tokens
    assert [event["top_tokens"] for event in events] == read["details"]["top_tokens"]
    assert [event["index"] for event in events] == [*range(1, 9)]
    assert events[-1]["generated_text"] == TEXT
    assert events[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 8,
        "seed": None,
        "input_length": 5,
    }
    listed = whole(api, ask(api, "/", DETAILS), [{"generated_text": "a", "details": {}}])
    assert listed[0]["generated_text"] == "a"


def test_without_details_no_log_probability_leaves() -> None:
    api = codec("tgi")
    assert whole(api, ask(api, "/generate", PLAIN), tgi("/generate", DETAILS)) == {"generated_text": TEXT}
    written = streamed(api, ask(api, "/generate_stream", PLAIN), event_documents(DETAILS))
    events = events_of(written)
    assert {event["token"]["logprob"] for event in events} == {-9999.0}
    assert not any("top_tokens" in event or event["details"] for event in events)
    assert [event["token"]["text"] for event in events] == [*TOKENS, "</s>"]


def test_dropped_log_probabilities_leave_details_that_clients_can_read() -> None:
    api = codec("tgi", Parameter(name="logprobs", action="drop"))
    reading = ask(api, "/generate", DETAILS)
    assert json.loads(reading.body)["parameters"]["details"] is True
    assert reading.most == Most(1, 9, 0)
    read = whole(api, reading, tgi("/generate", DETAILS))
    assert read["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 8,
        "seed": None,
        "prefill": [],
        "tokens": [],
    }


def test_token_numbers_leave_only_if_opened() -> None:
    api = codec("tgi", *allowed("token_ids"))
    read = whole(api, ask(api, "/generate", DETAILS), tgi("/generate", DETAILS))
    assert [token["id"] for token in read["details"]["tokens"]] == [*range(100, 107), 2]
    assert read["details"]["top_tokens"][0][1]["id"] == 7


def test_the_seed_is_told_to_who_has_named_it() -> None:
    api = codec("tgi")
    named = {**DETAILS, "parameters": {**DETAILS["parameters"], "seed": 4242}}
    assert whole(api, ask(api, "/generate", named), tgi("/generate", named))["details"]["seed"] == 4242


def test_other_sequences_are_defended_where_they_are_opened() -> None:
    api = codec("tgi", *allowed("best_of"))
    asked = {**DETAILS, "parameters": {**DETAILS["parameters"], "best_of": 2}}
    answer = tgi("/generate", asked)
    other: Json = {"generated_text": "SECRET", "finish_reason": "length", "generated_tokens": 1, "prefill": []}
    answer["details"]["best_of_sequences"] = [{**other, "tokens": [], "top_tokens": []}]
    read = whole(api, ask(api, "/generate", asked), answer, Round(decimals=1), Word())
    assert read["details"]["best_of_sequences"][0]["generated_text"] == "[-]"
    answer["details"]["best_of_sequences"] *= 2
    with pytest.raises(UpstreamError):
        whole(api, ask(api, "/generate", asked), answer)


def test_text_that_waited_leaves_in_events_of_its_tokens() -> None:
    api = codec("tgi")
    tokens = [(" SE", False), ("C", False), ("!", False), (" SEC", False), ("RET", False), ("</s>", True)]
    events: list[Json] = [
        {"index": 1, "token": {"id": 1, "text": text, "logprob": -0.25, "special": special}} for text, special in tokens
    ]
    events[-1] |= {"generated_text": " SEC! SECRET", "details": {"generated_tokens": 6, "finish_reason": "eos_token"}}
    for asked, known in ((DETAILS, -0.25), (PLAIN, -9999.0)):
        written = events_of(streamed(api, ask(api, "/generate_stream", asked), events, Word()))
        texts = [event["token"]["text"] for event in written]
        assert "".join(texts) == " SEC! [-]</s>"
        assert written[-1]["generated_text"] == " SEC! [-]"
        assert {event["token"]["logprob"] for event in written} <= {known, -9999.0}
        assert [event["generated_text"] for event in written[:-1]] == [None] * (len(written) - 1)
    texts = [
        event["token"]["text"] for event in events_of(streamed(api, ask(api, "/generate_stream", DETAILS), events))
    ]
    assert texts == [text for text, _ in tokens]


def test_a_filter_ends_the_answer_in_words_that_clients_know() -> None:
    api = codec("tgi")
    events = [{"token": {"id": 1, "text": text, "logprob": -0.5, "special": False}} for text in ("a ", "SECRET", " b")]
    written = events_of(streamed(api, ask(api, "/generate_stream", DETAILS), events, Word(ends=True)))
    assert "".join(event["token"]["text"] for event in written).strip() == "a [-]"
    assert written[-1]["details"]["finish_reason"] == "stop_sequence"


def test_tokens_of_a_whole_answer_are_counted_by_its_header() -> None:
    api = codec("tgi")
    reading = ask(api, "/generate", PLAIN)
    for header, usage in ({"x_generated_tokens": "8"}, 8), ({}, None), ({"x_generated_tokens": "many"}, None):
        assert api.answer(reply({"generated_text": "a"}, **header), reading).usage == usage


@pytest.mark.parametrize("asked", [PLAIN, DETAILS])
def test_no_number_but_what_was_asked_leaves(asked: Json) -> None:
    """A number is planted in each place of an answer and of events: none may leave, or only rounded."""
    api = codec("tgi")
    tried = 0
    for digits, answer in planted(tgi("/generate", DETAILS)):
        reading = ask(api, "/generate", asked)
        assert digits not in let_out(partial(whole, api, reading, answer, Round(decimals=1)))
        tried += 1
    for event in (event_documents(DETAILS)[0], event_documents(DETAILS)[-1]):
        for digits, broken in planted(event):
            reading = ask(api, "/generate_stream", asked)
            assert digits not in let_out(partial(streamed, api, reading, [broken], Round(decimals=1)))
            tried += 1
    assert tried > 300


def test_an_error_ends_the_stream_and_is_not_passed_on() -> None:
    api = codec("tgi")
    assert isinstance(api, Streams)
    reading = ask(api, "/generate_stream", PLAIN)
    with pytest.raises(UpstreamError) as caught:
        api.event(Event(b'{"error":"CUDA at /opt","error_type":"generation"}'), reading)
    assert api.end(reading, caught.value) == b'data:{"error":"%b","error_type":"generation"}\n\n' % (
        caught.value.message.encode()
    )
    assert api.end(reading, None) == b""
    assert json.loads(api.error(Denied("budget spent", status=429))[1]) == {"error": "budget spent"}
    assert json.loads(api.error(ClientError("bad"))[1]) == {"error": "bad", "error_type": "validation"}


def test_it_takes_json_alone() -> None:
    with pytest.raises(ClientError) as caught:
        codec("tgi").read(call("/generate", PLAIN, content_type="text/plain"))
    assert caught.value.status == 415
