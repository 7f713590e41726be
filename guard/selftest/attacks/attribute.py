"""What attribute inference shares: the targets, and asking about every candidate.

A target costs a query a candidate. Who wants to know about one person spends no budget, so that a budget spent on all
targets says little about each: where one was, a few targets are asked about again from accounts of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.base import Api, Refused, Unresolved, World
from guard.selftest.measures import Floats, Ints

Bools = NDArray[np.bool_]
ROUND = 64
"""Targets whose candidates go out together."""
ACCOUNTS = range(1, 16)
"""The attacker's further accounts, for a few targets each."""
SPENT = 0.9
"""Share of answers that are labels or refused from which a budget is taken for spent."""
FEW = 24
"""Queries that each of them asks: as many graded answers as a strict budget bears on eight features."""


@dataclass(frozen=True)
class Targets:
    """People whose sensitive answer is wanted.

    Args:
        x: their other answers, the sensitive column NaN, shape (n, d).
        y: their true labels, or values, shape (n,).
        column: the sensitive answer's.
        values: what it may be, shape (v,).
        log_prior: how common each is, shape (v,).
        rows: which of the world's targets they are, shape (n,).
    """

    x: Floats
    y: Ints | Floats
    column: int
    values: Floats
    log_prior: Floats
    rows: Ints

    @classmethod
    def of(cls, world: World) -> Targets:
        """Return the world's targets.

        Raises:
            Unresolved: it has none.
        """
        extra = world.knows.extra
        if "targets_x" not in extra:
            raise Unresolved("attribute inference needs records of people, and one answer that is sensitive")
        prior = cast("Floats", extra["prior"])
        return cls(
            cast("Floats", extra["targets_x"]),
            cast("Floats", extra["targets_y"]),
            cast("int", extra["sensitive"]),
            cast("Floats", extra["values"]),
            np.log(prior),
            np.arange(len(cast("Floats", extra["targets_x"]))),
        )

    def only(self, rows: Ints) -> Targets:
        """Return some of the targets, by number among these."""
        return replace(self, x=self.x[rows], y=self.y[rows], rows=self.rows[rows])

    def candidates(self) -> Floats:
        """Return each target's record with each candidate in its place, shape (n * v, d), a target's together."""
        rows = np.repeat(self.x, len(self.values), axis=0)
        rows[:, self.column] = np.tile(self.values, len(self.x))
        return rows

    def by_target(self, answers: Floats) -> Floats:
        """Return answers to the first candidates, shape (m, k), as (n, v, k), NaN where there is none."""
        whole = np.full((len(self.x) * len(self.values), answers.shape[1]), np.nan)
        whole[: len(answers)] = answers
        return whole.reshape(len(self.x), len(self.values), -1)


def ask_candidates(world: World, targets: Targets) -> Floats:
    """Ask about every candidate for as long as the API answers.

    Returns:
        shape (n, v, k), NaN where no answer came.

    Raises:
        Refused: not one came.
    """
    rows, step = targets.candidates(), ROUND * len(targets.values)
    parts: list[Floats] = []
    for i in range(0, len(rows), step):
        world.progress(i / len(rows), "asking about candidates")
        try:
            parts.append(world.api.ask(rows[i : i + step]))
        except Refused as error:
            if error.answers is not None and len(error.answers):
                parts.append(error.answers)
            if not parts:
                raise
            break
    return targets.by_target(np.concatenate(parts))


def ask_counts(api: Api, targets: Targets) -> Floats | None:
    """Ask for the number of training records in each class of a candidate's leaf, where answers hold such a member.

    Returns:
        shape (n, v, k); None when there is no such member.
    """
    rows = targets.candidates()
    try:
        # Counts are whole, and more than one record is in a leaf; scores are not whole or sum to 1.
        members = api.ask_all(rows[:ROUND])
        found = [
            name
            for name, m in members.items()
            if m.shape[1] > 1 and (m == np.rint(m)).all() and (m.sum(axis=1) > 1).any()
        ]
        return targets.by_target(api.ask_all(rows)[found[0]]) if found else None
    except Refused:
        return None


def ask_few(world: World, targets: Targets, answers: Floats) -> tuple[Targets, Floats] | None:
    """Ask about a few targets from further accounts, one target a request, where a budget ended the graded answers.

    The first members are asked about: whoever is after one person knows whom.

    Args:
        world: gives the accounts.
        targets: all of them.
        answers: what was answered before, shape (n, v, k).

    Returns:
        (the targets that were answered, their answers of shape (m, v, k)); None where no budget was spent, or where
        further accounts hear labels alone.
    """
    if np.mean(_bare(answers)) < SPENT:
        return None
    members = np.flatnonzero(cast("Bools", world.judge.secret("targets_member"))[targets.rows])
    each, found = max(1, FEW // len(targets.values)), list[Floats]()
    try:
        for i, number in enumerate(ACCOUNTS):
            api = world.account(number)
            for j in members[i * each : (i + 1) * each]:
                found.append(api.ask(targets.only(np.array([j])).candidates()))
            if all(_bare(told[None]).all() for told in found):
                return None
    except (Refused, Unresolved):  # there is no such account, or it is spent already
        pass
    return (targets.only(members[: len(found)]), np.array(found)) if found else None


def _bare(answers: Floats) -> Bools:
    """Say which answers, shape (n, v, k), are refused or no more than a label."""
    flat = answers.reshape(-1, answers.shape[2])
    refused = np.isnan(flat.sum(axis=1))
    return refused | is_label(np.nan_to_num(flat)) if answers.shape[2] > 1 else refused
