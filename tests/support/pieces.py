"""Bytes in pieces, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut `data` at places that any numbers give."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
    for start, end in pairwise(places):
        yield data[start:end]


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """Cut `data` everywhere."""
    for place in range(len(data)):
        yield data[place : place + 1]
