"""Equation solving on a network: as many answers as make its weights the only ones that fit, and a fit to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.equation_solving import own_labels, scale_of
from guard.selftest.attacks.extraction import draw, strongest, tried
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network import Network, fit_network
from guard.selftest.attacks.quantisers import bare_labels, cells_of, told
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats

RATE, BATCH = 5e-3, 64
INSIDE = 0.75
"""Share of the queries between rows of the attacker's data."""
PLAIN = "cross-entropy"


@dataclass(frozen=True)
class EquationSolvingMlp:
    """Fits a network to the scores of many queries, a quarter uniform and the rest between rows of the attacker's data.

    Args:
        queries: how many; the default is 5 for each of the victim's 4,810 unknowns.
        hidden: units of the copy; twice the victim's, since an attacker does not know them and more fit more easily.
        epochs: passes over the answers.

    Source: Tramer, Zhang, Juels, Reiter, Ristenpart, USENIX Security 2016, section 4.1.3, as MLP equation solving with
    alpha = 5. Differs: Adam instead of L-BFGS; most queries lie between rows of the attacker's data, since
    uniform ones alone do not determine a network of 64 features where its data are.
    """

    name: ClassVar[str] = "equation_solving_mlp"
    title: ClassVar[str] = "copy a network from the scores of many queries"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = (
        "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016, section 4.1.3"
    )
    published: ClassVar[str] = (
        "2,225 unknowns: 4,450 queries 99.89% (test) and 99.82% (uniform) agreement, 11,125 queries 99.96% and 99.99%"
    )
    victim: ClassVar[str] = "digits_mlp"
    metric: ClassVar[str] = "agreement"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("agreement", 0.99),)
    helps: ClassVar[str] = "a limit on rows per customer; labels alone still train a copy that agrees"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 24_050
    hidden: int = 128
    epochs: int = 80

    def run(self, world: World) -> Outcome:
        """Ask, then fit in every way."""
        world.progress(0.0, "asking")
        x, y = self._asked(world)
        copies: dict[str, Callable[[Floats], Floats]] = {}
        scale = scale_of(world.knows)
        for i, (how, network) in enumerate(self._networks(world, x / scale, y)):
            copies[how] = _unscaled(network, scale)
            world.progress(0.4 + 0.1 * i, f"fitting: {how}")
        curve = self._curve(world, x / scale, y, scale)
        tries = tried(world, strongest(world, copies, {PLAIN}), {PLAIN})
        curve.append((len(x), max(t.measures["agreement"].value for t in tries)))
        return Outcome(tries, world.api.asked, curve)

    def _asked(self, world: World) -> tuple[Floats, Floats]:
        inside = int(INSIDE * self.queries)
        drawn = (
            draw(world.knows, "mixed", inside, world.rng("mixed queries")),
            draw(world.knows, "uniform", self.queries - inside, world.rng("uniform queries")),
        )
        x = np.concatenate(drawn)[world.rng("order").permutation(self.queries)]
        rows, y = harvest(world.api, x, world.knows.classes)
        return cast("Floats", rows), y

    def _networks(self, world: World, x: Floats, y: Floats) -> list[tuple[str, Network]]:
        """Return copies by how they were fitted."""
        plain = self._fit(world, x, y, self.epochs)
        found = [(PLAIN, plain)]
        bare, graded = bare_labels(y), told(y)
        if bare.any() and not bare.all():
            repeats = max(1, int(bare.sum()) // int((~bare).sum()))
            weighed = np.concatenate((np.repeat(x[~bare], repeats, axis=0), x[bare]))
            answers = np.concatenate((np.repeat(graded[~bare], repeats, axis=0), y[bare]))
            found.append(("graded answers weighed up", self._fit(world, weighed, answers, self.epochs // 2)))
        elif (graded != y).any():
            found.append(("winners only", self._fit(world, x, graded, self.epochs // 2)))
        cells = None if bare.all() else cells_of(y)
        if cells is not None:
            start, rng = found[-1][1], world.rng("interval")
            inside = fit_network(x, y, self.hidden, self.epochs // 3, rng, rate=RATE / 3, start=start, cells=cells)
            found.append(("interval", inside))
        own = own_labels(world.knows)
        if own is not None and (bare.any() or len(x) < len(own[0])):
            both = np.concatenate((x, own[0])), np.concatenate((graded, own[1]))
            found.append(("with own labels", self._fit(world, *both, self.epochs // 2, decay=0.01)))
        return found

    def _fit(self, world: World, x: Floats, y: Floats, epochs: int, decay: float = 0.0) -> Network:
        """Fit for as many steps as the whole harvest would take, or at most three times the epochs."""
        epochs = min(3 * epochs, max(1, epochs * self.queries // max(1, len(x))))
        return fit_network(x, y, self.hidden, epochs, world.rng("fit"), rate=RATE, batch=BATCH, decay=decay)

    def _curve(self, world: World, x: Floats, y: Floats, scale: float) -> list[tuple[int, float]]:
        """Return (queries, agreement) of copies of the first answers, fitted cheaply."""
        test = cast("Floats", world.judge.test_x)
        truth = world.judge.truth(test).argmax(axis=1)
        found: list[tuple[int, float]] = []
        for share in (0.1, 0.2, 0.5):
            n = int(share * len(x))
            if n >= BATCH:
                network = fit_network(x[:n], told(y[:n]), self.hidden, 20, world.rng("curve"), rate=RATE, batch=BATCH)
                same = network.probabilities(test / scale).argmax(axis=1) == truth
                found.append((n, float(same.mean())))
        return found


def _unscaled(network: Network, scale: float) -> Callable[[Floats], Floats]:
    return lambda z: network.probabilities(z / scale)


ATTACKS: tuple[Attack, ...] = (EquationSolvingMlp(),)
