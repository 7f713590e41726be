"""A plan in words: what the admin listener says of detection."""

from __future__ import annotations

import doctest
import json
from dataclasses import replace

from guard.policy.compile import compile_policy
from guard.policy.guarantee import WHERE_IT_ENDS
from guard.policy.schema import Policy
from guard.proxy import words
from guard.proxy.words import plan_in_words
from tests.support.fitted import fitted

LADDER = [
    {"false_alarm": 0.01},
    {"false_alarm": 0.001, "action": "degrade", "defences": [{"kind": "label_only"}]},
    {"false_alarm": 0.001, "over": "group", "action": "throttle", "rows_per_minute": 6, "hold": "2h"},
    {"tier": "protocol", "count": 9, "action": "deny"},
]


def test_levels_are_told_as_they_are_published_with_where_they_end() -> None:
    route = {"api": "open_inference", "profile": "p", "ladder": LADDER}
    exempt = {"client": "alice", "until": "2026-12-31", "reason": "a scan"}
    said = Policy.model_validate({"version": 1, "routes": [{**route, "exceptions": [exempt]}, {"name": "b", **route}]})
    profile = replace(fitted("low_margin", clients=2000), digest="ab" * 32)
    plan = compile_policy(said, profiles={"p": profile})
    told = plan_in_words(plan)["routes"][0]["detection"]
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


def test_a_route_without_detection_says_none() -> None:
    plan = compile_policy(Policy.model_validate({"version": 1, "routes": [{"api": "mlflow"}]}))
    assert plan_in_words(plan)["routes"][0]["detection"] is None


def test_doctests_hold() -> None:
    assert not doctest.testmod(words).failed
