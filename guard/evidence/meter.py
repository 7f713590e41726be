"""The information meter: how well the answers given so far clone the model, as a running surrogate says.

Sums A = sum phi phi', B = sum phi y' over a client's graded answers. phi is 1, at most 40 linear features (principal
directions of the held-out queries, when there are more) and random Fourier features, 48 numbers in all; y is the
logarithm of what was released, since a copy is trained on that. Ridge regressions on them are surrogates, and the best
one's agreement with the model on a profile's held-out queries is the reading. It understates what a strong thief gets:
what is charged is `reading + MARGIN`.

Coordinates are clipped to three standard deviations. A query far away would otherwise outweigh all others in the sums,
so that a few of them blind the surrogate for good; and clipped sums understate less besides.

Replicas share the reading, of which the greatest holds, and not the sums: what each of r replicas saw, 1/r of the
answers, is read by itself. Sums would merge by adding, but they are real numbers and 10 KB a client.
"""

from __future__ import annotations

import numpy as np

from guard.model.arrays import Floats, Ints

MARGIN = 0.3
"""What the reading may understate by, in agreement. The 95th percentile of what a strong clone had over it was .08 to
.20 behind exact scores and a grid of .05, and .10 to .28 behind four levels: see `docs/detection.md`."""

FEATURES = 48
LINEAR = 40
CODES = 24
"""Most columns of y: of more classes, random signs of each are added up, and a class is found by its signs."""
BLOCK = 8
"""Answers that are folded at once."""
GROWTH = 1.25
"""How much the number of answers grows from one reading to the next."""
LONGEST = 128
"""Most answers from one reading to the next: repeats may be free, and must not put off what is read after them."""
FADE = 2**14
"""Answers after which all so far count half: a query that is repeated must not outweigh what comes after it."""
_CLIP = 3.0
_HELD_OUT = 512
_HELD_OUT_SCORES = 2**17
"""Most held-out queries times classes, so that many classes take no longer than the event loop may wait."""
_RIDGES = (0.01, 0.3, 10.0)
_ROUNDING = 1e-6
"""Ridge at least, as a share of A's greatest member: what single precision has lost of it."""
_LEAST = {True: 1e-3, False: 1e-2}
"""Least score whose logarithm is told apart, without codes and with them: codes want most members to be alike."""
_ROWS, _COLUMNS = np.triu_indices(FEATURES)
_UPPER = _ROWS * FEATURES + _COLUMNS

Singles = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class MeterBase:
    """What all meters of a route share: features and held-out queries.

    Args:
        held_out: standardised queries, shape (h, m); at most 512 of them are used.
        held_out_top: the model's labels of them, shape (h,).
        classes: K.
        salt: chooses the random features.

    Raises:
        ValueError: there is no held-out query, or a label for each is missing.
    """

    __slots__ = ("_codes", "_directions", "_frequencies", "_held_out", "_phases", "_top", "classes", "floor", "width")

    width: int
    """m: numbers in a query."""
    floor: float
    """Agreement of always answering the commonest label: no reading is lower."""

    def __init__(self, held_out: Floats, held_out_top: Ints, classes: int, salt: bytes) -> None:
        if not len(held_out) or len(held_out) != len(held_out_top):
            raise ValueError("the meter needs held-out queries with a label each")
        rng = np.random.default_rng(list(salt))
        step = -(-len(held_out) // max(1, min(_HELD_OUT, _HELD_OUT_SCORES // classes)))
        vectors = np.clip(held_out[::step], -_CLIP, _CLIP)
        self.width = width = vectors.shape[1]
        self.classes = classes
        self._directions = _principal(vectors, LINEAR)
        random = FEATURES - 1 - self._directions.shape[1]
        first, second = vectors[rng.integers(len(vectors), size=(2, 512))]
        distance = float(np.median(np.linalg.norm(first - second, axis=1)))
        spread = distance if distance > 1e-3 * width**0.5 else width**0.5
        self._frequencies: Floats = rng.standard_normal((width, random)) / spread
        self._phases: Floats = rng.uniform(0.0, 2.0 * np.pi, random)
        self._codes: Floats | None = None
        if classes > CODES:
            self._codes = rng.choice((-1.0, 1.0), (classes, CODES)) / CODES**0.5
        self._held_out = self.features(vectors)
        self._top = np.asarray(held_out_top[::step], dtype=np.int64)
        self.floor = float(np.bincount(self._top).max() / len(self._top))

    @property
    def columns(self) -> int:
        """Columns of y."""
        return min(self.classes, CODES)

    def features(self, x: Floats) -> Floats:
        """Return phi of clipped queries, shape (n, m), as shape (n, FEATURES)."""
        linear = self._directions.shape[1]
        phi = np.empty((len(x), FEATURES))
        phi[:, 0] = 1.0
        phi[:, 1 : 1 + linear] = x @ self._directions
        phi[:, 1 + linear :] = np.cos(x @ self._frequencies + self._phases)
        return phi

    def compact(self, released: Floats) -> Floats:
        """Return what is kept of released scores, shape (n, K), until they are folded: shape (n, columns).

        Classes that an answer lacks count as 0, and those that no held-out query has by their number are left out.
        """
        if released.shape[1] != self.classes:
            fitted = np.zeros((len(released), self.classes))
            known = min(self.classes, released.shape[1])
            fitted[:, :known] = released[:, :known]
            released = fitted
        least = _LEAST[self._codes is None]
        scores = np.fmin(np.fmax(released, least), 1.0)  # NaN is least
        return scores if self._codes is None else np.log(scores / least) @ self._codes

    def targets(self, compact: Floats) -> Floats:
        """Return y of what `compact` kept: logarithms, shape (n, columns)."""
        return np.log(compact / _LEAST[True]) if self._codes is None else compact

    def agreement(self, a: Floats, b: Floats) -> float:
        """Return how often the best surrogate of these sums agrees with the model, at least `floor`.

        Args:
            a: shape (FEATURES, FEATURES), the upper triangle is read.
            b: shape (FEATURES, columns).
        """
        a = np.triu(a) + np.triu(a, 1).T
        diagonal = np.einsum("ii->i", a)
        loaded = diagonal + _ROUNDING * diagonal.max()
        best = self.floor
        for ridge in _RIDGES:
            diagonal[:] = loaded + ridge
            diagonal[0] = loaded[0] + 1e-3  # the constant is hardly shrunken
            try:
                weights = np.linalg.solve(a, b)
            except np.linalg.LinAlgError:
                continue
            if self._codes is not None:
                weights = weights @ self._codes.T
            best = max(best, float(np.mean((self._held_out @ weights).argmax(axis=1) == self._top)))
        return best


class Meter:
    """One principal's meter; its size is bounded and does not grow.

    Args:
        base: shared.
    """

    __slots__ = ("_a", "_b", "_base", "_best", "_held", "_next", "_scores", "_vectors", "_weight", "answers")

    answers: int
    """Graded answers folded so far."""

    def __init__(self, base: MeterBase) -> None:
        self._base = base
        self._a: Singles = np.zeros(len(_UPPER), dtype=np.float32)
        self._b: Singles = np.zeros((FEATURES, base.columns), dtype=np.float32)
        self._vectors: Singles = np.zeros((BLOCK, base.width), dtype=np.float32)
        self._scores: Singles = np.zeros((BLOCK, base.columns), dtype=np.float32)
        self._held = 0
        self._weight = 0
        self._next = BLOCK
        self._best = 0.0
        self.answers = 0

    def add(self, vectors: Floats, released: Floats) -> bool:
        """Fold graded answers.

        Args:
            vectors: standardised queries, shape (n, m).
            released: the scores that were released, shape (n, K).

        Returns:
            Whether the reading was worked out anew: seldom, at geometrically growing numbers of answers.
        """
        x = np.fmin(np.fmax(vectors, -_CLIP), _CLIP)  # NaN is an end
        y = self._base.compact(released)
        n, held = len(x), self._held
        self.answers += n
        if held + n < BLOCK:
            self._hold(x, y)
            return False
        whole = n - (held + n) % BLOCK
        self._fold(self._vectors[:held], x[:whole], self._scores[:held], y[:whole])
        self._held = 0
        self._hold(x[whole:], y[whole:])
        if self.answers < self._next:
            return False
        self._next = self.answers + min(LONGEST, max(BLOCK // 2, int(self.answers * (GROWTH - 1))))
        a = np.zeros(FEATURES * FEATURES)
        a[_UPPER] = self._a
        self._best = max(self._best, self._base.agreement(a.reshape(FEATURES, FEATURES), self._b.astype(np.float64)))
        return True

    def _hold(self, x: Floats, y: Floats) -> None:
        """Keep fewer than a block of rows until it is whole."""
        held = self._held
        self._held = end = held + len(x)
        self._vectors[held:end] = x
        self._scores[held:end] = y

    def _fold(self, x_held: Singles, x: Floats, y_held: Singles, y: Floats) -> None:
        """Add whole blocks to the sums: rows that were held, and rows of now."""
        phi = self._base.features(np.concatenate((x_held.astype(np.float64), x)))
        y = self._base.targets(np.concatenate((y_held.astype(np.float64), y)))
        self._a += (phi.T @ phi).ravel()[_UPPER].astype(np.float32)
        self._b += (phi.T @ y).astype(np.float32)
        self._weight += len(phi)
        if self._weight > FADE:
            self._a *= 0.5
            self._b *= 0.5
            self._weight //= 2

    @property
    def reading(self) -> float:
        """The surrogate's greatest agreement with the model so far, in [0, 1], as last worked out; 0 before that."""
        return self._best


def _principal(vectors: Floats, most: int) -> Floats:
    """Return directions to read vectors of shape (n, m) along, shape (m, d): their own, or `most` principal ones."""
    width = vectors.shape[1]
    if width <= most:
        return np.eye(width)
    centred = vectors - vectors.mean(axis=0)
    return np.asarray(np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :most])
