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

from guard.detectors.base import Features, Margins
from guard.detectors.setup import Setup
from guard.detectors.stream import Stream, after
from guard.evidence.values import KEPT, WINDOW, Strength, unfield
from guard.evidence.wealth import Wealth
from guard.model.arrays import Floats, Ints

__all__ = ["Tracker", "after"]

_MANY = 512
"""Fields that wait for the state in ordinary times: far fewer."""


class Tracker:
    """The evidence of one client on one route.

    Args:
        setup: shared by all clients of the route.
    """

    __slots__ = ("_answers", "_queries", "_setup", "_split", "_stream", "pending", "wealth")

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._split = setup.query_signals
        self._stream = Stream(setup.queries)
        self._queries = _Windows(setup.null.edges[: self._split])
        self._answers = _Windows(setup.null.edges[self._split :])
        self.wealth = Wealth(setup.null)
        self.pending: dict[int, int] = {}
        """What was counted here and has not been merged with the other replicas' counts, by field."""

    def ask(self, features: Features) -> bool:
        """Fold the queries of one request; return whether they completed a window."""
        return bool(self._split) and self._count(0, self._queries.add(self._stream.ask(features)))

    def answer(self, margins: Margins) -> bool:
        """Fold the answers of one request; return whether they completed a window."""
        if not self._setup.answers or not len(margins.margin):
            return False
        found = [bound.measure_answers(margins) for bound in self._setup.answers]
        signals = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        return self._count(self._split, self._answers.add(signals))

    def _count(self, first: int, bins: Ints | None) -> bool:
        if bins is None:
            return False
        pending = self.pending
        for number in self.wealth.add(first, bins):
            pending[number] = pending.get(number, 0) + 1
        if len(pending) > _MANY:
            # While the state is away counts pile up; what is older than all that is kept would be dropped there too.
            oldest = self.wealth.bucket - KEPT
            self.pending = {number: n for number, n in pending.items() if unfield(number)[0] > oldest}
        return True

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add what other replicas counted, by field."""
        if counts:
            self.wealth.merge(counts)

    def strength(self, skip: frozenset[int] = frozenset()) -> Strength:
        """Return the client's evidence, without the signals of an exception."""
        return self.wealth.strength(skip)


_TOLERANCE = 1e-9


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

    def add(self, signals: Floats) -> Ints | None:
        """Take rows, shape (n, s); return the bins of the windows that they complete, shape (w, s), if any."""
        n = len(signals)
        if self._held + n < WINDOW:
            self._sum += signals[0] if n == 1 else signals.sum(axis=0)
            self._held += n
            return None
        first = WINDOW - self._held
        whole = (n - first) // WINDOW
        end = first + whole * WINDOW
        sums = np.empty((1 + whole, len(self._sum)))
        sums[0] = self._sum + signals[:first].sum(axis=0)
        sums[1:] = signals[first:end].reshape(whole, WINDOW, len(self._sum)).sum(axis=1)
        self._sum = signals[end:].sum(axis=0)
        self._held = n - end
        return bins_of(sums / WINDOW, self._edges)


def bins_of(means: Floats, edges: Floats) -> Ints:
    """Return the bin of each mean: how many edges are not above it.

    Args:
        means: shape (w, s).
        edges: shape (s, BINS - 1).

    Returns:
        Shape (w, s).
    """
    # Sums of sixteen numbers differ in their last digits with how the stream was cut into requests.
    return np.asarray((means[:, :, None] + _TOLERANCE >= edges).sum(axis=2), dtype=np.int64)
