"""Making a null from honest clients' windows: bins, prototypes, bets."""

from __future__ import annotations

from collections.abc import Sequence

from guard.evidence.null import Null
from guard.evidence.values import Signal
from guard.model.arrays import Floats

PROTOTYPES = 64


def fit_null(signals: Sequence[Signal], windows: Sequence[Sequence[Floats]], seed: int) -> Null:
    """Fit edges, prototypes and bets.

    Args:
        signals: S of them.
        windows: by client, then by signal: window means in order, shape (w,); may be empty for a signal.
        seed: for k-means.
    """
    raise NotImplementedError
