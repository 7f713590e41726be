"""Copies: softmax regressions fitted to whatever scores came back.

Softmax regression on two classes is logistic regression. Inputs are scaled by whoever calls, so that features are of
order one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class Linear:
    """A softmax regression.

    Args:
        weights: shape (k, d + 1), the bias last.
    """

    weights: Floats

    def probabilities(self, x: Floats) -> Floats:
        """Return probabilities, shape (n, k), for inputs of shape (n, d)."""
        return softmax(with_bias(x) @ self.weights.T)


def with_bias(x: Floats) -> Floats:
    """Append a column of ones."""
    return np.concatenate((x, np.ones((len(x), 1))), axis=1)


def softmax(z: Floats) -> Floats:
    """Return row-wise softmax, shape (n, k)."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def completed(y: Floats) -> Floats:
    """Turn truncated scores into distributions: what is missing to 1 is spread evenly over the scores that read 0."""
    target = np.maximum(y, 0.0)
    missing = np.maximum(1.0 - target.sum(axis=1, keepdims=True), 0.0)
    dropped = target == 0.0
    target = target + dropped * missing / np.maximum(dropped.sum(axis=1, keepdims=True), 1)
    return target / np.maximum(target.sum(axis=1, keepdims=True), 1e-12)


def least_squares(x: Floats, y: Floats) -> Linear:
    """Solve log(p_i / p_mean) = w_i x + b_i (Tramer et al. 2016, section 4.1).

    Args:
        x: inputs, shape (n, d).
        y: scores above 0, shape (n, k).
    """
    logs = np.log(y)
    return Linear((np.linalg.pinv(with_bias(x)) @ (logs - logs.mean(axis=1, keepdims=True))).T)


class Pooled:
    """The cross-entropy of scores, rounded, truncated or one-hot, as a function of logits.

    What a truncated row lacks to 1 is the probability of all the scores that read 0 together: nothing is made up.

    Args:
        y: scores, shape (n, k).
    """

    def __init__(self, y: Floats) -> None:
        self.target = np.maximum(y, 0.0)
        self.dropped = self.target == 0
        lacks = np.maximum(1.0 - self.target.sum(axis=1, keepdims=True), 0.0)
        self.rest = lacks * self.dropped.any(axis=1, keepdims=True)
        self.total = self.target.sum(axis=1, keepdims=True) + self.rest
        self.pooled = bool((self.rest > 1e-9).any())

    def loss(self, z: Floats) -> tuple[float, Floats]:
        """Return the loss summed over rows, and its gradient by the logits `z`, shape (n, k), which are overwritten."""
        z -= z.max(axis=1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        q = np.exp(logs)
        value, outer = -(self.target * logs).sum(), q * self.total - self.target
        if self.pooled:
            pool = np.maximum((q * self.dropped).sum(axis=1, keepdims=True), 1e-12)
            value -= (self.rest * np.log(pool)).sum()
            outer -= self.rest * q * self.dropped / pool
        return float(value), outer


def cross_entropy(x: Floats, y: Floats, ridge: float, start: Linear | None = None, steps: int = 2000) -> Linear:
    """Fit by cross-entropy to scores, rounded, truncated or one-hot.

    What a truncated row lacks to 1 is the probability of all the scores that read 0 together: nothing is made up.

    Args:
        x: inputs, shape (n, d).
        y: scores, shape (n, k).
        ridge: weight of the squared weights.
        start: where to start.
        steps: most iterations of L-BFGS.
    """
    features = with_bias(x)
    k, d = y.shape[1], features.shape[1]
    likelihood = Pooled(y)

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(k, d)
        z = features @ w.T
        value, outer = likelihood.loss(z)
        return float(value / len(x) + ridge * (w * w).sum()), (outer.T @ features / len(x) + 2 * ridge * w).ravel()

    first = np.zeros(k * d) if start is None else start.weights.ravel()
    return Linear(minimise(loss, first, steps).reshape(k, d))


def minimise(loss: object, start: Floats, steps: int, tolerance: float = 2.2e-9) -> Floats:
    """Minimise a function that returns (value, gradient) by L-BFGS-B, until a step gains less than `tolerance`."""
    found = untyped("scipy.optimize").minimize(
        loss, start, jac=True, method="L-BFGS-B",
        options={"maxiter": steps, "maxfun": 2 * steps, "ftol": tolerance, "gtol": min(1e-5, tolerance * 1e3)},
    )  # fmt: skip
    return np.asarray(found.x, dtype=np.float64)
