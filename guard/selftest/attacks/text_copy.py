"""Copies of text classifiers: logistic regression on words, fitted to scores or labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from guard.selftest.attacks.fit import completed, minimise, softmax
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
        return softmax(np.asarray(presence(texts, self.column) @ self.weights[:-1]) + self.weights[-1])


def presence(texts: Sequence[str], column: dict[str, int]) -> Any:  # Any: scipy has no types
    """Return which words each text has, as a sparse matrix of shape (n, words)."""
    found = [sorted({column[word] for word in words_of(text) if word in column}) for text in texts]
    ends = np.cumsum([0, *map(len, found)])
    each = np.fromiter(chain.from_iterable(found), dtype=np.int32, count=int(ends[-1]))
    return untyped("scipy.sparse").csr_matrix((np.ones(len(each)), each, ends), shape=(len(found), len(column)))


def fit_text(texts: Sequence[str], y: Floats, vocabulary: Sequence[str], ridge: float, steps: int = 300) -> TextCopy:
    """Fit by cross-entropy to scores, rounded, truncated or one-hot.

    Args:
        texts: what was asked, n of them.
        y: scores, shape (n, k); what is missing to 1 is spread over those that read 0.
        vocabulary: words that may weigh something, each once.
        ridge: weight of the squared weights; the bias is free.
        steps: most iterations of L-BFGS.
    """
    column = {word: i for i, word in enumerate(vocabulary)}
    features, target = presence(texts, column), completed(y)
    across, k = features.T.tocsr(), y.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(-1, k)
        z = np.asarray(features @ w[:-1]) + w[-1]
        z = z - z.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(z).sum(axis=1, keepdims=True))
        outer = (np.exp(z - log_total) - target) / len(target)
        gradient = np.concatenate((np.asarray(across @ outer) + 2 * ridge * w[:-1], outer.sum(axis=0, keepdims=True)))
        value = -(target * (z - log_total)).sum() / len(target) + ridge * (w[:-1] ** 2).sum()
        return float(value), gradient.ravel()

    start = np.zeros((len(vocabulary) + 1) * target.shape[1])
    return TextCopy(column, minimise(loss, start, steps).reshape(-1, k))
