"""What detection and operators should know afterwards: the log, and the audit log where there is one.

Events are rare: a client reaches a step of the ladder, a profile goes stale. They hold no query, no score and no
credential; clients are pseudonyms by keyed hash.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from guard.telemetry.logs import request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.ports import AuditSink

log = logging.getLogger("guard.audit")


class Events:
    """Tells of events.

    Args:
        sink: the audit log; None for the log alone.
    """

    def __init__(self, sink: AuditSink | None) -> None:
        self._sink = sink

    def add(self, event: Mapping[str, object]) -> None:
        """Take one event; returns at once.

        Args:
            event: JSON values, `event` first.
        """
        log.warning("%s", json.dumps(event, ensure_ascii=False, separators=(",", ":")))
        if self._sink is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            request = {"id": request_id.get()} if request_id.get() else {}
            self._sink.add({"kind": "event", "time": now, **request, **event})
