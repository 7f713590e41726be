"""A client's log as detectors see it: signals, and their means over windows.

`guard.engine.tracker` does the same query by query and keeps nothing but counts; here the means themselves are wanted,
because bins are cut from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from guard.calibrate.read import ClientLog
from guard.detectors.base import Bound, Features, Margins
from guard.detectors.stream import Stream
from guard.evidence.values import WINDOW
from guard.model.arrays import Floats

_ROWS = 256
"""Rows at a time: what a detector makes of a batch is what it makes of its rows one by one."""


_FAR = 1e6
"""Where a sketcher cuts standardised numbers off."""


class View(NamedTuple):
    """A client's queries and answers as detectors take them.

    Args:
        features: of all its queries.
        margins: of its answers, shape (n,), NaN where unknown.
    """

    features: Features
    margins: Floats

    def part(self, start: int, end: int) -> View:
        """Return some of its rows."""
        keys, vectors, scaled = self.features
        part = Features(keys[start:end], None if vectors is None else vectors[start:end], scaled)
        return View(part, self.margins[start:end])

    def known(self) -> Floats:
        """Return the margins that are known."""
        return self.margins[~np.isnan(self.margins)]


def view(log: ClientLog, mean: Floats, scale: Floats) -> View:
    """Return a log as detectors see it.

    Args:
        log: the client's.
        mean: of the sketch, shape (m,).
        scale: likewise.
    """
    vectors = None if log.raw is None else np.clip((log.raw.astype(np.float64) - mean) / scale, -_FAR, _FAR)
    return View(Features(log.keys, vectors, vectors is not None), log.margins)


def signals(queries: Sequence[Bound], answers: Sequence[Bound], client: View) -> tuple[Floats, Floats]:
    """Return the signals of every query and of every answer whose scores are known.

    Args:
        queries: detectors of side `query`.
        answers: detectors of side `answer`.
        client: what it asked and was answered, n rows.

    Returns:
        Shapes (n, s) and (r, s').
    """
    stream = Stream(queries)
    starts = range(0, len(client.features.keys), _ROWS)
    asked = np.concatenate([stream.ask(client.part(start, start + _ROWS).features) for start in starts])
    known = Margins(client.known())
    said = [bound.measure_answers(known) for bound in answers]
    return asked, np.concatenate(said, axis=1) if said else np.zeros((len(known.margin), 0))


def means(rows: Floats) -> Floats:
    """Return the means over whole windows, shape (w, s), of rows of shape (n, s).

    >>> means(np.arange(40.0)[:, None]).tolist()
    [[7.5], [23.5]]
    """
    whole = len(rows) // WINDOW
    return rows[: whole * WINDOW].reshape(whole, WINDOW, rows.shape[1]).mean(axis=1)


def windows(queries: Sequence[Bound], answers: Sequence[Bound], client: View) -> list[Floats]:
    """Return the window means of every signal, those of queries first; shape (w,) each."""
    asked, said = signals(queries, answers, client)
    return [column.copy() for part in (means(asked), means(said)) for column in part.T]
