"""Requests for generated text in OpenAI's shape: what goes through, what is charged, what never goes together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guard.errors import ClientError
from guard.model.parameters import Parameter
from guard.model.text import Most
from guard.wire.openai_requests import UNBOUNDED
from guard.wire.openai_texts import Talk
from tests.support.codecs import call
from tests.support.talks import ask, codec

Json = Any  # Any: JSON of the API
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TEXT: Json = {"model": "m", "prompt": "hello"}
RESPOND: Json = {"model": "m", "input": "hello"}
PATHS = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT, "/v1/responses": RESPOND}
CHATS, TEXTS, RESPONSES = PATHS


def forwarded(path: str, more: Json, *parameters: Parameter) -> Json:
    return json.loads(ask(codec("openai", *parameters), path, {**PATHS[path], **more}).body)


def refused(path: str, more: Json, *parameters: Parameter) -> ClientError:
    with pytest.raises(ClientError) as caught:
        forwarded(path, more, *parameters)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("path", PATHS)
def test_a_request_without_a_length_gets_the_policy_s(path: str) -> None:
    member = "max_output_tokens" if path == RESPONSES else "max_tokens"
    reading = ask(codec("openai"), path, PATHS[path])
    assert json.loads(reading.body)[member] == 64
    assert reading.most == Most(1, 64, 0)
    assert forwarded(path, {member: 1000})[member] == 64
    assert forwarded(path, {member: -1})[member] == 64
    assert forwarded(path, {member: 5})[member] == 5


@pytest.mark.parametrize("member", ["max_completion_tokens", "n_predict", "num_predict"])
def test_every_spelling_of_a_length_is_bounded(member: str) -> None:
    assert forwarded(CHATS, {member: 1000}) == {**CHAT, member: 64}
    assert refused(CHATS, {member: 3, "max_tokens": 5}).path == "max_tokens"


def test_what_is_charged_counts_prompts_choices_and_candidates() -> None:
    api = codec("openai")
    assert ask(api, CHATS, {**CHAT, "n": 3, "max_tokens": 5, "logprobs": True, "top_logprobs": 2}).most == Most(
        3, 15, 45
    )
    assert ask(api, CHATS, {**CHAT, "logprobs": True}).most == Most(1, 64, 64)
    several = {**TEXT, "prompt": ["a", "b"], "n": 2, "logprobs": 4}
    assert ask(api, TEXTS, several).most == Most(4, 256, 1280)
    best = codec("openai", Parameter(name="best_of", max=8))
    assert ask(best, TEXTS, {**several, "best_of": 50}).most == Most(4, 1024, 1280)
    asked = {**RESPOND, "max_output_tokens": 7, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    assert ask(api, RESPONSES, asked).most == Most(1, 7, 14)


def test_an_echo_counts_what_the_prompt_may_hold() -> None:
    api = codec("openai", Parameter(name="echo"))
    body = {**TEXT, "prompt": "x" * 1000, "echo": True, "logprobs": 0, "max_tokens": 1}
    most = ask(api, TEXTS, body).most
    assert most is not None
    assert 1000 <= most.logprobs == most.tokens <= 1200
    assert refused(TEXTS, {"echo": True}).code == "unsupported_parameter"
    assert forwarded(TEXTS, {"echo": False}) == {**TEXT, "echo": False, "max_tokens": 64}


def test_without_a_bound_on_length_nothing_is_counted_as_bounded() -> None:
    api = codec("openai", Parameter(name="max_tokens"))
    assert ask(api, CHATS, CHAT).most == Most(1, 0, 0)
    assert ask(api, CHATS, {**CHAT, "logprobs": True}).most == Most(1, 0, UNBOUNDED)


@pytest.mark.parametrize("path", [CHATS, TEXTS])
@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": {"5": 100}},
        {"logit_bias": [[5, 100]]},
        {"allowed_token_ids": [5]},
        {"bad_words": ["a"]},
        {"grammar": 'root ::= "x"'},
        {"json_schema": {"const": "x"}},
        {"response_format": {"type": "json_object"}},
        {"guided_choice": ["x"]},
        {"structured_outputs": {"choice": ["x"]}},
        {"repetition_penalty": 0.1},
        {"repeat_penalty": 50},
        {"dry_multiplier": 9},
        {"frequency_penalty": -0.5},
        {"presence_penalty": 2.5},
    ],
)
def test_what_chooses_tokens_never_goes_with_log_probabilities(path: str, more: Json) -> None:
    asked: Json = {"logprobs": True} if path == CHATS else {"logprobs": 0}
    assert "together" in str(refused(path, {**more, **asked}))
    left = forwarded(path, {**more, "logprobs": False})
    assert {name: left[name] for name in more} == more
    assert "logprobs" not in forwarded(path, {**more, **asked}, Parameter(name="logprobs", action="drop"))


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template_kwargs": {"x": 1}},
        {"documents": []},
        {"add_generation_prompt": False},
        {"continue_final_message": True},
        {"reasoning_effort": "low"},
        {"verbosity": "high"},
    ],
)
def test_what_may_or_may_not_change_the_prompt_never_goes_with_log_probabilities(more: Json) -> None:
    assert "together" in str(refused(CHATS, {**more, "logprobs": True}))
    assert forwarded(CHATS, more) == {**CHAT, **more, "max_tokens": 64}


def test_members_of_messages_that_the_api_does_not_know_are_taken_out() -> None:
    said = [{"role": "user", "content": "a", "salt": 0.5, "name": "b"}]
    assert forwarded(CHATS, {"messages": said})["messages"] == [{"role": "user", "content": "a", "name": "b"}]
    salted = ask(codec("openai"), CHATS, {**CHAT, "messages": [{"role": "user", "content": "hello", "salt": 1}]})
    assert salted.queries.row_bytes() == ask(codec("openai"), CHATS, CHAT).queries.row_bytes()
    opened = ask(codec("openai", fields="all"), CHATS, {**CHAT, "messages": said})
    assert json.loads(opened.body)["messages"] == said


def test_what_says_that_it_chooses_nothing_goes_with_them() -> None:
    neutral = {
        "response_format": {"type": "text"},
        "repetition_penalty": 1.0,
        "frequency_penalty": 2,
        "dry_multiplier": 0,
    }
    left = forwarded(CHATS, {**neutral, "logprobs": True})
    assert "response_format" not in left
    assert left["logprobs"] is True
    assert refused(
        RESPONSES, {"text": {"format": {"type": "json_object"}}, "include": ["message.output_text.logprobs"]}
    )
    assert forwarded(RESPONSES, {"text": {"format": {"type": "text"}}, "include": ["message.output_text.logprobs"]})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "member",
    [
        *("prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "timings_per_token", "return_progress"),
        *("post_sampling_probs", "prediction", "audio", "chat_template", "id_slot", "lora", "prompt_token_ids"),
        "anything",
    ],
)
def test_what_might_reveal_is_refused(path: str, member: str) -> None:
    assert refused(path, {member: 1}).code == "unsupported_parameter"
    assert member not in forwarded(path, {member: None})


def test_prompt_log_probabilities_are_refused_whatever_the_policy_says() -> None:
    for path in (CHATS, TEXTS):
        assert refused(path, {"prompt_logprobs": 1}, Parameter(name="prompt_logprobs")).path == "prompt_logprobs"


def test_candidates_are_capped_in_every_spelling() -> None:
    rule = Parameter(name="top_logprobs", max=2)
    assert forwarded(CHATS, {"logprobs": True, "top_logprobs": 9}, rule)["top_logprobs"] == 2
    assert forwarded(TEXTS, {"logprobs": 9}, rule)["logprobs"] == 2
    left = forwarded(CHATS, {"n_probs": 9}, rule)
    assert (left["logprobs"], left["top_logprobs"], "n_probs" in left) == (True, 2, False)
    assert forwarded(TEXTS, {"n_probs": 1}, rule)["logprobs"] == 1
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 9}
    assert forwarded(RESPONSES, asked, rule)["top_logprobs"] == 2
    for name in ("logprobs", "top_logprobs"):
        assert refused(CHATS, {"logprobs": True, "top_logprobs": 1}, Parameter(name=name, action="refuse"))


def test_dropped_log_probabilities_leave_no_trace() -> None:
    rule = Parameter(name="logprobs", action="drop")
    assert forwarded(CHATS, {"logprobs": True, "top_logprobs": 4}, rule) == {**CHAT, "max_tokens": 64}
    assert forwarded(TEXTS, {"logprobs": 4}, rule) == {**TEXT, "max_tokens": 64}
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 4}
    assert forwarded(RESPONSES, asked, rule) == {**RESPOND, "store": False, "max_output_tokens": 64}
    assert forwarded(CHATS, {"logprobs": False, "top_logprobs": 4})["logprobs"] is False
    assert "top_logprobs" not in forwarded(CHATS, {"logprobs": False, "top_logprobs": 4})


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHATS, {"logprobs": 5}),
        (CHATS, {"logprobs": "true"}),
        (CHATS, {"logprobs": True, "top_logprobs": 1.5}),
        (CHATS, {"logprobs": True, "top_logprobs": -1}),
        (CHATS, {"logprobs": True, "top_logprobs": 3, "n_probs": 4}),
        (TEXTS, {"logprobs": "5"}),
        (TEXTS, {"logprobs": 5, "top_logprobs": 5}),
        (RESPONSES, {"logprobs": True}),
        (RESPONSES, {"include": ["file_search_call.results"]}),
        (RESPONSES, {"include": "message.output_text.logprobs", "top_logprobs": True}),
        (CHATS, {"n": 0}),
        (CHATS, {"n": -3}),
        (CHATS, {"n": "2"}),
        (CHATS, {"stream": 1}),
        (CHATS, {"stream": "true"}),
        (CHATS, {"stream": True, "stream_options": 5}),
        (CHATS, {"stream": True, "stream_options": {"other": True}}),
        (CHATS, {"modalities": ["text", "audio"]}),
        (RESPONSES, {"background": True}),
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"conversation": "c"}),
        (RESPONSES, {"tools": [{"type": "web_search"}]}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]}),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ],
)
def test_what_servers_may_read_otherwise_is_refused(path: str, more: Json) -> None:
    refused(path, more)


def test_answers_are_never_kept_by_the_server() -> None:
    assert forwarded(RESPONSES, {"store": True})["store"] is False
    assert forwarded(RESPONSES, {})["store"] is False
    assert forwarded(CHATS, {"store": True})["store"] is False


@pytest.mark.parametrize(
    "prompt", [[1, 2], [[1, 2], [3]], [["a"]], ["a", [1]], ["a", 1], [], 5, None, {"a": 1}, [1.5], [True]]
)
def test_prompts_are_texts(prompt: Json) -> None:
    refused(TEXTS, {"prompt": prompt})


def test_prompts_as_token_numbers_go_where_the_policy_opens_them() -> None:
    api = codec("openai", Parameter(name="token_ids"))
    assert ask(api, TEXTS, {**TEXT, "prompt": [1, 2]}).queries.rows == 1
    assert ask(api, TEXTS, {**TEXT, "prompt": [[1, 2], [3]]}).queries.rows == 2
    prompts: Json = ([["a"]], ["a", [1]], [1.5], [[]])
    for wrong in prompts:
        with pytest.raises(ClientError):
            ask(api, TEXTS, {**TEXT, "prompt": wrong})
    for action in ("drop", "refuse"):
        refused(TEXTS, {"prompt": [1]}, Parameter(name="token_ids", action=action))


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "hello",
        ["hello"],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [1, 2, 3]}],
        [{"role": "user", "content": [{"type": "token_ids", "token_ids": [1]}]}],
        [{"role": "user", "content": [{"type": "image_embeds", "image_embeds": "AAAA"}]}],
        [{"role": "user", "content": [{"text": "no type"}]}],
    ],
)
def test_messages_are_made_of_what_the_api_knows(messages: Json) -> None:
    refused(CHATS, {"messages": messages})


def test_a_conversation_is_one_text_and_its_end_is_known() -> None:
    api = codec("openai")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said: Json = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "my code"}, image]},
        {"role": "assistant", "content": " is 41"},
    ]
    reading = ask(api, CHATS, {**CHAT, "messages": said})
    assert json.loads(reading.body)["messages"] == said
    value: Json = (reading.queries.values or [""])[0]
    assert json.loads(value) == said
    talk = reading.document
    assert isinstance(talk, Talk)
    assert talk.before == ("be briefmy code is 41",)
    assert ask(api, CHATS, CHAT).queries.values == ["hello"]


def test_parameters_are_another_query_to_a_budget_but_draw_the_same_noise() -> None:
    api = codec("openai")
    cold, warm = (ask(api, CHATS, {**CHAT, "temperature": t}).queries for t in (0, 1))
    assert cold.row_bytes() == warm.row_bytes()
    assert cold.context != warm.context
    assert (
        ask(api, CHATS, {**CHAT, "user": "a", "stream": True}).queries.context == ask(api, CHATS, CHAT).queries.context
    )


def test_a_member_that_stands_twice_is_forwarded_as_it_was_read() -> None:
    body = b'{"messages":[{"role":"user","content":"a"}],"max_tokens":3,"n":1,"n":9}'
    reading = codec("openai").read(call(CHATS, body))
    assert reading.most == Most(9, 27, 0)
    assert json.loads(reading.body) == json.loads(body)
    assert reading.body.count(b'"n"') == 1
    # As many members as before, since one is taken out and two are put in: the bytes are made anew all the same.
    twice = b'{"messages":[{"role":"user","content":"a"}],"max_tokens":3,"n":1,"n":9,"n_probs":1}'
    again = codec("openai").read(call(CHATS, twice)).body
    assert (again.count(b'"n"'), again.count(b"n_probs")) == (1, 0)


@pytest.mark.parametrize("path", PATHS)
def test_other_content_than_json_is_refused(path: str) -> None:
    for kind, status in (("text/plain", 415), ("multipart/form-data", 415)):
        with pytest.raises(ClientError) as caught:
            codec("openai").read(call(path, b"{}", content_type=kind))
        assert caught.value.status == status
