"""Asking within a limit of one's own, and keeping all that was ever answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from guard.selftest.base import Api, Refused
from guard.selftest.measures import Floats


class Spent(Exception):
    """There is nothing left to ask: the attack's own limit is reached, or the API refused."""


class Asker:
    """Asks an API up to a limit, and keeps questions and answers.

    Args:
        api: whom to ask.
        limit: most rows.
    """

    def __init__(self, api: Api, limit: int) -> None:
        self.api, self.limit = api, limit
        self.answered = 0
        self.refused: Refused | None = None
        self._x: list[Floats] = []
        self._y: list[Floats] = []

    def ask(self, x: Floats) -> Floats:
        """Return the scores of all rows, shape (n, k).

        Raises:
            Spent: not all of them were answered; those that were are kept.
        """
        rows = x[: self.limit - self.answered]
        answers = self._send(rows) if self.refused is None and len(rows) else None
        if answers is not None and len(answers):
            self._x.append(rows[: len(answers)].copy())
            self._y.append(answers)
            self.answered += len(answers)
        if len(x) and (answers is None or len(answers) < len(x)):
            raise Spent
        return np.empty((0, 0)) if answers is None else answers

    def kept(self) -> tuple[Floats, Floats]:
        """Return all questions and their answers, shapes (m, d) and (m, k).

        Raises:
            Refused: not one was answered.
        """
        if not self._x:
            raise self.refused or Refused(429, "nothing was asked")
        return np.concatenate(self._x), np.concatenate(self._y)

    def _send(self, rows: Floats) -> Floats | None:
        try:
            return self.api.ask(rows)
        except Refused as error:
            self.refused = error
            return error.answers


def same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Say which answers, shapes (n, k), are alike but for the last bits: they name the same leaf of a tree.

    >>> same(np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[0.25, 0.75]]))
    array([ True, False])
    """
    return np.asarray((np.abs(one - other) < 1e-12).all(axis=1))
