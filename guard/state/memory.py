"""Ledgers in this process's memory: the reference that the other states are compared with, and the fastest.

`charge` never suspends, so it is atomic on its event loop without a lock. Counters are kept window by window: a window
that ended as long ago as it lasted (and at least a minute ago, so that a clock stepping back finds its counters) is
dropped whole when a new one begins. What is left is bounded: one counter or digest too many is refused.
A restart forgets everything; `sqlite:` and `redis:` do not.

Clients' records are bounded in bytes: those not added to for longest are forgotten first. Records that hold marks, such
as a denial that is in force, have room of their own, so that no number of clients' counts displaces them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from guard.errors import StateError
from guard.model.ledger import Account, Admission, Entry, Spend
from guard.ports import EVIDENCE_KEPT_S
from guard.state.counters import Counter, check_charges, forgotten_after_s, rows_back, settle, take_off, unpaid
from guard.state.memo import found, kept, slot_of
from guard.state.tally import Tally, check_deltas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model.evidence import Delta, Record
    from guard.model.ledger import Charge, Receipt

_DENY = Admission.DENY
_RECORD_BYTES = 400  # what a record takes beside its bytes and its key: objects, and its place in the dictionary


class _Counter(Counter):
    """A counter with its journal, which is folded at once: rows and amount by event."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, tuple[int, int]] | None = None

    def enter(self, event: str, rows: int, amount: int) -> None:
        if self.entries is None:
            self.entries = {}
        before = self.entries.get(event, (0, 0))
        self.entries[event] = (before[0] + rows, before[1] + amount)


class _Window:
    """All counters of one window, by (ledger, budget, scope), and how many digests they hold."""

    __slots__ = ("counters", "digests")

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str, str], _Counter] = {}
        self.digests = 0


class _Records:
    """Clients' records, least lately added to first.

    Args:
        most_bytes: of all together, packed, with what Python takes for each beside that.
    """

    __slots__ = ("_bytes", "_held", "_most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._held: OrderedDict[tuple[str, str], tuple[float, int, Tally]] = OrderedDict()  # added to when, bytes
        self._most_bytes = most_bytes
        self._bytes = 0

    def get(self, name: tuple[str, str], now_s: float) -> Tally | None:
        found = self._held.get(name)
        return found[2] if found is not None and now_s - found[0] < EVIDENCE_KEPT_S else None

    def pop(self, name: tuple[str, str]) -> None:
        if (found := self._held.pop(name, None)) is not None:
            self._bytes -= found[1]

    def put(self, name: tuple[str, str], tally: Tally, now_s: float) -> None:
        self.pop(name)
        size = tally.size + len(name[1]) + _RECORD_BYTES
        self._held[name] = now_s, size, tally
        self._bytes += size
        while self._held:
            oldest = next(iter(self._held))
            if self._bytes <= self._most_bytes and now_s - self._held[oldest][0] < EVIDENCE_KEPT_S:
                break
            self.pop(oldest)

    def clear(self) -> None:
        self._held.clear()
        self._bytes = 0


class MemoryState:
    """A `State` that lives as long as the process.

    Args:
        max_counters: counters kept at once; about 300 bytes each.
        max_digests: digests kept at once, over all counters; about 110 bytes each.
        evidence_bytes: what clients' records without marks may take.
        marks_bytes: what those with marks may take.
    """

    def __init__(
        self,
        max_counters: int = 1_000_000,
        max_digests: int = 5_000_000,
        evidence_bytes: int = 256 * 1024 * 1024,
        marks_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._max_counters = max_counters
        self._max_digests = max_digests
        self._windows: dict[tuple[int, int], _Window] = {}
        self._memo: dict[str, dict[int, bytes]] = {}
        self._terms: dict[str, bytes] = {}
        self._counted, self._marked = _Records(evidence_bytes), _Records(marks_bytes)

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge all or none; see `guard.ports.State`."""
        counters: list[_Counter] = []
        plain = True
        missing = 0
        windows = self._windows
        for charge in charges:
            window_s = charge.window_s
            window = windows.get((window_s, int(now_s // window_s) if window_s else 0))
            counter = window.counters.get((ledger, charge.budget, charge.scope)) if window is not None else None
            if counter is None:
                missing += 1
                counter = _Counter()
            if charge.digests is not None or charge.event is not None:
                plain = False
            counters.append(counter)
        # Two charges of one counter find the same object, or both miss it.
        if missing or not plain or (len(counters) > 1 and len(set(counters)) < len(counters)):
            return self._charge_slowly(ledger, charges, counters, missing, now_s)
        return settle(charges, counters)

    def _charge_slowly(
        self, ledger: str, charges: Sequence[Charge], counters: Sequence[_Counter], missing: int, now_s: float
    ) -> Receipt:
        """Charge a call that may need room, for new counters or for digests, or that is entered in the journal."""
        check_charges(charges)
        self._make_room(charges, counters, missing, now_s)
        receipt = settle(charges, counters)
        if receipt.admission is not _DENY:
            settled = zip(charges, counters, receipt.charged, receipt.fresh, strict=True)
            for charge, counter, charged, fresh in settled:
                window = self._windows.setdefault((charge.window_s, charge.window(now_s)), _Window())
                window.counters[ledger, charge.budget, charge.scope] = counter
                window.digests += len(fresh)
                if charge.event is not None and charged.spent:
                    counter.enter(charge.event, charge.rows, charged.spent)
        return receipt

    def _make_room(self, charges: Sequence[Charge], counters: Sequence[Counter], missing: int, now_s: float) -> None:
        """Drop old windows where a new one begins or room is short, and refuse what does not fit even then."""
        if any((charge.window_s, charge.window(now_s)) not in self._windows for charge in charges):
            self._purge(now_s)
        if missing and self._counters() + missing > self._max_counters:
            self._purge(now_s)
            if self._counters() + missing > self._max_counters:
                raise StateError("the state holds as many clients as it may")
        if self._digests() + sum(len(charge.digests or ()) for charge in charges) > self._max_digests:
            self._purge(now_s)
            new = sum(len(unpaid(charge, counter)) for charge, counter in zip(charges, counters, strict=True))
            if self._digests() + new > self._max_digests:
                raise StateError("the state holds as many queries as it may")

    def _counters(self) -> int:
        return sum(len(window.counters) for window in self._windows.values())

    def _digests(self) -> int:
        return sum(window.digests for window in self._windows.values())

    def _purge(self, now_s: float) -> None:
        for window_s, window in list(self._windows):
            if window_s and forgotten_after_s(window_s, window) <= now_s:
                del self._windows[window_s, window]

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        """Give back what `receipt` charged; see `guard.ports.State`."""
        for charge, charged, fresh in zip(charges, receipt.charged, receipt.fresh, strict=True):
            window = self._windows.get((charge.window_s, charge.window(now_s)))
            counter = window.counters.get((ledger, charge.budget, charge.scope)) if window is not None else None
            if window is None or counter is None:
                continue
            before = counter.spent
            window.digests -= len(take_off(counter, charged, fresh))
            if charge.event is not None and (taken := before - counter.spent):
                counter.enter(charge.event, -rows_back(charge.rows, charged.spent, taken), -taken)

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        """Say what has been spent; see `guard.ports.State`."""
        window = self._windows.get((charge.window_s, charge.window(now_s)))
        counter = window.counters.get((ledger, charge.budget, charge.scope)) if window is not None else None
        return Spend(counter.spent, counter.total) if counter is not None else Spend(0, 0)

    async def recall(self, ledger: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return memoised releases; see `guard.ports.State`."""
        slots = self._memo.get(ledger, {})
        return [found(key, slots.get(slot_of(key))) for key in keys]

    async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep releases; see `guard.ports.State`."""
        self._memo.setdefault(ledger, {}).update(kept(releases))

    async def merge(self, space: str, deltas: Sequence[Delta], now_s: float) -> list[Record]:
        """Merge counts and marks; see `guard.ports.State`."""
        check_deltas(deltas)
        return [self._merge((space, delta.key), delta, now_s) for delta in deltas]

    def _merge(self, name: tuple[str, str], delta: Delta, now_s: float) -> Record:
        tally = self._marked.get(name, now_s) or self._counted.get(name, now_s) or Tally()
        record, added = tally.merge(delta, now_s)
        if added:
            if tally.marks:
                self._counted.pop(name)
            (self._marked if tally.marks else self._counted).put(name, tally, now_s)
        return record

    async def terms(self, ledger: str) -> bytes | None:
        """Return the ledger's terms; see `guard.ports.State`."""
        return self._terms.get(ledger)

    async def agree(self, ledger: str, terms: bytes) -> bytes:
        """Put terms down where there are none; see `guard.ports.State`."""
        return self._terms.setdefault(ledger, terms)

    async def durability(self) -> str:
        """Return what may be lost: everything."""
        return "memory: forgets everything when the process ends"

    async def accounts(self, ledger: str) -> list[Account]:
        """Return every counter of a ledger, as `guard.ports.Books` has it."""
        made: list[Account] = []
        for (window_s, number), window in self._windows.items():
            for (owner, budget, scope), counter in window.counters.items():
                if owner == ledger:
                    entries = tuple(Entry(event, *sums) for event, sums in sorted((counter.entries or {}).items()))
                    spend = Spend(counter.spent, counter.total)
                    made.append(Account(budget, scope, window_s, number, spend, entries))
        return sorted(made)

    async def ping(self) -> None:
        """Return: memory can always be written."""

    async def aclose(self) -> None:
        """Forget everything."""
        self._windows.clear()
        self._memo.clear()
        self._terms.clear()
        self._counted.clear()
        self._marked.clear()
