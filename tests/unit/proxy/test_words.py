"""A plan in words: what the admin listener says of detection."""

from __future__ import annotations

import doctest
import json
from dataclasses import replace

from guard.policy.compile import compile_policy
from guard.policy.guarantee import WHERE_IT_ENDS
from guard.policy.schema import Policy
from guard.privacy.terms import Act
from guard.proxy import words
from guard.proxy.words import plan_in_words
from tests.support.fitted import fitted

LADDER = [
    {"false_alarm": 0.01},
    {"false_alarm": 0.001, "action": "degrade", "defences": [{"kind": "label_only"}]},
    {"false_alarm": 0.001, "over": "group", "action": "throttle", "rows_per_minute": 6, "hold": "2h"},
    {"tier": "protocol", "count": 9, "action": "deny"},
]


async def test_levels_are_told_as_they_are_published_with_where_they_end() -> None:
    route = {"api": "open_inference", "profile": "p", "ladder": LADDER}
    exempt = {"client": "alice", "until": "2026-12-31", "reason": "a scan"}
    said = Policy.model_validate({"version": 1, "routes": [{**route, "exceptions": [exempt]}, {"name": "b", **route}]})
    profile = replace(fitted("low_margin", clients=2000), digest="ab" * 32)
    plan = compile_policy(said, profiles={"p": profile})
    told = (await plan_in_words(plan))["routes"][0]["detection"]
    assert "digest abababababab: 40 clients and 20 augmented ones, 2000 held out" in told["profile"]
    assert [(step["level"], step["does"], step["hold"]) for step in told["ladder"]] == [
        ("calibrated(0.01, 2000 clients, 900 queries)", ["alert"], "1d"),
        ("calibrated(0.001, 2000 clients, 900 queries)", ["degrade", "label_only"], "1d"),
        ("nominal(0.001): pools are not calibrated", ["throttle", "6 rows a minute"], "2h"),
        ("9 in an hour", ["deny"], "1d"),
    ]
    assert told["off"] == [{"detector": "low_margin", "why": "the profile was made without it"}]
    assert told["exceptions"] == ["alice: without all detectors until 2026-12-31: a scan"]
    assert told["levels_end"] == list(WHERE_IT_ENDS)
    json.dumps(told)


async def test_a_route_without_detection_says_none() -> None:
    plan = compile_policy(Policy.model_validate({"version": 1, "routes": [{"api": "mlflow"}]}))
    assert (await plan_in_words(plan))["routes"][0]["detection"] is None


async def test_clients_that_are_excepted_are_called_as_one_likes() -> None:
    exempt = {"client": "bo: b", "until": "2026-12-31", "reason": "bo: b"}
    route = {"api": "open_inference", "profile": "p", "ladder": LADDER, "exceptions": [exempt]}
    policy = Policy.model_validate({"version": 1, "routes": [route]})
    plan = compile_policy(policy, profiles={"p": replace(fitted("low_margin", clients=2000), digest="ab" * 32)})
    told = await plan_in_words(plan, name=lambda name: f"<{name}>")
    assert told["routes"][0]["detection"]["exceptions"] == ["<bo: b>: without all detectors until 2026-12-31: bo: b"]
    assert told["policy"]["routes"][0]["exceptions"][0]["client"] == "<bo: b>"
    assert (await plan_in_words(plan))["policy"]["routes"][0]["exceptions"][0]["client"] == "bo: b"


async def test_what_operators_did_to_a_client_is_told_under_its_other_name() -> None:
    route = {
        "api": "kserve_v1",
        "outputs": {"kind": "probabilities", "classes": ["a", "b"]},
        "defences": [{"kind": "dp_gaussian", "noise_multiplier": 5.0}],
        "budgets": [{"kind": "privacy", "per": "client", "epsilon": 8, "delta": 1e-5}],
    }
    plan = compile_policy(Policy.model_validate({"version": 1, "routes": [route]}))
    acts = (Act("reset", "2026-11-26T09:00:00+00:00", "retrained", "", "client:alice"), Act("reset", "2026-11-27", "x"))
    told = await plan_in_words(plan, lambda _: acts, name=str.upper)
    said = " ".join(told["routes"][0]["privacy"])
    assert "for client:ALICE" in said
    assert "alice" not in said


def test_doctests_hold() -> None:
    assert not doctest.testmod(words).failed
