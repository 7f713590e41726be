"""Jacobian-based augmentation: a copy chooses the synthetic queries that it is trained on next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.network import Network, fit_network
from guard.selftest.attacks.network_copies import ANSWERS, LABELS, Retraining, enough, gather, to_unit
from guard.selftest.base import Attack, Refused, World
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class Jbda(Retraining):
    """Each round doubles the queries: x + step sign(gradient of the copy's score for the answered class at x).

    Args:
        seeds: rows of the attacker's own data to begin with.
        step: length of a step in each feature, as a share of its range.
        turn: after so many rounds the step's sign turns.
        round_epochs: passes over the answers for the copies that choose queries.

    Source: Papernot, McDaniel, Goodfellow, Jha, Celik, Swami, ASIA CCS 2017, section 4. Differs: the copy that chooses
    is trained on scores where there are scores (the paper reads labels, which is one of the tries here); the last round
    is cut to the number of queries; the measure is how close the copy is, where the paper counts adversarial examples
    that transfer.
    """

    name: ClassVar[str] = "jbda"
    title: ClassVar[str] = "train a copy of a network on synthetic steps from a few own rows"
    source: ClassVar[str] = "Papernot et al., Practical Black-Box Attacks against Machine Learning, ASIA CCS 2017"
    published: ClassVar[str] = (
        "6,400 queries, labels: 84.24% of adversarial examples made on the copy mislead the model"
    )
    plain: ClassVar[frozenset[str]] = frozenset({ANSWERS, LABELS})

    seeds: int = 150
    step: float = 0.1
    turn: int = 3
    round_epochs: int = 10

    def collect(self, world: World) -> tuple[Floats, Floats]:
        """Ask the seeds, then round after round.

        Raises:
            Refused: not one was answered.
        """
        rng, own = world.rng("queries"), cast("Floats", world.knows.own_x)
        rows = own[rng.permutation(len(own))[: min(self.seeds, self.queries)]]
        x, y, answering = gather(world, rows)
        if not len(y):
            raise Refused(429, "not one seed was answered")
        number = 0
        while answering and len(x) < self.queries:
            world.progress(0.3 * len(x) / self.queries, f"{len(x)} synthetic queries")
            sign = -1.0 if number // self.turn % 2 else 1.0
            rows = fresh(self.stepped(world, x, y, sign, rng), x)[: self.queries - len(x)]
            if not len(rows):
                break
            more_x, more_y, answering = gather(world, rows)
            x, y, number = np.concatenate((x, more_x)), np.concatenate((y, more_y)), number + 1
        return x, y

    def stepped(self, world: World, x: Floats, y: Floats, sign: float, rng: np.random.Generator) -> Floats:
        """Return the next round's queries, shape (n, d), in random order."""
        knows = world.knows
        unit = to_unit(knows, x)
        copy = fit_network(unit, y, self.hidden, enough(self.round_epochs, self.queries, len(x)), rng)
        moved = x + sign * self.step * (knows.high - knows.low) * np.sign(gradient(copy, unit, y.argmax(axis=1)))
        return np.clip(moved, knows.low, knows.high)[rng.permutation(len(x))]


def fresh(rows: Floats, known: Floats) -> Floats:
    """Return the rows, shape (m, d), that are not known and not said before: steps there and back meet."""
    seen = {row.tobytes() for row in known}
    kept = [not (row.tobytes() in seen or seen.add(row.tobytes())) for row in rows]
    return rows[kept]


def gradient(copy: Network, x: Floats, classes: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    """Return the gradient of log p_c(x) with respect to x, shape (n, d): of the same sign as that of p_c.

    Args:
        copy: the network.
        x: inputs, shape (n, d).
        classes: c for each row, shape (n,).
    """
    first, second = copy.first.astype(np.float64), copy.second.astype(np.float64)
    active = x @ first[:-1] + first[-1] > 0
    back = np.eye(second.shape[1])[classes] - copy.probabilities(x)
    return ((back @ second[:-1].T) * active) @ first[:-1].T


ATTACKS: tuple[Attack, ...] = (Jbda(),)
