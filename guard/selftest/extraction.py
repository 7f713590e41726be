"""Equation solving: copy a softmax regression from its answers to random queries.

Source: Tramer, Zhang, Juels, Reiter, Ristenpart, "Stealing Machine Learning Models via Prediction APIs", USENIX
Security 2016, sections 4.1 and 4.3. Differs: besides solving the equations log(p_i / p_0) = (w_i - w_0) x + b_i - b_0
by least squares, a second copy is fitted by cross-entropy to whatever scores came, which survives rounding.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from guard.selftest.lab import untyped

Floats = NDArray[np.float64]
_RIDGES = (1e-6, 1e-4, 1e-3, 1e-2)


class Refused(RuntimeError):
    """The API has refused a query; an attacker goes on with what it has."""


class ModelApi:
    """The model as an outsider sees it: one Open Inference query at a time over one HTTP connection.

    Args:
        url: scheme, host and port.
        model: the model's name.
        tensor: name of the output tensor with the scores.
        key: value of `x-api-key`; empty for none.
    """

    def __init__(self, url: str, model: str = "digits", tensor: str = "probabilities", key: str = "") -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=30)
        self.path = f"/v2/models/{model}/infer"
        self.tensor = tensor
        self.headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})

    def ask(self, x: Floats) -> bytes:
        """Return the raw answer to the rows `x`, shape (n, d).

        Raises:
            Refused: the answer is not 200.
        """
        tensor = {"name": "x", "datatype": "FP64", "shape": list(x.shape), "data": x.ravel().tolist()}
        self.connection.request("POST", self.path, orjson.dumps({"inputs": [tensor]}), self.headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise Refused(f"{response.status}: {body[:200].decode(errors='replace')}")
        return body

    def scores(self, x: Floats) -> Floats:
        """Return the scores for the rows `x`, shape (n, k)."""
        outputs = orjson.loads(self.ask(x))["outputs"]
        found = next(output for output in outputs if output["name"] == self.tensor)
        return np.asarray(found["data"], dtype=np.float64).reshape(found["shape"])

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@dataclass(frozen=True)
class Copy:
    """A stolen softmax regression.

    Args:
        weights: shape (k, d + 1), the bias last.
        scale: what inputs are divided by.
        method: how it was fitted.
        queries: how many answers it was fitted to.
    """

    weights: Floats
    scale: float
    method: str
    queries: int

    def probabilities(self, x: Floats) -> Floats:
        """Return the copy's probabilities, shape (n, k)."""
        return _softmax(_with_bias(x / self.scale) @ self.weights.T)


def harvest(
    ask: Callable[[Floats], Floats],
    queries: int,
    low: float,
    high: float,
    dimension: int,
    rng: np.random.Generator,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Floats, Floats]:
    """Ask uniform random queries, one row each, until they are answered or the API refuses to go on.

    Args:
        ask: rows of shape (n, d) -> scores of shape (n, k).
        queries: how many.
        low: least value of a feature.
        high: greatest value of a feature.
        dimension: d.
        rng: draws the queries.
        progress: called with the number of queries done.

    Returns:
        (queries that were answered, shape (m, d); their scores, shape (m, k)), m <= queries.

    Raises:
        Refused: the very first query was refused.
    """
    x = rng.uniform(low, high, (queries, dimension))
    answers: list[Floats] = []
    for i in range(queries):
        try:
            answers.append(ask(x[i : i + 1])[0])
        except Refused:
            if not answers:
                raise
            break
        progress(i + 1)
    return x[: len(answers)], np.array(answers)


def fits(x: Floats, y: Floats, scale: float) -> list[Copy]:
    """Fit copies in every way that has worked against some defence; whoever measures takes the best.

    Args:
        x: queries, shape (n, d).
        y: scores that came back, shape (n, k); rounded, truncated or label-only ones too.
        scale: what inputs are divided by, so that features are of order one.
    """
    copies: list[Copy] = []
    graded = y.max(axis=1) < 1.0
    parts = {"": np.ones(len(y), dtype=bool)}
    if 0 < graded.sum() < len(y):
        # Beside graded answers, bare labels pull a copy towards being too sure.
        parts[" to graded answers"] = graded
    for part, chosen in parts.items():
        px, py = x[chosen] / scale, y[chosen]
        copies += [Copy(_cross_entropy(px, py, r), scale, f"fit{part}, ridge {r:g}", len(px)) for r in _RIDGES]
        if (py > 0).all():
            copies.append(Copy(_least_squares(px, py), scale, "equations" + part, len(px)))
    return copies


def surrogate_l1(copy: Floats, model: Floats) -> float:
    """Return the mean L1 distance between a copy's and the model's probabilities, both (n, k); higher is safer.

    >>> surrogate_l1(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))
    1.0
    """
    return float(np.abs(copy - model).sum(axis=1).mean())


def agreement(copy: Floats, model: Floats) -> float:
    """Return the share of rows on which copy and model, both (n, k), name the same class."""
    return float((copy.argmax(axis=1) == model.argmax(axis=1)).mean())


def _with_bias(x: Floats) -> Floats:
    return np.concatenate((x, np.ones((len(x), 1))), axis=1)


def _softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _least_squares(x: Floats, y: Floats) -> Floats:
    logs = np.log(y)
    return (np.linalg.pinv(_with_bias(x)) @ (logs - logs.mean(axis=1, keepdims=True))).T


def _completed(y: Floats) -> Floats:
    """Turn truncated scores into distributions: what is missing to 1 is spread evenly over the scores that read 0."""
    target = np.maximum(y, 0.0)
    missing = np.maximum(1.0 - target.sum(axis=1, keepdims=True), 0.0)
    dropped = target == 0.0
    target = target + dropped * missing / np.maximum(dropped.sum(axis=1, keepdims=True), 1)
    return target / np.maximum(target.sum(axis=1, keepdims=True), 1e-12)


def _cross_entropy(x: Floats, y: Floats, ridge: float) -> Floats:
    minimize = untyped("scipy.optimize").minimize  # comes with scikit-learn
    features = _with_bias(x)
    target = _completed(y)
    k, d = y.shape[1], features.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(k, d)
        z = features @ w.T
        z = z - z.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(z).sum(axis=1, keepdims=True))
        gradient = (np.exp(z - log_total) - target).T @ features / len(x) + 2 * ridge * w
        value = -(target * (z - log_total)).sum() / len(x) + ridge * (w * w).sum()
        return float(value), gradient.ravel()

    found = minimize(loss, np.zeros(k * d), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return np.asarray(found.x, dtype=np.float64).reshape(k, d)
