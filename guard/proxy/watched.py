"""The clients that are being watched: the recently seen ones in memory, with what is to be told to other replicas.

What is kept where:

* Here, for at most `limit` clients: the tracker (index of past queries, sums, windows, evidence), the marks, and what
  was counted and has not been merged.
* In the state: counts, in the space `evidence/LEDGER/FINGERPRINT` under `CLIENT#EPOCH`; marks, and protocol offences by
  the hour, in `marks/LEDGER` under `CLIENT`. Another policy's detectors have another fingerprint, so they count anew;
  marks hold whatever the policy.

Every `sync_s` what is pending is merged, and what others counted comes back: what a record holds beyond what is known
here. A record that nobody else has added to comes back without its counts, so a client whose requests stick to one
replica costs the same however long its record is. The least recently seen client leaves when the set is full; what is
pending of it waits in the outbox (`guard.proxy.owed`). When that is full, clients that come wait until it has been
merged, so nothing is dropped that a client could provoke. Leaving costs the index and the windows that were not full.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from guard.engine.ladder import EPOCH
from guard.engine.tracker import Tracker
from guard.errors import InvariantError, StateError
from guard.evidence.values import Strength
from guard.model.evidence import Delta
from guard.proxy.owed import Numbers, Outbox, Owed, keep_greatest, summed
from guard.proxy.watched_client import Watched, hour_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from guard.detectors.setup import Setup
    from guard.model.client import Client
    from guard.model.evidence import Record
    from guard.policy.plan import RoutePlan
    from guard.ports import Clock, State
    from guard.telemetry.metrics import Metrics

__all__ = ["HotSet", "Watched"]

PIECE = 32
"""Records merged at once; the event loop is let go after each."""
LEARNT_AT_ONCE = 4
"""Records of what others have counted, taken in at once, likewise: long ones take a quarter of a millisecond each."""
LEAVE_AT_ONCE = 2
"""Clients that leave when one comes: of a limit that was lowered the outbox must not be flooded."""
_LONGEST_KEY = 300
Thing = TypeVar("Thing")
Name = tuple[str, str, str]
"""Ledger, fingerprint, client."""


class HotSet:
    """The watched clients of all routes.

    Args:
        state: where counts and marks outlive this process.
        clock: for `run`.
        metrics: counts a state that is out of reach.
        limit: clients at once; may be changed.
        sync_s: how often they are merged.
        shared: other replicas may use the same state, so every client seen is asked for, whether or not anything is
            pending of it.
        make: makes a tracker.
    """

    def __init__(
        self,
        state: State,
        clock: Clock,
        metrics: Metrics,
        limit: int = 2048,
        sync_s: float = 0.5,
        *,
        shared: bool = True,
        make: Callable[[Setup], Tracker] = Tracker,
    ) -> None:
        self._state = state
        self._clock = clock
        self._metrics = metrics
        self.limit = limit
        self._sync_s = sync_s
        self._shared = shared
        self._make = make
        self._hot: OrderedDict[Name, Watched] = OrderedDict()
        self._latest: dict[tuple[str, str], Watched] = {}  # by space of marks and client, whatever the fingerprint
        self._due: dict[Watched, None] = {}
        self._coming: dict[Name, asyncio.Task[Watched]] = {}
        self._numbers = Numbers()
        self._syncing = asyncio.Lock()
        self.outbox = Outbox()

    def __len__(self) -> int:
        return len(self._hot)

    def all(self) -> tuple[Watched, ...]:
        """Return the watched clients of all routes, least recently seen first."""
        return tuple(self._hot.values())

    def on(self, route: RoutePlan) -> Iterator[Watched]:
        """Yield a route's watched clients, least recently seen first."""
        name = _name(route, "")[:2]
        for (ledger, fingerprint, _), watched in tuple(self._hot.items()):
            if (ledger, fingerprint) == name:
                yield watched

    def at(self, route: RoutePlan, client: Client) -> Watched | None:
        """Return a client that is in the set, and leave it where it is."""
        return self._hot.get(_name(route, client.name))

    def peek(self, route: RoutePlan, client: Client) -> Watched | None:
        """Return a client that is in the set, and move it to the fresh end; None for one that must be brought."""
        name = _name(route, client.name)
        found = self._hot.get(name)
        if found is not None:
            self._hot.move_to_end(name)
            if self._shared:
                self._due[found] = None
        return found

    async def bring(self, route: RoutePlan, client: Client, now_s: float) -> Watched:
        """Return a client, read from the state where it is not in the set; those who want the same one wait together.

        Raises:
            StateError: the state is out of reach.
        """
        if (found := self.peek(route, client)) is not None:
            return found
        name = _name(route, client.name)
        task = self._coming.get(name)
        if task is None:
            task = self._coming[name] = asyncio.ensure_future(self._bring(route, client, now_s))
            task.add_done_callback(lambda done: self._came(name, done))
        return await asyncio.shield(task)

    def _came(self, name: Name, done: asyncio.Task[Watched]) -> None:
        del self._coming[name]
        if not done.cancelled():
            done.exception()  # those who wait get it, if they have not all gone

    async def _bring(self, route: RoutePlan, client: Client, now_s: float) -> Watched:
        if route.detection is None:
            raise InvariantError("a client of a route without detection is watched")
        if self.outbox.full():
            async with self._syncing:
                await self._send_out(now_s)
        setup, ledger = route.detection.setup, route.ledger
        standing, evidence = _standing(ledger, client.name), _evidence(ledger, setup, client.name, 0)
        # Nearly all clients are in epoch 0, so both records are asked for at once.
        held, counted = await asyncio.gather(self._read(standing, now_s), self._read(evidence, now_s))
        marks = dict(held.marks)
        self._add_known_marks(marks, standing, client)
        if epoch := marks.get(EPOCH, 0):
            evidence = _evidence(ledger, setup, client.name, epoch)
            counted = await self._read(evidence, now_s)
        watched = Watched(client, ledger, setup, self._make(setup), evidence, standing, marks)
        # From here on nothing suspends: what is known here is up to date.
        watched.learn_offences(held.counts, now_s)
        watched.learn_counts(counted)
        if (waiting := self.outbox.get(evidence.space, evidence.key)) is not None:
            watched.tracker.merge(waiting.counts)
        if (waiting := self.outbox.get(standing.space, standing.key)) is not None:
            watched.learn_offences(summed(held.counts, waiting.counts), now_s)
        self._add_known_marks(marks, standing, client)
        if watched.epoch > epoch:
            self._begin_anew(watched)
        self._enter(_name(route, client.name), watched)
        return watched

    async def _read(self, owed: Owed, now_s: float) -> Record:
        (record,) = await self._state.merge(owed.space, [Delta(owed.key)], now_s)
        owed.seen = record.revision
        return record

    def _add_known_marks(self, marks: dict[int, int], standing: Owed, client: Client) -> None:
        """Add marks that are known here and may not be in the state yet."""
        if (waiting := self.outbox.get(standing.space, standing.key)) is not None:
            keep_greatest(marks, waiting.marks)
        if (other := self._latest.get((standing.space, client.name))) is not None:
            keep_greatest(marks, other.marks)

    def _enter(self, name: Name, watched: Watched) -> None:
        self._hot[name] = watched
        self._latest[watched.standing.space, watched.client.name] = watched
        for _ in range(min(LEAVE_AT_ONCE, len(self._hot) - self.limit)):
            _, gone = self._hot.popitem(last=False)
            gone.hot = False
            self._due.pop(gone, None)
            if self._latest.get((gone.standing.space, gone.client.name)) is gone:
                del self._latest[gone.standing.space, gone.client.name]
            self._put_out(gone)

    def touched(self, watched: Watched) -> None:
        """Have what is pending of a client merged with the next `sync`."""
        if watched.hot:
            self._due[watched] = None
        else:
            self._put_out(watched)  # it left while its request was under way

    def _put_out(self, watched: Watched) -> None:
        evidence, standing = watched.evidence, watched.standing
        watched.evidence, watched.standing = Owed(evidence.space, evidence.key), Owed(standing.space, standing.key)
        evidence.counts, watched.tracker.pending = watched.tracker.pending, {}
        self.outbox.add(evidence)
        self.outbox.add(standing)

    def mark(self, watched: Watched, marks: Mapping[int, int]) -> None:
        """Set marks that are greater than before; a new epoch begins with a tracker that knows nothing."""
        greater = {mark: value for mark, value in marks.items() if value > watched.marks.get(mark, -1)}
        if not greater:
            return
        watched.marks.update(greater)
        watched.standing.marks.update(greater)
        if EPOCH in greater:
            self._begin_anew(watched)
        self.touched(watched)

    def offence(self, route: RoutePlan, client: Client, now_s: float) -> None:
        """Count a protocol offence of a client, in the set or not."""
        watched = self.at(route, client)
        if watched is not None:
            watched.offend(now_s)
            self._due[watched] = None
            return
        owed = _standing(route.ledger, client.name)
        owed.counts[hour_field(now_s)] = 1
        self.outbox.add(owed)

    def _begin_anew(self, watched: Watched) -> None:
        watched.tracker = self._make(watched.setup)
        watched.evidence = _evidence(watched.ledger, watched.setup, watched.client.name, watched.epoch)
        watched.strength = Strength()
        self._due[watched] = None  # others may have begun before, and counted

    async def sync(self, now_s: float) -> None:
        """Merge what is pending and add what others counted; a state out of reach is counted, and all stays pending."""
        async with self._syncing:
            try:
                await self._send_out(now_s)
                await self._send_due(now_s)
            except StateError:
                self._metrics.state_error()

    async def _send_out(self, now_s: float) -> None:
        for space, owed_all in self.outbox.by_space().items():
            for piece in _pieces(owed_all):
                await self._state.merge(space, [owed.take(self._numbers) for owed in piece], now_s)
                for owed in piece:
                    self.outbox.confirmed(owed)
                await asyncio.sleep(0)

    async def _send_due(self, now_s: float) -> None:
        due, self._due = self._due, {}
        spaces: dict[str, list[tuple[Watched, Owed]]] = {}
        for watched in due:
            for owed in (watched.evidence, watched.standing):
                spaces.setdefault(owed.space, []).append((watched, owed))
        done = False
        try:
            for space, pairs in spaces.items():
                for piece in _pieces(pairs):
                    await self._send(space, [(w, o) for w, o in piece if o is w.evidence or o is w.standing], now_s)
                    await asyncio.sleep(0)
            done = True
        finally:
            if not done:  # those that were confirmed are asked once more, which adds nothing
                self._due = {watched: None for watched in due if watched.hot} | self._due

    async def _send(self, space: str, pairs: list[tuple[Watched, Owed]], now_s: float) -> None:
        """Merge clients that are still in the set, each as it stands."""
        deltas: list[Delta] = []
        for watched, owed in pairs:
            if owed is watched.evidence and owed.sent is None:
                owed.counts, watched.tracker.pending = watched.tracker.pending, {}
            deltas.append(owed.take(self._numbers))
        records = await self._state.merge(space, deltas, now_s)
        for _, owed in pairs:
            owed.sent = None
        learnt = 0
        for (watched, owed), record in zip(pairs, records, strict=True):
            learnt += record.whole
            if learnt >= LEARNT_AT_ONCE:
                learnt = 0
                await asyncio.sleep(0)
            self._learn(watched, owed, record, now_s)

    def _learn(self, watched: Watched, owed: Owed, record: Record, now_s: float) -> None:
        """Take in what others have added, unless the client has left or begun anew meanwhile."""
        owed.seen = record.revision
        if owed is watched.evidence:
            watched.learn_counts(record)
        elif owed is watched.standing:
            before = watched.epoch
            keep_greatest(watched.marks, record.marks)
            if record.whole:
                watched.learn_offences(record.counts, now_s)
            if watched.epoch > before:
                self._begin_anew(watched)
        if owed or watched.tracker.pending:  # counted meanwhile, or behind what was sent again
            self.touched(watched)

    async def run(self) -> None:
        """Sync every `sync_s`, until cancelled."""
        while True:
            await asyncio.sleep(self._sync_s)
            await self.sync(self._clock.wall_s())

    async def aclose(self, now_s: float) -> None:
        """Merge what is pending, for the last time; twice, since behind what is sent again there may be more."""
        for _ in range(2):
            if self._due or len(self.outbox):
                await self.sync(now_s)


def _name(route: RoutePlan, client: str) -> Name:
    if route.detection is None:
        raise InvariantError("a client of a route without detection is watched")
    return route.ledger, route.detection.setup.fingerprint, client


def _standing(ledger: str, client: str) -> Owed:
    return Owed(f"marks/{ledger}", _key(client))


def _evidence(ledger: str, setup: Setup, client: str, epoch: int) -> Owed:
    return Owed(f"evidence/{ledger}/{setup.fingerprint}", _key(f"{client}#{epoch}"))


def _key(text: str) -> str:
    if len(text) <= _LONGEST_KEY:
        return text
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _pieces(things: list[Thing]) -> Iterator[list[Thing]]:
    for start in range(0, len(things), PIECE):
        yield things[start : start + PIECE]
