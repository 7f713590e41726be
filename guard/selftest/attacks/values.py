"""Copying a regression that answers values: equations, fits inside bins, and the ends of bins found by bisection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.extraction import draw
from guard.selftest.attacks.fit import minimise
from guard.selftest.attacks.harvest import harvest
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, Measure, mean_of

HALVINGS = 20
"""Of a line between two queries, by which an end of a bin is found on it."""
RIDGE = 1e-10
SPARE = 1.5
"""Ends that are looked for, as a share of the unknowns."""
ALIKE = 0.2
"""Share of values that another query got too, from which on values are taken for rounded or binned."""
PLAIN = frozenset({"equations, linear", "equations, with products"})

Features = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Value:
    """Solves y = w x + b, without and with products of features, by least squares.

    Args:
        queries: random queries, drawn between rows of the attacker's data, and far enough around them.

    Source: Tramer, Zhang, Juels, Reiter, Ristenpart, USENIX Security 2016, section 4.1, whose equations hold for linear
    regression without the sigmoid. Differs: the attacker does not know whether the model has products of features, and
    tries both. Attackers who know the policy see from the values that they are binned or rounded: they fit inside the
    bins, and bisect lines between queries for inputs whose value is the end of a bin, which is known exactly.
    """

    name: ClassVar[str] = "equation_solving_value"
    title: ClassVar[str] = "copy a regression that answers values by solving equations"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016"
    published: ClassVar[str] = "d + 1 queries and no error, for models that are linear before what they answer"
    victim: ClassVar[str] = "diabetes"
    metric: ClassVar[str] = "value_error"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("value_error", 0.01),)
    helps: ClassVar[str] = "a budget of rows per customer; inputs with a coarse step; coarser values only slow it"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "value"})
    floors: ClassVar[tuple[str, ...]] = ()

    queries: int = 300

    def run(self, world: World) -> Outcome:
        """Ask, then fit in every way."""
        rng = world.rng("queries")
        around = draw(world.knows, "gauss", self.queries // 2, rng)
        between = draw(world.knows, "mixed", self.queries - self.queries // 2, rng)
        rows, answers = harvest(world.api, rng.permutation(np.concatenate((around, between))), 1)
        x, y = cast("Floats", rows), answers[:, 0]
        world.progress(0.4, "fitting")
        width, asked = bin_width(y), world.api.asked
        tries: list[Try] = []
        for how, features in ways(world).items():
            tries.append(self._tried(world, f"equations, {how}", features, solved(features(x), y)))
            if width:
                inside = inside_fit(features(x), y, width)
                tries.append(self._tried(world, f"inside the bins, {how}", features, inside))
                # An account of its own, so that looking for ends spends no other budget; a live target has only one.
                with suppress(Refused, Unresolved):
                    api = world.account(1)
                    ends, values = bin_ends(api, x, y, width, int(SPARE * features(x[:1]).shape[1]), rng)
                    asked += api.asked
                    tries.append(self._tried(world, f"bin ends, {how}", features, solved(features(ends), values)))
        notes = [f"values come in steps of {width:.4g}"] if width else []
        return Outcome(tries, asked, notes=notes)

    def _tried(self, world: World, how: str, features: Features, weights: Floats) -> Try:
        test = cast("Floats", world.judge.test_x)
        truth = world.judge.truth(test)[:, 0]
        error = np.abs(features(test) @ weights - truth) / max(float(truth.std()), 1e-12)
        found: dict[str, Measure] = {"value_error": mean_of(error, world.rng("bootstrap"))}
        return Try(how, found, how in PLAIN)


def ways(world: World) -> dict[str, Features]:
    """Return what a copy may be linear in, by name: standardised features, alone and with their products."""
    own = cast("Floats", world.knows.own_x)
    middle, std = own.mean(axis=0), np.where(world.knows.std > 1e-12, world.knows.std, 1.0)
    first, second = np.triu_indices(world.knows.size, 1)

    def linear(x: Floats) -> Floats:
        return np.concatenate(((x - middle) / std, np.ones((len(x), 1))), axis=1)

    def products(x: Floats) -> Floats:
        z = (x - middle) / std
        return np.concatenate((z, z[:, first] * z[:, second], np.ones((len(x), 1))), axis=1)

    return {"linear": linear, "with products": products}


def solved(features: Floats, y: Floats) -> Floats:
    """Return the weights of least squares, with a ridge so small that it only decides what nothing else does."""
    k = features.shape[1]
    both = np.concatenate((features, np.sqrt(RIDGE) * np.eye(k)))
    return np.asarray(np.linalg.lstsq(both, np.concatenate((y, np.zeros(k))), rcond=None)[0], dtype=np.float64)


def bin_width(y: Floats) -> float:
    """Return the step of which all values, shape (n,), are multiples but for one offset; 0 when there is none.

    >>> bin_width(np.array([2.5, 12.5, 42.5, 2.5, 12.5])), bin_width(np.array([2.5, 12.7, 42.5, 2.5, 12.5]))
    (10.0, 0.0)
    """
    values, counts = np.unique(y.round(9), return_counts=True)
    if len(values) < 2 or counts[counts > 1].sum() < ALIKE * len(y):
        return 0.0
    gaps = np.diff(values)
    width = float(gaps.min())
    return width if (np.abs(gaps / width - np.rint(gaps / width)) < 1e-4).all() else 0.0


def inside_fit(features: Floats, y: Floats, width: float) -> Floats:
    """Return weights whose values lie inside the bins: squared distance from the nearer end of those outside."""
    start = solved(features, y)

    def loss(w: Floats) -> tuple[float, Floats]:
        off = (features @ w - y) / width
        beyond = np.sign(off) * np.maximum(np.abs(off) - 0.5, 0)
        return float((beyond**2).mean()), 2 * features.T @ beyond / (len(y) * width)

    return minimise(loss, start, 3000, 1e-16)


def bin_ends(
    api: Api, x: Floats, y: Floats, width: float, wanted: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Bisect lines between queries with different values for inputs whose value is the end of a bin.

    Args:
        api: whom to ask, all lines together, a halving at a time.
        x: queries, shape (n, d).
        y: their values, shape (n,).
        width: of a bin.
        wanted: how many ends.
        rng: draws the lines.

    Returns:
        (inputs of shape (m, d), the exact value at each, shape (m,)).

    Raises:
        Refused: nothing was answered.
    """
    pairs = rng.integers(len(x), size=(20 * wanted, 2))
    pairs = pairs[np.abs(y[pairs[:, 0]] - y[pairs[:, 1]]) > width / 2][:wanted]
    start, way = x[pairs[:, 0]], x[pairs[:, 1]] - x[pairs[:, 0]]
    low, high, at_low, at_high = np.zeros(len(pairs)), np.ones(len(pairs)), y[pairs[:, 0]], y[pairs[:, 1]].copy()
    for halving in range(HALVINGS):
        middle = (low + high) / 2
        try:
            found = api.ask(start + middle[:, None] * way)[:, 0]
        except Refused:
            if not halving:
                raise
            break
        same = np.abs(found - at_low) < width / 4
        low, high = np.where(same, middle, low), np.where(same, high, middle)
        at_high = np.where(same, at_high, found)
    return start + ((low + high) / 2)[:, None] * way, at_low + np.sign(at_high - at_low) * width / 2


ATTACKS: tuple[Attack, ...] = (Value(),)
