"""The ladder: which action evidence leads to, how long it holds, and who begins anew."""

from __future__ import annotations

import doctest
from collections.abc import Mapping
from math import log
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.detectors.setup import Setup
from guard.engine import ladder
from guard.engine.ladder import ACTIONS, EPOCH, METER, Verdict, decide, epoch
from guard.evidence.levels import Level
from guard.evidence.values import Strength
from guard.policy.detection import Detection, Exemption, Rung, Step

NOW = 1_000_000.0
SETUP = cast("Setup", SimpleNamespace())  # decide never looks at it
ALERT, DEGRADE, THROTTLE, DENY = 1, 2, 3, 4


def step(**keys: object) -> Step:
    rung = Rung.model_validate(keys)
    level = None if rung.false_alarm is None else Level(rung.false_alarm, -log(rung.false_alarm), why="a test")
    return Step(rung, level, (), ())


ALERTS = step(false_alarm=1e-2)
DEGRADES = step(false_alarm=1e-3, action="degrade", hold=3600)
THROTTLES = step(false_alarm=1e-4, action="throttle", rows_per_minute=6, hold=3600)
DENIES = step(tier="structure", false_alarm=1e-3, action="deny", hold=600)
LADDER = (ALERTS, DEGRADES, THROTTLES, DENIES)


def detection(*steps: Step, labels: bool = True) -> Detection:
    return Detection(SETUP, steps or LADDER, {}, None, 1.0, (), labels)


def placed(
    *steps: Step,
    any_: float = 0.0,
    structure: float = 0.0,
    over: str = "client",
    marks: Mapping[int, int] | None = None,
    offences: int = 0,
    now_s: float = NOW,
    deniable: bool = True,
    labels: bool = True,
) -> Verdict:
    strengths = {over: Strength(any_, structure)}
    return decide(detection(*steps, labels=labels), strengths, marks or {}, offences, now_s, deniable=deniable)


def merged(*all_marks: Mapping[int, int]) -> dict[int, int]:
    keys = {key for marks in all_marks for key in marks}
    return {key: max(marks.get(key, 0) for marks in all_marks) for key in keys}


class TestEvidence:
    def test_nobody_is_on_the_ladder_before_they_have_done_anything(self) -> None:
        assert placed() == Verdict(None, None, (), {})

    @pytest.mark.parametrize(
        ("evidence", "action"), [(4.6, None), (4.61, "alert"), (6.91, "degrade"), (9.22, "throttle")]
    )
    def test_each_step_is_reached_at_its_threshold(self, evidence: float, action: str | None) -> None:
        assert placed(any_=evidence).action == action

    def test_only_the_structure_tier_reaches_its_steps(self) -> None:
        assert placed(any_=50.0).action == "throttle"
        assert placed(structure=7.0).action == "deny"
        assert placed(DENIES, any_=50.0).action is None

    def test_the_strictest_of_those_reached_counts_and_all_are_entered(self) -> None:
        verdict = placed(any_=20.0, structure=20.0)
        assert (verdict.action, verdict.step) == ("deny", DENIES)
        assert verdict.entered == LADDER
        assert verdict.marks == {ALERT: 1_086_400, DEGRADE: 1_003_600, THROTTLE: 1_003_600, DENY: 1_000_600}

    def test_evidence_counts_only_for_whom_the_step_is_over(self) -> None:
        pooled = step(false_alarm=1e-3, over="group", action="degrade")
        everybody = step(false_alarm=1e-3, over="all")
        assert placed(pooled, everybody, any_=50.0).action is None
        assert placed(pooled, everybody, any_=50.0, over="group").action == "degrade"
        assert placed(pooled, everybody, any_=50.0, over="all").action == "alert"

    def test_offences_count_by_number(self) -> None:
        counted = step(tier="protocol", count=20, action="deny")
        assert placed(counted, any_=99.0, structure=99.0, offences=19).action is None
        assert placed(counted, offences=20).action == "deny"


class TestHold:
    def test_an_action_holds_without_evidence_until_its_time_is_over(self) -> None:
        marks = placed(any_=7.0).marks
        for now_s, action in ((NOW + 3599, "degrade"), (NOW + 3600, "alert"), (NOW + 86_400, None)):
            verdict = placed(marks=marks, now_s=now_s)
            assert verdict.action == action
            assert verdict.entered == ()

    def test_reaching_it_again_prolongs_it_and_is_not_entering_it(self) -> None:
        marks = placed(DEGRADES, any_=7.0).marks
        again = placed(DEGRADES, any_=7.0, marks=marks, now_s=NOW + 1000)
        assert again.entered == ()
        assert again.marks == {DEGRADE: 1_004_600}

    def test_a_shorter_hold_never_takes_time_away(self) -> None:
        brief = step(false_alarm=1e-3, action="degrade", hold=60)
        assert placed(brief, any_=7.0, marks={DEGRADE: 1_003_600}).marks == {}

    def test_what_was_reached_after_it_had_ended_is_entered_anew(self) -> None:
        verdict = placed(ALERTS, any_=5.0, marks={ALERT: 900_000, EPOCH: 900_000})
        assert verdict.entered == (ALERTS,)

    def test_part_of_a_second_is_not_lost(self) -> None:
        assert placed(ALERTS, any_=5.0, now_s=NOW + 0.5).marks == {ALERT: 1_086_401}


class TestEpoch:
    def test_a_client_begins_anew_when_its_last_hold_has_ended(self) -> None:
        marks = {ALERT: 999_000, DEGRADE: 998_000}
        verdict = placed(any_=50.0, structure=50.0, marks=marks)
        assert verdict == Verdict(None, None, (), {EPOCH: 999_000})

    def test_evidence_of_the_new_epoch_counts(self) -> None:
        marks = {ALERT: 999_000, EPOCH: 999_000}
        assert placed(any_=5.0, marks=marks).action == "alert"

    def test_what_others_of_its_group_do_counts_in_the_first_request_too(self) -> None:
        pooled = step(false_alarm=1e-3, over="group", action="degrade")
        verdict = placed(pooled, any_=9.0, over="group", marks={DEGRADE: 999_000})
        assert verdict.action == "degrade"
        assert verdict.marks == {EPOCH: 999_000, DEGRADE: 1_086_400}

    def test_it_does_not_begin_anew_while_anything_holds(self) -> None:
        assert epoch({ALERT: 1_000_001, DEGRADE: 998_000}, NOW) == 0
        assert epoch({ALERT: 1_000_001, DEGRADE: 998_000, EPOCH: 990_000}, NOW) == 990_000

    def test_an_epoch_that_came_before_the_hold_that_it_ends_stays(self) -> None:
        assert epoch({ALERT: 998_000, EPOCH: 999_000}, NOW) == 999_000

    def test_each_end_is_one_epoch(self) -> None:
        marks = {ALERT: 999_000}
        marks = merged(marks, placed(marks=marks).marks)
        assert placed(marks=marks).marks == {}
        marks = merged(marks, placed(any_=5.0, marks=marks).marks)
        assert epoch(marks, NOW + 86_400) == 1_086_400

    def test_two_replicas_name_it_alike(self) -> None:
        marks = {ALERT: 999_000, DEGRADE: 999_500}
        assert placed(marks=marks).marks == placed(marks=marks, now_s=NOW + 77).marks

    def test_a_replica_that_looked_too_early_does_no_harm(self) -> None:
        early = placed(marks={DEGRADE: 999_000}).marks
        both = merged(early, {DEGRADE: 1_003_600})
        assert placed(marks=both).action == "degrade"
        assert epoch(both, NOW + 3600) == 1_003_600

    def test_the_meter_is_no_hold(self) -> None:
        assert placed(marks={METER: 700}) == Verdict(None, None, (), {})


class TestAddresses:
    """A bare address may be many people: it is never denied."""

    def test_it_is_degraded_where_others_are_denied(self) -> None:
        verdict = placed(DEGRADES, DENIES, structure=9.0, deniable=False)
        assert (verdict.action, verdict.step) == ("degrade", DEGRADES)
        assert verdict.entered == (DENIES,)

    def test_without_such_a_step_it_gets_labels(self) -> None:
        verdict = placed(DENIES, structure=9.0, deniable=False)
        assert (verdict.action, verdict.step) == ("degrade", None)

    def test_where_there_are_no_labels_it_is_throttled_or_only_noted(self) -> None:
        verdict = placed(THROTTLES, DENIES, structure=9.0, deniable=False, labels=False)
        assert (verdict.action, verdict.step) == ("throttle", THROTTLES)
        verdict = placed(DENIES, structure=9.0, deniable=False, labels=False)
        assert (verdict.action, verdict.step) == ("alert", None)

    def test_a_denial_that_another_replica_marked_is_no_denial_either(self) -> None:
        assert placed(marks={DENY: 1_000_100}, deniable=False).action == "degrade"


class TestEdits:
    """Marks that were made under a policy with another ladder."""

    def test_a_denial_holds_without_its_step(self) -> None:
        assert placed(ALERTS, marks={DENY: 1_000_100})[:2] == ("deny", None)

    def test_a_degradation_without_its_step_is_to_labels(self) -> None:
        assert placed(ALERTS, marks={DEGRADE: 1_000_100})[:2] == ("degrade", None)
        assert placed(ALERTS, marks={DEGRADE: 1_000_100}, labels=False)[:2] == ("alert", ALERTS)

    def test_a_throttle_without_its_step_is_a_degradation(self) -> None:
        assert placed(ALERTS, DEGRADES, marks={THROTTLE: 1_000_100})[:2] == ("degrade", DEGRADES)

    def test_a_step_of_the_present_ladder_takes_over(self) -> None:
        other = step(tier="structure", false_alarm=1e-4, action="degrade")
        assert placed(other, marks={DEGRADE: 1_000_100}).step == other


def test_of_several_steps_of_one_action_the_last_that_is_reached_counts_or_the_first() -> None:
    later = step(tier="structure", false_alarm=1e-3, action="degrade")
    assert placed(DEGRADES, later, any_=9.0, structure=9.0).step == later
    assert placed(DEGRADES, later, any_=9.0).step == DEGRADES
    assert placed(DEGRADES, later, marks={DEGRADE: 1_000_100}).step == DEGRADES


def test_exceptions_hold_to_the_end_of_their_day_and_add_up() -> None:
    one = Exemption(frozenset({0, 1}), NOW, "a scan that we asked for")
    two = Exemption(frozenset({4}), NOW + 10, "batches")
    excepted = Detection(SETUP, LADDER, {"alice": (one, two)}, None, 1.0, ()).excepted
    assert excepted("bob", NOW) is None
    assert excepted("alice", NOW) == (frozenset({0, 1, 4}), NOW, "a scan that we asked for; batches")
    assert excepted("alice", NOW + 1) == two
    assert excepted("alice", NOW + 11) is None


EVIDENCE = st.floats(0, 12)
MARKS = st.dictionaries(st.integers(0, 5), st.integers(0, 2_000_000), max_size=6)
RUNGS = (
    *LADDER,
    step(tier="structure", false_alarm=1e-2, action="degrade", hold=60),
    step(false_alarm=1e-2, over="group", action="degrade"),
    step(false_alarm=1e-3, over="all"),
    step(tier="protocol", count=3, action="deny"),
)
LADDERS = st.lists(st.sampled_from(RUNGS), max_size=6, unique_by=id).map(tuple)
STRENGTHS = st.fixed_dictionaries(
    {over: st.builds(Strength, EVIDENCE, EVIDENCE) for over in ("client", "group", "all")}
)


def rank(verdict: Verdict) -> int:
    return -1 if verdict.action is None else ACTIONS.index(verdict.action)


@given(LADDERS, STRENGTHS, MARKS, st.integers(0, 5), st.booleans(), st.booleans())
def test_marks_only_grow_and_deciding_twice_changes_nothing(
    steps: tuple[Step, ...],
    strengths: dict[str, Strength],
    marks: dict[int, int],
    offences: int,
    deny: bool,
    label: bool,
) -> None:
    watched = Detection(SETUP, steps, {}, None, 1.0, (), label)
    first = decide(watched, strengths, marks, offences, NOW, deniable=deny)
    assert all(value > marks.get(mark, 0) for mark, value in first.marks.items())
    after = merged(marks, first.marks)
    if EPOCH in first.marks:  # the caller has forgotten the old evidence by then
        strengths = {**strengths, "client": Strength()}
    second = decide(watched, strengths, after, offences, NOW, deniable=deny)
    assert second.marks == {}
    assert second.entered == ()
    assert second[:2] == first[:2]
    if not deny:
        assert first.action != "deny"


@given(LADDERS, STRENGTHS, STRENGTHS, MARKS, st.integers(0, 5), st.integers(0, 5), st.booleans(), st.booleans())
def test_weaker_evidence_never_leads_to_a_stricter_action(
    steps: tuple[Step, ...],
    one: dict[str, Strength],
    other: dict[str, Strength],
    marks: dict[int, int],
    few: int,
    more: int,
    deny: bool,
    label: bool,
) -> None:
    watched = Detection(SETUP, steps, {}, None, 1.0, (), label)
    weak = {k: Strength(min(one[k].any, other[k].any), min(one[k].structure, other[k].structure)) for k in one}
    mild = decide(watched, weak, marks, min(few, more), NOW, deniable=deny)
    harsh = decide(watched, one, marks, max(few, more), NOW, deniable=deny)
    assert rank(mild) <= rank(harsh)
    assert all(value <= merged(marks, harsh.marks)[mark] for mark, value in mild.marks.items())


@given(LADDERS, STRENGTHS, MARKS, MARKS)
def test_what_two_replicas_decide_merges_to_what_one_would_hold(
    steps: tuple[Step, ...], strengths: dict[str, Strength], mine: dict[int, int], theirs: dict[int, int]
) -> None:
    watched = Detection(SETUP, steps, {}, None, 1.0, ())
    decided = [decide(watched, strengths, marks, 0, NOW, deniable=True).marks for marks in (mine, theirs)]
    both = merged(mine, theirs, *decided)
    quiet = decide(watched, {}, both, 0, NOW, deniable=True)
    alone = [
        decide(watched, {}, merged(marks, own), 0, NOW, deniable=True)
        for marks, own in zip((mine, theirs), decided, strict=True)
    ]
    assert rank(quiet) >= max(map(rank, alone))


def test_doctests_hold() -> None:
    assert not doctest.testmod(ladder).failed
