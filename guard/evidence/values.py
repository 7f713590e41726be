"""The values of detection: what signals are, how counts are numbered, and what a tier's evidence is.

A **signal** is one number per query (or per answer) that an attack moves; a detector has one or two. `WINDOW` queries
make a **window**, whose mean falls into one of at most `BINS` **bins**, cut at benign quantiles. `BUCKET` windows of a
client make a **bucket**, numbered from 0; a test may start anew at every bucket. Only the newest `KEPT` buckets are
kept, so every structure is bounded, and so is how far back evidence reaches.

Counts travel as a mapping from a **field** to an integer: field = (bucket * 32 + signal) * 8 + bin. Replicas merge by
adding, in any order.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Tier = Literal["structure", "distribution"]

WINDOW = 16
"""Queries (or answers) in a window."""
BUCKET = 16
"""Windows in a bucket: 256 queries."""
KEPT = 32
"""Newest buckets of a client that are kept."""
BINS = 8
"""Most bins of a signal."""
MOST_SIGNALS = 32


class Signal(NamedTuple):
    """One number a query or answer.

    Args:
        name: unique: the detector's kind, with `.extreme` and the like where it has several.
        detector: the kind of the detector that measures it.
        tier: `structure` may deny; `distribution` may degrade.
    """

    name: str
    detector: str
    tier: Tier


class Strength(NamedTuple):
    """A client's evidence, as natural logarithms of e-values; 0 knows nothing, and is where everybody begins.

    Args:
        any: over all signals.
        structure: over the structure tier's signals alone.
    """

    any: float = 0.0
    structure: float = 0.0


def field(bucket: int, signal: int, bin_: int) -> int:
    """Return the field of a count.

    >>> field(2, 1, 3), field(0, 0, 0)
    (523, 0)
    """
    return (bucket * MOST_SIGNALS + signal) * BINS + bin_


def unfield(number: int) -> tuple[int, int, int]:
    """Return (bucket, signal, bin) of a field.

    >>> unfield(523)
    (2, 1, 3)
    """
    rest, bin_ = divmod(number, BINS)
    bucket, signal = divmod(rest, MOST_SIGNALS)
    return bucket, signal, bin_
