"""What all evasion attacks on vectors share: inputs, a search for all of them in lock-step, and what counts as success.

An attack on one input is a generator, a `Plan`: it yields rows it wants asked and is sent their scores. `hunt` runs the
plans of all inputs side by side, so that one request carries a question of each. Every row that is asked is looked at:
the nearest one that the API gives another label is the input's adversarial example, and an input that has one within
the bound is done.

Success is what the model itself says: an adversarial example counts if the undefended model names another class for it
and it lies within the stated distance. The claims of the API are the attacker's, and count for nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from guard.selftest.api import LimitReached
from guard.selftest.base import Api, Judge, Outcome, Refused, Try, Unresolved, World
from guard.selftest.measures import Floats, Ints, Measure

Plan = Generator[Floats, Floats, None]
"""Yields rows of shape (m, d) to be asked, is sent their scores, shape (m, k)."""
Norm = Literal["l2", "linf"]
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]
TINY = 1e-12
ROUNDING = 1e-9
"""Of a distance that is meant to be the bound exactly."""


@dataclass
class Hunt:
    """What a search has found.

    Args:
        x: the inputs, shape (n, d).
        y: their classes, shape (n,).
        norm: of distances; `linf` is measured in shares of each feature's range.
        bound: greatest distance of an adversarial example that counts, shape (n,).
        span: each feature's range, shape (d,); 1 where it is 0.
        best: the nearest adversarial examples so far, as the API has it, shape (n, d); the inputs where there is none.
        distance: of them, shape (n,); infinite where there is none.
        spent: queries for each input, shape (n,).
        found: queries in all when an input was done, shape (n,); 0 for those that are not.
        asked: queries in all.
        ended: by what refusal it was ended, in words; empty when by none.
    """

    x: Floats
    y: Ints
    norm: Norm
    bound: Floats
    span: Floats
    best: Floats = field(init=False)
    distance: Floats = field(init=False)
    spent: Ints = field(init=False)
    found: Ints = field(init=False)
    asked: int = 0
    ended: str = ""

    def __post_init__(self) -> None:
        n = len(self.x)
        self.best, self.distance = self.x.copy(), np.full(n, np.inf)
        self.spent, self.found = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)

    @property
    def done(self) -> Bools:
        """Inputs with an adversarial example within the bound, as the API has it."""
        return self.found > 0

    def note(self, i: int, rows: Floats, scores: Floats) -> None:
        """Look at the answers to rows that were asked for input `i`; there may be fewer answers than rows."""
        self.spent[i] += len(scores)
        self.asked += len(scores)
        wrong = np.flatnonzero(scores.argmax(axis=1) != self.y[i])
        if not len(wrong):
            return
        away = distances(rows[wrong] - self.x[i], self.norm, self.span)
        nearest = int(away.argmin())
        if away[nearest] < self.distance[i]:
            self.distance[i], self.best[i] = away[nearest], rows[wrong[nearest]]
            if not self.found[i] and away[nearest] <= self.bound[i] * (1 + ROUNDING):
                self.found[i] = self.asked


def distances(offsets: Floats, norm: Norm, span: Floats) -> Floats:
    """Return the norms of offsets, shape (n, d): Euclidean, or the greatest share of a feature's range."""
    if norm == "l2":
        return np.linalg.norm(offsets, axis=1)
    return np.abs(offsets / span).max(axis=1)


def span_of(world: World) -> Floats:
    """Return each feature's range; 1 where it is 0, so that it can be divided by."""
    span = world.knows.high - world.knows.low
    return np.where(span > 0, span, 1.0)


def inputs(world: World, n: int) -> tuple[Floats, Ints]:
    """Return held-out inputs that the model classifies right, and their classes.

    Raises:
        Unresolved: there are fewer than 10.
    """
    x, truth = cast("Floats", world.judge.test_x), world.judge.test_y
    order = world.rng("inputs").permutation(len(x))[: 2 * n]
    said = world.judge.truth(x[order]).argmax(axis=1)
    right = order if truth is None else order[said == np.asarray(truth)[order]]
    classes = said if truth is None else np.asarray(truth)[right]
    if len(right) < min(n, 10):
        raise Unresolved(f"needs at least 10 held-out inputs that the model classifies right; there are {len(right)}")
    return x[right[:n]], np.asarray(classes[:n], dtype=np.int64)


def reach(judge: Judge, share: float, rows: int = 300) -> float:
    """Return the Euclidean distance that counts as near: a share of how far apart the classes lie.

    Classes are those the model names; how far they lie apart is the median distance of a held-out input to the nearest
    one of another class.

    Args:
        judge: holds the inputs and the model.
        share: of that distance.
        rows: most inputs that are looked at.

    Raises:
        Unresolved: the model names one class for all of them.
    """
    x = cast("Floats", judge.test_x)[:rows]
    said = judge.truth(x).argmax(axis=1)
    if len(np.unique(said)) < 2:
        raise Unresolved("the model names one class for all held-out inputs")
    squares = (x * x).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0.0))
    apart[said[:, None] == said[None]] = np.inf
    return share * float(np.median(apart.min(axis=1)))


def hunt(api: Api, found: Hunt, plans: Sequence[Plan], limit: int, at_once: int = 64) -> None:
    """Run plans in lock-step until each input is done, its plan ends, its queries are spent, or the API refuses.

    Args:
        api: whom to ask.
        found: filled in; plan number i attacks input number i. Inputs that are done are passed over.
        plans: one for each input.
        limit: most queries for one input, those that `found` has already spent among them.
        at_once: most inputs side by side, so that a budget ends few searches half-way.
    """
    waiting = [i for i in range(len(plans)) if not found.done[i]]
    wanted: dict[int, Floats] = {}
    while waiting or wanted:
        while waiting and len(wanted) < at_once:
            i = waiting.pop(0)
            _go_on(plans[i], None, wanted, i)
        over = [i for i, rows in wanted.items() if found.spent[i] + len(rows) > limit]
        for i in over:
            del wanted[i]
        if not wanted:
            continue
        rows = np.concatenate(list(wanted.values()))
        try:
            scores = api.ask(rows)
        except Refused as error:
            found.ended = refusal(error)
            scores = np.empty((0, 1)) if error.answers is None else error.answers
            if not len(scores) and not found.asked:
                raise
        _hand_out(found, plans, wanted, scores)
        if found.ended:
            return


def _hand_out(found: Hunt, plans: Sequence[Plan], wanted: dict[int, Floats], scores: Floats) -> None:
    """Give each plan the answers to its rows, and take its next rows."""
    at = 0
    for i, rows in list(wanted.items()):
        mine = scores[at : at + len(rows)]
        at += len(rows)
        found.note(i, rows, mine)
        del wanted[i]
        if not found.done[i] and len(mine) == len(rows):
            _go_on(plans[i], mine, wanted, i)


def _go_on(plan: Plan, answer: Floats | None, wanted: dict[int, Floats], i: int) -> None:
    with suppress(StopIteration):
        wanted[i] = next(plan) if answer is None else plan.send(answer)


def margin(scores: Floats, y: int) -> float:
    """Return log p_y minus the greatest other log p: below 0 is adversarial. Scores that read 0 count as 1e-12."""
    logs = np.log(np.maximum(scores, TINY))
    return float(logs[y] - np.delete(logs, y).max())


def won(judge: Judge, found: Hunt) -> Bools:
    """Say for which inputs the model itself names another class within the bound, shape (n,)."""
    said = judge.truth(found.best).argmax(axis=1)
    near = distances(found.best - found.x, found.norm, found.span) <= found.bound * (1 + ROUNDING)
    return (said != found.y) & near


def tried(how: str, wins: Bools, metric: str = "success", *, plain: bool = True) -> Try:
    """Return the share of inputs that were won as a try."""
    return Try(how, {metric: wilson(int(wins.sum()), len(wins))}, plain)


def curve(found: Hunt, wins: Bools) -> list[tuple[int, float]]:
    """Return (queries, share of inputs won by then), ascending."""
    when = np.sort(found.found[wins])
    points = [(0, 0.0), *((int(q), (k + 1) / len(wins)) for k, q in enumerate(when))]
    return [*points, (found.asked, points[-1][1])]


def told(found: Hunt, wins: Bools) -> str:
    """Say in a sentence how many queries a success took, and what ended the search if the API did."""
    ended = f"; {found.ended}" if found.ended else ""
    if not wins.any():
        return f"no success in {found.asked:,} queries{ended}"
    each = found.spent[wins]
    return (
        f"{int(wins.sum())} of {len(wins)} inputs, a median of {int(np.median(each))} queries for a success (most: "
        f"{int(each.max())}), {found.asked:,} in all{ended}"
    )


def refusal(error: Refused) -> str:
    """Say who ended a search."""
    if isinstance(error, LimitReached):
        return "the stated query limit ended it"
    return f"the API refused ({error.status}), which another account would not meet at once"


def straight(judge: Judge, found: Hunt, steps: int = 16) -> float:
    """Return the share of inputs that a straight line towards the nearest input of another class wins.

    It is what the bound is worth: how often no search is needed, but one more input and a few queries.
    """
    return float(lined(judge, found, steps).mean())


def lined(judge: Judge, found: Hunt, steps: int = 16) -> Bools:
    """Say for which inputs a straight line towards the nearest input of another class wins, shape (n,)."""
    rows = cast("Floats", judge.test_x)
    said = judge.truth(rows).argmax(axis=1)
    wins = np.zeros(len(found.x), dtype=np.bool_)
    for i, (x, y, bound) in enumerate(zip(found.x, found.y, found.bound, strict=True)):
        others = rows[said != y]
        offset = others[int(distances(others - x, found.norm, found.span).argmin())] - x
        most = min(1.0, float(bound / distances(offset[None], found.norm, found.span)[0]))
        line = x + np.linspace(0, most, steps)[1:, None] * offset
        wins[i] = (judge.truth(line).argmax(axis=1) != y).any()
    return wins


def wilson(hits: int, n: int) -> Measure:
    """Return a share with its 95% interval, which is of use at 0 and 1 too.

    Source: Wilson 1927, the score interval.

    >>> wilson(25, 25).low < 0.9, wilson(25, 25).high
    (True, 1.0)
    """
    z, share = 1.959964, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Measure(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def nearby(world: World, found: Hunt) -> Outcome:
    """Return the outcome of a search by labels for adversarial examples within a Euclidean distance."""
    wins = won(world.judge, found)
    about = f"within a Euclidean distance of {found.bound.max():.3g}"
    notes = (
        f"{about}: {told(found, wins)}",
        f"{about}, a straight line towards the nearest input of another class wins {straight(world.judge, found):.0%}",
    )
    return Outcome([tried("labels", wins)], world.api.asked, curve(found, wins), notes=notes)


def then_labels(
    world: World, found: Hunt, plans: Sequence[Plan], about: str, metric: str = "success", limit: int = 1000
) -> Outcome:
    """Report what scores won, then go on by labels with the inputs that they did not.

    Whoever sees that scores mislead, or are gone, needs labels only. That is another account's work, so that a spent
    budget does not end it.

    Args:
        world: what is attacked.
        found: what the published attack left.
        plans: for the same inputs, reading labels only.
        about: the bound in words.
        metric: what the share of inputs is called.
        limit: most further queries for one input.
    """
    wins = won(world.judge, found)
    tries, points = [tried("scores", wins, metric)], curve(found, wins)
    notes = [
        f"{about}, scores: {told(found, wins)}",
        f"{about}, a straight line towards the nearest input of another class wins {straight(world.judge, found):.0%}",
    ]
    queries = world.api.asked
    if not found.done.all():
        api = world.account(1)
        found.ended = ""
        try:
            hunt(api, found, plans, limit + int(found.spent.max()))
        except Refused as error:
            found.ended = refusal(error)
        wins = won(world.judge, found)
        points = curve(found, wins)
        notes.append(f"then by labels, on another account: {told(found, wins)}")
        queries += api.asked
    return Outcome([*tries, tried("scores, then labels", wins, metric, plain=False)], queries, points, notes=notes)
