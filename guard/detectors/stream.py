"""One client's queries on their way through all detectors of side `query`: what was asked becomes signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guard.detectors.base import Bound, Features, Past
from guard.detectors.index import Index
from guard.model.arrays import Floats


class Stream:
    """Measures a client's queries, in order; remembers what detectors look back on, 35 KB with all of them.

    Args:
        bounds: detectors of side `query`.
    """

    __slots__ = ("_bounds", "_index", "_looking", "_past")

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self._bounds = bounds
        self._looking = [bound for bound in bounds if bound.columns]
        self._index = Index(1 + sum(bound.columns for bound in bounds))
        self._past = Past()

    def ask(self, features: Features) -> Floats:
        """Return the signals of the next queries, shape (n, s), detectors in their order."""
        if not self._bounds:
            return np.zeros((len(features.keys), 0))
        keys = [features.keys[:, :1], *[bound.keys(features) for bound in self._looking]]
        hits = self._index.look(np.concatenate(keys, axis=1))
        seen, past, column = hits[:, 0], self._past, 1
        found: list[Floats] = []
        for bound in self._bounds:
            end = column + bound.columns
            found.append(bound.measure(features, seen, hits[:, column:end], past))
            column = end
        self._past = after(past, features.vectors)
        return np.concatenate(found, axis=1)


def after(past: Past, vectors: Floats | None) -> Past:
    """Return what is known of a client after a batch of vectors, shape (n, m); of another width it begins anew."""
    if vectors is None or not len(vectors):
        return past
    total, last, step, seen = past.total, past.last, None, past.seen
    if last is None or last.size != vectors.shape[1]:
        total, last, seen = np.zeros(vectors.shape[1]), None, 0
    if len(vectors) == 1:
        if last is not None:
            step = vectors[0] - last
        return Past(seen + 1, total + vectors[0], vectors[0].copy(), step)
    return Past(
        seen + len(vectors), total + vectors.sum(axis=0), vectors[-1].copy(), np.asarray(vectors[-1] - vectors[-2])
    )
