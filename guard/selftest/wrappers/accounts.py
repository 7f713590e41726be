"""Wrappers that outlast budgets: more accounts, more keys of one customer, more days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.base import Api, Refused, Rows, Tally, Unresolved, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers.wrapped import Wrapped, everywhere, joined

EACH = 8
"""Accounts that a query is spread over."""
CUSTOMERS = range(32)
"""Accounts that are customers of their own."""
KEYS = range(32, 48)
"""Keys of one customer."""
BATCH = 16
DAYS = 30
_Answer = TypeVar("_Answer")
SUSPICIOUS = 12
"""Labels in a row after which a budget is taken for spent."""


class Split(Wrapped):
    """Spreads its rows over accounts in turn; an account that is refused or reduced to labels is left.

    Args:
        accounts: at least one.
    """

    def __init__(self, accounts: list[Api]) -> None:
        super().__init__(accounts[0])
        self.all = accounts
        self.fresh = list(accounts)
        self.used: list[Api] = []
        self.turn = 0

    @property
    def asked(self) -> int:
        """Rows sent so far, by all accounts."""
        return sum(api.asked for api in self.all)

    @property
    def tally(self) -> Tally:
        """What the answers were so far, of all accounts."""
        tallies = [api.tally for api in self.all]
        total = Tally(rows=sum(t.rows for t in tallies))
        for one in tallies:
            total.graded |= {name: total.graded.get(name, 0) + n for name, n in one.graded.items()}
            for status, n in one.refusals.items():
                total.refusals[status] = total.refusals.get(status, 0) + n
        if not self.fresh and all(t.labels_since is not None for t in tallies):
            total.labels_since = min(t.labels_since or 1 for t in tallies)
        return total

    def ask(self, x: Rows) -> Floats:
        """Return the scores, 16 rows at a time from whichever account still answers best."""
        parts: list[Floats] = []
        for i in range(0, len(x), BATCH):
            rows = x[i : i + BATCH]
            try:
                parts.append(self._in_turn(lambda api, rows=rows: api.ask(rows)))
            except Refused as error:
                before = [*parts, error.answers] if error.answers is not None else parts
                raise Refused(error.status, str(error), joined(before, None)) from error
        whole = joined(parts, None)
        return self.inner.ask(x) if whole is None else whole

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers by name, in the same way."""
        parts: list[dict[str, Floats]] = []
        for i in range(0, len(x), BATCH):
            rows = x[i : i + BATCH]
            parts.append(self._in_turn(lambda api, rows=rows: api.ask_all(rows)))
        names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _in_turn(self, call: Callable[[Api], _Answer]) -> _Answer:
        """Ask the next fresh account; when there are none, one that is reduced to labels."""
        while self.fresh:
            self.turn = (self.turn + 1) % len(self.fresh)
            api = self.fresh[self.turn]
            try:
                answers = call(api)
            except Refused as error:
                if error.status not in (403, 429):
                    raise
                self.fresh.remove(api)
                continue
            if api.tally.first_label_at is None:
                return answers
            self.fresh.remove(api)
            self.used.append(api)
        while self.used:
            try:
                return call(self.used[-1])
            except Refused:
                self.used.pop()
        raise Refused(429, "every account is spent")


class Paced(Wrapped):
    """Lets a day go by when it is refused or reduced to labels, and goes on.

    Args:
        inner: the API.
        pace: lets a day go by.
        days: most days.
    """

    def __init__(self, inner: Api, pace: Callable[[], None], days: int = DAYS) -> None:
        super().__init__(inner)
        self.pace, self.days = pace, days
        self.patient = True

    def ask(self, x: Rows) -> Floats:
        """Return the scores of all rows, however many days it takes."""
        parts: list[Floats] = []
        done, waited_at = 0, -1
        while done < len(x):
            try:
                parts.append(self.inner.ask(x[done : done + BATCH]))
            except Refused as error:
                if error.answers is not None:
                    parts.append(error.answers)
                answers = joined(parts, None)
                done = 0 if answers is None else len(answers)
                if error.status not in (403, 429) or not self._wait():
                    raise Refused(error.status, str(error), answers) from error
                continue
            answers = np.concatenate(parts)
            done = len(answers)
            run = self._labels(answers) if self.patient else 0
            if run:
                self.patient = waited_at != done - run
                if self.patient and self._wait():
                    done = waited_at = done - run
                    answers = answers[:done]
            parts = [answers]
        return np.concatenate(parts) if parts else self.inner.ask(x)

    def _labels(self, answers: Floats) -> int:
        """Return how many of the last answers are labels that a spent budget seems to have answered with."""
        if answers.shape[1] < 2 or not self.inner.tally.graded:
            return 0
        graded = np.flatnonzero(~is_label(answers))
        run = len(answers) - (int(graded[-1]) + 1 if len(graded) else 0)
        return run if run >= SUSPICIOUS or self.inner.tally.first_label_at is not None else 0

    def _wait(self) -> bool:
        if not self.days:
            return False
        self.days -= 1
        self.pace()
        return True


def split_accounts(world: World) -> World:
    """Spread the queries over 8 accounts of different customers: breaks budgets per customer."""
    return _split(world, CUSTOMERS)


def split_keys(world: World) -> World:
    """Spread the queries over 8 keys of one customer: breaks budgets per key, not those per customer."""
    return _split(world, KEYS)


def slow_pacing(world: World) -> World:
    """Wait for tomorrow's budget, for up to 30 days: breaks budgets with a window."""
    pace = world.pace
    if pace is None:
        raise Unresolved("time cannot be moved here: there is no test clock")
    return everywhere(world, lambda api: Paced(api, pace))


def _split(world: World, numbers: range) -> World:
    """Give every account of the attack's a share of the numbers."""

    def account(number: int) -> Api:
        mine = numbers[EACH * number : EACH * (number + 1)]
        if len(mine) < EACH:
            raise Unresolved(f"there are {len(numbers)} accounts, not {EACH * (number + 1)}")
        return Split([world.account(n) for n in mine])

    return replace(world, api=account(0), account=account)
