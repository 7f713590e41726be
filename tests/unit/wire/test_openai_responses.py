"""The Responses API: whole answers, and events that say every text three times."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from guard.errors import StateError, UpstreamError
from guard.wire.base import Event, Streams
from tests.support.generated import Word
from tests.support.openai_answers import CALLED, REASONED, entry, message, response, response_events
from tests.support.talks import ask, codec, streamed, whole

Json = Any  # Any: JSON of the API
PATH = "/v1/responses"
TOOL: Json = {"type": "function", "name": "pay", "parameters": {}}
BODY: Json = {"model": "m", "input": "hello", "tools": [TOOL]}
PIECES = ("a ", "SEC", "RET", " b SEC")


def answered(answer: Json, *defences: Any, **more: Json) -> Json:
    api = codec("openai")
    return whole(api, ask(api, PATH, {**BODY, **more}), answer, *defences)


def events(said: list[Json], *defences: Any, **more: Json) -> list[Json]:
    """Return the events that leave, whose names are their types."""
    api = codec("openai")
    got = streamed(api, ask(api, PATH, {**BODY, "stream": True, **more}), said, *defences)
    found: list[Json] = []
    for block in got.decode().split("\n\n")[:-1]:
        name, _, data = block.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    numbers = [event["sequence_number"] for event in found]
    assert numbers == sorted(set(numbers))
    return found


def named(call: Json) -> Json:
    """Return a call under upstream's identifiers; the answer's are Guard's own, since some models write them."""
    assert re.fullmatch("fc_[a-z0-9]{9}", call["id"])
    assert re.fullmatch("call_[a-z0-9]{9}", call["call_id"])
    return {**call, "id": "fc_1", "call_id": "call_1"}


def deltas(found: list[Json], kind: str = "output_text") -> str:
    return "".join(one["delta"] for one in found if one["type"] == f"response.{kind}.delta")


def test_a_whole_answer_holds_what_the_api_defines_and_what_the_client_asked() -> None:
    got = answered(
        response(REASONED, message("hi"), CALLED, {"type": "web_search_call", "id": "ws_1"}), instructions="mine"
    )
    assert [item["type"] for item in got["output"]] == ["reasoning", "message", "function_call"]
    assert {**got["output"][0], "id": ""} == {"type": "reasoning", "id": "", "summary": REASONED["summary"]}
    part: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": "hi"}
    assert got["output"][1]["content"] == [part]
    assert named(got["output"][2]) == CALLED
    assert got["usage"] == {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    assert (got["instructions"], got["tools"], got["max_output_tokens"]) == ("mine", [TOOL], 64)
    assert "theirs" not in json.dumps(got)


def test_every_text_of_an_answer_is_looked_through() -> None:
    refused = {**message(""), "content": [{"type": "refusal", "refusal": "no SECRET"}]}
    thought = {**REASONED, "content": [{"type": "reasoning_text", "text": "SECRET"}]}
    thought["summary"] = [{"type": "summary_text", "text": "SECRET"}] * 2
    custom = {"type": "custom_tool_call", "id": "c_1", "call_id": "c", "name": "SECRET", "input": "SECRET"}
    called = {**CALLED, "arguments": "SECRET"}
    got = answered(response(message("SECRET"), refused, thought, custom, called), Word())
    assert "SECRET" not in json.dumps(got)
    assert json.dumps(got).count("[-]") == 8


def test_a_filter_makes_an_answer_incomplete() -> None:
    got = answered(response(message("a SECRET b"), message("c")), Word(ends=True))
    assert (got["status"], got["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert [item["content"][0]["text"] for item in got["output"]] == ["a [-]", ""]


def test_log_probabilities_leave_where_they_were_asked_for() -> None:
    answer = response(message("ab", logprobs=[entry("a", -0.1234, ("x", -2.5)), entry("b", -0.5)]))
    assert "0.1234" not in json.dumps(answered(answer))
    got = answered(answer, include=["message.output_text.logprobs"], top_logprobs=1)
    said = got["output"][0]["content"][0]["logprobs"]
    assert [(one["token"], one["logprob"], len(one["top_logprobs"])) for one in said] == [
        ("a", -0.1234, 1),
        ("b", -0.5, 1),
    ]
    assert "rank" not in json.dumps(said)


def test_a_stream_says_every_text_as_it_was_let_out() -> None:
    text = "".join(PIECES)
    found = events(response_events(text, *PIECES), Word())
    out = "a [-] b SEC"
    assert deltas(found) == out
    assert deltas(found, "reasoning_summary_text") == "thinks of it"
    assert deltas(found, "function_call_arguments") == CALLED["arguments"]
    kinds = [event["type"] for event in found]
    done = next(event for event in found if event["type"] == "response.output_text.done")
    assert done["text"] == out
    assert kinds.index("response.output_text.done") - 1 == max(
        i for i, kind in enumerate(kinds) if kind == "response.output_text.delta"
    )
    part = next(event for event in found if event["type"] == "response.content_part.done")
    assert part["part"]["text"] == out
    last = found[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call"]
    assert last["output"][1]["content"][0]["text"] == out
    assert named(last["output"][2]) == CALLED
    for event in found:
        if "item_id" in event:
            assert event["item_id"] == last["output"][event["output_index"]]["id"]
    assert "annotation.added" not in json.dumps(kinds)
    assert "SECRET" not in json.dumps(found)
    assert "gAAAA" not in json.dumps(found)


def test_an_untouched_stream_keeps_its_events_and_their_order() -> None:
    said = response_events("hello you", "hello", " you")
    kinds = [event["type"] for event in said if "annotation" not in event["type"]]
    assert [event["type"] for event in events(said)] == kinds


def test_a_stream_without_places_goes_by_identifiers() -> None:
    bare = [
        {
            name: value
            for name, value in event.items()
            if name not in ("output_index", "content_index", "sequence_number")
        }
        for event in response_events("a SECRET", "a SEC", "RET")
    ]
    found = events(bare, Word())
    assert deltas(found) == "a [-]"
    assert found[-1]["response"]["output"][1]["content"][0]["text"] == "a [-]"


def test_a_text_that_comes_whole_alone_is_looked_through_all_the_same() -> None:
    found = events([{"type": "response.completed", "response": response(message("a SECRET"))}], Word())
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "a [-]"
    done = {"type": "response.output_item.done", "output_index": 0, "item": message("a SECRET")}
    assert events([done], Word())[0]["item"]["content"][0]["text"] == "a [-]"


def test_a_filter_ends_a_stream_with_a_response_that_is_incomplete() -> None:
    found = events(response_events("".join(PIECES), *PIECES), Word(ends=True))
    assert deltas(found) == "a [-]"
    assert found[-1]["type"] == "response.incomplete"
    last = found[-1]["response"]
    assert last["incomplete_details"] == {"reason": "content_filter"}
    assert last["output"][0]["content"][0]["text"] == "a [-]"
    assert last["id"] == "resp_1"


def test_a_filter_s_end_is_told_once() -> None:
    found = events([{"type": "response.completed", "response": response(message("a SECRET"))}], Word(ends=True))
    assert [one["type"] for one in found] == ["response.incomplete"]
    assert found[0]["response"]["incomplete_details"] == {"reason": "content_filter"}


def test_text_that_was_said_otherwise_before_does_not_leave_the_second_time() -> None:
    said = response_events("hello you", "hello")
    found = events(said, Word())
    assert found[-1]["response"]["output"][1]["content"][0]["text"] == "hello"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.failed", "response": response(status="failed")},
        {"type": "error", "message": "CUDA error", "code": "server_error"},
        {"error": {"message": "CUDA error"}},
        {"type": 5},
        {},
        [],
        {"type": "response.output_text.delta", "delta": 5},
        {"type": "response.output_text.delta", "delta": "a", "content_index": -1},
        {"type": "response.output_text.delta", "delta": "a", "output_index": 9999},
        {"type": "response.completed"},
        {"type": "response.completed", "response": {"output": {}}},
        {"type": "response.output_item.done"},
    ],
)
def test_what_cannot_be_read_or_failed_ends_the_stream(event: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        events([event])
    assert "CUDA" not in str(caught.value)


def test_text_behind_an_end_is_withheld() -> None:
    place: Json = {"item_id": "m", "output_index": 0, "content_index": 0}
    said = [
        {"type": f"response.output_text.{kind}", **place, "delta": "a", "text": "a"}
        for kind in ("delta", "done", "delta")
    ]
    with pytest.raises(UpstreamError):
        events(said)


def test_a_whole_answer_that_failed_is_withheld() -> None:
    for status in ("failed", "cancelled", "in_progress", 5):
        with pytest.raises(UpstreamError):
            answered({**response(message("x")), "status": status})


def test_an_error_in_mid_stream_is_one_that_openai_s_client_raises() -> None:
    api = codec("openai")
    reading = ask(api, PATH, {**BODY, "stream": True})
    assert isinstance(api, Streams)
    for answer in api.event(Event(json.dumps(response_events("a", "a")[0]).encode()), reading):
        api.write_event(answer)
    told = api.end(reading, StateError("gone"))
    assert told.startswith(b"event: error\n")
    data = json.loads(told.partition(b"data: ")[2])
    assert data["error"]["message"] == data["message"] == "gone"
    assert data["sequence_number"] == 1
