"""The audit log's buffer and its writer: requests leave entries, a thread chains, writes and signs them.

Theory of operation. `add` makes JSON of an entry and leaves it in a bounded buffer; the event loop does no more. The
thread lets them gather, chains what has come, writes it in one piece, and every second brings it to the disk and signs
the head. What was chained is written or tried again, never thrown away: only entries that found no room
are lost, and a line of the chain says how many.

There is room while less than `ROOMY` of the buffer is taken and what waits has not waited for too long:
a target that has failed for long, or hangs, must not be found out only when the buffer is full. The rest of the buffer
is for requests that were let in while there was room; those that were refused before they cost anything leave it to
them.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import orjson

from guard.telemetry.audit_chain import Chain, Signer, signed
from guard.telemetry.audit_target import PACE, Pace, Target

log = logging.getLogger("guard.audit")

MOST_LINES = 2**15
MOST_BYTES = 2**25
LONGEST_ENTRY = 2**15
ROOMY = 0.75
QUIET = 10
"""Looks without an entry until the thread sleeps."""
_AT_ONCE = 1000
"""Lines chained at once."""


class Losses(Protocol):
    """Counts what is lost."""

    def audit_dropped(self) -> None:
        """Count an entry that was lost."""
        ...


class AuditLog:
    """An `AuditSink` that chains and signs.

    Args:
        target: where lines go.
        signer: the guard's key.
        losses: counts what is lost.
        about: members of the start line: the guard's version, its instance, the policy's digest.
        clock_s: wall clock, for what the log says of itself.
        most_lines: bound of the buffer.
        most_bytes: likewise.
        pace: when things are done.
    """

    def __init__(
        self,
        target: Target,
        signer: Signer,
        losses: Losses,
        about: Mapping[str, object],
        *,
        clock_s: Callable[[], float] = time.time,
        most_lines: int = MOST_LINES,
        most_bytes: int = MOST_BYTES,
        pace: Pace = PACE,
    ) -> None:
        self._pace = pace
        self._target, self._signer, self._losses, self._clock_s = target, signer, losses, clock_s
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self._roomy_lines, self._roomy_bytes = int(most_lines * ROOMY), int(most_bytes * ROOMY)
        self._entries: deque[bytes] = deque()
        # Each is written by one thread only: what is waiting is the difference.
        self._added = self._added_bytes = 0
        self._chained = self._chained_bytes = self._written = self._written_bytes = 0
        self._lost_costly = self._lost_cheap = 0
        self._told = (0, 0)
        self._due = math.inf
        """When what waits has waited for too long."""
        self._pending: list[bytes] = []
        self._dirty = False
        self._synced_s = self._checked_s = time.monotonic()
        self._unchecked = self._signed_seq = 0
        self._rotate_s = -math.inf
        self._troubled = self._stopped = self._asleep = False
        self._quiet = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._give_up_s = math.inf
        chain, known, found = target.origin
        self._chain: Chain = chain
        self._log = known or secrets.token_hex(8)
        self._seal("start", {**about, "found": found})
        self._thread = threading.Thread(target=self._run, name="guard-audit", daemon=True)
        self._thread.start()

    @property
    def sequence(self) -> int:
        """Number of the last line that is on the disk, under a signed head."""
        return self._signed_seq

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return self._added - self._written

    def room(self) -> bool:
        """Return False when what is decided now might not be put down."""
        return (
            self._added - self._written < self._roomy_lines
            and self._added_bytes - self._written_bytes < self._roomy_bytes
            and time.monotonic() < self._due
        )

    def add(self, entry: Mapping[str, object]) -> None:
        """Take one entry; returns at once and never raises."""
        try:
            made = orjson.dumps(entry)
        except TypeError:
            log.exception("an entry of the audit log is no JSON")
            made = b""
        costs = entry.get("outcome", "ok") == "ok" or "charges" in entry
        if not self._fits(len(made), costs=costs):
            if costs:
                self._lost_costly += 1
            else:
                self._lost_cheap += 1
            self._losses.audit_dropped()
            return
        self._entries.append(made)
        self._added += 1
        self._added_bytes += len(made)
        if self._due == math.inf:
            self._due = time.monotonic() + self._pace.patience_s
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def _fits(self, size: int, *, costs: bool) -> bool:
        if not 2 < size <= LONGEST_ENTRY or self._closing.is_set():
            return False
        if (
            self._added - self._written >= self._most_lines
            or self._added_bytes - self._written_bytes >= self._most_bytes
        ):
            return False
        return costs or self.room()

    def close(self) -> None:
        """Write what is waiting and sign the end; gives up when that takes too long. May be called twice."""
        self._give_up_s = time.monotonic() + self._pace.patience_s
        self._closing.set()
        self._wake.set()
        self._thread.join(self._pace.patience_s + 1.0)
        if self._thread.is_alive() or self.waiting:
            log.error("audit log: %d entries could not be written before the end", self.waiting)

    def _run(self) -> None:
        """Write until the end: the thread's life."""
        try:
            self._write_all()
        except Exception:  # A bug. Without the thread nothing is written, so nothing may be answered.
            log.exception("the audit log has ended: enforcing routes refuse until a restart")
            self._due = -math.inf
        finally:
            self._target.close()

    def _write_all(self) -> None:
        while True:
            closing = self._closing.is_set()
            try:
                self._turn(closing=closing)
            except OSError as error:
                self._trouble(error)
                if closing and time.monotonic() > self._give_up_s:
                    return
                time.sleep(self._pace.retry_s)
                continue
            if closing:
                return
            self._well()
            self._rest()

    def _turn(self, *, closing: bool) -> None:
        """Do what there is to do.

        Raises:
            OSError: the target failed; the next turn goes on where this one stopped.
        """
        self._write()
        self._quiet = 0 if self._entries else self._quiet + 1
        # As much as the buffer holds: however fast more comes, heads are signed in between.
        for _ in range(self._most_lines // _AT_ONCE + 1):
            if not self._entries and self._told == (self._lost_costly, self._lost_cheap):
                break
            self._gather()
            self._write()
        now_s = time.monotonic()
        if closing and not self._stopped:
            self._stopped = True
            self._seal("stop")
        elif self._unchecked and (
            self._unchecked >= self._pace.checkpoint_lines or now_s - self._checked_s >= self._pace.checkpoint_s
        ):
            self._seal("checkpoint")
        self._write()
        if self._dirty and (closing or now_s - self._synced_s >= self._pace.sync_s):
            self._sync()
        if self._target.full and not closing and now_s >= self._rotate_s:
            self._rotate()

    def _gather(self) -> None:
        """Chain what is waiting."""
        chain, entries, pending = self._chain, self._entries, self._pending
        for _ in range(min(len(entries), _AT_ONCE)):
            entry = entries.popleft()
            pending.append(chain.add(entry))
            self._chained += 1
            self._chained_bytes += len(entry)
        if self._told != (lost := (self._lost_costly, self._lost_cheap)):
            costly, cheap = lost[0] - self._told[0], lost[1] - self._told[1]
            self._told = lost
            entry = {"kind": "lost", "time": self._now(), "entries": costly + cheap, "refused": cheap}
            pending.append(chain.add(orjson.dumps(entry)))
        self._unchecked += len(pending)

    def _write(self) -> None:
        """Write what was chained."""
        if self._pending:
            self._target.write(b"".join(self._pending))
            self._pending.clear()
            self._written, self._written_bytes = self._chained, self._chained_bytes
            self._dirty = True

    def _seal(self, kind: str, members: Mapping[str, object] | None = None) -> None:
        """Chain a signed line."""
        entry = {"kind": kind, "time": self._now(), "log": self._log, **(members or {})}
        self._pending.append(self._chain.seal(entry, self._signer))
        self._unchecked, self._checked_s = 0, time.monotonic()

    def _sync(self) -> None:
        """Bring what was written to the disk, and sign how far it goes."""
        seq = self._chain.seq
        head = {"kind": "head", "time": self._now(), "log": self._log, "seq": seq}
        body = orjson.dumps({**head, "last": self._chain.last.decode("ascii"), "key": self._signer.public})
        self._target.sync(signed(body, self._signer) + b"\n")
        self._dirty, self._synced_s, self._signed_seq = False, time.monotonic(), seq

    def _rotate(self) -> None:
        """End a file with a signature, and begin the next one with another."""
        self._seal("checkpoint")
        self._write()
        self._sync()
        try:
            oldest = self._target.rotate()
        except OSError as error:
            # A file that grows is better than none: answers need not be refused for it.
            log.error("the audit log cannot be rotated, and grows: %s", error.strerror or error)
            self._rotate_s = time.monotonic() + self._pace.checkpoint_s
            return
        self._seal("rotate", {"oldest": oldest})
        self._write()
        self._sync()
        self._target.prune()

    def _trouble(self, error: OSError) -> None:
        if not self._troubled:
            log.error("the audit log cannot be written: %s", error.strerror or error)
        self._troubled = True
        if self._due == math.inf:
            self._due = time.monotonic() + self._pace.patience_s

    def _well(self) -> None:
        """Take note that everything was written."""
        if self._troubled:
            log.warning("the audit log is written again")
            self._troubled = False
        self._due = math.inf
        if self._entries:
            self._due = time.monotonic() + self._pace.patience_s

    def _rest(self) -> None:
        """Wait for entries to gather; without any for a while, until there are.

        A sleep is a system call, waking a thread several: so the thread looks by itself while requests come.
        """
        if self._quiet < QUIET or self._dirty:
            self._closing.wait(self._pace.gather_s)
            return
        self._wake.clear()
        self._asleep = True
        if not self._entries and not self._closing.is_set():  # else it may have come before we said that we sleep
            self._wake.wait(self._pace.checkpoint_s if self._unchecked else None)
        self._asleep = False

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock_s(), UTC).isoformat(timespec="milliseconds")
