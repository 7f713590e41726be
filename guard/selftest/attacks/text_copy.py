"""Copies of text classifiers: logistic regression on words, fitted to scores or labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from guard.selftest.attacks.fit import Pooled, minimise, softmax
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats

WORD = re.compile(r"[a-z0-9']+")
"""What an outsider takes for a word; the model's own rule is not known."""


def words_of(text: str) -> list[str]:
    """Return a text's words.

    >>> words_of("Don't call 0800-FREE!")
    ["don't", 'call', '0800', 'free']
    """
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class TextCopy:
    """A softmax regression on the presence of words.

    Args:
        column: a word's row in the weights.
        weights: shape (words + 1, k), the bias last.
    """

    column: dict[str, int]
    weights: Floats

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Return probabilities, shape (n, k)."""
        return self.of(presence(texts, self.column))

    def of(self, features: Any) -> Floats:  # Any: scipy has no types
        """Return probabilities, shape (n, k), by the words that are present, shape (n, words)."""
        return softmax(np.asarray(features @ self.weights[:-1]) + self.weights[-1])


def presence(texts: Sequence[str], column: dict[str, int]) -> Any:  # Any: scipy has no types
    """Return which words each text has, as a sparse matrix of shape (n, words)."""
    found = [sorted({column[word] for word in words_of(text) if word in column}) for text in texts]
    ends = np.cumsum([0, *map(len, found)])
    each = np.fromiter(chain.from_iterable(found), dtype=np.int32, count=int(ends[-1]))
    return untyped("scipy.sparse").csr_matrix((np.ones(len(each)), each, ends), shape=(len(found), len(column)))


def fit_text(
    features: Any,  # Any: scipy has no types
    y: Floats,
    column: dict[str, int],
    ridge: float,
    start: TextCopy | None = None,
    steps: int = 300,
) -> TextCopy:
    """Fit by cross-entropy to scores, rounded, truncated or one-hot.

    Args:
        features: which words each text has, shape (n, words), from `presence`.
        y: scores, shape (n, k); what is missing to 1 belongs to those that read 0 together.
        column: columns of the words that may weigh something.
        ridge: weight of the squared weights; the bias is free.
        start: where to start.
        steps: most iterations of L-BFGS.
    """
    across, k, n = features.T.tocsr(), y.shape[1], len(y)
    likelihood = Pooled(y)

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(-1, k)
        z = np.asarray(features @ w[:-1]) + w[-1]
        value, outer = likelihood.loss(z)
        outer /= n
        gradient = np.concatenate((np.asarray(across @ outer) + 2 * ridge * w[:-1], outer.sum(axis=0, keepdims=True)))
        return float(value / n + ridge * (w[:-1] ** 2).sum()), gradient.ravel()

    first = np.zeros((len(column) + 1, k)) if start is None else start.weights
    return TextCopy(column, minimise(loss, first.ravel(), steps).reshape(-1, k))
