"""Asking for as long as an API answers."""

from __future__ import annotations

import numpy as np

from guard.selftest.base import Api, Refused, Rows
from guard.selftest.measures import Floats


def harvest(api: Api, x: Rows, classes: int) -> tuple[Rows, Floats]:
    """Ask all rows and keep what is answered before a refusal for good.

    Args:
        api: whom to ask.
        x: the queries.
        classes: width of the answers when there are none.

    Returns:
        (the queries that were answered, their scores of shape (m, k)).

    Raises:
        Refused: not one was answered.
    """
    try:
        answers = api.ask(x)
    except Refused as error:
        if error.answers is None or not len(error.answers):
            raise
        answers = error.answers
    if not len(answers):
        answers = np.empty((0, classes))
    return x[: len(answers)], answers
