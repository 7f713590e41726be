"""Membership attacks: each tells a leaky model's members, less so from labels, and goes on with what it was told."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from guard.selftest.attacks.membership_label_only import MembershipLabelOnly
from guard.selftest.attacks.membership_lira import (
    CALIBRATED,
    CROSSED,
    JITTERED,
    OFFLINE,
    ONLINE,
    MembershipLira,
)
from guard.selftest.attacks.membership_shadow import MembershipShadow
from guard.selftest.attacks.membership_threshold import MembershipThreshold, modified_entropy
from guard.selftest.base import Attack, Outcome, Refused, Rows, Unresolved
from guard.selftest.lab.judge import LabJudge
from guard.selftest.measures import Floats
from tests.unit.selftest.attacks.leaky import MEMBERS, N, labels, leaky, model, top, victim
from tests.unit.selftest.support import world

THRESHOLD, SHADOW = MembershipThreshold(), MembershipShadow(shadows=6)
LIRA, LABEL_ONLY = MembershipLira(shadows=6, copies=2), MembershipLabelOnly(copies=6, noise=0.05)
ALL: tuple[Attack, ...] = (THRESHOLD, SHADOW, LIRA, LABEL_ONLY)


@lru_cache
def undefended(attack: Attack) -> Outcome:
    return attack.run(leaky())


def auc(outcome: Outcome) -> float:
    return outcome.best("auc").measures["auc"].value


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_it_tells_members_and_the_same_seed_gives_the_same_figures(attack: Attack) -> None:
    found = undefended(attack)
    assert auc(found) > 0.6
    assert found.best("auc").measures["auc"].low > 0.5
    assert attack.run(leaky()) == found
    assert json.loads(json.dumps(found.artefacts))["roc"][-1] == [1.0, 1.0]


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_a_model_that_saw_no_candidate_tells_nothing(attack: Attack) -> None:
    """The negative control."""
    here = leaky()
    honest = world(replace(victim(), predict=model(np.zeros(N, dtype=bool))), shadow=here.shadow)
    measure = attack.run(honest).best("auc").measures["auc"]
    assert measure.low < 0.53


@pytest.mark.parametrize("attack", [THRESHOLD, SHADOW, LIRA], ids=lambda attack: attack.name)
def test_labels_alone_tell_less(attack: Attack) -> None:
    assert auc(attack.run(leaky(labels))) < auc(undefended(attack)) - 0.05


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_a_refusal_midway_leaves_what_was_told(attack: Attack) -> None:
    found = attack.run(leaky(top, limit=100, graded=60))
    assert 0.5 < auc(found) < auc(undefended(attack)) - 0.05
    assert found.queries >= 100
    assert auc(attack.run(leaky(top, limit=N + 30, graded=60))) > auc(found)


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_nothing_told_is_a_refusal(attack: Attack) -> None:
    with pytest.raises(Refused):
        attack.run(leaky(limit=0))


@pytest.mark.parametrize("attack", [THRESHOLD, LABEL_ONLY], ids=lambda attack: attack.name)
def test_lists_of_members_and_others_are_enough(attack: Attack) -> None:
    """A model of the operator's own has no shadows."""
    own = victim()
    extra = {name: own.knows.extra[name] for name in ("candidates_x", "candidates_y")}
    here = replace(world(own), knows=replace(own.knows, extra=extra), judge=LabJudge(own))
    assert auc(attack.run(here)) > 0.6
    for needy in (SHADOW, LIRA):
        with pytest.raises(Unresolved, match="no shadow models"):
            needy.run(here)


def test_labels_after_a_budget_are_ranked_among_scores() -> None:
    found = THRESHOLD.run(leaky(graded=60))
    by = {t.how: t.measures["auc"].value for t in found.tries}
    assert by["labels among scores"] > by["loss"]
    assert "labels among scores" not in {t.how for t in THRESHOLD.run(leaky(top)).tries}


def test_a_model_of_values_is_told_by_its_errors() -> None:
    own = victim()
    y = np.linspace(-1, 1, N)
    knows = replace(own.knows, classes=1, extra={"candidates_x": own.knows.own_x, "candidates_y": y})
    errors = np.where(MEMBERS, 0.1, 0.5)[:, None]

    def predict(x: Rows) -> Floats:
        return y[: len(x), None] + errors[: len(x)]

    here = world(replace(own, knows=knows, predict=predict))
    assert auc(THRESHOLD.run(here)) == 1.0
    with pytest.raises(Unresolved):
        LABEL_ONLY.run(here)


def test_modified_entropy_is_low_for_the_sure_and_right() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]])
    found = modified_entropy(p, np.zeros(4, dtype=np.int64))
    assert found[3] < found[0] < found[1] < found[2]


def test_the_likelihood_ratio_beats_a_threshold_and_copies_help_against_labels() -> None:
    found = {t.how: t for t in undefended(LIRA).tries}
    assert found[ONLINE].measures["auc"].value > auc(undefended(THRESHOLD))
    assert [how for how, t in found.items() if t.plain] == [ONLINE, OFFLINE]
    floor = {t.how: t.measures["auc"].value for t in replace(LIRA, copies=8, noise=0.05).run(leaky(labels)).tries}
    assert floor[JITTERED] > floor[CALIBRATED]
    assert JITTERED not in {t.how for t in replace(LIRA, copies=0).run(leaky()).tries}


CROSSING = MembershipLira(shadows=6, copies=0, mixtures=12)


def of(outcome: Outcome, how: str) -> float:
    return next(t.measures["auc"].value for t in outcome.tries if t.how == how)


def test_records_crossed_with_other_data_shine_through_labels() -> None:
    found = CROSSING.run(leaky(labels))
    assert of(found, CROSSED) > of(found, CALIBRATED) + 0.02
    assert "12.0 of 12 mixtures of a record with own data were answered" in found.notes
    assert CROSSED not in {t.how for t in undefended(LIRA).tries}


def test_crossing_finds_nothing_where_there_is_nothing() -> None:
    """The negative control: a model that saw no candidate."""
    here = leaky(labels)
    honest = world(replace(victim(), predict=model(np.zeros(N, dtype=bool))), labels, shadow=here.shadow)
    assert CROSSING.run(honest).best("auc").measures["auc"].low < 0.53


def test_mixtures_that_are_not_answered_are_left_out() -> None:
    found = CROSSING.run(leaky(labels, limit=N + 60))
    assert "0.2 of 12 mixtures of a record with own data were answered" in found.notes
    assert of(found, CROSSED) > 0.5
    assert "0.0 of 12 mixtures of a record with own data were answered" in CROSSING.run(leaky(labels, limit=N)).notes


def test_copies_are_cut_short_alike() -> None:
    found = LABEL_ONLY.run(leaky(limit=3 * N))
    assert found.notes == ["2.0 of 6 noisy copies of a record were answered"]
    assert found.queries == 3 * N + 1
