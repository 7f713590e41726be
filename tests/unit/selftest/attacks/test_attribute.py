"""Attribute inference: it finds what answers give away, less where answers are held back, and goes on when refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.attacks.attribute import Targets, ask_counts, ask_few
from guard.selftest.attacks.attribute_leaked_answer import IN_VAIN, LeakedAnswer
from guard.selftest.attacks.attribute_leaked_answer import OfRating as LeakedRating
from guard.selftest.attacks.attribute_leaked_answer import OfValue as LeakedValue
from guard.selftest.attacks.attribute_map import AttributeMap, OfValue
from guard.selftest.attacks.floors import zero_query
from guard.selftest.attacks.guesses import distance, guessed, likelihood
from guard.selftest.base import Outcome, Refused, Rows, Unresolved
from guard.selftest.lab.records import affairs_marriage, affairs_rating, diabetes
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import ModelApi, linear_victim, world


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own, so that a fit of before proves nothing."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        MARRIAGE.append(affairs_marriage(0))
    return folder


MARRIAGE: list[Victim] = []


def labels(x: Rows, scores: Floats) -> Floats:
    del x
    return one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1])


def best(outcome: Outcome, metric: str = "accuracy") -> float:
    return outcome.best(metric).measures[metric].value


def plain(outcome: Outcome) -> float:
    return outcome.best("advantage", plain=True).measures["advantage"].value


def test_a_leaked_answer_gives_the_affair_away_and_labels_give_less() -> None:
    open_, held = LeakedAnswer().run(world(MARRIAGE[0])), LeakedAnswer().run(world(MARRIAGE[0], labels))
    assert best(open_) >= 0.97
    assert best(held) <= 0.93
    assert "imputing" in open_.notes[0]


class OneLedger:
    """Fresh noise a query, one budget for everybody, and releases remembered: for everybody, or for whoever asked.

    Args:
        shared: what one client was answered, another gets too, whatever the budget.
    """

    def __init__(self, budget: int, *, shared: bool) -> None:
        self.budget, self.shared, self.rng = budget, shared, np.random.default_rng(4)
        self.known: dict[tuple[int, bytes], Floats] = {}

    def account(self, number: int) -> ModelApi:
        """Return one client's API."""
        ledger, inner = self, ModelApi(MARRIAGE[0].predict, account=str(number))
        ask = inner.ask

        def answered(x: Rows) -> Floats:
            answers: list[Floats] = []
            for row in np.asarray(x, dtype=np.float64):
                key = (0 if ledger.shared else number, row.tobytes())
                if key not in ledger.known:
                    if not ledger.budget:
                        raise Refused(429, answers=np.array(answers) if answers else None)
                    ledger.budget -= 1
                    ledger.known[key] = ask(row[None])[0] + ledger.rng.normal(size=3)
                answers.append(ledger.known[key])
            return np.array(answers)

        inner.ask = answered
        return inner

    def run(self) -> float:
        """Return the accuracy of the attack."""
        return best(LeakedAnswer().run(world(MARRIAGE[0], api=self.account(0), account=self.account)))


def test_a_release_that_all_clients_share_tells_what_others_have_asked_whatever_its_noise() -> None:
    guess = best(zero_query(world(MARRIAGE[0])))
    assert OneLedger(10**6, shared=True).run() > 0.95
    assert OneLedger(10**6, shared=False).run() < guess + 0.03


def test_a_spent_budget_tells_it_too_by_whom_it_refuses() -> None:
    guess = best(zero_query(world(MARRIAGE[0])))
    assert OneLedger(800, shared=True).run() > 0.95
    assert OneLedger(800, shared=False).run() < guess + 0.03


def test_noise_of_its_own_for_each_account_hides_what_a_leaked_answer_gives() -> None:
    draws = np.random.default_rng(3)

    def noisy(x: Rows, scores: Floats) -> Floats:
        del x
        return scores + draws.normal(0, 1.0, scores.shape)

    assert best(LeakedAnswer().run(world(MARRIAGE[0], noisy))) <= 0.80


def test_who_never_asks_imputes_better_than_chance_and_worse_than_who_hears_an_answer() -> None:
    asked = world(MARRIAGE[0])
    found = zero_query(asked)
    assert asked.api.asked == found.queries == 0
    chance, own = (t.measures["accuracy"].value for t in found.tries)
    assert chance < own < 0.8 < best(LeakedAnswer().run(asked))


def test_the_same_seed_gives_the_same_figures() -> None:
    one, other = AttributeMap().run(world(MARRIAGE[0])), AttributeMap().run(world(MARRIAGE[0]))
    assert one == other


def test_members_are_guessed_above_the_prior_and_others_are_not() -> None:
    found = AttributeMap().run(world(MARRIAGE[0]))
    plain = found.best("advantage", plain=True)
    assert plain.how == "confidence"
    assert plain.measures["advantage"].low > 0.05
    assert plain.measures["accuracy_non_members"].high < 0.70
    assert {t.how for t in found.tries if t.plain} == {"confusion matrix", "confidence", "leaf counts"}


def test_without_scores_the_confidence_says_what_the_label_says() -> None:
    found = {t.how: t.measures["accuracy"].value for t in AttributeMap().run(world(MARRIAGE[0], labels)).tries}
    assert found["confidence"] == pytest.approx(found["confusion matrix"], abs=0.01)
    assert found["confidence"] < best(AttributeMap().run(world(MARRIAGE[0]))) - 0.02


def test_leaf_counts_are_used_where_answers_hold_them_only() -> None:
    targets = Targets.of(world(MARRIAGE[0]))
    counts = ask_counts(ModelApi(MARRIAGE[0].predict, extras=MARRIAGE[0].extras), targets)
    assert counts is not None
    assert (counts.sum(axis=2) >= 3).all()
    assert ask_counts(ModelApi(MARRIAGE[0].predict), targets) is None
    assert ask_counts(ModelApi(MARRIAGE[0].predict, labels), targets) is None


def test_a_refusal_midway_leaves_the_rest_to_the_prior() -> None:
    for attack in (AttributeMap(), LeakedAnswer()):
        part, whole = attack.run(world(MARRIAGE[0], limit=200)), attack.run(world(MARRIAGE[0]))
        assert part.queries <= 203 + 360 + IN_VAIN
        assert plain(part) < plain(whole)
    with pytest.raises(Refused):
        AttributeMap().run(world(MARRIAGE[0], limit=0))


def test_a_budget_spent_on_everybody_protects_nobody_by_itself() -> None:
    found = LeakedAnswer().run(world(MARRIAGE[0], graded=24))
    everybody = found.best("accuracy", plain=True).measures["accuracy"].value
    assert best(LeakedAnswer().run(world(MARRIAGE[0], labels))) - 0.01 <= everybody < 0.96
    assert found.best("accuracy").how.endswith("few people an account")
    assert best(found) >= 0.97


def test_labels_from_the_start_are_asked_for_once() -> None:
    asked = world(MARRIAGE[0], labels)
    targets = Targets.of(asked)
    assert ask_few(asked, targets, targets.by_target(asked.api.ask(targets.candidates()))) is None


def test_five_candidates_a_target_are_told_apart() -> None:
    found = best(LeakedRating().run(world(affairs_rating(0))))
    assert found >= 0.80
    assert best(LeakedRating().run(world(affairs_rating(0), labels))) <= found - 0.15


def test_a_regression_gives_the_sex_away_and_rounding_it_to_tens_less() -> None:
    model = diabetes(0)

    def tens(x: Rows, values: Floats) -> Floats:
        del x
        return np.round(values, -2)

    assert best(LeakedValue().run(world(model))) >= 0.99
    assert best(LeakedValue().run(world(model, tens))) <= 0.85
    assert best(OfValue().run(world(model)), "advantage") > 0.04


def test_targets_are_members_and_others_without_their_sensitive_answers() -> None:
    model = MARRIAGE[0]
    members, extra = np.asarray(model.secrets["targets_member"]), model.knows.extra
    assert (int(members.sum()), len(members)) == (400, 800)
    asked = Targets.of(world(model))
    assert np.isnan(asked.x[:, asked.column]).all()
    full = asked.x.copy()
    full[:, asked.column] = np.asarray(model.secrets["targets_sensitive"])
    trained_on = {row.tobytes() for row in np.asarray(model.secrets["train_x"])}
    assert all(row.tobytes() in trained_on for row in full[members])
    np.testing.assert_allclose(np.asarray(extra["confusion"]).sum(axis=1), 1.0)


def test_a_world_without_people_is_unresolved() -> None:
    with pytest.raises(Unresolved):
        AttributeMap().run(world(linear_victim()))


def test_what_is_missing_or_zero_stays_finite_and_falls_to_the_prior() -> None:
    targets = Targets(np.zeros((2, 1)), np.array([1, 0]), 0, np.array([0.0, 1.0]), np.log([0.3, 0.7]), np.arange(2))
    answers = np.array([[[0.9, 0.0], [0.2, 0.8]], [[np.nan, np.nan], [0.0, 1.0]]])
    assert np.isfinite(likelihood(answers[:1], np.array([1]))).all()
    assert guessed(targets, likelihood(answers, np.array([1, 0]))).tolist() == [1, 1]


def test_a_leaked_label_is_compared_by_class() -> None:
    answers = np.array([[[0.6, 0.4], [0.3, 0.7]]])
    np.testing.assert_allclose(distance(answers, np.array([[1.0, 0.0]])), [[0.0, 2.0]])
    np.testing.assert_allclose(distance(answers, np.array([[0.5, 0.5]])), [[0.2, 0.4]])


def test_parameters_are_the_fields() -> None:
    assert replace(LeakedAnswer(), tolerances=(0.1,)).tolerances == (0.1,)
