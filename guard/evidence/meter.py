"""The information meter: how well the answers given so far clone the model, as a running surrogate says.

Sums A = sum phi phi', B = sum phi y' over a client's graded answers, with phi = (1, <= 32 linear, random Fourier
features); a ridge regression on them is a surrogate, and its agreement with the model on a profile's held-out queries
is the reading. It understates what a strong thief gets: what is charged is `reading + MARGIN`.
"""

from __future__ import annotations

from guard.model.arrays import Floats, Ints

MARGIN = 0.3
"""What the reading may understate by, in agreement; measured in `docs/detection.md`."""


class MeterBase:
    """What all meters of a route share: features and held-out queries.

    Args:
        held_out: standardised queries, shape (h, m).
        held_out_top: the model's labels of them, shape (h,).
        classes: K.
        salt: chooses the random features.
    """

    def __init__(self, held_out: Floats, held_out_top: Ints, classes: int, salt: bytes) -> None:
        raise NotImplementedError


class Meter:
    """One principal's meter; its size is bounded and does not grow.

    Args:
        base: shared.
    """

    __slots__ = ()

    def __init__(self, base: MeterBase) -> None:
        raise NotImplementedError

    def add(self, vectors: Floats, released: Floats) -> bool:
        """Fold graded answers.

        Args:
            vectors: standardised queries, shape (n, m).
            released: the scores that were released, shape (n, K).

        Returns:
            Whether the reading was worked out anew: seldom, at geometrically growing numbers of answers.
        """
        raise NotImplementedError

    @property
    def reading(self) -> float:
        """The surrogate's agreement with the model, in [0, 1], as last worked out; 0 before that."""
        raise NotImplementedError
