"""What all membership attacks share: candidates, how they are asked, and how scores are measured against the truth.

Candidates are records with their recorded labels; the attacker has to say which of them a model was trained on. Every
attack gives each a score, higher for members. A record whose question was refused scores by the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from guard.selftest.api import is_label, one_hot
from guard.selftest.base import Api, Refused, Rows, Try, Unresolved, World
from guard.selftest.measures import Floats, Ints, Measure, auc, exact, roc, tpr_at

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
FEWEST = 20
RUN = 32
"""So many labels in a row, up to the last answer, are no chance: scores that are sure of a class read as labels too."""


@dataclass(frozen=True)
class Candidates:
    """Records that may be training data.

    Args:
        x: the records, n of them.
        y: their recorded labels (columns, or values), shape (n,).
    """

    x: Rows
    y: Ints | Floats


def candidates(world: World) -> Candidates:
    """Return the candidates that the attacker knows.

    Raises:
        Unresolved: there are none, or they have no labels that fit the model.
    """
    extra, classes = world.knows.extra, world.knows.classes
    if extra.get("candidates_x") is None or extra.get("candidates_y") is None:
        raise Unresolved("membership needs lists of members and non-members, with labels")
    x, y = cast("Rows", extra["candidates_x"]), np.asarray(extra["candidates_y"])
    if len(x) != len(y):
        raise Unresolved(f"there are {len(x)} candidates and {len(y)} labels")
    if classes > 1 and not ((y >= 0) & (y < classes)).all():
        raise Unresolved(f"a candidate's label is none of the model's {classes} classes")
    return Candidates(x, y.astype(np.int64) if classes > 1 else y.astype(np.float64))


def members(world: World, n: int) -> Bools:
    """Return the truth about `n` candidates, to measure with.

    Raises:
        Unresolved: it is unknown, or there are too few of either kind to measure anything.
    """
    try:
        found = np.asarray(world.judge.secret("members"), dtype=bool)
    except KeyError as error:
        raise Unresolved("nobody said which candidates are members") from error
    if len(found) != n:
        raise Unresolved(f"there are {n} candidates, and {len(found)} are said to be members or not")
    if min(found.sum(), (~found).sum()) < FEWEST:
        raise Unresolved(f"{FEWEST} members and as many non-members are the fewest that say anything")
    return found


@dataclass(frozen=True)
class Asked:
    """What came back for some rows.

    Args:
        scores: shape (n, k); zeros where nothing came.
        answered: which rows were answered, shape (n,).
        reduced: which were answered with labels because a budget was spent, or because labels are all there is.
    """

    scores: Floats
    answered: Bools
    reduced: Bools

    def of(self, rows: Bools) -> Asked:
        """Return what came back for some of the rows."""
        return Asked(self.scores[rows], self.answered[rows], self.reduced[rows])


def ask_each(api: Api, x: Rows, classes: int) -> Asked:
    """Ask rows in order; a row that is refused for what it is is passed over, a refusal for good ends it.

    Args:
        api: whom.
        x: the rows, most wanted first.
        classes: width of an answer.
    """
    scores, answered = np.zeros((len(x), classes)), np.zeros(len(x), dtype=bool)
    at = 0
    while at < len(x):
        try:
            answers, went_on = api.ask(x[at:]), True
        except Refused as error:
            answers = np.empty((0, classes)) if error.answers is None else error.answers
            went_on = error.status in (413, 422)
        scores[at : at + len(answers)] = answers
        answered[at : at + len(answers)] = True
        at += len(answers) + 1
        if not went_on:
            break
    return Asked(scores, answered, reduced(scores, answered))


def reduced(scores: Floats, answered: Bools) -> Bools:
    """Say which answers are labels and nothing more: those after the last graded one, when they are many.

    >>> graded, label = [[0.4, 0.6]] * 3, [[0.0, 1.0]] * 40
    >>> int(reduced(np.array(graded + label), np.ones(43, bool)).sum())
    40
    >>> int(reduced(np.array(label + graded), np.ones(43, bool)).sum())
    0
    """
    told = np.flatnonzero(answered)
    found = np.zeros(len(scores), dtype=bool)
    if scores.shape[1] < 2 or not len(told):
        return found
    graded = np.flatnonzero(~is_label(scores[told]))
    last = told[graded[-1] + 1 :] if len(graded) else told
    if len(last) >= min(RUN, len(told)):
        found[last] = True
    return found


def as_labels(scores: Floats, which: Bools) -> Floats:
    """Return scores, shape (..., n, k), with some rows cut down to labels."""
    hot = one_hot(scores.argmax(axis=-1).astype(np.float64), scores.shape[-1])
    return np.where(which[:, None], hot, scores)


def tried(
    world: World, found: dict[str, Floats], answered: Bools, plain: frozenset[str] | set[str]
) -> tuple[list[Try], dict[str, object]]:
    """Measure scores by how they were made; those in `plain` are the published attack's.

    Args:
        world: knows the members.
        found: how -> scores, shape (n,).
        answered: rows that were answered; the others score by the prior.
        plain: names of the published ones.

    Returns:
        (tries, artefacts with the ROC curve of the one of greatest area).
    """
    truth = members(world, len(answered))
    graded = exact(max(world.api.tally.graded.values(), default=0))
    tries: list[Try] = []
    for how, scores in found.items():
        measures = separation(scores, truth, world.rng("bootstrap")) | {"graded_answers": graded}
        tries.append(Try(how, measures, how in plain))
    best = max(tries, key=lambda t: t.measures["auc"].value).how
    return tries, {"roc": [list(point) for point in roc(found[best], truth)], "roc_of": best}


def separation(scores: Floats, truth: Bools, rng: np.random.Generator, resamples: int = 300) -> dict[str, Measure]:
    """Return `auc` and `tpr_at_1_fpr` with bootstrap intervals, members and non-members resampled apart.

    Args:
        scores: higher means member, shape (n,).
        truth: members, shape (n,).
        rng: draws the resamples.
        resamples: how many.
    """
    inside, outside = scores[truth], scores[~truth]
    split = np.arange(len(scores)) < len(inside)
    draws: list[tuple[float, float]] = []
    for _ in range(resamples):
        drawn = np.concatenate((rng.choice(inside, len(inside)), rng.choice(outside, len(outside))))
        draws.append((auc(drawn, split), tpr_at(drawn, split)))
    low, high = np.percentile(np.array(draws), [2.5, 97.5], axis=0)
    values = auc(scores, truth), tpr_at(scores, truth)
    return {
        name: Measure(value, min(float(low[i]), value), max(float(high[i]), value))
        for i, (name, value) in enumerate(zip(("auc", "tpr_at_1_fpr"), values, strict=True))
    }


def grouped(groups: Sequence[Bools], scored: Callable[[Bools], Floats]) -> Floats:
    """Score groups of rows apart and put them together; rows in no group score 0.

    Args:
        groups: disjoint masks, shape (n,) each; empty ones are passed over.
        scored: mask -> scores of the rows in it, as log-odds, so that groups can be compared.
    """
    found = np.zeros(len(groups[0]))
    for group in groups:
        if group.any():
            found[group] = scored(group)
    return found
