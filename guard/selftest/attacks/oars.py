"""Evasion that adapts to whoever watches: what is refused is asked otherwise, among others, by another account."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.attacks.boundary import bisect, gradient, step
from guard.selftest.attacks.evasion import Hunt, Plan, hunt, inputs, lined, reach, span_of, told, tried, won
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Threat, Unresolved, World
from guard.selftest.measures import Floats, Ints
from guard.selftest.wrappers.wrapped import Wrapped

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05)
"""Of an account's rows that are the attack's: after each refusal the next one, the rest are the attacker's own data."""
WIDEST = 4.0
BATCH = 8


@dataclass
class Manner:
    """How the attacker asks, which every refusal changes.

    Args:
        width: what distances of probes and the precision of searches are multiplied by: near duplicates are what a
            stateful defence looks for, so they are the first to go.
        level: which of `SHARES`.
    """

    width: float = 1.0
    level: int = 0

    def caught(self) -> None:
        """Ask more widely, and hide deeper."""
        self.width = min(2 * self.width, WIDEST)
        self.level = min(self.level + 1, len(SHARES) - 1)


class Careful(Wrapped):
    """Asks by one account until it is refused, or answered with bare labels, and then by the next one.

    Args:
        accounts: by which it may ask.
        cover: rows to hide among, the attacker's own data.
        manner: changed by each refusal.
        rng: draws cover and places.
        minds: bare labels are a refusal.
    """

    def __init__(
        self, accounts: list[Api], cover: Floats, manner: Manner, rng: np.random.Generator, *, minds: bool = True
    ) -> None:
        super().__init__(accounts[0])
        self.minds = minds
        self.left = accounts
        self.cover, self.manner, self.rng = cover, manner, rng
        self.sent = 0
        self.burnt: list[int] = []
        """Rows of the attack's own that each account that was left has answered."""
        self.why: list[str] = []
        """What ended each of them: `labels`, or a status."""
        self.mine = 0

    @property
    def asked(self) -> int:
        """Rows sent so far, cover among them."""
        return self.sent

    def ask(self, x: object) -> Floats:
        """Return the scores of all rows, by however many accounts.

        Raises:
            Refused: no account is left.
        """
        rows, parts = cast("Floats", x), list[Floats]()
        at = 0
        while at < len(rows):
            if not self.left:
                raise Refused(429, "every account is spent", np.concatenate(parts) if parts else None)
            answers = self._some(rows[at : at + BATCH])
            parts += [answers] if len(answers) else []
            at += len(answers)
            self.mine += len(answers)
        return np.concatenate(parts)

    def _some(self, rows: Floats) -> Floats:
        """Ask a few rows among others; return the answers to those that were answered."""
        total = max(len(rows), round(len(rows) / SHARES[self.manner.level]))
        places = np.sort(self.rng.permutation(total)[: len(rows)])
        batch = self._among(rows, places, total)
        self.sent += total
        try:
            scores = self.left[0].ask(batch)
        except Refused as error:
            if error.status not in (403, 429):
                raise
            self._leave(str(error.status))
            answers = error.answers
            return np.empty((0, 1)) if answers is None else answers[places[places < len(answers)]]
        if self.minds and is_label(scores).all():
            self._leave("labels")
        return scores[places]

    def _among(self, rows: Floats, places: NDArray[np.intp], total: int) -> Floats:
        """Return `total` rows, the attack's own at `places`."""
        batch = self.cover[self.rng.integers(len(self.cover), size=total)]
        batch[places] = rows
        return batch

    def _leave(self, why: str) -> None:
        self.left.pop(0)
        self.why.append(why)
        self.burnt.append(self.mine)
        self.mine = 0
        self.manner.caught()


def plan(
    x: Floats, y: int, starts: Floats, box: tuple[Floats, Floats], manner: Manner, rng: np.random.Generator
) -> Plan:
    """Plan a walk along the boundary from the attacker's own rows of other classes, nearest first.

    Args:
        x: the input, shape (d,).
        y: its class.
        starts: rows that are not of class `y`, shape (s, d).
        box: least and greatest values, shape (d,) each.
        manner: how widely to ask.
        rng: draws probes.
    """
    for far in starts[np.linalg.norm(starts - x, axis=1).argsort()]:
        scores = yield far[None]
        if scores[0].argmax() != y:
            yield from _from(x, y, far, box, manner, rng)


def _from(
    x: Floats, y: int, far: Floats, box: tuple[Floats, Floats], manner: Manner, rng: np.random.Generator
) -> Generator[Floats, Floats, None]:
    low, high = box
    precision = len(x) ** -1.0
    here = yield from bisect(x, far, y, min(0.25, precision * manner.width))
    for t in range(1, 13):
        distance = float(np.linalg.norm(here - x))
        delta = max(distance / len(x) ** 0.5, 1e-6) * manner.width
        direction = yield from gradient(here, y, low, high, rng, int(16 * t**0.5), delta)
        far = yield from step(here, direction, y, low, high, distance / t**0.5)
        here = yield from bisect(x, far, y, min(0.25, precision * manner.width))


@dataclass(frozen=True)
class Oars:
    """Walks along the decision boundary, and takes every refusal for a hint.

    The first answers that are bare labels, a 429 or a 403 are a refusal: the account is left, probes grow wider, and
    the next account asks fewer of them among the attacker's own data. All inputs are attacked in turn, so that one
    account's queries are spread over them. Inputs that a straight line towards a row of another class wins are left
    out: three queries are no search.

    Args:
        images: inputs under attack.
        share: how near counts, as a share of the median distance of an input to the nearest one of another class.
        limit: most queries for one input.
        accounts: customers that the attacker can pose as.

    Source: Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash, Stateful Defenses for Machine Learning Models Are Not Yet
    Secure Against Black-box Attacks, CCS 2023, section 4: adapt the proposal distribution to what is refused. Differs:
    labels only, several accounts, cover traffic.
    """

    name: ClassVar[str] = "oars"
    title: ClassVar[str] = "adversarial examples by an attacker who adapts to refusals, over several accounts"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = "Feng et al., Stateful Defenses for Machine Learning Models Are Not Yet Secure, CCS 2023"
    published: ClassVar[str] = "stateful defences that stop 99% of plain attacks stop 4% to 23% of adaptive ones"
    victim: ClassVar[str] = "digits_mlp"
    metric: ClassVar[str] = "success"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("success", 0.8),)
    helps: ClassVar[str] = "a model trained to be robust; fewer rows a customer and a price for new customers"
    needs: ClassVar[frozenset[str]] = frozenset({"vector"})
    floors: ClassVar[tuple[str, ...]] = ()

    images: int = 20
    share: float = 0.45
    limit: int = 3000
    accounts: int = 8

    def run(self, world: World) -> Outcome:
        """Attack all inputs in lock-step."""
        own = world.knows.own_x
        if not isinstance(own, np.ndarray):
            raise Unresolved("needs rows of numbers to hide among")
        found = self._inputs(world)
        x, y = found.x, found.y
        manner = Manner()
        api = Careful([world.account(i) for i in range(self.accounts)], own, manner, world.rng("cover"))
        starts = _starts(world, own, y)
        plans = [
            plan(row, int(c), starts[i], (world.knows.low, world.knows.high), manner, world.rng(f"plan {i}"))
            for i, (row, c) in enumerate(zip(x, y, strict=True))
        ]
        hunt(api, found, plans, self.limit)
        wins = won(world.judge, found)
        accounts = len(api.burnt) + bool(api.left)
        about = f"{accounts} accounts, {len(api.burnt)} of them refused"
        if api.burnt:
            about += f" after {', '.join(map(str, api.burnt))} queries of the attack's own"
        notes = (told(found, wins), f"{about}; {api.asked:,} rows with what it hid among")
        return Outcome([tried("labels, adapting to refusals", wins)], api.asked, notes=notes)

    def _inputs(self, world: World) -> Hunt:
        """Return the inputs; those that a straight line wins need no search, and no detector of searches sees it."""
        x, y = inputs(world, 2 * self.images)
        bound = reach(world.judge, self.share)
        every = Hunt(x, y, "l2", np.full(len(x), bound), span_of(world))
        chosen = np.flatnonzero(~lined(world.judge, every))[: self.images]
        if not len(chosen):
            raise Unresolved("a straight line towards the nearest input of another class wins every input")
        return Hunt(x[chosen], y[chosen], "l2", np.full(len(chosen), bound), span_of(world))


def _starts(world: World, own: Floats, y: Ints) -> list[Floats]:
    """Return, for each input, some of the attacker's own rows that are said to be of another class."""
    known = world.knows.own_y
    drawn = world.rng("starts").permutation(len(own))
    if known is None:
        return [own[drawn[:40]] for _ in y]
    classes = np.asarray(known)[drawn]
    return [own[drawn[classes != c][:200]] for c in y]


ATTACKS: tuple[Attack, ...] = (Oars(),)
