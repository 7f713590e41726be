"""The lab takes what a route decides and says what it replaced."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from guard.errors import PolicyError
from guard.policy.load import load_plan, load_policy
from guard.selftest.lab.registry import victim
from guard.selftest.transplant import ACCOUNTS, ALONE, account_name, choose_route, key, transplant
from tests.unit.selftest.support import linear_victim

POLICY = """version: 1
name: mine
identity: [{kind: jwt, jwks_file: keys.json, audience: scoring}]
routes:
  - name: digits
    api: mlflow
    match: {path: /invocations}
    fields: all
    inputs: {kind: vector, size: 5, low: 0, high: 16, step: 1}
    outputs: {kind: probabilities, tensors: [p], classes: [a, b]}
    defences: [{kind: grid, step: 0.1}]
    budgets: [{kind: rows, per: client, limit: 70, window: 24h, then: deny}]
  - {name: other, api: mlflow, defences: [{kind: label_only}]}
"""


def transplanted(
    tmp_path: Path, text: str = POLICY, route: str | None = None, **options: bool
) -> tuple[Any, list[str]]:
    (tmp_path / "mine.yaml").write_text(text)
    policy = load_policy(tmp_path / "mine.yaml", env={}).policy
    made = transplant(policy, choose_route(policy, route), linear_victim(4).knows, **options)
    plan = load_plan(made.write(tmp_path), api=None, env={})
    return plan, list(made.substitutions)


def test_what_the_route_decides_stays(tmp_path: Path) -> None:
    plan, _ = transplanted(tmp_path)
    (route,) = plan.routes
    assert (plan.name, plan.mode, route.name, route.fields) == ("mine", "enforce", "digits", "all")
    assert [defence.kind for defence in route.defences] == ["grid"]
    assert [budget.limit_for(4) for budget in route.budgets] == [70]


def test_what_ties_it_to_its_place_is_replaced_and_said(tmp_path: Path) -> None:
    plan, said = transplanted(tmp_path)
    (route,) = plan.routes
    assert route.api == "open_inference"
    assert plan.match("POST", "/v2/models/anything/infer") is not None
    assert route.outputs.tensors is None
    assert route.outputs.classes == (0, 1, 2)
    assert {line.partition(":")[0] for line in said} == {
        "api and match", "identity", "secret", "inputs", "outputs.tensors", "outputs.classes",
    }  # fmt: skip


def test_inputs_are_the_victims_as_far_as_the_policy_declares_its_own(tmp_path: Path) -> None:
    plan, _ = transplanted(tmp_path)
    inputs = plan.routes[0].inputs
    assert (inputs.size, inputs.low, inputs.high) == (4, (-4.0,) * 4, (4.0,) * 4)
    assert inputs.step == pytest.approx((0.5,) * 4)  # 16 steps over the range, as in the policy


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("", None),
        ("inputs: {kind: any}", {"kind": "any"}),
        ("inputs: {kind: vector}", {"kind": "vector"}),
        ("inputs: {kind: vector, size: 9}", {"kind": "vector", "size": 4}),
    ],
)
def test_a_policy_that_bounds_nothing_is_tested_with_nothing_bounded(
    tmp_path: Path, declared: str, expected: dict[str, object] | None
) -> None:
    text = POLICY.replace("inputs: {kind: vector, size: 5, low: 0, high: 16, step: 1}", declared or "mode: enforce")
    plan, _ = transplanted(tmp_path, text)
    inputs = plan.routes[0].inputs
    assert (None if inputs is None else inputs.model_dump(exclude_unset=True)) == expected


def test_texts_stay_texts(tmp_path: Path) -> None:
    policy = load_policy("strict", env={}).policy
    made = transplant(policy, policy.routes[0], victim("spam", 0).knows)
    plan = load_plan(made.write(tmp_path), api=None, env={})
    assert plan.routes[0].inputs is not None
    assert plan.routes[0].inputs.kind == "any"


def test_an_attackers_own_deployment_has_no_budgets(tmp_path: Path) -> None:
    plan, _ = transplanted(tmp_path, budgets=False)
    assert plan.routes[0].budgets == ()


def test_a_route_is_chosen_by_name(tmp_path: Path) -> None:
    plan, _ = transplanted(tmp_path, route="other")
    assert [defence.kind for defence in plan.routes[0].defences] == ["label_only"]
    with pytest.raises(PolicyError) as caught:
        transplanted(tmp_path, route="othr")
    assert "did you mean other?" in caught.value.problems[0].hint


def test_accounts_are_customers_of_their_own_or_of_one(tmp_path: Path) -> None:
    transplanted(tmp_path)
    lines = (tmp_path / "keys").read_text().splitlines()
    assert len(lines) == ACCOUNTS
    groups = [line.partition(":")[0].partition("@")[2] for line in lines]
    assert len(set(groups[:ALONE])) == ALONE
    assert set(groups[ALONE:]) == {"shared"}
    assert lines[3] == f"{account_name(3)}:{hashlib.sha256(key(3).encode()).hexdigest()}"


@pytest.mark.parametrize("preset", ["observe", "balanced", "strict", "label-only"])
def test_every_preset_can_be_transplanted(tmp_path: Path, preset: str) -> None:
    policy = load_policy(preset, env={}).policy
    made = transplant(policy, policy.routes[0], victim("digits", 0).knows)
    plan = load_plan(made.write(tmp_path), api=None, env={})
    original = load_plan(preset, api="open_inference", env={})
    assert plan.mode == original.mode
    assert plan.routes[0].defences == original.routes[0].defences
    assert plan.routes[0].budgets == original.routes[0].budgets
    assert cast("object", plan.routes[0].inputs) == original.routes[0].inputs
