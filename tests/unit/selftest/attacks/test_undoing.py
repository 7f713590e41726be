"""Attackers who have read the source: inside codewords' cells, through a shift and through a reverse sigmoid."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from guard.defences import DEFENCES
from guard.defences.base import Batch
from guard.selftest.attacks.codewords import codeword_fits, codewords_of
from guard.selftest.attacks.equation_solving import Softmax
from guard.selftest.attacks.fit import Linear, cross_entropy
from guard.selftest.attacks.regressions import regressions
from guard.selftest.attacks.undoing import shift_fits, sigmoid_fit, unshifted
from guard.selftest.base import Outcome, Rows
from guard.selftest.measures import Floats
from tests.unit.selftest.support import Defend, linear_victim, world

VICTIM = linear_victim(classes=4, steep=2.0)
X = np.random.default_rng(0).normal(size=(400, 8))
SMALL = Softmax(queries=150, other_draws=())


def defended(kind: str, **parameters: float) -> Defend:
    """Return a defence of Guard's as it runs, calibrated on held-out answers where it needs them."""
    defence = DEFENCES[kind].model_validate({"kind": kind, **parameters})
    if defence.calibrates:
        defence = defence.calibrated(VICTIM.predict(VICTIM.test_x))

    def defend(x: Rows, scores: Floats) -> Floats:
        del x
        return defence.apply(Batch(scores, scores.argmax(axis=1), "probabilities"), None, b"").scores  # pyright: ignore[reportArgumentType]  # these three draw nothing

    return defend


def far(copy: Linear) -> float:
    test = cast("Floats", VICTIM.test_x)
    return float(np.abs(copy.probabilities(test) - VICTIM.predict(test)).sum(axis=1).mean())


def naive(y: Floats) -> float:
    """Return the distance of the best fit that takes answers for scores."""
    return min(far(cross_entropy(X, y, ridge)) for ridge in (1e-6, 1e-4, 1e-3))


def distance(outcome: Outcome, *, plain: bool = False) -> float:
    return outcome.best("surrogate_l1", plain=plain).measures["surrogate_l1"].value


def test_inside_the_cells_of_codewords_a_copy_comes_closer() -> None:
    y = defended("codebook", epsilon=0.3)(X, VICTIM.predict(X))
    fits = dict(codeword_fits(X, y))
    assert len(fits) == 2
    assert min(map(far, fits.values())) < 0.75 * naive(y)


def test_codewords_are_told_from_scores_grids_and_labels() -> None:
    scores = VICTIM.predict(X)
    assert codewords_of(scores) is None
    assert codewords_of(defended("grid", step=0.2)(X, scores)) is None
    assert codewords_of(np.eye(4)[scores.argmax(axis=1)]) is None
    found = codewords_of(defended("codebook", epsilon=0.3)(X, scores))
    assert found is not None
    assert len(found.words) < 100


@pytest.mark.parametrize("epsilon", [0.1, 0.37])
def test_a_bounded_shift_is_undone(epsilon: float) -> None:
    scores = VICTIM.predict(X)
    y = defended("bounded_shift", epsilon=epsilon)(X, scores)
    found = min(unshifted(y), key=lambda undone: abs(undone.moved - epsilon / 2))
    assert found.moved == pytest.approx(epsilon / 2)
    assert len(found.rows) > 40
    assert np.median(np.abs(found.scores - scores[found.rows]).sum(axis=1)) < 1e-9
    assert min(far(copy) for _, copy in shift_fits(X, y)) < 0.01 < 0.2 * naive(y)


def test_a_copy_is_fitted_through_a_reverse_sigmoid_of_unknown_strength() -> None:
    for beta, gamma in ((0.9, 0.2), (0.6, 0.3)):
        y = defended("reverse_sigmoid", beta=beta, gamma=gamma)(X, VICTIM.predict(X))
        copy = sigmoid_fit(X, y)
        assert copy is not None
        assert far(copy) < 0.02 < 0.1 * naive(y)


def test_no_sigmoid_is_found_in_noise() -> None:
    rng = np.random.default_rng(1)
    y = np.maximum(VICTIM.predict(X) + rng.normal(0, 0.1, (400, 4)), 0)
    assert sigmoid_fit(X, y / y.sum(axis=1, keepdims=True)) is None


@pytest.mark.parametrize(
    ("kind", "parameters", "how"),
    [
        ("codebook", {"epsilon": 0.3}, "codeword cells"),
        ("bounded_shift", {"epsilon": 0.2}, "undo shift"),
        ("reverse_sigmoid", {}, "through the sigmoid"),
    ],
)
def test_equation_solving_tries_what_a_defence_calls_for_and_gains_by_it(
    kind: str, parameters: dict[str, float], how: str
) -> None:
    defend = defended(kind, **parameters)
    names = [name for name, _ in regressions(X, defend(X, VICTIM.predict(X)), np.random.default_rng(0))]
    assert any(name.startswith(how) for name in names)
    outcome = SMALL.run(world(VICTIM, defend))
    assert distance(outcome) < 0.75 * distance(outcome, plain=True)


def test_undefended_they_add_nothing_and_cost_nothing() -> None:
    names = [name for name, _ in regressions(X, VICTIM.predict(X), np.random.default_rng(0))]
    assert not any(name.startswith(("codeword", "undo", "through")) for name in names)
    assert distance(SMALL.run(world(VICTIM))) <= distance(SMALL.run(world(VICTIM)), plain=True)
