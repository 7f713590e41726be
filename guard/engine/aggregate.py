"""A stand-in until the ensembles' own is here."""

from __future__ import annotations

from guard.errors import UpstreamError
from guard.model.prediction import Answer
from guard.privacy.measurement import Bounds


def combine(answers: list[Answer | None], aggregate: str, quorum: int, bounds: Bounds | None, rows: int) -> Answer:
    """Return the aggregate of the models' answers."""
    del answers, aggregate, quorum, bounds, rows
    raise UpstreamError("too few models answered", code="no_quorum")
