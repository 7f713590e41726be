"""The lab takes what a route decides and says what it replaced."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from guard.errors import PolicyError
from guard.policy.load import load_plan, load_policy
from guard.selftest.lab.registry import victim
from guard.selftest.transplant import (
    ACCOUNTS,
    ALONE,
    account_name,
    choose_route,
    key,
    own_policy,
    shards_of,
    transplant,
)
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
    tmp_path: Path, text: str = POLICY, route: str | None = None, *, budgets: bool = True
) -> tuple[Any, list[str]]:
    (tmp_path / "mine.yaml").write_text(text)
    policy = load_policy(tmp_path / "mine.yaml", env={}).policy
    made = transplant(policy, choose_route(policy, route), linear_victim(4).knows, budgets=budgets)
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


PRIVATE = """version: 1
routes:
  - api: mlflow
    outputs: {kind: probabilities, classes: [a, b]}
    ensemble: {aggregate: noisy_vote, quorum: 250, noise_multiplier: 10, threshold: 100, threshold_noise_multiplier: 40}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1000}
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}]
"""


def test_an_ensemble_gets_shards_of_which_one_may_fail() -> None:
    policy = load_policy("private-ensemble", env={}).policy
    made = transplant(policy, policy.routes[0], linear_victim(4).knows)
    assert made.models("http://lab") == [f"http://lab/shards/5/{i}" for i in range(5)]
    assert any(line.startswith("ensemble: 5 models on disjoint shards") for line in made.substitutions)
    assert shards_of(None) == 0
    alone = transplant(policy, policy.routes[0].model_copy(update={"ensemble": None}), linear_victim(4).knows)
    assert alone.models("http://lab") == "http://lab"


def test_more_models_than_the_data_bear_become_fewer_and_it_is_said(tmp_path: Path) -> None:
    plan, said = transplanted(tmp_path, PRIVATE)
    ensemble = plan.routes[0].ensemble
    assert (ensemble.quorum, ensemble.threshold, ensemble.threshold_noise_multiplier) == (100, 40.0, 40)
    assert any("quorum: was 250, is 100" in line for line in said)


def test_a_claim_keeps_its_words_its_noise_and_one_matrix_of_scores(tmp_path: Path) -> None:
    route = transplanted(tmp_path, PRIVATE)[0].routes[0]
    assert route.outputs.tensors == ("probabilities",)
    assert route.private.claimed
    assert "(8, 1e-06)-differentially private" in route.statement[0]


def test_an_attackers_own_deployment_has_the_noise_and_neither_budget_nor_claim(tmp_path: Path) -> None:
    plan, _ = transplanted(tmp_path, PRIVATE, budgets=False)
    (route,) = plan.routes
    assert route.budgets == ()
    assert (route.private.claimed, route.private.charged) == (False, False)
    assert route.private.measurement == transplanted(tmp_path, PRIVATE)[0].routes[0].private.measurement


@pytest.mark.parametrize("preset", ["observe", "balanced", "strict", "label-only", "private-ensemble"])
def test_every_preset_can_be_transplanted(tmp_path: Path, preset: str) -> None:
    policy = load_policy(preset, env={}).policy
    made = transplant(policy, policy.routes[0], victim("digits", 0).knows)
    plan = load_plan(made.write(tmp_path), api=None, env={})
    original = load_plan(preset, api="open_inference", env={})
    assert plan.mode == original.mode
    assert plan.routes[0].defences == original.routes[0].defences
    assert plan.routes[0].budgets == original.routes[0].budgets
    assert cast("object", plan.routes[0].inputs) == original.routes[0].inputs


CODED = """version: 1
routes:
  - name: digits
    api: mlflow
    profile: p.json
    outputs: {kind: probabilities}
    defences: [{kind: codebook, epsilon: 0.1}]
    ladder: [{tier: any, false_alarm: 1.0e-3, action: degrade, hold: 1d, defences: [{kind: codebook, epsilon: 0.2}]}]
"""


def test_what_learns_from_a_profiles_answers_does_without_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CODED.replace("    profile: p.json\n", ""))
    policy = load_policy(tmp_path / "mine.yaml", env={}).policy
    route = policy.routes[0].model_copy(update={"profile": "p.json"})
    made = transplant(policy, route, linear_victim(4).knows)
    plan = load_plan(made.write(tmp_path), api=None, env={})
    assert [d.kind for d in plan.routes[0].defences] == ["grid"]
    assert [d for rung in cast("Any", made.document)["routes"][0]["ladder"] for d in rung["defences"]] == [
        {"kind": "grid", "step": 0.1}
    ]
    assert [line for line in made.substitutions if line.startswith("codebook: replaced by a grid of 0.1")]
    automatic = route.model_copy(update={"defences": load_policy("balanced", env={}).policy.routes[0].defences})
    assert any(
        "step auto is .05" in line for line in transplant(policy, automatic, linear_victim(4).knows).substitutions
    )
    alone = automatic.model_copy(update={"profile": None})
    assert not any("step auto" in line for line in transplant(policy, alone, linear_victim(4).knows).substitutions)


def test_a_language_models_route_keeps_its_parameters_and_lists_the_labs_canaries_by_a_variable(tmp_path: Path) -> None:
    policy = load_policy("llm", env={}).policy
    model = victim("memorising", 0)
    canaries = cast("tuple[str, ...]", model.secrets["canaries"])
    made = transplant(policy, policy.routes[0], model.knows, canaries=canaries)
    assert not any(code in str(made.document) for code in canaries)
    assert made.env == {"SELFTEST_CANARIES_0": "\n".join(canaries)}
    plan = load_plan(made.write(tmp_path), api=None, env=made.env)
    (route,) = plan.routes
    assert route.api == "openai"
    assert (
        load_policy(tmp_path / "policy.yaml", env=made.env).policy.routes[0].parameters == policy.routes[0].parameters
    )
    cleared = cast("Any", route.defences[0]).scanner("").feed(f"it is {canaries[0]}.", last=True)
    assert cleared.text == "it is [redacted]."


def test_an_operators_own_canaries_reach_the_self_tests_guard_by_a_variable(tmp_path: Path) -> None:
    text = "{api: openai, outputs: {kind: logprobs}, defences: [{kind: secrets, canaries: {env: MINE}}]}"
    (tmp_path / "mine.yaml").write_text(f"version: 1\nroutes: [{text}]\n")
    policy = load_policy(tmp_path / "mine.yaml", env={"MINE": "hunter2000"}).policy
    made = own_policy(policy, policy.routes[0], "openai")
    assert "hunter2000" not in str(made.document)
    plan = load_plan(made.write(tmp_path), api=None, env=made.env)
    assert cast("Any", plan.routes[0].defences[0]).scanner("").feed("hunter2000", last=True).text == "[redacted]"
