"""Audit logs for tests: made in memory, kept by fakes, checked with real keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from guard.telemetry.audit_chain import Chain, signed
from guard.telemetry.audit_check import Checker
from guard.telemetry.audit_file import lines_of, rotated
from guard.telemetry.audit_head import Head, Keys, read_head
from guard.telemetry.audit_keys import SigningKey, verifies
from guard.telemetry.audit_target import Origin, Pace

KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(32))
LOG = "00112233aabbccdd"
FAST = Pace(gather_s=0.005, sync_s=0.01, retry_s=0.01)
TIME = "2027-01-31T10:00:00.000+00:00"

Json = dict[str, Any]  # Any: JSON


def entry(number: int, **members: object) -> Json:
    """An entry as `decision_of` makes it."""
    made = {"kind": "decision", "time": TIME, "id": f"request-{number}", "route": "digits", "outcome": "ok"}
    return made | members


@dataclass
class Made:
    """A log of one file, its lines with their newlines, and its head."""

    chain: Chain = field(default_factory=Chain)
    lines: list[bytes] = field(default_factory=list[bytes])
    key: SigningKey = KEY
    log: str = LOG

    def seal(self, kind: str, **members: object) -> Made:
        """Add a signed line."""
        self.lines.append(self.chain.seal({"kind": kind, "time": TIME, "log": self.log, **members}, self.key))
        return self

    def start(self, **found: object) -> Made:
        """Add a start line."""
        return self.seal("start", instance="host/1", found=found or {"state": "new"})

    def add(self, number: int) -> Made:
        """Add a decision."""
        self.lines.append(self.chain.add(orjson.dumps(entry(number))))
        return self

    def head(self) -> bytes:
        """The head that ends it."""
        last = self.chain.last.decode()
        said = {"kind": "head", "time": TIME, "log": self.log, "seq": self.chain.seq, "last": last}
        return signed(orjson.dumps({**said, "key": self.key.public}), self.key) + b"\n"

    @property
    def data(self) -> bytes:
        return b"".join(self.lines)


def made_of(kinds: str, key: SigningKey = KEY, log: str = LOG) -> Made:
    """A log that begins and ends in order: `d` is a decision, `c` a checkpoint, `r` a restart."""
    made = Made(key=key, log=log).start()
    for number, kind in enumerate(kinds):
        if kind == "d":
            made.add(number)
        elif kind == "c":
            made.seal("checkpoint")
        else:
            made.seal("stop").start(state="clean")
    return made.seal("stop")


def check(data: bytes, head: bytes | None, *trusted: SigningKey, stream: bool = False, name: str = "log") -> Checker:
    """Check the bytes of one file."""
    keys = Keys(verifies, frozenset(key.public for key in trusted or (KEY,)))
    read = None if head is None else read_head(head, keys)
    checker = Checker(keys, read if isinstance(read, Head) else None, stream=stream)
    for number, raw in enumerate(data.splitlines(keepends=True) if data else [], 1):
        checker.feed(name, number, raw)
    checker.finish()
    return checker


def check_files(path: Path, *trusted: SigningKey) -> Checker:
    """Check a log on the disk, with its head."""
    keys = Keys(verifies, frozenset(key.public for key in trusted or (KEY,)))
    head = read_head(path.with_name(path.name + ".head").read_bytes(), keys)
    assert isinstance(head, Head), head
    checker = Checker(keys, head)
    for one in (*rotated(path), path):
        for number, raw in lines_of(one):
            checker.feed(one.name, number, raw)
    checker.finish()
    return checker


def entries_of(path: Path) -> list[Json]:
    """All lines of a log on the disk."""
    return [json.loads(raw) for one in (*rotated(path), path) for _, raw in lines_of(one)]


def until(condition: Callable[[], object]) -> None:
    """Return once another thread has made something true."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@dataclass
class Losses:
    """Counts what is lost."""

    lost: int = 0

    def audit_dropped(self) -> None:
        self.lost += 1


class FakeTarget:
    """Keeps what is written; fails while `broken`, and hangs while `held` is not set."""

    full = False

    def __init__(self) -> None:
        self.data = b""
        self.head = b""
        self.broken = False
        self.held = threading.Event()
        self.held.set()
        self.tried = threading.Event()
        self.closed = False

    @property
    def origin(self) -> Origin:
        return Origin(Chain(), "", {"state": "new"})

    def write(self, data: bytes) -> None:
        self.tried.set()
        self.held.wait(20)
        if self.broken:
            raise OSError(28, "No space left on device")
        self.data += data

    def sync(self, head: bytes) -> None:
        self.head = head

    def rotate(self) -> int:
        raise AssertionError

    def prune(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed = True

    @property
    def entries(self) -> list[Json]:
        return [json.loads(line) for line in self.data.splitlines()]
