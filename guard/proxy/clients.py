"""The clients that were seen last, for operators: names and counts in memory, bounded, never a metric's label."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.model.client import Client

_MAX_ROUTES = 64
CROWD = 1000
"""Requests of one bare address that look like an ingress in front, when hardly anybody else is seen."""
_CROWD_SHARE = 0.9


@dataclass(slots=True)
class Sighting:
    """What is remembered of a client.

    Args:
        client: as identity named it.
        last_s: when it was last seen, seconds since the epoch.
        requests: how many since it entered the list.
        rows: likewise.
        routes: the routes that it used.
    """

    client: Client
    last_s: float = 0.0
    requests: int = 0
    rows: int = 0
    routes: set[str] = field(default_factory=set[str])


class RecentClients:
    """The clients seen most recently.

    Args:
        limit: how many are remembered; the one not seen for longest is forgotten first.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._seen: OrderedDict[str, Sighting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def seen(self, client: Client, route: str, rows: int, now: float) -> None:
        """Note one request of `rows` rows."""
        name = client.name
        sighting = self._seen.get(name)
        if sighting is None:
            if len(self._seen) >= self._limit:
                self._seen.popitem(last=False)
            sighting = self._seen[name] = Sighting(client)
        else:
            self._seen.move_to_end(name)
            sighting.client = client
        sighting.last_s = now
        sighting.requests += 1
        sighting.rows += rows
        routes = sighting.routes
        if route not in routes and len(routes) < _MAX_ROUTES:
            routes.add(route)

    def latest(self, limit: int) -> list[Sighting]:
        """Return at most `limit` clients, the one seen last first."""
        result: list[Sighting] = []
        for sighting in reversed(self._seen.values()):
            if len(result) >= limit:
                break
            result.append(sighting)
        return result

    def crowd(self) -> str:
        """Return the address that nine in ten of a thousand requests or more came from: an ingress's; empty otherwise.

        >>> from guard.model.client import Client
        >>> recent = RecentClients()
        >>> for _ in range(CROWD):
        ...     recent.seen(Client("address:192.0.2.1", "address:192.0.2.1", "address"), "digits", 1, 0.0)
        >>> recent.crowd()
        'address:192.0.2.1'
        """
        most = max(self._seen.values(), key=lambda sighting: sighting.requests, default=None)
        if most is None or most.client.source != "address" or most.requests < CROWD:
            return ""
        total = sum(sighting.requests for sighting in self._seen.values())
        return most.client.name if most.requests >= _CROWD_SHARE * total else ""
