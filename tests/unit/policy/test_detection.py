"""What a policy may say of detection, what it is warned of, and what it compiles to."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.detectors.profile import Profile, encode
from guard.detectors.sketch import Sketch
from guard.errors import PolicyError, Problem
from guard.policy.compile import compile_policy, digest
from guard.policy.load import load_plan, load_policy
from guard.policy.plan import Plan
from guard.policy.schema import Policy
from tests.support.profiles import a_profile

TODAY = date(2026, 11, 26)
KEYS = [{"kind": "api_key", "keys_file": "k"}]
LABELS = {"kind": "label_only"}
ALERT: dict[str, Any] = {"false_alarm": 0.01}
DEGRADE: dict[str, Any] = {"false_alarm": 0.001, "action": "degrade", "defences": [LABELS]}
DP = {"kind": "dp_laplace", "noise_multiplier": 1.0}
DENY: dict[str, Any] = {"tier": "structure", "false_alarm": 0.001, "action": "deny"}
THROTTLE: dict[str, Any] = {"false_alarm": 0.001, "action": "throttle", "rows_per_minute": 6}
EXEMPT: dict[str, Any] = {"client": "alice", "until": "2026-12-31", "reason": "a scan"}


def policy(profile: bool = False, **route: object) -> Policy:
    made = {"api": "open_inference", **({"profile": "p"} if profile else {}), **route}
    return Policy.model_validate({"version": 1, "identity": KEYS, "routes": [made]})


def compiled(profile: Profile | None = None, **route: object) -> Plan:
    profiles = {} if profile is None else {"p": profile}
    return compile_policy(policy(profile is not None, **route), profiles=profiles, today=TODAY)


def problems(profile: Profile | None = None, **route: object) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        compiled(profile, **route)
    assert all(problem.hint for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    ("rung", "path", "message"),
    [
        ({**DENY, "tier": "any"}, ".action", "only the structure tier and protocol may deny"),
        ({**DEGRADE, "over": "all"}, ".action", "nobody is held to account"),
        ({"tier": "protocol"}, ".count", "needs a count"),
        ({"tier": "protocol", "count": 3, "over": "group"}, ".over", "one client's"),
        ({"tier": "protocol", "count": 3, "false_alarm": 0.1}, ".false_alarm", "no false alarms to bound"),
        ({**ALERT, "count": 3}, ".count", "for tier: protocol"),
        ({}, ".false_alarm", "is missing"),
        ({**DEGRADE, "defences": []}, ".action", "needs defences or budgets"),
        ({**ALERT, "defences": [LABELS]}, ".defences", "are for action: degrade"),
        ({**ALERT, "budgets": [{"kind": "rows", "limit": 1}]}, ".budgets", "are for action: degrade"),
        ({**ALERT, "rows_per_minute": 6}, ".rows_per_minute", "for action: throttle"),
        ({**THROTTLE, "rows_per_minute": None}, ".rows_per_minute", "needs rows_per_minute"),
        ({**DEGRADE, "defences": [DP]}, ".defences[0]", "cannot come and go"),
        (
            {**DEGRADE, "budgets": [{"kind": "rows", "limit": 1, "window": "1h"}] * 2},
            ".budgets[1]",
            "already counts",
        ),
        (
            {**DEGRADE, "budgets": [{"kind": "rows", "limit": 1, "hard_limit": 2}]},
            ".budgets[0].hard_limit",
            "only follows",
        ),
    ],
)
def test_a_step_that_contradicts_itself_is_refused(rung: dict[str, object], path: str, message: str) -> None:
    (problem,) = problems(ladder=[rung])
    assert problem.path == f"routes[0].ladder[0]{path}"
    assert message in problem.message


def test_a_privacy_budget_does_not_come_and_go() -> None:
    rung = {**DEGRADE, "budgets": [{"kind": "privacy", "epsilon": 1.0, "delta": 1e-6}]}
    assert [p.path for p in problems(ladder=[rung])] == ["routes[0].ladder[0].budgets[0]"]


def test_a_step_counts_nothing_that_the_route_counts_already() -> None:
    rows = {"kind": "rows", "limit": 100, "window": "24h"}
    (problem,) = problems(budgets=[rows], ladder=[{**DEGRADE, "budgets": [{**rows, "limit": 10}]}])
    assert (problem.path, problem.hint) == ("routes[0].ladder[0].budgets[0]", "give it another window, such as 1h")


def test_a_step_has_labels_only_where_there_are_labels() -> None:
    (problem,) = problems(outputs={"kind": "value"}, ladder=[DEGRADE])
    assert problem.path == "routes[0].ladder[0].defences[0].kind"
    assert "only a denial is possible here" in problem.hint


def test_a_step_does_not_put_noise_behind_rounding() -> None:
    noise = {"kind": "noise", "scale": 0.01}
    (problem,) = problems(defences=[{"kind": "grid"}], ladder=[{**DEGRADE, "defences": [noise]}])
    assert problem.path == "routes[0].ladder[0].defences[0]"


def test_two_steps_of_the_same_tier_reach_and_action_are_one_too_many() -> None:
    (problem,) = problems(ladder=[ALERT, DEGRADE, {**ALERT, "false_alarm": 0.1}])
    assert (problem.path, problem.message) == (
        "routes[0].ladder[2]",
        "ladder[0] has the same tier, reach and action",
    )


class TestExceptions:
    def test_there_must_be_something_to_except_from(self) -> None:
        (problem,) = problems(exceptions=[EXEMPT])
        assert problem.path == "routes[0].exceptions"

    @pytest.mark.parametrize("skips", [([], ["repeats"]), (["repeats"], []), ([], [])])
    def test_they_do_not_overlap(self, skips: tuple[list[str], list[str]]) -> None:
        entries = [{**EXEMPT, "skip": skip} for skip in skips]
        assert "routes[0].exceptions[1]" in [p.path for p in problems(ladder=[ALERT], exceptions=entries)]

    def test_a_detector_that_is_none_is_told(self) -> None:
        (problem,) = problems(ladder=[ALERT], exceptions=[{**EXEMPT, "skip": ["repeat"]}])
        assert (problem.path, problem.message) == ("routes[0].exceptions[0].skip[0]", "there is no detector repeat")


class TestProfiles:
    @pytest.mark.parametrize(
        ("sketch", "inputs", "message"),
        [
            (Sketch(size=3), {"size": 4}, "of 3 features, and inputs.size is 4"),
            (Sketch(kind="text"), {"size": 4}, "of text queries, and inputs.size is 4"),
            (Sketch(size=3), {"kind": "text"}, "of vector queries, and inputs.kind is text"),
            (Sketch(kind="text"), {"kind": "vector"}, "of text queries, and inputs.kind is vector"),
        ],
    )
    def test_one_of_other_queries_is_refused(self, sketch: Sketch, inputs: dict[str, object], message: str) -> None:
        (problem,) = problems(replace(a_profile(), sketch=sketch), inputs=inputs)
        assert problem.path == "routes[0].profile"
        assert message in problem.message

    def test_one_of_other_classes_is_refused(self) -> None:
        named = {"classes": ["a", "b", "c"]}
        (problem,) = problems(a_profile(), outputs=named)
        assert "answers have 2 classes, and outputs has 3" in problem.message
        (problem,) = problems(replace(a_profile(), answers=np.zeros((0, 0))), outputs=named)
        assert "labels up to column 4, and outputs has 3 classes" in problem.message

    def test_their_content_is_part_of_the_digest(self) -> None:
        said = policy(profile=True)
        one, other = (replace(a_profile(), digest=name) for name in ("aa", "bb"))
        assert digest(said, {"p": one}) == digest(said, {"p": one}) != digest(said, {"p": other})

    def test_a_look_without_them_leaves_detection_out(self) -> None:
        plan = compile_policy(policy(profile=True, ladder=[ALERT], exceptions=[EXEMPT]))
        assert plan.routes[0].detection is None
        with pytest.raises(KeyError):
            compile_policy(policy(profile=True), profiles={})


class TestFiles:
    """Profiles are read where the policy is."""

    def write(self, folder: Path, data: bytes | None = None) -> Path:
        (folder / "models").mkdir()
        if data is not None:
            (folder / "models" / "digits.profile").write_bytes(data)
        path = folder / "policy.yaml"
        path.write_text(
            "version: 1\nroutes:\n  - api: mlflow\n    inputs: {size: 3}\n    profile: models/digits.profile\n"
        )
        return path

    def test_a_path_is_relative_to_the_policy_and_its_file_is_watched(self, tmp_path: Path) -> None:
        loaded = load_policy(self.write(tmp_path, encode(a_profile())), env={})
        file = tmp_path / "models" / "digits.profile"
        assert loaded.policy.routes[0].profile == str(file)
        assert file in loaded.files
        assert loaded.profiles[str(file)].name == "digits"

    def test_a_policy_that_extends_it_keeps_its_folder(self, tmp_path: Path) -> None:
        self.write(tmp_path, encode(a_profile()))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "policy.yaml").write_text("version: 1\nextends: ../policy.yaml\n")
        assert load_policy(tmp_path / "other" / "policy.yaml", env={}).profiles

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (None, "cannot read the profile"),
            (b"", "not a profile"),
            (encode(a_profile())[:-20], "damaged"),
            (encode(a_profile()).replace(b'"horizon":640', b'"horizon":641'), "damaged"),
            (encode(a_profile()).replace(b'"version":1', b'"version":0'), "made by another version of Guard"),
        ],
    )
    def test_one_that_cannot_be_used_is_told_where_it_is_named(
        self, tmp_path: Path, data: bytes | None, message: str
    ) -> None:
        path = self.write(tmp_path, data)
        with pytest.raises(PolicyError) as caught:
            load_plan(path, api=None, env={})
        (problem,) = caught.value.problems
        assert (problem.path, problem.line, problem.file) == ("routes[0].profile", 5, str(path))
        assert message in problem.message
        assert problem.hint
        assert str(tmp_path / "models" / "digits.profile") in caught.value.depends

    def test_one_that_is_too_large_is_not_read_whole(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, b"")
        with (tmp_path / "models" / "digits.profile").open("r+b") as file:
            file.truncate(2**31)  # sparse
        with pytest.raises(PolicyError, match="larger than"):
            load_plan(path, api=None, env={})


class TestDominated:
    def warned(self, profile: Profile | None = None, **route: object) -> list[tuple[str, str]]:
        found = compiled(profile, **route).warnings
        return [(w.path, w.message) for w in found if "plausible" in w.message or "a model of digits" in w.message]

    def test_noise_that_costs_more_than_labels(self) -> None:
        ((path, message),) = self.warned(defences=[{"kind": "noise", "scale": 0.2}])
        assert path == "routes[0].defences[0]"
        assert "label_only by 0.16" in message

    @pytest.mark.parametrize(
        "defences",
        [
            [LABELS, LABELS],
            [LABELS, {"kind": "round", "decimals": 1}],
            [{"kind": "round", "decimals": 1}, {"kind": "round", "decimals": 2}],
            [{"kind": "top_k", "k": 2}, {"kind": "top_k", "k": 3}],
        ],
    )
    def test_a_step_that_the_one_before_leaves_nothing_to_do(self, defences: list[object]) -> None:
        ((path, message),) = self.warned(defences=defences)
        assert path == "routes[0].defences[1]"
        assert "changes nothing" in message

    @pytest.mark.parametrize(
        "defences",
        [
            [{"kind": "grid", "step": 0.05}, LABELS],
            [{"kind": "grid", "step": 0.05}, {"kind": "round", "decimals": 1}],
            [{"kind": "top_k", "k": 3}, {"kind": "top_k", "k": 1}],
            [{"kind": "noise", "scale": 0.01}, {"kind": "grid"}],
            [{**LABELS, "mode": "shadow"}, {"kind": "grid"}],
            [{"kind": "noise", "scale": 0.2, "mode": "shadow"}],
        ],
    )
    def test_steps_that_do_something_are_not_named(self, defences: list[object]) -> None:
        assert self.warned(defences=defences) == []
