"""What was answered, and whether a fault explains it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from tests.support.witness import STATE_AWAY, Witness

if TYPE_CHECKING:
    from tests.support.clients import Answered

GRACE_S = 3.0
"""What was begun while a fault lasted may be answered this much later."""
LONGEST_S = 6.0
READ_TIMEOUT_S = 3.0


class Notes:
    """Takes every answer, and tells which are not explained.

    Args:
        began: when the load began, by the monotonic clock.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.witness = Witness()
        self.causes: Counter[str] = Counter()
        self.unexplained: list[str] = []
        self.late: list[str] = []
        self.faults: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._took: dict[int, list[float]] = defaultdict(list)

    def fault(self, name: str, lasts_s: float) -> None:
        """Say that a fault begins, and about how long it lasts."""
        self.faults[name] = self.faults.get(name, 0) + 1
        self._until[name] = time.monotonic() + lasts_s + GRACE_S

    def over(self, name: str) -> None:
        """Say that a fault is over."""
        self._until[name] = time.monotonic() + GRACE_S

    def failing(self, name: str) -> bool:
        """Say whether what happens now may be due to a fault."""
        return time.monotonic() < self._until.get(name, 0.0)

    def saw(self, kind: str, route: str, client: str, rows: list[list[float]], got: Answered, took_s: float) -> None:
        """Take note of one answer to a well-formed request."""
        self.witness.saw(route, client, rows, got, took_s)
        if took_s > LONGEST_S:
            self.late.append(f"{kind} waited {took_s:.1f} s for {got.status}")
        if got.status == 200 and kind == "honest":
            self._took[int((time.monotonic() - self.began) // 60)].append(took_s)
        said = "" if got.status == 200 or not got.body else str(got.json.get("error"))
        cause = self.cause(kind, route, got.status, said)
        if got.status == 408 and took_s >= READ_TIMEOUT_S:
            cause = "the load itself was late"  # on a machine that is busy with something else
        if cause is None:
            self.unexplained.append(f"{time.monotonic() - self.began:.1f} s: {kind} on {route}: {got.status} {said}")
        self.causes[cause or "unexplained"] += 1

    def cause(self, kind: str, route: str, status: int, said: str) -> str | None:
        """Return why a request was answered so; None when nothing explains it."""
        if status == 200:
            return "answered"
        if status == 503 and said in STATE_AWAY and self.failing("redis"):
            return "Redis was away"
        if status == 503 and said in STATE_AWAY and self.failing("stall"):
            return "the machine stood still"
        if status in (502, 504) and (route == "faulty" or self.failing("model")):
            return f"the model failed ({status})"
        if status == 502 and said == "upstream closed the connection before its response was complete":
            return "the model closed a connection that was kept (502)"  # the broken model `closing` does, unasked
        if status == 503 and route == "faulty" and said == "the model is busy":
            return "the model was busy"
        if status == 429 and kind == "limited":
            return "the budget was spent"
        if status == 403 and kind == "thief":
            return "the thief was denied"
        return None

    def lost(self, kind: str, error: Exception) -> None:
        """Take note of a connection that Guard ended without having said so."""
        self.causes["unexplained"] += 1
        self.unexplained.append(f"{time.monotonic() - self.began:.1f} s: {kind}: {type(error).__name__} {error}")

    def latencies(self) -> list[tuple[int, int, float, float]]:
        """Return (minute, answers, p50 ms, p99 ms) of honest clients."""
        return [
            (minute, len(took), 1e3 * float(np.median(took)), 1e3 * float(np.percentile(took, 99)))
            for minute, took in sorted(self._took.items())
        ]
