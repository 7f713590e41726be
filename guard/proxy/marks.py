"""Marked traffic: a self-test that attacks a running Guard says so in a header, and Guard says so in its log.

The mark is a courtesy of whoever runs the self-test, never evidence: any client can send it and it changes no answer.
So it may not fill the log either: a run is logged once, and no more than `MOST` runs between two starts.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.model.client import Client
    from guard.ports import Headers
    from guard.telemetry.pseudonyms import Pseudonyms

log = logging.getLogger("guard.selftest")

HEADER = b"x-guard-selftest"
MOST = 64
_RUN = re.compile(rb"[A-Za-z0-9-]{1,64}")


class Marks:
    """The self-test runs that were seen.

    Args:
        pseudonyms: clients' names as logs may hold them.
    """

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._runs: set[bytes] = set()

    def note(self, headers: Headers, route: str, client: Client | None) -> None:
        """Log a request's self-test run, if it is marked and the run is new.

        Args:
            headers: names in lower case.
            route: the route's name.
            client: who asked; None when nobody was named.
        """
        for name, value in headers:
            if name == HEADER:
                if value not in self._runs:
                    self._log(value, route, client)
                return

    def _log(self, run: bytes, route: str, client: Client | None) -> None:
        if len(self._runs) >= MOST or not _RUN.fullmatch(run):
            return
        self._runs.add(run)
        who = "none" if client is None else self._pseudonyms.of(client.name)
        log.info("self-test run %s began on route %s, client %s", run.decode("ascii"), route, who)
        if len(self._runs) == MOST:
            log.warning("%d self-test runs were seen since the start; no further one is logged", MOST)
