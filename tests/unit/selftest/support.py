"""For tests of attacks: a model asked in process, with any defence a test wants, and the world around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from guard.selftest.api import is_label, one_hot
from guard.selftest.base import Api, Knowledge, Refused, Rows, Tally, World
from guard.selftest.lab.judge import LabJudge
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats, Ints

Defend = Callable[[Rows, Floats], Floats]
"""Queries and the model's scores, shape (n, k) -> what is answered."""


class ModelApi:
    """An API in process. Refuses as Guard does: row by row, with the answers before.

    Args:
        predict: rows -> scores, shape (n, k).
        defend: what is done to the scores.
        limit: rows answered before 429.
        graded: rows answered with scores before labels.
        extras: further members of `ask_all`.
        account: for the tally.
    """

    def __init__(
        self,
        predict: Callable[[Rows], Floats],
        defend: Defend | None = None,
        *,
        limit: int | None = None,
        graded: int | None = None,
        extras: Callable[[Rows], dict[str, Floats]] | None = None,
        account: str = "0",
    ) -> None:
        self.predict, self.defend, self.limit, self.graded = predict, defend, limit, graded
        self.extras, self.account = extras, account
        self.answered = 0
        self.requests = 0
        self._asked = 0
        self._tally = Tally()
        self._seen: set[bytes] = set()

    @property
    def asked(self) -> int:
        """Rows sent so far."""
        return self._asked

    @property
    def tally(self) -> Tally:
        """What the answers were so far."""
        return self._tally

    def ask(self, x: Rows) -> Floats:
        """Return scores."""
        self.requests += 1
        room = len(x) if self.limit is None else max(0, min(len(x), self.limit - self.answered))
        answers = self._answers(x[:room])
        if room < len(x):
            self._asked += 1
            self._tally.refusals[429] = self._tally.refusals.get(429, 0) + 1
            if self._tally.first_refusal_at is None:
                self._tally.first_refusal_at = self._asked
            raise Refused(429, "the limit is reached", answers)
        return answers

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return scores, labels and extras by name."""
        scores = self.ask(x)
        members = {"probabilities": scores}
        if scores.shape[1] > 1:
            members["label"] = scores.argmax(axis=1)[:, None].astype(np.float64)
        return members | (self.extras(x) if self.extras is not None else {})

    def _answers(self, x: Rows) -> Floats:
        scores = self.predict(x) if len(x) else np.empty((0, 1))
        if not len(x):
            return scores
        if self.defend is not None:
            scores = self.defend(x, scores)
        if self.graded is not None and scores.shape[1] > 1:
            late = np.arange(self.answered, self.answered + len(x)) >= self.graded
            scores = np.where(late[:, None], one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1]), scores)
        self.answered += len(x)
        self._count(x, scores)
        return scores

    def _count(self, x: Rows, scores: Floats) -> None:
        bare = is_label(scores) if scores.shape[1] > 1 else np.zeros(len(scores), dtype=bool)
        for i in range(len(scores)):
            self._asked += 1
            row = x[i]
            name = row.encode() if isinstance(row, str) else cast("Floats", row).tobytes()
            self._tally.answered(self.account, label=bool(bare[i]), seen=name in self._seen)
            if not bare[i]:
                self._seen.add(name)


def world(
    victim: Victim,
    defend: Defend | None = None,
    *,
    api: Api | None = None,
    seed: int = 0,
    limit: int | None = None,
    graded: int | None = None,
    account: Callable[[int], Api] | None = None,
    shadow: Callable[[str], Api] | None = None,
    pace: Callable[[], None] | None = None,
) -> World:
    """Return the world around a victim.

    Args:
        victim: the model.
        defend: what is done to its scores.
        api: instead of one made of `defend`, `limit` and `graded`.
        seed: of every draw.
        limit: rows answered before 429.
        graded: rows answered with scores before labels.
        account: gives other accounts; without it every account has limits of its own and the same defence.
        shadow: gives the attacker's own deployments by name; without it there are none.
        pace: lets a day go by.
    """

    def another(number: int) -> Api:
        return ModelApi(victim.predict, defend, limit=limit, graded=graded, extras=victim.extras, account=str(number))

    def none(name: str) -> Api:
        raise KeyError(name)

    return World(
        another(0) if api is None else api,
        victim.knows,
        LabJudge(victim),
        seed,
        another if account is None else account,
        none if shadow is None else shadow,
        pace=pace,
    )


def linear_victim(size: int = 8, classes: int = 3, seed: int = 0, steep: float = 1.0) -> Victim:
    """Return a softmax regression with drawn weights on standard normal data: nothing to train, so tests stay fast.

    Args:
        size: features.
        classes: how many.
        seed: of weights and data.
        steep: how sure it is.
    """
    rng = np.random.default_rng([seed, size, classes])
    weights = rng.normal(size=(size, classes)) * steep / np.sqrt(size) * 2
    own, test = np.clip(rng.normal(size=(200, size)), -4, 4), np.clip(rng.normal(size=(200, size)), -4, 4)

    def predict(x: Rows) -> Floats:
        z = np.asarray(x, dtype=np.float64) @ weights
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def labels(x: Floats) -> Ints:
        return predict(x).argmax(axis=1).astype(np.int64)

    wide = np.full(size, 4.0)
    knows = Knowledge("toy", "vector", size, classes, -wide, wide, own.std(axis=0), own, labels(own))
    secrets = {"weights": weights.T, "train_x": test, "train_y": labels(test)}
    return Victim(predict, "probabilities", knows, test, labels(test), secrets)
