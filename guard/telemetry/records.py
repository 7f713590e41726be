"""Requests as records: what the recorder's thread makes of what the event loop hands over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from guard.detectors.base import Keys
from guard.detectors.sketch import Sketch
from guard.evidence.recording import FIRST, MOST_CLASSES, RAW, TOP, WHOLE, Records, record_type
from guard.model.arrays import Floats


class Note(NamedTuple):
    """One request that waits to be written.

    Args:
        route: its name.
        sketch: how `raw` was made.
        client: keyed hash of its name.
        now_s: seconds since the epoch.
        keys: shape (n, 9).
        raw: shape (n, m), or None.
        scores: shape (n, K), or None.
        about: flags of all of its rows.
    """

    route: str
    sketch: Sketch
    client: int
    now_s: float
    keys: Keys
    raw: Floats | None
    scores: Floats | None
    about: int = 0


class Shape(NamedTuple):
    """What notes that are written together have in common.

    Args:
        sketch: how `raw` was made.
        width: m; 0 without sketches.
        classes: K where whole distributions are recorded.
        columns: scores an answer; 0 without usable scores.
    """

    sketch: Sketch
    width: int
    classes: int
    columns: int


def shape_of(note: Note) -> Shape:
    """Return what a note has to record."""
    n = len(note.keys)
    width = 0 if note.raw is None or len(note.raw) != n else note.raw.shape[1]
    columns = 0 if note.scores is None or len(note.scores) != n or note.scores.shape[1] < 2 else note.scores.shape[1]
    return Shape(note.sketch, width, columns if columns <= MOST_CLASSES else 0, columns)


def records_of(notes: list[Note], shape: Shape, width: int, classes: int) -> Records:
    """Return the records of notes of one shape, in a file's columns."""
    sizes = [len(note.keys) for note in notes]
    records = np.zeros(sum(sizes), dtype=record_type(width, classes))
    records["client"] = np.repeat(np.array([note.client for note in notes], dtype=np.uint64), sizes)
    records["time"] = np.repeat([note.now_s for note in notes], sizes)
    records["keys"] = np.concatenate([note.keys for note in notes])
    records["flags"] = np.repeat(np.array([note.about for note in notes], dtype=np.uint8), sizes)
    records["flags"][np.cumsum([0, *sizes[:-1]])] |= FIRST
    # A number beyond float32 becomes infinite, and is left out when it is read.
    with np.errstate(over="ignore"):
        if shape.width and shape.width == width:
            records["raw"] = np.concatenate([note.raw for note in notes if note.raw is not None])
            records["flags"] |= RAW
        if shape.columns:
            scores = np.concatenate([_probabilities(note.scores) for note in notes if note.scores is not None])
            records["top"] = scores.argmax(axis=1)
            two = np.partition(scores, -2, axis=1)
            records["best"], records["second"] = two[:, -1], two[:, -2]
            records["flags"] |= TOP
            if shape.columns == classes:
                records["scores"] = scores
                records["flags"][np.abs(scores.sum(axis=1) - 1.0) < 1e-3] |= WHOLE
    return records


def _probabilities(scores: Floats) -> Floats:
    """Return scores as they are, or where one is no probability (logits, their logarithms), what they stand for."""
    with np.errstate(invalid="ignore", over="ignore"):
        if scores.min() >= 0.0 and scores.max() <= 1.0 + 1e-6:
            return scores
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
