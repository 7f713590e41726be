"""Asking for as long as an API answers."""

from __future__ import annotations

import numpy as np

from guard.selftest.base import Api, Refused, Rows
from guard.selftest.measures import Floats

PATIENCE = 64
"""Rows in a row, refused for what they are, after which nobody asks on: a threshold withholds some, a domain all."""


def harvest(api: Api, x: Rows, classes: int) -> tuple[Rows, Floats]:
    """Ask all rows and keep what is answered before a refusal for good; a row refused for what it is is passed over.

    Args:
        api: whom to ask.
        x: the queries.
        classes: width of the answers when there are none.

    Returns:
        (the queries that were answered, their scores of shape (m, k)).

    Raises:
        Refused: not one was answered.
    """
    kept: list[int] = []
    parts: list[Floats] = [np.empty((0, classes))]
    at, passed_over = 0, 0
    while at < len(x):
        refused = None
        try:
            answers = api.ask(x[at:])
        except Refused as error:
            refused, answers = error, error.answers
        if answers is not None and len(answers):
            kept += range(at, at + len(answers))
            parts.append(answers)
            at, passed_over = at + len(answers), 0
        if refused is None:
            break
        at, passed_over = at + 1, passed_over + 1
        if refused.status not in (413, 422) or passed_over >= PATIENCE or at >= len(x):
            if not kept:
                raise refused
            break
    return _chosen(x, kept), np.concatenate(parts[1:] or parts)


def _chosen(x: Rows, kept: list[int]) -> Rows:
    if len(kept) == len(x):
        return x
    return x[kept] if isinstance(x, np.ndarray) else [x[i] for i in kept]
