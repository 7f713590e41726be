"""Good words: spam passes with words that a filter likes; a refusal leaves what was learnt before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guard.selftest.attacks.good_words import GoodWords, candidates
from guard.selftest.base import Knowledge, Outcome, Rows, Unresolved
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import world

GOOD = {f"good{a}": 0.4 + 0.1 * i for i, a in enumerate("abcdefgh")}
"""Words that the filter likes, each more than the one before; own messages tell nothing of how much."""
PLAIN = [f"word{a}{b}" for a in "abcdefg" for b in "abcdefg"]
ATTACK = GoodWords(messages=30, added=4, few=2, words=60)


def predict(texts: Rows) -> Floats:
    z = np.array([4.0 * ("win" in t.split()) - 2.0 - sum(GOOD.get(w, 0.0) for w in set(t.split())) for t in texts])
    p = 1 / (1 + np.exp(-z))
    return np.stack([1 - p, p], axis=1)


def messages(n: int, seed: int) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(seed)
    texts, y = list[str](), np.arange(n) % 2
    for spam in y:
        words = [str(w) for w in rng.choice([*GOOD, *PLAIN], 8)]
        texts.append(" ".join(["win", "cash", str(rng.integers(1000))] if spam else words))
    return texts, y.astype(np.int64)


def filter_victim() -> Victim:
    (own, own_y), (test, test_y), none = messages(120, 0), messages(120, 1), np.zeros(0)
    return Victim(predict, "probabilities", Knowledge("toy", "text", 0, 2, none, none, none, own, own_y), test, test_y)


def one_hot(x: Rows, scores: Floats) -> Floats:
    del x
    return np.eye(2)[scores.argmax(axis=1)]


def by_guide(outcome: Outcome) -> dict[str, float]:
    return {t.how: t.measures["passed"].value for t in outcome.tries}


def test_both_guides_find_the_words_that_own_messages_do_not_tell() -> None:
    outcome = ATTACK.run(world(filter_victim()))
    found = by_guide(outcome)
    assert found["scores"] == 1.0
    assert found["labels"] == 1.0
    assert found["frequencies, no query"] < 1.0
    assert [t.how for t in outcome.tries if t.plain] == ["scores", "labels"]
    assert ATTACK.run(world(filter_victim())) == outcome


def test_labels_mislead_the_score_guide_and_not_the_label_guide() -> None:
    found = by_guide(ATTACK.run(world(filter_victim(), one_hot)))
    assert found["scores"] < found["labels"] == 1.0


def test_a_refusal_midway_leaves_what_was_learnt() -> None:
    outcome = ATTACK.run(world(filter_victim(), limit=110))
    assert by_guide(outcome)["scores"] == 1.0
    assert any("refused (429)" in note for note in outcome.notes)


def test_a_refusal_at_once_leaves_whoever_asks_nothing() -> None:
    outcome = ATTACK.run(world(filter_victim(), limit=0))
    assert list(by_guide(outcome)) == ["frequencies, no query"]
    assert not outcome.tries[0].plain


def test_a_filter_that_likes_no_word_lets_nothing_pass() -> None:
    victim = filter_victim()

    def suspicious(texts: Rows) -> Floats:
        return np.eye(2)[[int("win" in text) for text in texts]]

    stubborn = replace(victim, predict=suspicious)
    assert set(by_guide(ATTACK.run(world(stubborn))).values()) == {0.0}


def test_candidates_are_words_of_honest_messages_that_spam_has_less() -> None:
    found = candidates(["hello you win", "win now", "hello friend"], np.array([0, 1, 0]), 2)
    assert found == ["hello", "friend"]


def test_it_needs_labels_and_spam_that_is_blocked() -> None:
    victim = filter_victim()
    with pytest.raises(Unresolved, match="labels"):
        ATTACK.run(world(replace(victim, knows=replace(victim.knows, own_y=None))))
    with pytest.raises(Unresolved, match="at least 10"):
        ATTACK.run(world(replace(victim, test_y=np.zeros(120))))
    with pytest.raises(Unresolved, match="too few"):
        ATTACK.run(world(replace(victim, knows=replace(victim.knows, own_y=np.zeros(120, dtype=np.int64)))))
