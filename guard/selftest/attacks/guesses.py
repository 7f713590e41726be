"""What attribute inference makes of answers: evidence for each candidate, guesses, and how they are measured.

A guess is the candidate with the greatest score, and scores are log-probabilities: log prior + log likelihood. Where an
answer is missing or tells no two candidates apart, the prior decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.attacks.attribute import Bools, Targets
from guard.selftest.attacks.fit import cross_entropy
from guard.selftest.base import Outcome, Try, World
from guard.selftest.measures import Floats, Ints, Measure, mean_of


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
    truth, members = _truth(world, targets)
    before = targets.values[targets.log_prior.argmax() if without is None else without] == truth
    rng = world.rng("bootstrap")
    tries: list[Try] = []
    for how, guess in guesses.items():
        right = (targets.values[guess] == truth).astype(np.float64)
        measures: dict[str, Measure] = {
            "accuracy": mean_of(right[members], rng),
            "advantage": mean_of((right - before)[members], rng),
        }
        if not members.all():
            measures["accuracy_non_members"] = mean_of(right[~members], rng)
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
    truth, members = _truth(world, targets)
    prior = targets.values[targets.log_prior.argmax()] == truth
    own = targets.values[imputed(world, targets).argmax(axis=1)] == truth
    return (
        f"who never asks is right about {prior[members].mean():.3f} of {int(members.sum())} members and "
        f"{prior[~members].mean():.3f} of {int((~members).sum())} non-members by guessing the commonest answer, about "
        f"{own[members].mean():.3f} and {own[~members].mean():.3f} by imputing from {len(world.knows.own_x)} records"
    )


def _truth(world: World, targets: Targets) -> tuple[Floats, Bools]:
    """Return the targets' sensitive answers, and which targets were trained on."""
    truth = cast("Floats", world.judge.secret("targets_sensitive"))
    return truth[targets.rows], cast("Bools", world.judge.secret("targets_member"))[targets.rows]
