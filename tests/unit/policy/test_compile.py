"""Compiling: every contradiction is found, with its path; warnings; ledgers; what a request matches."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr

from guard.errors import PolicyError, Problem
from guard.policy.compile import compile_policy, digest
from guard.policy.plan import Plan
from guard.policy.schema import Policy
from guard.wire.registry import API_NAMES


def policy(*routes: dict[str, object], **top: object) -> Policy:
    made = [{"name": f"r{i}", "api": "open_inference", **route} for i, route in enumerate(routes)]
    return Policy.model_validate({"version": 1, "routes": made or [{"api": "open_inference"}], **top})


def compiled(*routes: dict[str, object], **top: object) -> Plan:
    return compile_policy(policy(*routes, **top))


def problems(*routes: dict[str, object], **top: object) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        compiled(*routes, **top)
    return caught.value.problems


ROWS = {"kind": "rows", "limit": 10}
INFORMATION = {"kind": "information"}
NOISE = {"kind": "noise", "scale": 0.01}
MATCH = {"path": "/v2/models/digits/infer"}


@pytest.mark.parametrize(
    ("route", "path", "message"),
    [
        ({"defences": [{"kind": "grid"}, NOISE]}, "routes[0].defences[1]", "would be seen for what it is"),
        ({"budgets": [ROWS, {**ROWS, "limit": 5}]}, "routes[0].budgets[1]", "already counts rows/client"),
        ({"budgets": [{**ROWS, "hard_limit": 20}]}, "routes[0].budgets[0].hard_limit", "only follows"),
        ({"budgets": [{**ROWS, "then": "label_only", "hard_limit": 2}]}, "routes[0].budgets[0].hard_limit", "below"),
        ({"api": None}, "routes[0].api", "no API is named"),
        ({"api": "json", "select": {"scores": "$.y"}}, "routes[0].match", "opens no endpoint"),
        ({"api": "json", "match": {"path": "/p"}}, "routes[0].select", "where scores are"),
        ({"api": "json", "match": {"path": "/p"}, "select": {"scores": "$.["}}, "routes[0].select", ""),
        ({"select": {"scores": "$.y"}}, "routes[0].select", "open_inference knows"),
        ({"match": {"path": "/predict"}}, "routes[0].match", "opens none of open_inference's scoring endpoints"),
        ({"match": {**MATCH, "methods": ["PUT"]}}, "routes[0].match", "opens none"),
    ],
)
def test_a_contradiction_is_refused_with_its_path_and_a_hint(route: dict[str, object], path: str, message: str) -> None:
    (problem,) = problems(route)
    assert problem.path == path
    assert message in problem.message
    assert problem.hint


def test_defences_and_budgets_that_cannot_work_on_the_outputs_are_refused_by_name() -> None:
    route: dict[str, object] = {
        "outputs": {"kind": "logits"},
        "defences": [{"kind": "label_only"}],
        "budgets": [{**ROWS, "then": "label_only"}],
    }
    found = problems(route)
    assert {p.path.rpartition(".")[0] or p.path for p in found} >= {"routes[0].budgets[0]"}
    assert any(p.path.startswith("routes[0].defences[0]") for p in found)


def test_all_contradictions_of_all_routes_are_told_at_once() -> None:
    found = problems({"budgets": [ROWS, ROWS]}, {"name": "r0", "defences": [{"kind": "round", "decimals": 1}, NOISE]})
    assert [p.path for p in found] == ["routes[0].budgets[1]", "routes[1].name", "routes[1].defences[1]"]


def test_a_route_cannot_enforce_under_a_policy_in_shadow() -> None:
    (problem,) = problems({"mode": "enforce"}, mode="shadow")
    assert problem.path == "routes[0].mode"


def test_a_coarse_step_in_shadow_does_not_stand_before_noise() -> None:
    assert compiled({"defences": [{"kind": "grid", "mode": "shadow"}, NOISE]}).routes[0].defences


def test_routes_of_one_ledger_must_agree_on_a_budget() -> None:
    (problem,) = problems(
        {"ledger": "m", "budgets": [ROWS]}, {"ledger": "m", "match": MATCH, "budgets": [{**ROWS, "limit": 11}]}
    )
    assert problem.path == "routes[1].budgets[0]"


def test_a_budget_may_be_tried_in_shadow_beside_the_one_in_force() -> None:
    plan = compiled({"budgets": [ROWS, {**ROWS, "limit": 5, "mode": "shadow"}]})
    assert [budget.mode for budget in plan.routes[0].budgets] == ["enforce", "shadow"]
    assert problems({"mode": "shadow", "budgets": [ROWS, {**ROWS, "mode": "shadow"}]})[0].path == "routes[0].budgets[1]"


def test_shadow_keeps_a_ledger_of_its_own_and_no_ledger_holds_the_digest() -> None:
    shadow, enforced = (compiled({"budgets": [ROWS]}, mode=mode).routes[0] for mode in ("shadow", "enforce"))
    assert (shadow.ledger, enforced.ledger) == ("shadow:r0", "r0")
    assert compiled({"budgets": [{**ROWS, "limit": 99}]}).routes[0].ledger == "r0"


def test_labels_cost_no_graded_answers() -> None:
    for route in ({"outputs": {"kind": "labels"}}, {"defences": [{"kind": "label_only"}]}):
        plan = compiled({**route, "budgets": [INFORMATION, ROWS]}).routes[0]
        assert [budget.kind for budget in plan.budgets] == ["rows"]
        assert not plan.scales
    assert compiled({"budgets": [INFORMATION]}).routes[0].scales
    shadowed = compiled({"defences": [{"kind": "label_only", "mode": "shadow"}], "budgets": [INFORMATION]}).routes[0]
    assert [budget.kind for budget in shadowed.binding] == ["information"]


def test_a_budget_in_shadow_is_watched_and_does_not_bind() -> None:
    plan = compiled({"budgets": [{**ROWS, "mode": "shadow"}]}).routes[0]
    assert (len(plan.binding), len(plan.watched)) == (0, 1)
    plan = compiled({"budgets": [{**ROWS, "mode": "shadow"}]}, mode="shadow").routes[0]
    assert (len(plan.binding), len(plan.watched)) == (1, 0)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "connection"])
def test_headers_that_frame_a_message_cannot_be_set(name: str) -> None:
    found = problems({}, forward_headers=[name], upstream_headers=[{"name": name, "value": SecretStr("x")}])
    assert [p.path for p in found] == ["upstream_headers[0].name", "forward_headers[0]"]


def test_a_credential_is_not_forwarded_by_the_way() -> None:
    identity = {"kind": "api_key", "header": "X-Key", "keys_file": "k"}
    assert problems({}, forward_headers=["x-key"], identity=[identity])[0].path == "forward_headers[0]"
    compiled({}, forward_headers=["x-key"], identity=[{**identity, "forward": True}])


def test_warnings_name_what_an_operator_would_regret() -> None:
    plan = compiled({"defences": [NOISE], "budgets": [INFORMATION, ROWS]})
    assert [w.path for w in plan.warnings] == [
        "routes[0].defences[0]",
        "routes[0].budgets[0].graded_answers",
        "identity",
    ]
    assert all(w.hint for w in plan.warnings)


def test_a_declared_policy_has_no_warnings() -> None:
    inputs = {"kind": "vector", "size": 4, "low": 0, "high": 1, "step": 0.1}
    identity = [{"kind": "api_key", "keys_file": "k"}]
    assert (
        compiled({"inputs": inputs, "defences": [NOISE], "budgets": [INFORMATION, ROWS]}, identity=identity).warnings
        == ()
    )
    assert compiled({"budgets": [{**ROWS, "per": "model"}]}).warnings == ()
    assert compiled({"defences": [{**NOISE, "reuse": "none"}]}).warnings == ()


def test_a_route_behind_one_that_takes_everything_is_a_warning() -> None:
    assert [w.path for w in compiled({}, {"match": MATCH}).warnings] == ["routes[1]"]
    assert compiled({"match": MATCH}, {}).warnings == ()


def test_the_digest_is_the_same_for_the_same_policy_and_no_other() -> None:
    assert digest(policy({"budgets": [ROWS]})) == digest(policy({"budgets": [{"limit": 10, "kind": "rows"}]}))
    assert digest(policy({"budgets": [ROWS]})) != digest(policy({"budgets": [{**ROWS, "limit": 11}]}))


def test_the_digest_does_not_depend_on_a_secret() -> None:
    one, other = (policy({}, upstream_headers=[{"name": "a", "value": SecretStr(v)}]) for v in ("x", "y"))
    assert digest(one) == digest(other)


def test_a_request_goes_to_the_first_route_that_matches() -> None:
    plan = compiled({"name": "digits", "match": MATCH}, {"name": "rest"})
    digits = plan.match("POST", "/v2/models/digits/infer")
    other = plan.match("POST", "/v2/models/other/infer")
    assert digits is not None
    assert other is not None
    assert (digits.route.name, other.route.name) == ("digits", "rest")
    assert digits.params["model"] == "digits"
    assert plan.match("POST", "/v2/models/digits/infer") is digits


def test_selectors_open_the_endpoint_that_match_names() -> None:
    match = {"path": "/score/{model}", "methods": ["PUT"]}
    plan = compiled({"api": "json", "match": match, "select": {"queries": "$.x[*]", "scores": "$.y[*]"}})
    found = plan.match("PUT", "/score/m")
    assert found is not None
    assert found.params == {"model": "m"}
    assert plan.match("POST", "/score/m") is None


@pytest.mark.parametrize("api", [api for api in API_NAMES if api != "json"])
def test_no_open_endpoint_reaches_one_that_is_known_to_be_closed(api: str) -> None:
    # A language model's API that answers no probabilities has no route of the kind that is assumed.
    plan = compiled({"api": api, **({"outputs": {"kind": "logprobs"}} if api in ("ollama", "tgi") else {})})
    for endpoint in plan.routes[0].codec.endpoints:
        path = re.sub(r"\{\w+\}", "m", endpoint.template)
        assert (plan.match(endpoint.method, path) is None) == (endpoint.access == "closed"), path


def test_a_method_that_is_not_named_stays_closed() -> None:
    plan = compiled({"match": {"path": "/v2/models/{model}/infer", "methods": ["POST", "PUT"]}})
    assert plan.match("PUT", "/v2/models/m/infer") is None


def test_a_status_endpoint_is_open_even_where_scoring_is_narrowed() -> None:
    plan = compiled({"match": MATCH})
    found = plan.match("GET", "/v2/health/ready")
    assert found is not None
    assert found.endpoint.access == "status"
    assert plan.match("POST", "/v2/models/other/infer") is None


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/a/../infer",
        "/v2/models/%2e%2e/infer",
        "/v2/models/a%2fb/infer",
        "/v2/models/a%5cb/infer",
        "/v2/models/a%00/infer",
        "/v2/models//infer",
        "/v2/models/a/infer/",
        "/v2/models/a:x/infer",
        "/nothing",
    ],
)
def test_paths_that_a_server_could_read_differently_match_nothing(path: str) -> None:
    assert compiled().match("POST", path) is None


def test_a_wrong_method_matches_nothing() -> None:
    assert compiled().match("GET", "/v2/models/m/infer") is None


def test_the_cache_of_paths_is_bounded() -> None:
    plan = compiled()
    for i in range(1100):
        assert plan.match("POST", f"/v2/models/m{i}/infer") is not None
    assert plan.match("POST", f"/v2/models/{'m' * 300}/infer") is not None


def test_a_route_that_takes_a_presets_place_with_nothing_is_warned_of() -> None:
    lost = compiled({"ladder": [{"false_alarm": 0.01}]}, extends="strict").warnings
    assert any("are not taken over" in warning.message and warning.path == "routes[0]" for warning in lost)
    kept = compiled({"defences": [{"kind": "levels"}]}, extends="strict").warnings
    assert not any("are not taken over" in warning.message for warning in kept)


def test_a_look_without_the_profile_needs_no_calibration_answers() -> None:
    plan = compiled({"profile": "x.json", "defences": [{"kind": "codebook"}]})
    assert plan.routes[0].detection is None
