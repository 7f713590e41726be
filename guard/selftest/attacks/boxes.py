"""A decision tree as an outsider rebuilds it from whole queries: one box for each leaf (path finding).

The whole answer stands for the leaf's id. From a point inside a leaf, the line along each feature leaves the leaf's box
at most once on either side, so bisection finds its faces. Just behind each face another leaf begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from guard.selftest.attacks.asking import Asker, Spent, same
from guard.selftest.base import Knowledge
from guard.selftest.measures import Floats, Ints

_CHUNK = 256


@dataclass(frozen=True)
class Box:
    """A leaf: low < x <= high.

    Args:
        low: shape (d,), -inf where no face was found.
        high: shape (d,), inf where none was.
        scores: what its inside answers, shape (k,).
        found_at: rows asked by then.
    """

    low: Floats
    high: Floats
    scores: Floats
    found_at: int


@dataclass(frozen=True)
class Boxes:
    """A copy made of boxes; where two overlap, the earlier one counts.

    Args:
        boxes: at least one.
        std: unit of distance for each feature, shape (d,).
    """

    boxes: list[Box]
    std: Floats

    def probabilities(self, x: Floats) -> Floats:
        """Return the scores of the box that holds each row, or of the nearest one, shape (n, k)."""
        low, high = np.array([b.low for b in self.boxes]), np.array([b.high for b in self.boxes])
        scores = np.array([b.scores for b in self.boxes])
        found: list[Floats] = []
        for start in range(0, len(x), _CHUNK):
            z = x[start : start + _CHUNK, None]
            distance = ((np.maximum(low - z, 0) + np.maximum(z - high, 0)) / self.std).sum(axis=2)
            distance -= ((z > low) & (z <= high)).all(axis=2)  # a face belongs to one box only
            found.append(scores[distance.argmin(axis=1)])
        return np.concatenate(found)


def find_boxes(
    asker: Asker,
    knows: Knowledge,
    starts: Iterable[Floats],
    precision: float,
    progress: Callable[[], None] = lambda: None,
) -> list[Box]:
    """Find leaves until all points that were met lie in known boxes, or the asker is spent.

    Args:
        asker: whom to ask.
        knows: ranges of the features.
        starts: points to start from, shape (d,) each, taken when no leaf is left to enter.
        precision: of faces, as a share of a feature's range.
        progress: called after each leaf.
    """
    boxes: list[Box] = []
    behind: deque[Floats] = deque()
    waiting = iter(starts)
    try:
        while (x := behind.popleft() if behind else next(waiting, None)) is not None:
            if any(((x > b.low) & (x <= b.high)).all() for b in boxes):
                continue
            box, points = _explore(asker, knows, x, precision)
            boxes.append(box)
            behind.extend(points)
            progress()
    except Spent:
        pass
    return boxes


def _explore(asker: Asker, knows: Knowledge, x: Floats, precision: float) -> tuple[Box, list[Floats]]:
    """Find the faces of the leaf around `x` on all lines in lock-step; returns it and points just behind its faces."""
    d = len(x)
    feature = np.repeat(np.arange(d), 2)
    outer = np.stack((knows.low, knows.high), axis=1).ravel()
    answers = asker.ask(np.concatenate((x[None], _moved(x, feature, outer))))
    home = answers[:1]
    inner, live = x[feature], np.flatnonzero(~same(answers[1:], home))
    faces = live
    width = precision * (knows.high - knows.low)[feature]
    while True:
        live = live[np.abs(inner[live] - outer[live]) > width[live]]
        if not len(live):
            break
        middle = (inner[live] + outer[live]) / 2
        inside = same(asker.ask(_moved(x, feature[live], middle)), home)
        inner[live] = np.where(inside, middle, inner[live])
        outer[live] = np.where(inside, outer[live], middle)
    low, high = np.full(d, -np.inf), np.full(d, np.inf)
    for line in faces:
        (high if line % 2 else low)[feature[line]] = (inner[line] + outer[line]) / 2
    points = list(_moved(x, feature[faces], outer[faces]))
    return Box(low, high, home[0], asker.answered), points


def _moved(x: Floats, feature: Ints, value: Floats) -> Floats:
    """Return copies of `x`, shape (m, d), each with one feature set."""
    rows = np.repeat(x[None], len(feature), axis=0)
    rows[np.arange(len(feature)), feature] = value
    return rows
