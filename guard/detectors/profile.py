"""A profile: what `guard calibrate` learnt of a route's honest traffic, as one JSON file.

Arrays are base64 of little-endian bytes with dtype and shape; a SHA-256 over everything else finds a damaged file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from guard.detectors.base import Reference
from guard.detectors.sketch import Sketch
from guard.evidence.null import Null
from guard.model.arrays import Floats, Ints

VERSION = 1
MAX_BYTES = 64 * 2**20


class ProfileError(ValueError):
    """A profile that cannot be used: damaged, of another version, or not a profile; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What is known of honest traffic.

    Args:
        name: the route that it was recorded on.
        made: when, ISO 8601, UTC.
        sketch: how queries become vectors.
        mean: of the sketch, shape (m,).
        scale: its standard deviation, at least a millionth of the largest, shape (m,).
        references: what each detector learnt, by kind; the keys are the detectors that the null was fitted with.
        null: what honest clients look like; signals in the order of `DETECTORS`, queries' before answers'.
        sups: held-out honest clients' greatest ln e over their stream, sorted, by tier.
        horizon: queries that three in four of the held-out streams reach.
        clients: clients that the null was fitted to, augmented ones not counted.
        augmented: augmented clients beside them.
        queries: calibration queries in all.
        left_out: clients left out as poisoned.
        clip_mean: nu of `guard.evidence.pool`.
        held_out: standardised queries for the information meter, shape (h, m).
        held_out_top: the model's label of each, shape (h,).
        answers: calibration answers, whole distributions, shape (r, k); r may be 0.
        digest: SHA-256 of the file's content, hexadecimal.
    """

    name: str
    made: str
    sketch: Sketch
    mean: Floats
    scale: Floats
    references: Mapping[str, Reference]
    null: Null
    sups: Mapping[Literal["any", "structure"], Floats]
    horizon: int
    clients: int
    augmented: int
    queries: int
    left_out: int
    clip_mean: float
    held_out: Floats
    held_out_top: Ints
    answers: Floats
    digest: str = ""


def encode(profile: Profile) -> bytes:
    """Return the profile as a file's content."""
    raise NotImplementedError


def decode(data: bytes) -> Profile:
    """Read a profile.

    Raises:
        ProfileError: it cannot be used.
    """
    raise NotImplementedError
