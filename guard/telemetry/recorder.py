"""Writes recordings: what `guard calibrate` needs of each query and answer, and nothing of it on the request path.

The event loop hands over arrays and never waits: a bounded queue, beyond which rows are dropped and counted. A thread
makes records of them and writes them in batches. A disk that fails costs recordings and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guard.detectors.base import Features
from guard.detectors.sketch import Sketch
from guard.evidence.recording import MOST_CLASSES, Header, record_type, write_header
from guard.model.arrays import Floats
from guard.telemetry.record_files import abandon, begin, delete_oldest, write_whole
from guard.telemetry.records import Note, Shape, records_of, shape_of

MOST_WAITING = 32_768
"""Rows that wait at most; some 20 MB."""
_BATCH_S = 0.25
_RETRY_S = 30.0
"""How long a disk that failed is left alone."""
_LOG = logging.getLogger("guard.recorder")


class NameKey:
    """Turns clients' names into the pseudonyms of recordings.

    Args:
        pseudonym_key: what Guard's secret gives for pseudonyms.
    """

    def __init__(self, pseudonym_key: bytes) -> None:
        self._key = hashlib.blake2b(pseudonym_key, digest_size=32, person=b"guard-recording").digest()
        self.id = hashlib.blake2b(self._key, digest_size=8, person=b"which-secret").hexdigest()
        """Tells apart secrets, and tells nothing of them."""

    def name(self, client: str) -> bytes:
        """Return the 8 bytes that stand for a name."""
        return hashlib.blake2b(client.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()

    def pseudonym(self, client: str) -> str:
        """Return the same as it is shown: 16 hexadecimal digits, as `guard calibrate` names clients."""
        return f"{int.from_bytes(self.name(client), 'little'):016x}"


@dataclass(slots=True)
class _File:
    """A file that is being written."""

    path: Path
    descriptor: int
    size: int
    sketch: Sketch
    width: int
    classes: int


class Recorder:
    """Records queries and answers of all routes into a directory, which replicas may share.

    Args:
        directory: made with mode 0700 when there is none; files are `ROUTE-STARTNS-PID.rec`, mode 0600.
        pseudonym_key: secret that clients' names are hashed with.
        max_file_bytes: when a file is full and the next begins.
        max_files: how many the directory holds at most, whoever wrote them; the oldest are deleted. The one that a
            route is writing is not.
        clock_ns: since the epoch.

    Raises:
        OSError: the directory cannot be made or written.
    """

    def __init__(
        self,
        directory: str | Path,
        pseudonym_key: bytes,
        max_file_bytes: int = 64 * 2**20,
        max_files: int = 16,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._directory, os.W_OK | os.X_OK):
            raise PermissionError(f"{self._directory} cannot be written")
        self.key = NameKey(pseudonym_key)
        self._max_file_bytes, self._max_files, self._clock_ns = max_file_bytes, max_files, clock_ns
        self._notes: deque[Note] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._files: dict[str, _File] = {}
        self._broken_until = 0.0
        self._told = False
        self.dropped = 0
        """Rows that were not recorded, because the queue was full or the disk failed."""
        self._thread = threading.Thread(target=self._run, name="guard-recorder", daemon=True)
        self._thread.start()

    def describe(self) -> str:
        """Return what is recorded, where, and how much at most: printed at the start."""
        most = self._max_files * self._max_file_bytes / 2**20
        return (
            f"recording to {self._directory}: for every query a keyed hash of the client's name, the time, salted "
            "hashes of the query, its sketch of at most 64 numbers (of a vector of up to 64 features: THE FEATURES "
            "THEMSELVES), the model's label and two greatest scores, and all scores of a model of up to "
            f"{MOST_CLASSES} classes. No texts, names, addresses or keys. Files are readable by their owner alone; "
            f"at most {self._max_files} files, {most:,.0f} MiB in all, then the oldest are deleted."
        )

    def note(
        self,
        route: str,
        sketch: Sketch,
        client: str,
        now_s: float,
        features: Features,
        raw: Floats | None,
        scores: Floats | None,
        about: int = 0,
    ) -> None:
        """Hand over one request's queries and answers; never waits, never raises.

        Args:
            route: its name.
            sketch: what `raw` was made with.
            client: its name; only a keyed hash of it is kept.
            now_s: seconds since the epoch.
            features: of the queries, n rows.
            raw: sketches before they are standardised, shape (n, m); None when the queries have none.
            scores: what the model said of classes, shape (n, K), probabilities, logits or their logarithms; None when
                the answers hold no such scores, or are not one a query.
            about: flags of `guard.evidence.recording` that hold for all rows.
        """
        name = self.key.name(client)
        rows = len(features.keys)
        with self._lock:
            if self._closing or self._waiting + rows > MOST_WAITING:
                self.dropped += rows
                return
            self._waiting += rows
            pseudonym = int.from_bytes(name, "little")
            self._notes.append(Note(route, sketch, pseudonym, now_s, features.keys, raw, scores, about))

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
                notes, self._notes, closing = self._notes, deque(), self._closing
                self._waiting = 0
            by_route: dict[str, list[Note]] = {}
            for note in notes:
                by_route.setdefault(note.route, []).append(note)
            for route, some in by_route.items():
                self._write_all(route, some)
            if closing:
                for file in self._files.values():
                    os.close(file.descriptor)
                return

    def _write_all(self, route: str, notes: list[Note]) -> None:
        """Write a route's notes in as few writes as may be: those that are alike, up to a small part of a file."""
        start = 0
        while start < len(notes):
            first = shape_of(notes[start])
            room = max(1, self._max_file_bytes // 8 // record_type(first.width, first.classes).itemsize)
            end, rows = start + 1, len(notes[start].keys)
            while end < len(notes) and rows < room and shape_of(notes[end]) == first:
                rows += len(notes[end].keys)
                end += 1
            self._write(route, notes[start:end], first)
            start = end

    def _write(self, route: str, notes: list[Note], shape: Shape) -> None:
        rows = sum(len(note.keys) for note in notes)
        if time.monotonic() < self._broken_until:
            self._lose(rows)
            return
        try:
            file = self._file(route, shape, rows)
            data = records_of(notes, shape, file.width, file.classes).tobytes()
            write_whole(file.descriptor, data)
            file.size += len(data)
        except OSError as error:
            self._broken_until = time.monotonic() + _RETRY_S
            self._lose(rows)
            if (broken := self._files.pop(route, None)) is not None:
                abandon(broken.descriptor, broken.size)
            if not self._told:
                self._told = True
                _LOG.warning("recording to %s failed, nothing else did: %s", self._directory, error.strerror)

    def _lose(self, rows: int) -> None:
        with self._lock:
            self.dropped += rows

    def _file(self, route: str, shape: Shape, rows: int) -> _File:
        """Return the file to write to: a new one when there is none, it is full, or it has no column for what comes."""
        file = self._files.get(route)
        sketch, width, classes, _ = shape
        if file is not None:
            fits = file.sketch == sketch and (file.width or not width) and (file.classes or not classes)
            more = rows * record_type(file.width, file.classes).itemsize
            if fits and file.size + more <= self._max_file_bytes:
                return file
            del self._files[route]
            os.close(file.descriptor)
            if file.sketch == sketch:
                width, classes = width or file.width, classes or file.classes
        path = self._directory / f"{_safe(route)}-{self._clock_ns():020d}-{os.getpid()}.rec"
        file = _File(path, begin(path), 0, sketch, width, classes)
        self._files[route] = file
        header = write_header(Header(route, sketch.model_dump(mode="json"), width, classes, self.key.id))
        write_whole(file.descriptor, header)
        file.size = len(header)
        written = {file.path for file in self._files.values()}
        delete_oldest(self._directory, "*-*-*.rec", written, self._max_files)
        return file


def _safe(route: str) -> str:
    """Return a route's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", route)[:80].lstrip(".") or "route"
