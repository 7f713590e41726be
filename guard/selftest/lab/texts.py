"""Text classifiers: a spam filter on real messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of
from guard.selftest.measures import Ints

TOKEN = r"[A-Za-z']{2,}|\d+"  # noqa: S105 -- what a word is


def spam(seed: int) -> Victim:
    """Logistic regression on the words of SMS messages, spam is 1; an eighth of the messages is the attacker's."""
    texts, y = data.messages()
    order = np.random.default_rng([seed, 2]).permutation(len(texts))
    first, second = 3 * len(order) // 5, 3 * len(order) // 5 + len(order) // 8
    inside, own, held = order[:first], order[first:second], order[second:]
    words: Any = untyped("sklearn.feature_extraction.text").CountVectorizer(min_df=2, binary=True, token_pattern=TOKEN)
    model: Any = untyped("sklearn.linear_model").LogisticRegression(C=3.0, max_iter=1000)
    pipeline = untyped("sklearn.pipeline").make_pipeline(words, model)

    def chosen(rows: Ints) -> list[str]:
        return [texts[i] for i in rows.tolist()]

    def fit(rows: Ints) -> Predict:
        predict = classifier_of(pipeline, chosen(inside[rows]), y[inside[rows]], 2)
        return lambda queries: predict(list(cast("Sequence[str]", queries)))

    training = Training(inside, fit)
    none = np.zeros(0)
    knows = Knowledge("spam", "text", 0, 2, none, none, none, chosen(own), y[own])
    secrets = {"train_x": chosen(inside), "train_y": y[inside]}
    return Victim(training.whole(), "probabilities", knows, chosen(held), y[held], secrets, training=training)


RECIPES: dict[str, Callable[[int], Victim]] = {"spam": spam}
