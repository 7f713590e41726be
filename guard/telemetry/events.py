"""What detection and operators should know afterwards: one JSON line an event, written by a thread.

Events are rare (a client reaches a step of the ladder, a profile goes stale), so the buffer is small and bounded; what
does not fit is counted. Lines hold no query, no score and no credential; clients are pseudonyms by keyed hash.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping

log = logging.getLogger("guard.audit")

_MOST_WAITING = 4096


class Events:
    """The end of the audit file, and the log.

    Args:
        path: the file, made with mode 0600 and only ever added to; None for the log alone.
        dropped: called for every event that is lost.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | None, dropped: Callable[[], None]) -> None:
        self._dropped = dropped
        self._queue: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        if path is not None:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._thread = threading.Thread(target=self._write, args=(descriptor,), name="guard-audit", daemon=True)
            self._thread.start()

    def add(self, event: Mapping[str, object]) -> None:
        """Take one event; returns at once.

        Args:
            event: JSON values, `event` first.
        """
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        log.warning("%s", line)
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(line.encode("utf-8", "surrogatepass") + b"\n")
        except queue.Full:
            self._dropped()

    def _write(self, descriptor: int) -> None:
        while (line := self._queue.get()) is not None:
            try:
                # One write of a whole line: what others add meanwhile stands before it or behind it.
                if os.write(descriptor, line) != len(line):
                    self._dropped()
                if self._queue.empty():
                    os.fsync(descriptor)
            except OSError:
                self._dropped()
        os.close(descriptor)

    def close(self) -> None:
        """Write what is waiting and close the file."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=10)
            self._thread = None
