"""Checks an audit log line by line: finds what was changed, removed, moved, inserted or cut off, and says where.

Pure: lines come in, problems come out. What a chain can and cannot tell:

* A changed line no longer has the hash that the next one names. Which of the two was changed shows one line later, so a
  broken link is held back until then: two broken links in a row blame the line between them.
* Missing lines leave a gap in the numbers; lines that were moved or repeated have a number that was passed already.
* Whoever rewrites everything needs the key: signatures vouch for every line before them, the head for the last one.
* Lines behind the last head, at most a second of them, are held together by their hashes alone.
"""

from __future__ import annotations

from typing import NamedTuple

from guard.telemetry.audit_chain import BEGIN, SIGNED, Link, digest, link
from guard.telemetry.audit_head import Head, Keys, Object, loads, object_of

MOST_KEPT = 1000
"""Problems, and notes, that are kept; all are counted."""
_SPECIAL = SIGNED | {"lost"}


class Problem(NamedTuple):
    """Something that is not as it was written.

    Args:
        file: the file's name.
        line: number of the line in it, from 1; 0 for the file as a whole.
        seq: number in the chain that is concerned; of several the first.
        text: what is wrong.
    """

    file: str
    line: int
    seq: int
    text: str


class _Line(NamedTuple):
    file: str
    number: int
    seq: int
    hash: bytes


class Checker:
    """Checks one chain.

    Args:
        keys: whose signatures count.
        head: what the head file says; None when there is none, or it is not to be trusted.
        stream: the lines went through a pipe or a collector: a new chain may begin among them, others' lines may stand
            between them, and there is no head.
        whole: the log is checked from its oldest line on, not one file of it.
        begin: lines before this number are kept elsewhere.
    """

    def __init__(
        self, keys: Keys, head: Head | None, *, stream: bool = False, whole: bool = True, begin: int = 1
    ) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.found = 0
        self.lines = 0
        self.signed_to = 0
        self.log = ""
        self.instances: list[str] = []
        self.last_kind = ""
        self.passed = 0
        """Lines of a stream that somebody else has written into it."""
        self.torn = 0
        """Bytes behind the last line's end."""
        self._keys = keys
        self._head = head
        self._head_seen = False
        self._stream = stream
        self._whole = whole
        self._begin_at = begin
        self._first: Link | None = None
        self._last = _Line("", 0, 0, BEGIN)
        self._stray: _Line | None = None
        self._suspect: _Line | None = None
        self._garbage = 0
        self.oldest = 1
        """Number of the oldest line that rotation has kept, as far as lines say."""

    @property
    def seq(self) -> int:
        """Number of the last line."""
        return self._last.seq

    @property
    def last(self) -> bytes:
        """Hash of the last line."""
        return self._last.hash

    @property
    def first(self) -> int:
        """Number of the first line; 0 when there is none."""
        return 0 if self._first is None else self._first.seq

    def feed(self, file: str, number: int, raw: bytes) -> None:
        """Take the next line, with its newline."""
        if self.torn:
            self._problem(file, number - 1, self.seq + 1, "this line is cut short, and others follow")
            self.torn = 0
        if not raw.endswith(b"\n"):
            self.torn = len(raw)
            return
        line = raw[:-1]
        place = link(line)
        if place is None and self._stream and not line.startswith(b'{"seq":'):
            self.passed += 1
            return
        if place is None:
            self._garbage += 1
            self._problem(file, number, self.seq + self._garbage, "this is no line of an audit log")
            return
        self.lines += 1
        here = _Line(file, number, place.seq, digest(line))
        if self._first is None:
            self._begin(here, place)
        elif not self._follows(here, place):
            return
        self._garbage = 0
        self._last, self._stray = here, None
        self.last_kind = place.kind
        if self._head is not None and place.seq == self._head.seq:
            self._head_seen = here.hash == self._head.last
            if not self._head_seen:
                self._suspect = here
        if place.kind in _SPECIAL:
            self._special(here, place, line)

    def _begin(self, here: _Line, place: Link) -> None:
        """Take the first line of all."""
        self._first = place
        if place.seq == 1 and (place.prev != BEGIN or place.kind != "start"):
            self._problem(here.file, here.number, 1, "the first line is not how a log begins")
        if self._head is not None and self._head.seq == place.seq - 1:
            self._head_seen = place.prev == self._head.last

    def _follows(self, here: _Line, place: Link) -> bool:
        """Hold a line to the one before; return False for one that does not belong here."""
        before = self._last
        if place.seq == before.seq + 1:
            if place.prev == before.hash:
                self._settle()
            elif self._garbage:
                pass  # what stands between the two has been told
            elif self._suspect is not None:
                # Both links of the line before are broken: it was changed, not the one before it.
                self._suspect = before
                self._settle()
            else:
                self._suspect = before
            return True
        self._settle()
        if place.seq > before.seq:
            if place.seq - before.seq - 1 != self._garbage:
                self._problem(here.file, here.number, before.seq + 1, _missing(before.seq + 1, place.seq - 1))
            return True
        if self._stream and place.seq == 1 and place.prev == BEGIN and place.kind == "start":
            if self.last_kind != "stop":
                self._note(f"a new log begins behind seq {before.seq}, and the one before did not say that it ends")
            self._first, self._head_seen = place, False
            self.log = ""
            return True
        stray = self._stray
        if stray is not None and place.seq == stray.seq + 1 and place.prev == stray.hash:
            return True  # what came before it had a wrong number; from here on all is well
        again = "again" if place.seq == before.seq else f"out of its order, behind seq {before.seq}"
        self._problem(here.file, here.number, place.seq, f"seq {place.seq} stands here {again}")
        self._stray = here
        return False

    def _settle(self) -> None:
        """Blame the line that is under suspicion."""
        if self._suspect is not None:
            at, self._suspect = self._suspect, None
            self._problem(at.file, at.number, at.seq, f"seq {at.seq} was changed, or the line behind it replaced")

    def _special(self, here: _Line, place: Link, line: bytes) -> None:
        """Heed what the log says of itself."""
        said = loads(line)
        if place.kind in SIGNED:
            objection = self._keys.objection(line)
            self.log = self.log or str(said.get("log", ""))
            if objection is None and said.get("log") != self.log:
                objection = "it belongs to another log"
            if objection is not None:
                self._problem(here.file, here.number, here.seq, f"{place.kind} line, seq {here.seq}: {objection}")
                return
            self.signed_to = here.seq
        if place.kind == "start":
            self._started(here, said)
        elif place.kind == "rotate" and isinstance(said.get("oldest"), int):
            self.oldest = said["oldest"]
        elif place.kind == "lost":
            lost = f"{said.get('entries')} entries were lost about here, {said.get('refused')} of them of refusals"
            self._note(f"seq {here.seq}: {lost}: the buffer was full")

    def _started(self, here: _Line, said: Object) -> None:
        """Note how the guard that started found the log."""
        if (instance := str(said.get("instance", ""))) not in self.instances and len(self.instances) < MOST_KEPT:
            self.instances.append(instance)
        state = object_of(said.get("found"))
        if state.get("state") == "crash":
            unsigned, torn = state.get("unsigned", 0), state.get("torn_bytes", 0)
            what = f"{unsigned} lines before it were never signed" if unsigned else "no line was left unsigned"
            rest = f", {torn} bytes of an unfinished line were removed" if torn else ""
            self._note(f"seq {here.seq}: the guard before had not ended in order: {what}{rest}")
        elif state.get("state") == "other_key" and state.get("key") in self._keys.trusted:
            self._note(f"seq {here.seq}: from here on another key signs")
        elif state.get("state") in ("mismatch", "other_key"):
            text = state.get("problem") or f"a log that the key {state.get('key')} had signed"
            self._problem(here.file, here.number, here.seq, f"seq {here.seq}: the guard that started here found {text}")

    def finish(self) -> None:
        """Hold the end to the head, and the beginning to what rotation says of it."""
        if self.lines:
            self._beginning()
        self._ending()
        self.problems.sort(key=lambda p: p.seq)

    def _beginning(self) -> None:
        if self._whole and self.first > 1:
            oldest = max(self.oldest, self._begin_at)
            if self._stream:
                self._note(f"the chain begins at seq {self.first}: what came before is not here")
            elif self.first > oldest:
                self._problem("", 0, oldest, f"{_missing(oldest, self.first - 1)}, and no rotation has removed them")
            else:
                self._note(f"the chain begins at seq {self.first}: what came before was rotated away, or moved")

    def _ending(self) -> None:
        head = self._head
        if head is not None and head.seq == self.seq and not self._head_seen and self.lines:
            self._suspect = self._last
        self._settle()
        if head is None:
            behind, what = self.seq - self.signed_to, "signature"
        else:
            behind, what = self.seq - head.seq, "head"
            if behind < 0:
                text = f"the end was cut off: {_missing(self.seq + 1, head.seq)}, which the head of {head.time} names"
                self._problem(self._last.file, self._last.number, self.seq + 1, text)
            elif not self._head_seen and behind:
                text = f"seq {head.seq} is not the line that the head of {head.time} names: rewritten from there on"
                self._problem(self._last.file, self._last.number, head.seq, text)
            elif self.log and head.log != self.log:
                self._problem("", 0, head.seq, "the head belongs to another log")
        if behind > 0:
            self._note(
                f"{behind} lines behind the last {what} (seq {self.seq - behind}) are held by their hashes alone"
            )
        if self.passed:
            self._note(f"{self.passed} other lines were passed over")
        if self.torn:
            self._note(f"behind seq {self.seq} stand {self.torn} bytes of an unfinished line")

    def _problem(self, file: str, line: int, seq: int, text: str) -> None:
        self.found += 1
        if len(self.problems) < MOST_KEPT:
            self.problems.append(Problem(file, line, seq, text))

    def _note(self, text: str) -> None:
        if len(self.notes) < MOST_KEPT:
            self.notes.append(text)


def _missing(first: int, last: int) -> str:
    return f"seq {first} is missing" if first == last else f"seq {first} to {last} are missing"
