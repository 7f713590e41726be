"""What clients were told, by a witness that knows the model: how much it was, and whether Guard had its hands on it.

It stands beside `tests.support.model`, whose scores are a fixed function of a row, and takes note of every answer of
the Open Inference API. What it says of budgets it says of answers that arrived, so it may know of fewer than were
charged, never of more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tests.support.model import CLASSES, scores

if TYPE_CHECKING:
    from tests.support.clients import Answered

_SAME = 1e-9
STATE_AWAY = frozenset(
    {
        "the state cannot be reached",
        "the state stopped answering",
        "too many requests wait for the state",
        "the ledger's terms have changed",
    }
)
"""What a client may be told, with a 503, while Redis is away."""


class Witness:
    """Takes note of answers; `route` is what stands for the model's name in the path."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        """Rows answered, by route and client."""
        self.graded: dict[tuple[str, str], set[tuple[float, ...]]] = defaultdict(set)
        """Queries that were answered with more than a label, likewise."""
        self.releases: dict[tuple[str, str], set[tuple[tuple[float, ...], bytes]]] = defaultdict(set)
        """Queries with what was said to them, likewise."""
        self.outcomes: Counter[str] = Counter()
        self.unguarded: list[str] = []
        self.strange: list[str] = []
        self.longest_s = 0.0

    def saw(self, route: str, client: str, rows: list[list[float]], got: Answered, took_s: float) -> bool:
        """Take note of one answer; return whether it was let out."""
        self.longest_s = max(self.longest_s, took_s)
        if got.status != 200:
            self._refused(got)
            return False
        self.outcomes["200"] += 1
        self.rows[route, client] += len(rows)
        told = np.reshape(np.asarray(got.json["outputs"][0]["data"], dtype=np.float64), (-1, CLASSES))
        for row, said in zip(rows, told, strict=True):
            query = tuple(row)
            if np.abs(said - np.asarray(scores(row))).max() < _SAME:
                self.unguarded.append(f"{route}: {client} was told what the model said")
            self.releases[route, client].add((query, said.tobytes()))
            if not np.isin(said, (0.0, 1.0)).all():
                self.graded[route, client].add(query)
        return True

    def _refused(self, got: Answered) -> None:
        document = got.json if got.body else {"error": ""}  # what is refused before it is read has no body
        said = str(document.get("error"))
        self.outcomes[f"{got.status} {said}"] += 1
        if set(document) != {"error"} or (
            said in STATE_AWAY and (got.status != 503 or "retry-after" not in got.headers)
        ):
            self.strange.append(f"{got.status} {got.headers} {got.body[:200]!r}")

    def over(self, told: Mapping[tuple[str, str], int], limits: Mapping[str, int]) -> list[str]:
        """Return which clients were told more than a route's limit."""
        return [
            f"{route}: {client} was told {count} of {limits[route]}"
            for (route, client), count in told.items()
            if route in limits and count > limits[route]
        ]

    def distinct(self) -> dict[tuple[str, str], int]:
        """Return how many queries were answered with more than a label, by route and client."""
        return {name: len(queries) for name, queries in self.graded.items()}

    def drawn(self, route: str, clients: Iterable[str]) -> int:
        """Return how many releases of a route must have been drawn for these clients, at least."""
        return sum(len(self.releases[route, client]) for client in clients)
