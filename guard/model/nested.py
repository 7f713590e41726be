"""Nested lists of decoded JSON as arrays of numbers.

`numpy.array` does this too, but makes strings of numbers as soon as one member is a string, each as long as the
longest: one long text among many short members would take gigabytes. This refuses at the first that is no number.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import cast

import numpy as np

from guard.model.arrays import Floats


def flatten(values: Sequence[object]) -> tuple[Sequence[object], tuple[int, ...]] | None:
    """Return (all members in order, shape), or None when nested lists are empty or of different lengths.

    >>> flatten([[1, 2], [3, 4]])
    ([1, 2, 3, 4], (2, 2))
    >>> flatten([[1], [2, 3]]) is None
    True
    """
    if not values:
        return None
    shape = [len(values)]
    while isinstance(first := values[0], list):
        width = len(cast("list[object]", first))
        lists = cast("Sequence[list[object]]", values)
        try:
            if not width or set(map(len, lists)) != {width}:
                return None
            values = list(chain.from_iterable(lists))
        except TypeError:
            return None
        shape.append(width)
    return values, tuple(shape)


def floats(members: Sequence[object]) -> Floats | None:
    """Return numbers as a float64 array of one dimension; None when any member is not a number.

    >>> floats([1, 2.5]), floats(["1"]) is None, floats([True]) is None
    (array([1. , 2.5]), True, True)
    """
    if not members or type(members[0]) is bool:
        return None
    try:
        return np.frombuffer(array("d", cast("Sequence[float]", members)), dtype=np.float64)
    except (TypeError, OverflowError):
        return None
