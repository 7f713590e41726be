"""How a profile is asked for, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from guard.calibrate.courses import Course
from guard.calibrate.poison import Suspect
from guard.calibrate.read import CalibrationError
from guard.detectors.base import Detector
from guard.evidence.levels import Level

Poisoned = Literal["refuse", "leave_out", "keep"]
LEVELS: tuple[tuple[Literal["any", "structure"], float], ...] = (("any", 1e-2), ("any", 1e-3), ("structure", 1e-3))
"""The levels of the usual ladder: alert, degrade, deny."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a profile is made.

    Args:
        detectors: which are fitted; empty for all.
        seed: of every draw.
        image: queries are images, whatever the sketch says: augmented copies differ in light and noise.
        poisoned: what becomes of clients that look like thieves.
        made: when, ISO 8601, UTC.
        progress: told what is done, and how much of it, from 0 to 1.
    """

    detectors: tuple[Detector, ...] = ()
    seed: int = 0
    image: bool = False
    poisoned: Poisoned = "refuse"
    made: str = ""
    progress: Callable[[str, float], None] = lambda _what, _share: None


class LevelOf(NamedTuple):
    """A level of the usual ladder.

    Args:
        tier: whose evidence.
        level: its threshold and what stands behind it.
    """

    tier: str
    level: Level


@dataclass(frozen=True, slots=True)
class Findings:
    """What is to be told of a profile, beside what is in it.

    Args:
        suspects: clients that look like thieves.
        left_out: whether they were left out.
        short: clients of fewer than `WINDOW` queries, which were not used.
        lengths: 5%, 25%, 50%, 75% and 95% of the used clients' numbers of queries.
        parts: how many clients served for fitting detectors, for the null, and were held out.
        on: kinds of detectors that are on.
        off: kinds that are off, and why.
        levels: of the usual ladder.
        curves: evidence against held-out clients, those that got furthest first, at most 200.
        warnings: what else an operator should know.
    """

    suspects: tuple[Suspect, ...]
    left_out: bool
    short: int
    lengths: tuple[int, ...]
    parts: tuple[int, int, int]
    on: tuple[str, ...]
    off: tuple[tuple[str, str], ...]
    levels: tuple[LevelOf, ...]
    curves: tuple[Course, ...]
    warnings: tuple[str, ...] = ()


class PoisonedLogs(CalibrationError):
    """Logs with clients that look like thieves.

    Args:
        found: who, the strongest first.
    """

    def __init__(self, found: Sequence[Suspect]) -> None:
        super().__init__(f"{len(found)} clients look like thieves")
        self.found = tuple(found)
