"""Budgets of generated text: tokens and log-probabilities."""

from __future__ import annotations

import pytest

from guard.budgets.logprobs import Logprobs
from guard.budgets.rows import Rows
from guard.budgets.tokens import Tokens
from guard.engine.admit import charges
from guard.errors import ClientError, PolicyError
from guard.model.client import Client
from guard.model.outputs import Kind, Outputs
from guard.model.parameters import Parameter
from guard.model.text import Most
from guard.policy.compile import compile_policy
from guard.policy.schema import Policy

CLIENT = Client("a", "g", "api_key")


def test_each_budget_charges_what_it_counts() -> None:
    budgets = (Rows(limit=9), Tokens(limit=999), Logprobs(limit=9999))
    made = charges(budgets, CLIENT, 1, 0, None, most=Most(choices=3, tokens=300, logprobs=1800))
    assert [(charge.budget, charge.amount) for charge in made] == [
        ("rows/client", 3),
        ("tokens/client", 300),
        ("logprobs/client", 1800),
    ]


def test_what_holds_no_generated_text_charges_rows_alone() -> None:
    made = charges((Rows(limit=9), Tokens(limit=9), Logprobs(limit=9)), CLIENT, 2, 0, None)
    assert [(charge.budget, charge.amount) for charge in made] == [("rows/client", 2)]


def test_log_probabilities_that_nobody_asked_for_cost_nothing() -> None:
    made = charges((Logprobs(limit=9),), CLIENT, 1, 0, None, most=Most(tokens=5))
    assert made == ()


def test_a_request_that_can_never_fit_is_413() -> None:
    with pytest.raises(ClientError) as caught:
        charges((Tokens(limit=9),), CLIENT, 1, 0, None, most=Most(tokens=10))
    assert caught.value.status == 413


def policy(*budgets: object, kind: Kind = "logprobs", parameters: tuple[Parameter, ...] = ()) -> Policy:
    route = {"api": "openai", "outputs": {"kind": kind}, "budgets": budgets, "parameters": parameters}
    return Policy.model_validate({"version": 1, "routes": [route]})


@pytest.mark.parametrize("kind", ["tokens", "logprobs"])
def test_a_budget_of_generated_text_needs_a_bound_to_charge(kind: str) -> None:
    budget = {"kind": kind, "limit": 10}
    with pytest.raises(PolicyError, match="max_tokens has no max") as caught:
        compile_policy(policy(budget))
    assert caught.value.problems[0].path == "routes[0].budgets[0]"
    compile_policy(policy(budget, parameters=(Parameter(name="max_tokens", max=64),)))


@pytest.mark.parametrize("kind", ["probabilities", "embedding", "labels"])
def test_generated_text_is_not_counted_where_there_is_none(kind: Kind) -> None:
    capped = (Parameter(name="max_tokens", max=64),)
    with pytest.raises(PolicyError, match="counted of generated text only"):
        compile_policy(policy({"kind": "tokens", "limit": 10}, kind=kind, parameters=capped))


def test_a_parameter_is_named_once() -> None:
    with pytest.raises(PolicyError, match="already says what happens to n"):
        compile_policy(policy(parameters=(Parameter(name="n", max=2), Parameter(name="n", action="drop"))))


@pytest.mark.parametrize("wrong", [{"action": "drop", "max": 3}, {"min": 3, "max": 2}, {"max": -1}])
def test_a_parameter_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"min|max|greater"):
        Parameter.model_validate({"name": "n", **wrong})


def test_texts_are_not_put_together() -> None:
    route = {"api": "openai", "outputs": {"kind": "logprobs"}, "ensemble": {"aggregate": "mean", "quorum": 2}}
    with pytest.raises(PolicyError, match="cannot be put together"):
        compile_policy(Policy.model_validate({"version": 1, "routes": [route]}))


def test_an_api_that_answers_nothing_of_the_kind_is_refused_where_the_route_names_it() -> None:
    route: dict[str, object] = {"outputs": {"kind": "embedding"}}
    with pytest.raises(PolicyError, match="tgi answers no embedding"):
        compile_policy(Policy.model_validate({"version": 1, "routes": [{**route, "api": "tgi"}]}))
    text = {"name": "text", "outputs": {"kind": "logprobs"}}
    _, made = compile_policy(Policy.model_validate({"version": 1, "routes": [text, route]}), api="tgi").routes
    assert not [open_ for open_ in made.endpoints if open_.endpoint.access == "scoring"]


def test_then_label_only_means_nothing_of_text() -> None:
    assert Tokens(limit=3, then="label_only").check(Outputs(kind="logprobs"))
