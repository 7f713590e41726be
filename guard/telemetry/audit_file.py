"""The audit log as a file, with the files that it was rotated into and its head.

    PATH            what is written now
    PATH.000001     rotated files, in the order of their numbers; the oldest are deleted
    PATH.head       how far the log goes, signed; replaced in one step
    PATH.lock       held while a guard writes

Only the writer's thread comes here once the log is open; every method may block, and raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from guard.telemetry.audit_chain import BEGIN, Chain, link
from guard.telemetry.audit_check import Checker
from guard.telemetry.audit_head import Head, Keys, read_head
from guard.telemetry.audit_target import Origin

log = logging.getLogger("guard.audit")

MAX_BYTES = 64 * 2**20
KEEP = 16
LONGEST_LINE = 2**16
_FLAGS = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AuditFile:
    """Writes an audit log to files.

    Args:
        path: of the file.
        keys: the guard's own, to check the head with.
        max_bytes: a file that has grown past it is rotated.
        keep: rotated files that are kept.

    Raises:
        OSError: it is no plain file, cannot be written, is not an audit log, or another guard has it.
    """

    def __init__(self, path: Path, keys: Keys, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self.path = path
        self.head = path.with_name(path.name + ".head")
        self._keys = keys
        self._max_bytes = max_bytes
        self._keep = keep
        self._size = 0
        self._torn = False
        self._oldest = 1
        self._surplus: list[Path] = []
        if not path.parent.is_dir():
            raise OSError(errno.ENOENT, f"there is no directory {path.parent} for the audit log")
        self._lock = self._locked()
        try:
            self._descriptor = self._opened()
            self.origin = self._recover()
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        lock = _open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | _FLAGS & ~os.O_APPEND)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise OSError(
                errno.EAGAIN, f"another guard writes the audit log {self.path}: give each one a file of its own"
            ) from None
        return lock

    def _opened(self) -> int:
        descriptor = _open(self.path, os.O_RDWR | _FLAGS)
        first = os.pread(descriptor, LONGEST_LINE, 0)
        if first and not first.startswith(b'{"seq":'):
            os.close(descriptor)
            raise OSError(errno.EEXIST, f"{self.path} is there already, and is no audit log of guard serve")
        return descriptor

    def _recover(self) -> Origin:
        """Check what is there against its head, and find where the chain goes on."""
        newest = [*rotated(self.path), self.path]
        files = [path for path in newest if path.stat().st_size][-1:]
        head, keys = self._read_head()
        if not files and head is None:
            return Origin(Chain(), "", {"state": "new"})
        checker = Checker(keys, head if isinstance(head, Head) else None, whole=False)
        for path in files:
            for number, raw in lines_of(path):
                checker.feed(path.name, number, raw)
        checker.finish()
        self._oldest = checker.oldest
        self._cut(checker)
        problem = _problem(head, checker)
        if problem:
            log.error("audit log %s: %s", self.path, problem)
            found: dict[str, object] = {"state": "mismatch", "problem": problem}
        elif isinstance(head, Head) and keys is not self._keys:
            log.warning("audit log %s: another key has signed it; from here on this guard's does", self.path)
            found = {"state": "other_key", "key": head.key}
        elif checker.last_kind == "stop" and not checker.torn and isinstance(head, Head) and head.seq == checker.seq:
            found = {"state": "clean"}
        else:
            signed = head.seq if isinstance(head, Head) else 0
            found = {"state": "crash", "unsigned": checker.seq - signed, "torn_bytes": checker.torn}
        seq = max(checker.seq, head.seq) if isinstance(head, Head) else checker.seq
        return Origin(Chain(seq, checker.last if checker.seq else BEGIN), checker.log, found)

    def _read_head(self) -> tuple[Head | str | None, Keys]:
        """Return the head, or what is wrong with it, and whose signatures count: another's where another signed it."""
        try:
            data = self.head.read_bytes()
        except FileNotFoundError:
            return None, self._keys
        head, anyone = read_head(data, self._keys), Keys(self._keys.verifies)
        other = head if isinstance(head, Head) else read_head(data, anyone)
        return (other, anyone) if other is not head and isinstance(other, Head) else (head, self._keys)

    def _cut(self, checker: Checker) -> None:
        """Remove what was left of an unfinished line."""
        self._size = os.fstat(self._descriptor).st_size
        if checker.torn and self._size:
            self._size -= checker.torn
            os.ftruncate(self._descriptor, self._size)

    @property
    def full(self) -> bool:
        """Whether the file should be rotated."""
        return self._size >= self._max_bytes

    def write(self, data: bytes) -> None:
        """Write whole lines; when that fails, none of them is left."""
        there = os.fstat(self._descriptor).st_size
        if there != self._size:
            if self._torn:
                os.ftruncate(self._descriptor, self._size)
            else:
                log.error("audit log %s was changed by somebody else: guard audit verify says where", self.path)
                self._size = there
        self._torn = True
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._torn = False
        self._size += len(data)

    def sync(self, head: bytes) -> None:
        """Bring what was written to the disk, then say so in the head."""
        os.fsync(self._descriptor)
        self._reopen_if_moved()
        temporary = self.head.with_name(self.head.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = _open(temporary, os.O_WRONLY | os.O_EXCL | _FLAGS)
        try:
            _write_whole(descriptor, head)
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(self.head)

    def _reopen_if_moved(self) -> None:
        """Begin a new file where the one that is written was moved or deleted; the chain shows what is gone."""
        mine = os.fstat(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            there = self.path.lstat()
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        log.error("audit log %s was moved or deleted while it was written; a new file takes its place", self.path)
        descriptor = _open(self.path, os.O_RDWR | _FLAGS)
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size

    def rotate(self) -> int:
        """Begin a new file; return the number of the oldest line that is kept from now on."""
        made = self.path.with_name(self.path.name + ".next")
        with contextlib.suppress(FileNotFoundError):
            made.unlink()
        descriptor = _open(made, os.O_RDWR | os.O_EXCL | _FLAGS)
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
        old = rotated(self.path)
        number = int(old[-1].name.rpartition(".")[2]) + 1 if old else 1
        self.path.rename(self.path.with_name(f"{self.path.name}.{number:06}"))
        made.rename(self.path)
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, 0
        self._sync_directory()
        own = self._own()
        self._surplus = [path for path, _ in own[: -self._keep]]
        # Only what rotation itself removes moves the beginning: what somebody else has deleted stays missing.
        if self._surplus:
            self._oldest = own[-self._keep][1]
        return self._oldest

    def prune(self) -> None:
        """Delete the oldest files."""
        for path in self._surplus:
            path.unlink(missing_ok=True)
        self._surplus = []

    def _own(self) -> list[tuple[Path, int]]:
        """Return the rotated files that this guard has written, each with the number of its first line.

        The first line of each is signed. Others could be there to have genuine ones deleted in their place.
        """
        found: list[tuple[Path, int]] = []
        strange = 0
        for path in rotated(self.path):
            with path.open("rb") as file:
                line = file.readline(LONGEST_LINE)[:-1]
            first = link(line)
            if first is None or self._keys.objection(line) is not None or (found and first.seq <= found[-1][1]):
                strange += 1
            else:
                found.append((path, first.seq))
        if strange:
            log.warning("audit log %s: %d rotated files are not its own, and are left alone", self.path, strange)
        return found

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
        os.close(self._lock)

    def _sync_directory(self) -> None:
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def rotated(path: Path) -> list[Path]:
    """Return the files that a log was rotated into, oldest first."""
    if not path.parent.is_dir():
        return []
    name = re.compile(re.escape(path.name) + r"\.([0-9]{6,12})")
    found = [entry for entry in path.parent.iterdir() if name.fullmatch(entry.name)]
    return sorted(found, key=lambda entry: int(entry.name.rpartition(".")[2]))


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Return a file's lines with their numbers, in pieces where somebody has made one longer than a line can be."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE):
            number += 1
            yield number, raw


def _problem(head: Head | str | None, checker: Checker) -> str:
    """Return why what is there cannot be what the last guard left; empty when it can."""
    if isinstance(head, str):
        return f"the head: {head}"
    if head is None:
        return "the head is gone"
    if checker.problems:
        first = checker.problems[0]
        return first.text if checker.found == 1 else f"{first.text}; {checker.found - 1} more"
    return ""


def _open(path: Path, flags: int) -> int:
    """Open a plain file, mode 0600 where it is made."""
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, f"the audit log {path} cannot be written: {why}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"the audit log {path} cannot be written: it is no plain file")
    return descriptor


def _write_whole(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
