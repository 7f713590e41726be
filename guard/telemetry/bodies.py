"""Records whole requests and answers, for `guard replay`: only when an operator asks, and told of loudly.

As `guard.telemetry.recorder`: the event loop hands over what it has in hand and never waits; a queue bounded in bytes,
beyond which requests are dropped and counted; a thread packs and writes. A disk that fails costs recordings alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from guard.evidence.bodies import MOST_BYTES, Asked, pack, write_line
from guard.telemetry.record_files import abandon, begin, delete_oldest, write_whole

MOST_WAITING_BYTES = 64 * 2**20
_OVERHEAD_BYTES = 1024
"""What a request takes beside its bodies while it waits."""
_LARGEST = MOST_BYTES - 2**20
_BATCH_S = 0.25
_RETRY_S = 30.0
_LOG = logging.getLogger("guard.recorder")


class BodyRecorder:
    """Records bodies of all routes into a directory that only its owner can read.

    Args:
        directory: made with mode 0700 when there is none; files are `bodies-STARTNS-PID.bodies`, mode 0600.
        key: tells apart the secrets that pseudonyms are made with.
        max_file_bytes: when a file is full and the next begins.
        max_files: how many the directory holds at most, whoever wrote them; the oldest are deleted.
        clock_ns: since the epoch.

    Raises:
        OSError: the directory cannot be made or written, or others can read it.
    """

    def __init__(
        self,
        directory: str | Path,
        key: str,
        max_file_bytes: int = 256 * 2**20,
        max_files: int = 16,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self._directory.stat().st_mode) & 0o077:
            raise PermissionError(0, f"others can read {self._directory}, and bodies are raw inputs: chmod 700 it")
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise PermissionError(0, f"{self._directory} cannot be written")
        self._key, self._clock_ns = key, clock_ns
        self._max_file_bytes, self._max_files = max_file_bytes, max_files
        self._waiting: deque[Asked] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._file: tuple[Path, int] | None = None
        self._size = 0
        self._broken_until = 0.0
        self._told = False
        self.dropped = 0
        """Requests that were not recorded: the queue was full, the disk failed, or they were too large."""
        self._thread = threading.Thread(target=self._run, name="guard-bodies", daemon=True)
        self._thread.start()

    def describe(self) -> str:
        """Return what is recorded, where, and how much at most: printed at the start."""
        most = self._max_files * self._max_file_bytes / 2**20
        return (
            f"RECORDING BODIES to {self._directory}: WHOLE REQUESTS AND THE MODEL'S WHOLE ANSWERS, as they are, "
            "before any defence. Whoever reads these files reads every input (people's data among them) and has the "
            "scores that this policy keeps back. No keys, tokens, cookies, names, addresses or query strings: clients "
            f"are keyed hashes. Files are readable by their owner alone; at most {self._max_files} files, "
            f"{most:,.0f} MiB in all, then the oldest are deleted. Delete them when guard replay is done."
        )

    def note(self, asked: Asked) -> None:
        """Hand over one request; never waits, never raises."""
        size = asked.size + _OVERHEAD_BYTES
        with self._lock:
            if self._closing or self._bytes + size > MOST_WAITING_BYTES or size > _LARGEST:
                self.dropped += 1
                return
            self._bytes += size
            self._waiting.append(asked)
            if self._bytes > MOST_WAITING_BYTES // 4:
                self._wake.set()

    def close(self) -> None:
        """Write what waits and end; may be called twice."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join()

    async def aclose(self) -> None:
        """Write what waits and end, without holding the event loop up."""
        await asyncio.to_thread(self.close)

    def _run(self) -> None:
        while True:
            self._wake.wait(_BATCH_S)
            with self._lock:
                closing = self._closing
                if not closing:
                    self._wake.clear()
            while (asked := self._next()) is not None:
                self._write(asked)
            if closing:
                if self._file is not None:
                    os.close(self._file[1])
                return

    def _next(self) -> Asked | None:
        """Return the request that has waited longest; what is being packed no longer counts as waiting."""
        with self._lock:
            if not self._waiting:
                return None
            asked = self._waiting.popleft()
            self._bytes -= asked.size + _OVERHEAD_BYTES
            return asked

    def _write(self, asked: Asked) -> None:
        if time.monotonic() < self._broken_until:
            self._lose()
            return
        try:
            frame = pack(asked)
            write_whole(self._open(len(frame)), frame)
            self._size += len(frame)
        except OSError as error:
            self._broken_until = time.monotonic() + _RETRY_S
            self._lose()
            if self._file is not None:
                abandon(self._file[1], self._size)
                self._file = None
            if not self._told:
                self._told = True
                _LOG.warning("recording bodies to %s failed, nothing else did: %s", self._directory, error.strerror)

    def _lose(self) -> None:
        with self._lock:
            self.dropped += 1

    def _open(self, more: int) -> int:
        """Return the file to write `more` bytes to: a new one when there is none or it is full."""
        if self._file is not None:
            if self._size + more <= self._max_file_bytes:
                return self._file[1]
            os.close(self._file[1])
            self._file = None
        path = self._directory / f"bodies-{self._clock_ns():020d}-{os.getpid()}.bodies"
        self._file, self._size = (path, begin(path)), 0
        line = write_line(self._key)
        write_whole(self._file[1], line)
        self._size = len(line)
        delete_oldest(self._directory, "*-*-*.bodies", {path}, self._max_files)
        return self._file[1]
