"""One client's queries and answers, folded into evidence.

Theory of operation. Features go to every detector; what a detector wants looked up is looked up among the client's last
`HORIZON` queries; the signals of 16 queries are averaged to a window, whose bins are counted, and counts are evidence
(`guard.evidence.wealth`). A tracker is mutable and belongs to one client of one route: copying some 60 KB a request, to
keep it pure, would cost more than all the rest. It does no I/O, reads no clock and draws nothing, so the same queries
and answers lead to the same evidence.

Answers lag behind queries and may be missing, so their signals have windows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from guard.detectors.base import Features, Margins, Past
from guard.detectors.index import Index
from guard.detectors.setup import Setup
from guard.evidence.values import WINDOW, Strength
from guard.evidence.wealth import Wealth
from guard.model.arrays import Floats, Ints


class Tracker:
    """The evidence of one client on one route.

    Args:
        setup: shared by all clients of the route.
    """

    __slots__ = ("_index", "_past", "_queries", "_answers", "_setup", "pending", "wealth")

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._index = Index(sum(bound.columns for bound in setup.queries))
        self._past: Past | None = None
        self._queries = _Windows(setup.null.edges[: self._split])
        self._answers = _Windows(setup.null.edges[self._split :])
        self.wealth = Wealth(setup.null)
        self.pending: dict[int, int] = {}
        """What was counted here and has not been merged with the other replicas' counts, by field."""

    @property
    def _split(self) -> int:
        """Number of signals of side `query`."""
        return self._setup.query_signals

    def ask(self, features: Features) -> None:
        """Fold the queries of one request."""
        found: list[Floats] = []
        setup = self._setup
        keys = [bound.keys(features) for bound in setup.queries]
        hits = self._index.look(np.concatenate(keys, axis=1) if len(keys) > 1 else keys[0])
        past = self._past or Past(0, np.zeros(0), None, None)
        column = 0
        for bound in setup.queries:
            found.append(bound.measure(features, hits[:, column : column + bound.columns], past))
            column += bound.columns
        self._past = after(past, features.vectors)
        self._count(0, self._queries.add(np.concatenate(found, axis=1)))

    def answer(self, margins: Margins) -> None:
        """Fold the answers of one request."""
        if self._setup.answers:
            found = [bound.measure_answers(margins) for bound in self._setup.answers]
            self._count(self._split, self._answers.add(np.concatenate(found, axis=1)))

    def _count(self, first: int, bins: Ints) -> None:
        if len(bins):
            for number in self.wealth.add(first, bins):
                self.pending[number] = self.pending.get(number, 0) + 1

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add what other replicas counted, by field."""
        if counts:
            self.wealth.merge(counts)

    def strength(self, skip: frozenset[int] = frozenset()) -> Strength:
        """Return the client's evidence, without the signals of an exception."""
        return self.wealth.strength(skip)


def after(past: Past, vectors: Floats | None) -> Past:
    """Return what is known of a client after a batch of vectors, shape (n, m)."""
    if vectors is None or not len(vectors):
        return past
    total = vectors.sum(axis=0)
    if past.total.size == total.size:
        total += past.total
    before = vectors[-2] if len(vectors) > 1 else past.last
    step = None if before is None or before.size != total.size else vectors[-1] - before
    return Past(past.seen + len(vectors), total, vectors[-1].copy(), step)


class _Windows:
    """Averages signals over `WINDOW` rows and finds the bins of the means.

    Args:
        edges: shape (s, BINS - 1), +inf where unused.
    """

    __slots__ = ("_edges", "_held", "_sum")

    def __init__(self, edges: Floats) -> None:
        self._edges = edges
        self._sum: Floats = np.zeros(len(edges))
        self._held = 0

    def add(self, signals: Floats) -> Ints:
        """Take rows, shape (n, s); return the bins of the windows that they complete, shape (w, s)."""
        n = len(signals)
        if self._held + n < WINDOW:
            self._sum += signals[0] if n == 1 else signals.sum(axis=0)
            self._held += n
            return np.empty((0, len(self._sum)), dtype=np.int64)
        first = WINDOW - self._held
        whole = (n - first) // WINDOW
        means = np.empty((1 + whole, len(self._sum)))
        means[0] = self._sum + signals[:first].sum(axis=0)
        end = first + whole * WINDOW
        if whole:
            means[1:] = signals[first:end].reshape(whole, WINDOW, -1).sum(axis=1)
        means /= WINDOW
        self._sum = signals[end:].sum(axis=0)
        self._held = n - end
        return np.asarray((means[:, :, None] >= self._edges[None]).sum(axis=2), dtype=np.int64)
