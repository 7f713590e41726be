"""The interval fit: a copy whose scores lie in the cells of a quantiser, whatever the quantiser answered."""

from __future__ import annotations

from guard.selftest.attacks.fit import Linear, minimise, softmax, with_bias
from guard.selftest.attacks.quantisers import Cells, outside
from guard.selftest.measures import Floats

STEPS = 500


def interval_fit(x: Floats, cells: Cells, ridge: float, start: Linear, tolerance: float = 1e-15) -> Linear:
    """Minimise the squared distance of the copy's scores from their cells, and what exceeds the winner.

    Args:
        x: inputs, shape (n, d).
        cells: of their answers.
        ridge: weight of the squared weights.
        start: a copy fitted by cross-entropy.
        tolerance: what a step must gain; a coarse one stays near the start, which steadies fits to few answers.
    """
    features = with_bias(x)
    k, d = start.weights.shape

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(k, d)
        q = softmax(features @ w.T)
        value, outer = outside(q, cells)
        gradient = (q * (outer - (outer * q).sum(axis=1, keepdims=True))).T @ features / len(x) + 2 * ridge * w
        return value / len(x) + float(ridge * (w * w).sum()), gradient.ravel()

    return Linear(minimise(loss, start.weights.ravel(), STEPS, tolerance).reshape(k, d))
