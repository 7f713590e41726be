"""Gibberish: random words copy a text classifier, labels copy it less well, and budgets are survived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.attacks.gibberish_text import GibberishText
from guard.selftest.attacks.network_copies import ANSWERS, LABELS, OWN, WEIGHED
from guard.selftest.attacks.text_copy import fit_text, presence, words_of
from guard.selftest.base import Knowledge, Outcome, Refused, Rows, Unresolved
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import world

DRAWS = np.random.default_rng(0)
WORDS = [f"word{i}" for i in range(60)]
WEIGHTS = dict(zip(WORDS, DRAWS.normal(-0.15, 1.0, 60), strict=True))
ATTACK = GibberishText(queries=900, most=12)


def predict(texts: Rows) -> Floats:
    z = np.array([sum(WEIGHTS.get(word, 0.0) for word in set(words_of(text))) for text in cast("Sequence[str]", texts)])
    p = 1 / (1 + np.exp(-z))
    return np.stack((1 - p, p), axis=1)


def texts(n: int) -> list[str]:
    return [" ".join(WORDS[int(i)] for i in DRAWS.integers(60, size=8)) for _ in range(n)]


def labels(x: Rows, scores: Floats) -> Floats:
    del x
    return one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1])


def victim(labelled: bool = True) -> Victim:
    none, own, held = np.zeros(0), texts(80), texts(200)
    own_y = predict(own).argmax(axis=1).astype(np.int64)
    knows = Knowledge("toy", "text", 0, 2, none, none, none, own, own_y if labelled else None)
    return Victim(predict, "probabilities", knows, held, predict(held).argmax(axis=1).astype(np.int64))


VICTIM = victim()


def best(outcome: Outcome, metric: str) -> float:
    return outcome.best(metric).measures[metric].value


def test_random_words_copy_a_model_and_labels_copy_it_less_well() -> None:
    clear, held = ATTACK.run(world(VICTIM)), ATTACK.run(world(VICTIM, labels))
    assert all(criterion.met(best(clear, criterion.metric)) for criterion in ATTACK.control)
    assert best(held, "surrogate_l1") > 5 * best(clear, "surrogate_l1")
    assert {found.how for found in clear.tries} == {ANSWERS, LABELS, OWN}
    assert [n for n, _ in clear.curve] == [500, 900]
    assert "surrogate_l1_uniform" in clear.tries[0].measures


def test_the_note_says_what_a_constant_would_reach() -> None:
    share = float(np.bincount(predict(VICTIM.test_x).argmax(axis=1)).max()) / 200
    notes = ATTACK.run(world(VICTIM, limit=50)).notes
    assert list(notes) == [f"always naming the commonest class agrees on {share:.3f} of the held-out texts"]


def test_a_budget_and_a_refusal_midway_are_survived() -> None:
    outcome = ATTACK.run(world(VICTIM, limit=600, graded=80))
    assert outcome.queries == 601
    assert WEIGHED in {found.how for found in outcome.tries}
    assert best(outcome, "agreement") > 0.8
    with pytest.raises(Refused):
        ATTACK.run(world(VICTIM, limit=0))


def test_own_labels_are_used_where_there_are_some_and_words_are_needed() -> None:
    plain = ATTACK.run(world(victim(labelled=False)))
    assert OWN not in {found.how for found in plain.tries}
    nothing = replace(VICTIM, knows=replace(VICTIM.knows, own_x=[]))
    with pytest.raises(Unresolved, match="no own texts"):
        ATTACK.run(world(nothing))


def test_queries_meet_rare_classes() -> None:
    own = [["ham"]] * 9 + [["spam"]]
    knows = replace(VICTIM.knows, own_y=np.array([0] * 9 + [1]))
    about = world(replace(VICTIM, knows=knows))

    def share(marked: float) -> float:
        asked = replace(ATTACK, marked=marked).gibberish(about, own, 400, about.rng("x"))
        return float(np.mean([word == "spam" for text in asked for word in text.split()]))

    assert share(0.0) == pytest.approx(0.1, abs=0.03)
    assert share(1.0) == pytest.approx(0.5, abs=0.05)


def test_truncated_scores_of_three_classes_are_fitted_without_making_any_up() -> None:
    column = {word: i for i, word in enumerate(WORDS)}
    said = texts(600)
    features = presence(said, column)
    logits = np.asarray(features @ np.random.default_rng(1).normal(size=(60, 3)))
    y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top = np.where(y == y.max(axis=1, keepdims=True), y, 0.0)
    assert np.abs(fit_text(features, top, column, 1e-7).of(features) - y).mean() < 0.01
    assert np.abs(fit_text(features, labels(said, y), column, 1e-4).of(features) - y).mean() > 0.03
