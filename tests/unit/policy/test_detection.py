"""What a policy may say of detection, what it is warned of, and what it compiles to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from guard.defences.codebook import Codebook
from guard.detectors import DETECTORS
from guard.detectors.profile import Profile, encode
from guard.detectors.sketch import Sketch
from guard.errors import PolicyError, Problem
from guard.policy.compile import compile_policy, digest
from guard.policy.detection import Detection
from guard.policy.load import load_plan, load_policy
from guard.policy.plan import Plan
from guard.policy.schema import Policy
from tests.support.fitted import fitted
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


class TestCompiled:
    def detection(self, profile: Profile | None = None, **route: object) -> Detection:
        found = compiled(profile, **route).routes[0].detection
        assert found is not None
        return found

    def test_it_is_off_until_something_asks_for_it(self) -> None:
        assert compiled().routes[0].detection is None

    def test_a_profile_alone_alerts_at_a_calibrated_level(self) -> None:
        detection = self.detection(fitted(clients=2000))
        (step,) = detection.ladder
        assert (step.rung.action, str(step.level)) == ("alert", "calibrated(0.01, 2000 clients, 900 queries)")
        assert step.level is not None
        assert step.level.threshold == pytest.approx(4.95, abs=0.01)
        assert (detection.off, detection.clip_mean) == ((), 1.25)
        assert {signal.detector for signal in detection.setup.null.signals} == set(DETECTORS)

    @pytest.mark.parametrize(
        ("clients", "left_out", "route", "why"),
        [
            (0, (), {}, "the profile holds no held-out clients"),
            (98, (), {}, "98 held-out clients, 99 are needed"),
            (2000, (), {"detectors": [{"kind": "mahalanobis"}]}, "the profile was calibrated with other detectors"),
            (2000, (), {"ladder": [{**ALERT, "over": "group"}]}, "pools are not calibrated"),
        ],
    )
    def test_a_level_is_nominal_with_its_reason(
        self, clients: int, left_out: tuple[str, ...], route: dict[str, object], why: str
    ) -> None:
        plan = compiled(fitted(*left_out, clients=clients), **route)
        detection = plan.routes[0].detection
        assert detection is not None
        assert str(detection.ladder[0].level) == f"nominal(0.01): {why}"
        told = [w.message for w in plan.warnings]
        assert any(why in message for message in told) == ("pools" not in why)

    def test_a_tier_that_runs_as_it_was_calibrated_keeps_its_level(self) -> None:
        structure = [{"kind": kind} for kind, spec in DETECTORS.items() if spec.tier == "structure"]
        ladder = self.detection(fitted(clients=2000), detectors=structure, ladder=[ALERT, DENY]).ladder
        assert [str(step.level)[:7] for step in ladder] == ["nominal", "calibra"]

    def test_offences_have_no_level(self) -> None:
        (step,) = self.detection(fitted(), ladder=[{"tier": "protocol", "count": 5, "action": "deny"}]).ladder
        assert step.level is None

    def test_what_the_profile_was_made_without_is_off_and_warned_of(self) -> None:
        profile = fitted("low_margin", clients=2000)
        plan = compiled(profile)
        detection = plan.routes[0].detection
        assert detection is not None
        assert detection.off == (("low_margin", "the profile was made without it"),)
        assert str(detection.ladder[0].level).startswith("calibrated")
        assert "detectors are off: low_margin (the profile was made without it)" in [w.message for w in plan.warnings]
        (problem,) = problems(profile, detectors=[{"kind": "repeats"}, {"kind": "low_margin"}])
        assert (problem.path, problem.hint) == ("routes[0].detectors[1]", "drop it")

    def test_a_named_detector_that_needs_a_profile_is_refused_without_one(self) -> None:
        named = [{"kind": "repeats"}, {"kind": "mahalanobis"}, {"kind": "near_duplicates"}]
        found = problems(detectors=named)
        assert [p.path for p in found] == ["routes[0].detectors[1]", "routes[0].detectors[2]"]
        assert "needs a profile" in found[0].message

    def test_a_detector_is_named_once(self) -> None:
        (problem,) = problems(fitted(), detectors=[{"kind": "repeats"}, {"kind": "repeats"}])
        assert problem.path == "routes[0].detectors[1]"

    def test_a_profile_that_cannot_be_bound_is_refused(self) -> None:
        (problem,) = problems(a_profile())
        assert problem.path == "routes[0].profile"
        assert problem.message.startswith("the profile does not fit: ")

    def test_exceptions_leave_the_signals_of_their_detectors_out(self) -> None:
        entries = [
            {**EXEMPT, "skip": ["near_duplicates"]},
            {**EXEMPT, "skip": ["repeats"], "until": "2026-11-26", "reason": "batches"},
            {**EXEMPT, "client": "bob"},
        ]
        detection = self.detection(fitted(), exceptions=entries)
        signals = detection.setup.null.signals
        now = datetime(2026, 11, 26, 23, 59, 59, tzinfo=UTC).timestamp()
        both, one = (detection.excepted("alice", now_s) for now_s in (now, now + 1))
        assert both is not None
        assert one is not None
        assert {signals[i].detector for i in both.signals} == {"near_duplicates", "repeats"}
        assert {signals[i].detector for i in one.signals} == {"near_duplicates"}
        everything = detection.excepted("bob", now)
        assert everything is not None
        assert len(everything.signals) == len(signals)

    def test_an_unknown_detector_to_skip_gets_a_suggestion(self) -> None:
        (problem,) = problems(fitted(), exceptions=[{**EXEMPT, "skip": ["repeat"]}])
        assert problem.hint.startswith("did you mean repeats?")

    def test_an_exception_that_has_ended_is_warned_of(self) -> None:
        entries = [{**EXEMPT, "until": "2026-11-26"}, {**EXEMPT, "client": "bob", "until": "2026-11-25"}]
        plan = compiled(fitted(clients=2000), exceptions=entries)
        assert [w.path for w in plan.warnings if "exceptions" in w.path] == ["routes[0].exceptions[1].until"]

    def test_defences_are_made_of_the_profiles_answers(self) -> None:
        profile = replace(fitted(), answers=np.array([[0.81, 0.19], [0.3, 0.7]]))
        book = {"kind": "codebook"}
        plan = compiled(profile, defences=[{"kind": "codebook"}], ladder=[{**DEGRADE, "defences": [book]}]).routes[0]
        assert plan.detection is not None
        for defence in (plan.defences[0], plan.detection.ladder[0].defences[0]):
            assert isinstance(defence, Codebook)
            assert sorted(defence.book.words.ravel().tolist()) == [0.19, 0.3, 0.7, 0.81]

    def test_defences_that_cannot_do_without_answers_say_so(self) -> None:
        book = {"kind": "codebook"}
        (problem,) = problems(defences=[LABELS, book])
        assert problem.path == "routes[0].defences[1]"
        (problem,) = problems(ladder=[{**DEGRADE, "defences": [book]}])
        assert problem.path == "routes[0].ladder[0].defences[0]"
        assert "guard calibrate" in problem.hint

    def test_labels_degrade_only_where_answers_carry_more(self) -> None:
        assert self.detection(fitted()).labels
        assert not self.detection(fitted(), defences=[LABELS]).labels
        assert not self.detection(fitted(), outputs={"kind": "value"}).labels

    def test_budgets_of_a_step_that_leaves_labels_count_no_graded_answers(self) -> None:
        budgets = [{"kind": "information", "window": "1h"}, {"kind": "rows", "limit": 9, "window": "1h"}]
        rungs = [{**DEGRADE, "budgets": budgets}, {**DEGRADE, "tier": "structure", "budgets": budgets, "defences": []}]
        plan = compiled(fitted(), ladder=rungs).routes[0]
        assert plan.detection is not None
        assert [len(step.budgets) for step in plan.detection.ladder] == [1, 2]
        assert plan.scales


class TestWarnings:
    def warned(self, identity: bool = True, **route: object) -> list[Problem]:
        said = policy(profile=True, **route)
        if not identity:
            said = said.model_copy(update={"identity": ()})
        return list(compile_policy(said, profiles={"p": fitted(clients=9999)}, today=TODAY).warnings)

    def test_a_sound_ladder_has_none(self) -> None:
        assert self.warned(ladder=[ALERT, DEGRADE, {**THROTTLE, "false_alarm": 2e-4}, DENY]) == []

    def test_a_milder_action_that_asks_for_more_evidence(self) -> None:
        (warning,) = self.warned(ladder=[DEGRADE, {**ALERT, "false_alarm": 5e-4}])
        assert warning.path == "routes[0].ladder[1]"
        counted = {"tier": "protocol", "action": "deny", "count": 5}
        (warning,) = self.warned(ladder=[counted, {**counted, "action": "alert", "count": 9}])
        assert warning.path == "routes[0].ladder[1]"

    def test_a_ladder_over_bare_addresses(self) -> None:
        (warning,) = self.warned(identity=False, ladder=[ALERT, DENY])
        assert warning.path == "routes[0].ladder[1]"
        assert "degraded where others would be denied" in warning.message
        assert self.warned(identity=False, ladder=[ALERT]) == []

    def test_a_degradation_that_changes_nothing(self) -> None:
        (warning,) = self.warned(defences=[LABELS], ladder=[DEGRADE])
        assert warning.path == "routes[0].ladder[0].defences[0]"


class TestWithoutProfile:
    """The structure tier runs on what Guard ships."""

    def test_what_needs_a_profile_is_off_and_told(self) -> None:
        plan = compiled(ladder=[ALERT])
        detection = plan.routes[0].detection
        assert detection is not None
        assert {s.detector for s in detection.setup.null.signals} == {"repeats", "one_feature_varied", "line_walk"}
        assert dict(detection.off)["mahalanobis"] == "needs a profile"
        assert "inputs with size, low and high" in dict(detection.off)["near_duplicates"]
        assert str(detection.ladder[0].level) == "nominal(0.01): no profile"
        (warning,) = plan.warnings
        assert warning.path == "routes[0].ladder"
        assert "kernel_mean, low_margin (needs a profile)" in warning.message
        assert "guard calibrate" in warning.hint

    def test_a_declared_domain_gives_a_scale(self) -> None:
        plan = compiled(detectors="default", inputs={"size": 3, "low": 0, "high": 1})
        assert plan.routes[0].detection is not None
        assert "near_duplicates" not in dict(plan.routes[0].detection.off)
        (warning,) = plan.warnings
        assert warning.path == "routes[0].detectors"


class TestMeters:
    METER: ClassVar[dict[str, Any]] = {"kind": "information", "meter": 0.9, "window": "24h", "per": "client"}

    def test_they_need_held_out_queries(self) -> None:
        (problem,) = problems(budgets=[self.METER])
        assert problem.path == "routes[0].budgets[0]"
        unanswered = replace(fitted(), held_out=np.zeros((0, 3)), held_out_top=np.zeros(0, dtype=np.int64))
        (problem,) = problems(unanswered, budgets=[self.METER])
        assert "this one holds none" in problem.message
        assert compiled(fitted(), budgets=[self.METER]).routes[0].metered

    def test_they_do_not_come_and_go(self) -> None:
        (problem,) = problems(fitted(), ladder=[{**DEGRADE, "budgets": [self.METER]}])
        assert problem.path == "routes[0].ladder[0].budgets[0]"

    def test_equations_are_those_of_the_outputs(self) -> None:
        unknown = {"kind": "information", "parameters": 650, "window": "1h"}
        outputs = {"classes": list("abcdefghij")}
        rung = {"false_alarm": 0.001, "action": "degrade", "budgets": [{**unknown, "window": "2h"}]}
        route = compiled(outputs=outputs, budgets=[unknown], ladder=[rung]).routes[0]
        assert route.detection is not None
        for budget in (route.budgets[0], route.detection.ladder[0].budgets[0]):
            assert budget.limit_for(64) == int(650 / 9 / 3)
