"""What attribute inference shares: the targets, asking about every candidate, and how guesses are measured.

A guess is the candidate with the greatest score, and scores are log-probabilities: log prior + log likelihood. Where an
answer is missing or tells no two candidates apart, the prior decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.attacks.fit import cross_entropy
from guard.selftest.base import Api, Outcome, Refused, Try, Unresolved, World
from guard.selftest.measures import Floats, Ints, Measure, mean_of

Bools = NDArray[np.bool_]
ROUND = 64
"""Targets whose candidates go out together."""


@dataclass(frozen=True)
class Targets:
    """People whose sensitive answer is wanted.

    Args:
        x: their other answers, the sensitive column NaN, shape (n, d).
        y: their true labels, or values, shape (n,).
        column: the sensitive answer's.
        values: what it may be, shape (v,).
        log_prior: how common each is, shape (v,).
    """

    x: Floats
    y: Ints | Floats
    column: int
    values: Floats
    log_prior: Floats

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
        )

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


def likelihood(answers: Floats, y: Ints) -> Floats:
    """Return the log of what answers, shape (n, v, k), give each target's true label, shape (n, v).

    A score that reads 0 was rounded or truncated away: it counts as its share of what is missing to 1, or a thousandth.
    """
    missing = np.maximum(1.0 - answers.sum(axis=2), 0.0)
    zeros = np.maximum((answers <= 0).sum(axis=2), 1)
    scores = np.take_along_axis(answers, y[:, None, None], axis=2)[:, :, 0]
    return np.log(np.where(scores > 0, scores, np.maximum(missing / zeros, 1e-3)))


def distance(answers: Floats, leaked: Floats) -> Floats:
    """Return how far each candidate's answer is from the leaked one, shape (n, v).

    L1; where no candidate's answer is the leaked one and either side was told no more than a label, since a budget was
    spent: 2 if they name different classes and 0 if not.

    Args:
        answers: to candidates, shape (n, v, k).
        leaked: to the true record, shape (n, k).
    """
    far = np.abs(answers - leaked[:, None, :]).sum(axis=2)
    n, v, k = answers.shape
    if k == 1:
        return far
    told, heard = np.nan_to_num(answers), np.nan_to_num(leaked)
    bare = is_label(told.reshape(n * v, k)).reshape(n, v).any(axis=1) | is_label(heard)
    unmatched = bare & ~(far < 1e-9).any(axis=1)
    differ: Floats = 2.0 * (told.argmax(axis=2) != heard.argmax(axis=1)[:, None]).astype(np.float64)
    far[unmatched] = np.where(np.isnan(far[unmatched]), np.nan, differ[unmatched])
    return far


def guessed(targets: Targets, evidence: Floats, log_prior: Floats | None = None) -> Ints:
    """Return the most probable candidates by number, shape (n,).

    Args:
        targets: give the prior.
        evidence: log-likelihoods, shape (n, v); a target with a NaN among its own is left to the prior.
        log_prior: instead of the targets' own, shape (n, v).
    """
    known = np.where(np.isnan(evidence).any(axis=1, keepdims=True), 0.0, evidence)
    return np.asarray((known + (targets.log_prior if log_prior is None else log_prior)).argmax(axis=1), dtype=np.int64)


def imputed(world: World, targets: Targets) -> Floats:
    """Return the log-probability of each candidate given a target's other answers and label, (n, v). Asks nothing.

    A softmax regression on the attacker's own records (Jayaraman and Evans, CCS 2022, call this imputation).
    """
    own, labels = cast("Floats", world.knows.own_x), cast("Floats", world.knows.own_y)
    spread = np.where(world.knows.std > 0, world.knows.std, 1.0)

    def features(x: Floats, y: Ints | Floats) -> Floats:
        rest = np.delete((x - own.mean(axis=0)) / spread, targets.column, axis=1)
        if world.knows.classes > 1:
            return np.column_stack((rest, np.eye(world.knows.classes)[y.astype(np.int64)]))
        return np.column_stack((rest, (y - labels.mean()) / labels.std()))

    column = np.abs(own[:, targets.column][:, None] - targets.values).argmin(axis=1)
    copy = cross_entropy(features(own, labels), np.eye(len(targets.values))[column], 1e-3, steps=200)
    return np.log(np.maximum(copy.probabilities(features(targets.x, targets.y)), 1e-9))


def tried(
    world: World, targets: Targets, guesses: Mapping[str, Ints], plain: frozenset[str], without: Ints | None = None
) -> list[Try]:
    """Measure guesses by how they were made: `accuracy` and `advantage` of members, and others' `accuracy_non_members`.

    Args:
        world: holds the truth.
        targets: whom the guesses are about.
        guesses: candidates by number, shape (n,).
        plain: which of them are published attacks.
        without: the same attacker's guesses before asking, which `advantage` is above; from the prior if left out.
    """
    truth, members = _truth(world)
    before = targets.values[targets.log_prior.argmax() if without is None else without] == truth
    rng = world.rng("bootstrap")
    tries: list[Try] = []
    for how, guess in guesses.items():
        right = (targets.values[guess] == truth).astype(np.float64)
        measures: dict[str, Measure] = {
            "accuracy": mean_of(right[members], rng),
            "accuracy_non_members": mean_of(right[~members], rng),
            "advantage": mean_of((right - before)[members], rng),
        }
        tries.append(Try(how, measures, how in plain))
    return tries


def unasked(world: World) -> Outcome:
    """Guess without asking: the commonest answer, and what own records of people like the target suggest."""
    targets = Targets.of(world)
    prior = np.full(len(targets.x), int(targets.log_prior.argmax()))
    own = np.asarray(imputed(world, targets).argmax(axis=1), dtype=np.int64)
    tries = tried(world, targets, {"the commonest answer": prior, "imputed from own records": own}, frozenset())
    return Outcome(tries, 0, notes=[said(world, targets)])


def said(world: World, targets: Targets) -> str:
    """Say how often those are right who never ask."""
    truth, members = _truth(world)
    prior = targets.values[targets.log_prior.argmax()] == truth
    own = targets.values[imputed(world, targets).argmax(axis=1)] == truth
    return (
        f"who never asks is right about {prior[members].mean():.3f} of {int(members.sum())} members and "
        f"{prior[~members].mean():.3f} of {int((~members).sum())} non-members by guessing the commonest answer, about "
        f"{own[members].mean():.3f} and {own[~members].mean():.3f} by imputing from {len(world.knows.own_x)} records"
    )


def _truth(world: World) -> tuple[Floats, Bools]:
    """Return the targets' sensitive answers, and which targets were trained on."""
    return cast("Floats", world.judge.secret("targets_sensitive")), cast("Bools", world.judge.secret("targets_member"))
