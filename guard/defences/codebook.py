"""Answer the nearest of a few distributions that are fixed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from guard.defences.base import Batch, Defence, Randomness, keep_top
from guard.errors import InvariantError
from guard.model.arrays import Bools, Floats, Ints
from guard.model.outputs import Kind

_MOST = 256
"""Codewords a class. Digits need 3 to 17 at .1."""
_DEAREST = 2**14
"""Most numbers that one row is compared with: some 15 us. Classes are many where this counts, so codewords are few."""
_BLOCK = 2**17
"""Most numbers that are compared at once, so that a large batch takes no more than a megabyte."""


class Codebook(Defence, frozen=True):
    """Answers the codeword nearest to the scores (L1), among those of the same argmax.

    Per argmax class the codewords are a greedy cover of calibration answers: an answer becomes one when it is further
    than epsilon from all before it, up to 256 a class or 2^14 / K where that is less. They are fixed when the policy
    is read and never learn from what clients ask: an online codebook makes each new vector its own codeword, which is
    the exact answer. A class that calibration never saw, and rows that are not whole and were not truncated by `top_k`
    before this step (a client's top-5 list), have one codeword that says no more than the label: the top takes the mean
    top score of all calibration answers, the others share the rest.

    Costs: a mean L1 of .130 (digits, 225 calibration answers; .123 at .05, .157 at .2), calibration error - .016, top-1
    unchanged. Does nothing against membership inference from labels, nor against a copy that only has to agree; it
    slows extraction more than a grid does: the copy comes within .088 at 650 queries and .063 at 3,250 (three seeds,
    fits inside the cells of the codewords that were seen), where grid .1 at a cost of .087 holds .040 and .018, and
    labels at .240 hold .130 and .074. Each codeword is somebody's exact answer, though it does not say to which query;
    calibrating anew cuts anew, and whoever asked before and after has two cuts.
    Source: after ModelGuard-S, the quantiser of Tang, Dai, DiValentin, Ding, Hass, Gong, Chen, Li, USENIX Security
    2024. Differs: frozen on calibration answers, argmax kept; formula in `defences.md`.

    Args:
        epsilon: L1 distance that a codeword covers.

    >>> calibration = np.array([[0.9, 0.1], [0.88, 0.12], [0.6, 0.4], [0.2, 0.8]])
    >>> batch = Batch(np.array([[0.86, 0.14], [0.3, 0.7]]), np.array([0, 1]), "probabilities")
    >>> Codebook(epsilon=0.1).calibrated(calibration).apply(batch, None, b"").scores.tolist()
    [[0.9, 0.1], [0.2, 0.8]]
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "labels"})
    coarsens: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    instead: ClassVar[str] = "use round here, or let the model answer probabilities"

    kind: Literal["codebook"] = "codebook"
    epsilon: float = Field(default=0.1, ge=1e-3, le=2)

    _book: Book | None = PrivateAttr(default=None)

    def calibrated(self, answers: Floats) -> Self:
        """Return the codebook with its codewords.

        Raises:
            ValueError: there are no calibration answers, or not of two classes and more.
        """
        if not len(answers) or answers.shape[1] < 2:
            raise ValueError(
                "a codebook is made of calibration answers, and there are none: give a profile that carries whole "
                "distributions (guard calibrate), or use grid"
            )
        return self.knowing(_book=cover(answers, self.epsilon))

    @property
    def book(self) -> Book:
        """Its codewords.

        Raises:
            InvariantError: not calibrated.
        """
        if self._book is None:
            raise InvariantError("a codebook ran before it was calibrated")
        return self._book

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return codewords; dropped scores stay 0."""
        del rng, salt
        book, scores = self.book, batch.scores
        coded = _labels(batch, book.level)
        if scores.shape[1] == book.classes and (batch.complete or batch.kept is not None):
            for label in np.unique(batch.top):
                words = book.of(int(label))
                if len(words):
                    rows = np.flatnonzero(batch.top == label)
                    kept = None if batch.kept is None else batch.kept[rows]
                    coded[rows] = words[_nearest(scores[rows], words, kept)]
        if batch.kept is not None:
            coded *= batch.kept
        coded = keep_top(coded, batch.top)
        return Batch(coded, batch.top, batch.kind, batch.complete, batch.kept, batch.labels_only)


@dataclass(frozen=True, eq=False, slots=True)
class Book:
    """Codewords, by the class of their argmax.

    Args:
        words: shape (m, k), those of class 0 first.
        start: where each class begins, and the end, shape (k + 1,).
        level: mean top score of the calibration answers.
    """

    words: Floats
    start: Ints
    level: float

    @property
    def classes(self) -> int:
        """How many classes a codeword has."""
        return self.words.shape[1]

    def of(self, label: int) -> Floats:
        """Return the codewords of a class, shape (j, k); none when calibration never saw it."""
        return self.words[self.start[label] : self.start[label + 1]]


def cover(answers: Floats, epsilon: float) -> Book:
    """Choose codewords among calibration answers.

    Args:
        answers: whole distributions, shape (r, k), r at least 1 and k at least 2.
        epsilon: an answer becomes a codeword when it is further than this from all of its class before it.
    """
    classes = answers.shape[1]
    most = max(1, min(_MOST, _DEAREST // classes))
    top = answers.argmax(axis=1)
    chosen = [_greedy(answers[top == label], epsilon, most) for label in range(classes)]
    start = np.cumsum([0, *map(len, chosen)])
    return Book(np.concatenate(chosen), start.astype(np.int64), float(answers.max(axis=1).mean()))


def _greedy(answers: Floats, epsilon: float, most: int) -> Floats:
    """Return answers of which each other one is within `epsilon`, in their order, unless there are `most` of them."""
    words: list[Floats] = []
    left = answers
    while len(left) and len(words) < most:
        words.append(left[0])
        left = left[np.abs(left - left[0]).sum(axis=1) > epsilon]
    return np.array(words).reshape(-1, answers.shape[1])


def _nearest(scores: Floats, words: Floats, kept: Bools | None) -> Ints:
    """Return the number of the codeword nearest to each row, shape (n,); over the kept scores where some are dropped.

    Args:
        scores: shape (n, k).
        words: shape (j, k), j at least 1.
        kept: shape (n, k), or None.
    """
    step = max(1, _BLOCK // words.size)
    found = np.empty(len(scores), dtype=np.int64)
    for at in range(0, len(scores), step):
        part = slice(at, at + step)
        far = np.abs(scores[part, None] - words)
        if kept is not None:
            far *= kept[part, None]
        found[part] = far.sum(axis=2).argmin(axis=1)
    return found


def _labels(batch: Batch, level: float) -> Floats:
    """Return what says no more than the label: `level` at the top, an even share of the rest elsewhere."""
    classes = batch.scores.shape[1] + (not batch.complete)
    if classes < 2:
        return np.ones_like(batch.scores)
    # In a short list an even share may exceed the level.
    best = min(1.0, max(level, 1.01 / classes))
    result = np.full_like(batch.scores, (1.0 - best) / (classes - 1))
    result[np.arange(len(batch.top)), batch.top] = best
    return result
