"""What an attacker does who has read Guard's source: wrappers that turn a world into a harder one for the defence.

A wrapper changes how the API is asked or how its answers are read, so that it goes with every attack. Each is made to
break at least one naive policy (`docs/selftest.md` says which), and the tests hold it to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.base import Api, Refused, Rows, Tally, World
from guard.selftest.measures import Floats

Wrapper = Callable[[World], World]


class Wrapped:
    """An API that asks another one.

    Args:
        inner: the other.
    """

    def __init__(self, inner: Api) -> None:
        self.inner = inner

    def ask(self, x: Rows) -> Floats:
        """Return the scores of all rows."""
        return self.inner.ask(x)

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers by name."""
        return self.inner.ask_all(x)

    @property
    def asked(self) -> int:
        """Rows sent so far."""
        return self.inner.asked

    @property
    def tally(self) -> Tally:
        """What the answers were so far."""
        return self.inner.tally


class LabelsOnly(Wrapped):
    """Reads labels and nothing else: the fallback where scores mislead, and the floor of what labels alone give."""

    def ask(self, x: Rows) -> Floats:
        """Return one-hot labels."""
        try:
            return _one_hot(self.inner.ask(x))
        except Refused as error:
            answers = None if error.answers is None else _one_hot(error.answers)
            raise Refused(error.status, str(error), answers) from error

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return the label alone, as a class number; a value stays one."""
        answers = self.ask(x)
        return {"label": answers.argmax(axis=1)[:, None].astype(np.float64) if answers.shape[1] > 1 else answers}


class Averaged(Wrapped):
    """Asks each row several times and averages.

    Args:
        inner: the API.
        repeats: how often.
        jitter: standard deviation of what is added to each repeat, as a share of each feature's own, shape (d,); 0 for
            plain repeats. Jitters come in pairs of opposite sign, so that the first order cancels.
        rng: draws the jitter.
    """

    def __init__(self, inner: Api, repeats: int, jitter: Floats, rng: np.random.Generator) -> None:
        super().__init__(inner)
        self.repeats, self.jitter, self.rng = repeats, jitter, rng

    def ask(self, x: Rows) -> Floats:
        """Return the mean of all repeats' scores."""
        total, offset = None, None
        for i in range(self.repeats):
            if isinstance(x, np.ndarray):
                offset = (
                    self.rng.normal(size=x.shape) * self.jitter
                    if i % 2 == 0
                    else -(offset if offset is not None else 0)
                )
                answers = self.inner.ask(x + offset)
            else:
                answers = self.inner.ask(x)
            total = answers if total is None else total + answers
        return total / self.repeats if total is not None else self.inner.ask(x)


class Split(Wrapped):
    """Spreads its rows over accounts in turn; an account that is refused or reduced to labels is left.

    Args:
        world: gives the accounts.
        numbers: which accounts.
        rest_at_label: leaves an account when its answers turn to labels.
    """

    def __init__(self, world: World, numbers: range, *, rest_at_label: bool = True) -> None:
        super().__init__(world.api)
        self.all = [world.account(n) for n in numbers]
        self.fresh = list(self.all)
        self.used: list[Api] = []
        self.rest_at_label = rest_at_label
        self.turn = 0

    @property
    def asked(self) -> int:
        """Rows sent so far, by all accounts."""
        return sum(api.asked for api in self.all)

    def ask(self, x: Rows) -> Floats:
        """Return the scores, 16 rows at a time from whichever account still answers best."""
        parts: list[Floats] = []
        for i in range(0, len(x), 16):
            parts.append(self._ask(x[i : i + 16]))
        return np.concatenate(parts) if parts else self.inner.ask(x)

    def _ask(self, x: Rows) -> Floats:
        while self.fresh:
            self.turn = (self.turn + 1) % len(self.fresh)
            api = self.fresh[self.turn]
            graded = sum(api.tally.graded.values())
            try:
                answers = api.ask(x)
            except Refused as error:
                if error.status not in (403, 429):
                    raise
                self.fresh.remove(api)
                continue
            if self.rest_at_label and answers.shape[1] > 1 and graded and is_label(answers).all():
                self.fresh.remove(api)
                self.used.append(api)
            return answers
        while self.used:
            try:
                return self.used[-1].ask(x)
            except Refused:
                self.used.pop()
        raise Refused(429, "every account is spent")


def _one_hot(scores: Floats) -> Floats:
    return np.eye(scores.shape[1])[scores.argmax(axis=1)] if scores.shape[1] > 1 else scores


def labels(world: World) -> World:
    """Fall back to labels."""
    return replace(world, api=LabelsOnly(world.api), account=lambda number: LabelsOnly(world.account(number)))


def averaging(world: World) -> World:
    """Ask every query 8 times and average."""
    return replace(world, api=Averaged(world.api, 8, np.zeros(max(1, world.knows.size)), world.rng("averaging")))


def split_accounts(world: World) -> World:
    """Spread the queries over 8 accounts of different customers."""
    return replace(world, api=Split(world, range(8)))


WRAPPERS: dict[str, Wrapper] = {
    "labels": labels,
    "averaging": averaging,
    "split_accounts": split_accounts,
}
"""By the name that reports and `docs/selftest.md` use."""
