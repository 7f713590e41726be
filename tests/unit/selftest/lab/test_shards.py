"""The lab's ensembles: disjoint shards by a rule that reads no record, and members that follow the same recipe."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.lab.registry import names, victim
from guard.selftest.lab.shards import ensemble, shard_of, shards
from guard.selftest.lab.victim import Training, prior_of
from guard.selftest.measures import Floats, Ints


def training(name: str) -> Training:
    found = victim(name, 0).training
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(name for name in names() if victim(name, 0).language is None))
def test_every_model_of_scores_has_shards_that_answer_as_it_does(name: str) -> None:
    model = victim(name, 0)
    x = model.test_x[:20]
    whole = ensemble(name, 0, 3, "mean")
    scores = whole.predict(x)
    assert scores.shape == (20, model.knows.classes)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, np.mean([one.predict(x) for one in shards(name, 0, 3)], axis=0))
    np.testing.assert_array_equal(training(name).whole()(x), model.predict(x))
    if model.output == "probabilities":
        np.testing.assert_allclose(scores.sum(axis=1), 1.0)
        assert not np.array_equal(scores, model.predict(x))


def test_a_shard_is_the_recipe_on_its_own_rows_and_no_others() -> None:
    """The negative control: another shard's rows make another model."""
    made = training("digits")
    placed = shard_of(made.ids, 4, 0)
    x = victim("digits", 0).test_x
    mine, others = np.flatnonzero(placed == 2), np.flatnonzero(placed != 2)
    np.testing.assert_array_equal(shards("digits", 0, 4)[2].predict(x), made.fit(mine)(x))
    assert not np.array_equal(shards("digits", 0, 4)[2].predict(x), made.fit(others)(x))


def test_a_records_shard_depends_on_its_number_alone() -> None:
    ids = np.arange(900)
    placed = shard_of(ids, 5, 0)
    np.testing.assert_array_equal(shard_of(ids[::7], 5, 0), placed[::7])
    assert np.bincount(placed, minlength=5).min() > 130
    assert not np.array_equal(shard_of(ids, 5, 1), placed)


def test_the_attackers_shadows_put_a_record_where_the_victim_does() -> None:
    own, shadow = training("digits_forest"), training("digits_forest.shadow3")
    both = np.intersect1d(own.ids, shadow.ids)
    assert len(both) > 150
    where = [dict(zip(t.ids.tolist(), shard_of(t.ids, 5, 0).tolist(), strict=True)) for t in (own, shadow)]
    assert all(where[0][i] == where[1][i] for i in both.tolist())


def test_votes_are_shares_of_the_members_that_name_a_class() -> None:
    x = victim("digits", 0).test_x[:50]
    votes = ensemble("digits", 0, 3, "vote").predict(x)
    assert set(np.unique(np.rint(votes * 3))) <= {0.0, 1.0, 2.0, 3.0}
    named = [one.predict(x).argmax(axis=1) for one in shards("digits", 0, 3)]
    agreed = (named[0] == named[1]) & (named[1] == named[2])
    np.testing.assert_array_equal(votes[agreed].argmax(axis=1), named[0][agreed])
    np.testing.assert_array_equal(votes, ensemble("digits", 0, 3, "noisy_vote").predict(x))


@pytest.mark.parametrize("name", ["anomalies", "breast_cancer", "diabetes", "diabetes_classes", "digits_forest"])
def test_shards_of_a_few_records_that_lack_classes_answer_all_the_same(name: str) -> None:
    made = training(name)
    x = victim(name, 0).test_x[:5]
    for rows in (np.arange(0), np.arange(1), np.arange(3)):
        scores = made.fit(rows)(x)
        assert scores.shape == (5, victim(name, 0).knows.classes)
        assert np.isfinite(scores).all()


def test_who_saw_one_class_answers_how_common_it_was() -> None:
    def shown(y: Ints) -> Floats:
        return prior_of(y, 3)(np.zeros((2, 4)))

    np.testing.assert_array_equal(shown(np.array([1, 1])), [[0, 1, 0]] * 2)
    np.testing.assert_allclose(shown(np.array([], dtype=np.int64)), np.full((2, 3), 1 / 3))


def test_what_there_is_not_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        shards("digits.nothing", 0, 5)
    with pytest.raises(KeyError):
        ensemble("digits", 0, 3, "median")  # pyright: ignore[reportArgumentType]  # what a path may say
