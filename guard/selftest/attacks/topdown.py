"""A decision tree as an outsider rebuilds it from partial queries: from the root down (top-down path finding).

A query that leaves features out is answered by the node where its path ends, so the feature that the node splits on is
the one whose value changes the answer. All nodes of a level are taken together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from guard.selftest.attacks.asking import Asker, Spent, same
from guard.selftest.base import Knowledge
from guard.selftest.measures import Floats, Ints

_TOGETHER = 16
_DEEPEST = 40


@dataclass
class Node:
    """A node of the copy.

    Args:
        low: least value of each feature on the way here, shape (d,); NaN where no split has used it.
        high: greatest value, likewise.
        scores: the answer here, shape (k,), or the parent's until it is known.
        depth: 0 at the root.
        feature: what it splits on; -1 at a leaf.
        threshold: up to here to the left.
        left: the left child.
        right: the right child.
    """

    low: Floats
    high: Floats
    scores: Floats
    depth: int = 0
    feature: int = -1
    threshold: float = 0.0
    left: Node | None = None
    right: Node | None = None

    def probabilities(self, x: Floats) -> Floats:
        """Return the scores of the leaves that rows end in, shape (n, k)."""
        found = np.empty((len(x), len(self.scores)))
        waiting: list[tuple[Node, Ints]] = [(self, np.arange(len(x)))]
        while waiting:
            node, rows = waiting.pop()
            if node.left is None or node.right is None:
                found[rows] = node.scores
                continue
            left = x[rows, node.feature] <= node.threshold
            waiting += [(node.left, rows[left]), (node.right, rows[~left])]
        return found


def rebuild(
    asker: Asker, knows: Knowledge, precision: float, progress: Callable[[], None] = lambda: None
) -> Node | None:
    """Rebuild a tree until every node is known or the asker is spent; None when not even the root answers.

    Args:
        asker: whom to ask.
        knows: ranges of the features.
        precision: of thresholds, as a share of a feature's range.
        progress: called after each step.
    """
    nothing = np.full(knows.size, np.nan)
    try:
        root = Node(nothing, nothing, asker.ask(nothing[None])[0])
    except Spent:
        return None
    waiting = deque([root])
    try:
        while waiting:
            nodes = [waiting.popleft() for _ in range(min(_TOGETHER, len(waiting)))]
            waiting.extend(_grow(asker, knows, nodes, precision))
            progress()
    except Spent:
        pass
    return root


def _grow(asker: Asker, knows: Knowledge, nodes: list[Node], precision: float) -> list[Node]:
    """Find what nodes split on and where; returns their children."""
    d, n = knows.size, len(nodes)
    at = np.array([(node.low + node.high) / 2 for node in nodes])
    low = np.array([np.where(np.isnan(node.low), knows.low, node.low) for node in nodes])
    high = np.array([np.where(np.isnan(node.high), knows.high, node.high) for node in nodes])
    probes = np.repeat(at[:, None], 1 + 2 * d, axis=1)
    for j in range(d):
        probes[:, 1 + 2 * j, j], probes[:, 2 + 2 * j, j] = low[:, j], high[:, j]
    answers = asker.ask(probes.reshape(-1, d)).reshape(n, 1 + 2 * d, -1)
    splits: list[tuple[int, int]] = []
    for i, node in enumerate(nodes):
        node.scores = answers[i, 0]
        changing = np.flatnonzero(~same(answers[i, 1::2], answers[i, 2::2]))
        if len(changing) and node.depth < _DEEPEST:
            # Features that were used above come first: their path is resolved, so the split is nearer to the root.
            splits.append((i, min(changing.tolist(), key=lambda j: (bool(np.isnan(at[i, j])), j))))
    rows, feature = np.array([i for i, _ in splits], dtype=np.int64), np.array([j for _, j in splits], dtype=np.int64)
    lower, upper = low[rows, feature], high[rows, feature]
    home = answers[rows, 1 + 2 * feature]
    lower, upper = _bisect(asker, at[rows], feature, lower, upper, home, precision * (knows.high - knows.low)[feature])
    children: list[Node] = []
    for m, (i, j) in enumerate(splits):
        node, other = nodes[i], answers[i, 2 + 2 * j]
        node.feature, node.threshold = int(j), float(lower[m] + upper[m]) / 2
        node.left = _child(node, int(j), float(low[i, j]), float(lower[m]), home[m])
        node.right = _child(node, int(j), float(upper[m]), float(high[i, j]), other)
        children += [node.left, node.right]
    return children


def _bisect(
    asker: Asker,
    at: Floats,
    feature: Ints,
    lower: Floats,
    upper: Floats,
    home: Floats,
    width: Floats,
) -> tuple[Floats, Floats]:
    """Halve all intervals in lock-step until each is as narrow as asked; `home` is what the lower end answers."""
    lower, upper = lower.copy(), upper.copy()
    live = np.arange(len(at))
    while True:
        live = live[upper[live] - lower[live] > width[live]]
        if not len(live):
            return lower, upper
        middle = (lower[live] + upper[live]) / 2
        rows = at[live].copy()
        rows[np.arange(len(live)), feature[live]] = middle
        below = same(asker.ask(rows), home[live])
        lower[live] = np.where(below, middle, lower[live])
        upper[live] = np.where(below, upper[live], middle)


def _child(parent: Node, feature: int, low: float, high: float, scores: Floats) -> Node:
    lows, highs = parent.low.copy(), parent.high.copy()
    lows[feature], highs[feature] = low, high
    return Node(lows, highs, scores, parent.depth + 1)
