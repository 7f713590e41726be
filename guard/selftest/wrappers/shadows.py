"""The wrapper that learns to undo a defence from models of the attacker's own behind the same policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from guard.selftest.api import Unreachable, is_label
from guard.selftest.attacks.extraction import draw
from guard.selftest.attacks.network import Network, fit_network
from guard.selftest.base import Api, Refused, Rows, Unresolved, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers.wrapped import Wrapped, everywhere

SHADOWS = 4
ROWS = 800
HIDDEN, EPOCHS = 64, 60
Predict = Callable[[Rows], Floats]


class Restored(Wrapped):
    """Replaces every answer by what the model most likely said. Labels stay labels.

    Args:
        inner: the API.
        undo: fitted on the attacker's own models.
    """

    def __init__(self, inner: Api, undo: Network) -> None:
        super().__init__(inner)
        self.undo = undo

    def ask(self, x: Rows) -> Floats:
        """Return restored scores."""
        try:
            return self._restored(self.inner.ask(x))
        except Refused as error:
            answers = None if error.answers is None else self._restored(error.answers)
            raise Refused(error.status, str(error), answers) from error

    def _restored(self, scores: Floats) -> Floats:
        graded = ~is_label(scores)
        if not graded.any():
            return scores
        restored = scores.copy()
        restored[graded] = self.undo.probabilities(features(scores[graded]))
        return restored


def ddae(world: World) -> World:
    """Learn to undo the perturbation from shadow models: breaks smooth changes of scores, such as a temperature.

    Source: Chen et al., "D-DAE: Defense-Penetrating Model Extraction Attacks", S&P 2023. Differs: one small network
    instead of a detector of the defence's kind and a generator each; the shadows are the attacker's models of the
    victim's kind, behind the attacker's own Guard with the same policy.
    """
    if world.clean is None:
        raise Unresolved(f"there are no models of the attacker's own for {world.knows.name}")
    return restoring(world, world.clean)


def restoring(world: World, clean: Callable[[str], Predict]) -> World:
    """Return the world with answers restored.

    Args:
        world: as it is.
        clean: gives the attacker's own models by name, to predict with locally.

    Raises:
        Unresolved: the attacker has no such models.
    """
    if world.knows.classes < 2:
        raise Unresolved("only probabilities are restored")
    told: list[Floats] = []
    true: list[Floats] = []
    for i in range(SHADOWS):
        name = f"{world.knows.name}.shadow{i}"
        try:
            x = _queries(world, i)
            told.append(world.shadow(name).ask(x))
            true.append(clean(name)(x))
        except (KeyError, Refused, Unreachable) as error:
            raise Unresolved(f"there are no models of the attacker's own for {world.knows.name}") from error
        world.progress(0.1 * (i + 1) / SHADOWS, "asking shadow models")
    y, p = np.concatenate(told), np.concatenate(true)
    graded = ~is_label(y)
    if graded.sum() < ROWS // 4:
        raise Unresolved("the policy answers with labels, which nothing restores")
    undo = fit_network(features(y[graded]), p[graded], HIDDEN, EPOCHS, world.rng("undo"))
    return everywhere(world, lambda api: Restored(api, undo))


def features(scores: Floats) -> Floats:
    """Return scores and their logarithms, both of order one, shape (n, 2 k)."""
    return np.concatenate((scores, np.log(np.clip(scores, 1e-3, None)) / 7), axis=1)


def _queries(world: World, number: int) -> Rows:
    rng = world.rng(f"shadow queries {number}")
    if world.knows.kind == "text":
        own = cast("Sequence[str]", world.knows.own_x)
        return [own[int(i)] for i in rng.integers(len(own), size=ROWS)]
    return np.concatenate([draw(world.knows, how, ROWS // 2, rng) for how in ("gauss", "mixed")])
