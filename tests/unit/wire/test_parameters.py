"""What a route lets through of a language model's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from guard.errors import ClientError
from guard.model.outputs import Outputs
from guard.model.parameters import Parameter
from guard.wire.base import Fields, Reader
from guard.wire.parameters import Asked, Known, Rules

KNOWN = (
    Known("messages", ""),
    Known("stream", ""),
    Known("max_tokens", "max_tokens"),
    Known("options.num_predict", "max_tokens"),
    Known("n", "n"),
    Known("temperature", "temperature"),
    Known("logprobs", "logprobs"),
    Known("top_logprobs", "top_logprobs"),
    Known("logit_bias", "logit_bias", number=False),
    Known("echo", "echo", number=False),
    Known("seed", "seed"),
)
Json = dict[str, Any]  # Any: a request


def rules(*parameters: Parameter, fields: Fields = "known") -> Rules:
    reader = Reader(Outputs(kind="logprobs"), fields, parameters={p.name: p for p in parameters})
    return Rules(reader, KNOWN, {"max_tokens": "max_tokens"})


def applied(document: Json, *parameters: Parameter, fields: Fields = "known") -> tuple[Json, Asked]:
    asked = rules(*parameters, fields=fields).apply(document)
    return document, asked


def refused(document: Json, *parameters: Parameter, fields: Fields = "known") -> ClientError:
    with pytest.raises(ClientError) as caught:
        rules(*parameters, fields=fields).apply(document)
    assert caught.value.status == 400
    return caught.value


def test_a_request_without_parameters_is_left_as_it_is() -> None:
    document, asked = applied({"messages": [], "stream": True})
    assert document == {"messages": [], "stream": True}
    assert asked.values == {}


def test_what_is_dropped_leaves_the_request() -> None:
    document, asked = applied({"messages": [], "logit_bias": {"5": 100}}, Parameter(name="logit_bias", action="drop"))
    assert document == {"messages": []}
    assert "logit_bias" not in asked.values


def test_numbers_are_moved_to_their_bounds() -> None:
    document, asked = applied(
        {"n": 9, "temperature": 0.0, "max_tokens": 7},
        Parameter(name="n", max=2),
        Parameter(name="temperature", min=0.5, max=1.5),
        Parameter(name="max_tokens", max=100),
    )
    assert document == {"n": 2, "temperature": 0.5, "max_tokens": 7}
    assert asked.values == document


def test_a_bound_within_which_a_number_lies_changes_nothing() -> None:
    asked = {"n": 2, "max_tokens": 5}
    assert applied({**asked}, Parameter(name="n", max=2), Parameter(name="max_tokens", max=9))[0] == asked


def test_a_request_without_a_maximum_gets_the_policys() -> None:
    document, asked = applied({"messages": []}, Parameter(name="max_tokens", max=64))
    assert document == {"messages": [], "max_tokens": 64}
    assert asked.number("max_tokens", 0) == 64


@pytest.mark.parametrize("spelling", [{"max_tokens": -1}, {"options": {"num_predict": -1}}])
def test_as_many_as_you_like_is_moved_to_the_maximum(spelling: Json) -> None:
    _, asked = applied(spelling, Parameter(name="max_tokens", max=64))
    assert asked.number("max_tokens", 0) == 64
    assert -1 not in (spelling.get("max_tokens"), spelling.get("options", {}).get("num_predict"))


def test_another_spelling_of_a_maximum_counts() -> None:
    document, asked = applied({"options": {"num_predict": 900}}, Parameter(name="max_tokens", max=64))
    assert document == {"options": {"num_predict": 64}}
    assert asked.number("max_tokens", 0) == 64


@pytest.mark.parametrize("value", ["9", None, [], {}, float("nan"), float("inf"), True, -3, 0])
def test_no_spelling_of_a_number_gets_beyond_the_maximum(value: object) -> None:
    document: Json = {"max_tokens": value}
    try:
        asked = rules(Parameter(name="max_tokens", max=64)).apply(document)
    except ClientError:
        return
    assert isinstance(document["max_tokens"], int)
    assert 0 <= document["max_tokens"] <= 64
    assert asked.number("max_tokens", 99) == document["max_tokens"]


def test_two_spellings_of_a_maximum_that_disagree_are_refused() -> None:
    assert refused({"max_tokens": 5, "options": {"num_predict": 6}}).code == "bad_request"


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs"])
def test_a_bias_and_log_probabilities_never_go_together(name: str) -> None:
    opened = (Parameter(name="logit_bias"), Parameter(name="logprobs"), Parameter(name="top_logprobs"))
    error = refused({"logit_bias": {"5": 1}, name: 3}, *opened)
    assert error.code == "unsupported_parameter"
    assert error.path == "logit_bias"


def test_a_bias_alone_and_log_probabilities_alone_go_through() -> None:
    assert applied({"logit_bias": {"5": 1}})[1].values == {"logit_bias": {"5": 1}}
    assert applied({"logprobs": True, "top_logprobs": 2})[1].number("top_logprobs", 0) == 2


def test_what_says_nothing_counts_as_left_out() -> None:
    document, asked = applied({"logit_bias": {}, "logprobs": 1, "echo": False, "n": None})
    assert asked.values == {"logprobs": 1}
    assert "n" not in document


def test_log_probabilities_that_are_capped_to_none_are_none() -> None:
    document, asked = applied({"logprobs": True, "logit_bias": {"5": 1}}, Parameter(name="logprobs", max=0))
    assert document == {"logit_bias": {"5": 1}}
    assert asked.values == {"logit_bias": {"5": 1}}


def test_a_negative_number_that_counts_nothing_is_a_number() -> None:
    assert applied({"seed": -1, "temperature": -0.5}, Parameter(name="temperature", max=2))[0]["temperature"] == -0.5


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs", "n"])
def test_a_negative_count_is_refused_or_bounded(name: str) -> None:
    assert refused({name: -1}).code == "bad_request"
    assert applied({name: -1}, Parameter(name=name, max=2))[0] == {name: 2}


@pytest.mark.parametrize("member", ["echo", "prompt_logprobs", "hidden_states", "return_everything"])
def test_what_reveals_more_or_is_unknown_is_refused_by_name(member: str) -> None:
    error = refused({"messages": [], member: True})
    assert (error.code, error.path) == ("unsupported_parameter", member)
    assert member in error.message


def test_an_unknown_member_is_let_through_where_the_policy_names_it_or_all_fields() -> None:
    assert applied({"guided_json": {"a": 1}}, Parameter(name="guided_json"))[0] == {"guided_json": {"a": 1}}
    assert applied({"guided_json": {"a": 1}}, fields="all")[0] == {"guided_json": {"a": 1}}
    assert applied({"guided_json": {"a": 1}}, Parameter(name="guided_json", action="drop"))[0] == {}


def test_an_unknown_member_inside_a_known_object_is_refused() -> None:
    assert refused({"options": {"num_predict": 3, "logits_all": True}}).path == "options.logits_all"


def test_a_clients_own_words_are_not_repeated() -> None:
    error = refused({"<script>" * 50: 1})
    assert "script" not in error.message
    assert "script" not in str(error.path)


@pytest.mark.parametrize("document", [{"options": [1]}, {"options": "x"}, {"options": 3}])
def test_an_object_that_is_none_is_refused(document: Json) -> None:
    refused(document)
