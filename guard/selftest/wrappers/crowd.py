"""Wrappers that hide: the attack's queries are a small share of traffic that is otherwise benign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from guard.selftest.base import Api, Refused, Rows, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers.wrapped import Wrapped, everywhere


class Hidden(Wrapped):
    """Asks each query somewhere among benign ones, whose answers it throws away.

    Args:
        inner: the API.
        share: of all rows that are the attack's.
        benign: rows to hide among.
        rng: draws benign rows and places.
    """

    def __init__(self, inner: Api, share: float, benign: Rows, rng: np.random.Generator) -> None:
        super().__init__(inner)
        self.share, self.benign, self.rng = share, benign, rng

    def ask(self, x: Rows) -> Floats:
        """Return the scores of the attack's rows."""
        rows, places = self._among(x)
        try:
            return self.inner.ask(rows)[places]
        except Refused as error:
            answers = error.answers
            if answers is not None:
                answers = answers[places[places < len(answers)]]
            raise Refused(error.status, str(error), answers) from error

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers to the attack's rows by name."""
        rows, places = self._among(x)
        return {name: members[places] for name, members in self.inner.ask_all(rows).items()}

    def _among(self, x: Rows) -> tuple[Rows, NDArray[np.intp]]:
        """Return all rows in the order in which they are asked, and where the attack's are, ascending."""
        n = len(x)
        total = round(n / self.share)
        places = np.sort(self.rng.permutation(total)[:n])
        drawn = self.rng.integers(len(self.benign), size=total)
        if isinstance(x, np.ndarray) and isinstance(self.benign, np.ndarray):
            rows = self.benign[drawn]
            rows[places] = x
            return rows, places
        texts = [str(self.benign[i]) for i in drawn]
        for place, text in zip(places.tolist(), x, strict=True):
            texts[place] = str(text)
        return texts, places


def hide_5(world: World) -> World:
    """Hide among benign queries: 1 in 20 is the attack's."""
    return _hidden(world, 0.05)


def hide_10(world: World) -> World:
    """Hide among benign queries: 1 in 10 is the attack's."""
    return _hidden(world, 0.1)


def hide_25(world: World) -> World:
    """Hide among benign queries: 1 in 4 is the attack's."""
    return _hidden(world, 0.25)


def _hidden(world: World, share: float) -> World:
    return everywhere(world, lambda api: Hidden(api, share, world.knows.own_x, world.rng("hiding")))
