"""The hot set: what is kept in memory, what is merged and when, and what nothing may take away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import pytest

from guard.detectors.setup import Setup
from guard.engine.ladder import EPOCH
from guard.engine.tracker import Tracker
from guard.errors import StateError
from guard.evidence import values
from guard.model.client import Client
from guard.model.evidence import Delta, Record
from guard.policy.plan import RoutePlan
from guard.proxy import owed
from guard.proxy.owed import MOST_OUT, Numbers, Outbox, Owed
from guard.proxy.watched import PIECE, HotSet, Watched
from guard.state.memory import MemoryState
from guard.telemetry.metrics import Metrics
from tests.support.fakes import SetClock

NOW_S = 1_800_000_000.0
DENIED = 4


class FakeTracker:
    """Counts what it is told, as a tracker does."""

    def __init__(self) -> None:
        self.pending: dict[int, int] = {}
        self.all: dict[int, int] = {}
        self.wealth = SimpleNamespace(counts=lambda: dict(self.all))

    def count(self, number: int, n: int = 1) -> None:
        self.pending[number] = self.pending.get(number, 0) + n
        self.all[number] = self.all.get(number, 0) + n

    def merge(self, counts: Mapping[int, int]) -> None:
        self.all = owed.summed(self.all, counts)


@dataclass
class Flaky(MemoryState):
    """Memory behind a network: calls may fail before or after they were carried out, or be held up."""

    calls: list[tuple[str, tuple[Delta, ...]]] = field(default_factory=list[tuple[str, tuple[Delta, ...]]])
    down: bool = False
    reply_lost: bool = False
    gate: asyncio.Event | None = None

    def __post_init__(self) -> None:
        super().__init__()

    async def merge(self, space: str, deltas: Sequence[Delta], now_s: float) -> list[Record]:
        self.calls.append((space, tuple(deltas)))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise StateError("the state cannot be reached")
        records = await super().merge(space, deltas, now_s)
        if self.reply_lost:
            raise StateError("the reply was lost")
        return records


def route(fingerprint: str = "0123456789ab", ledger: str = "m") -> RoutePlan:
    """A route as far as the hot set looks at one."""
    setup = SimpleNamespace(fingerprint=fingerprint)
    return cast("RoutePlan", SimpleNamespace(ledger=ledger, detection=SimpleNamespace(setup=setup)))


def make(setup: Setup) -> Tracker:
    del setup
    return cast("Tracker", FakeTracker())


def fake(watched: Watched) -> FakeTracker:
    return cast("FakeTracker", watched.tracker)


def someone(name: str = "alice") -> Client:
    return Client(name, "g", "api_key")


def hot_set(state: MemoryState, limit: int = 4, *, shared: bool = True, metrics: Metrics | None = None) -> HotSet:
    return HotSet(state, SetClock(), metrics or Metrics(), limit, shared=shared, make=make)


async def kept(state: MemoryState, key: str = "alice#0", space: str = "evidence/m/0123456789ab") -> Record:
    (record,) = await MemoryState.merge(state, space, [Delta(key)], NOW_S)
    return record


# -- coming and staying ------------------------------------------------------------------------------------------------


async def test_a_client_is_brought_once_and_then_found() -> None:
    hot = hot_set(Flaky())
    assert hot.peek(route(), someone()) is None
    watched = await hot.bring(route(), someone(), NOW_S)
    assert hot.peek(route(), someone()) is watched
    assert await hot.bring(route(), someone(), NOW_S) is watched
    assert len(hot) == 1


async def test_those_who_want_one_client_at_once_share_one_read() -> None:
    state = Flaky()
    hot = hot_set(state)
    brought = await asyncio.gather(*[hot.bring(route(), someone(), NOW_S) for _ in range(9)])
    assert len(set(map(id, brought))) == 1
    assert len(state.calls) == 2  # marks, and counts
    assert await kept(state) == Record({}, {}, 0, True)


async def test_one_who_stops_waiting_does_not_take_the_client_from_the_others() -> None:
    state = Flaky(gate=asyncio.Event())
    hot = hot_set(state)
    first, second = (asyncio.ensure_future(hot.bring(route(), someone(), NOW_S)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert state.gate is not None
    state.gate.set()
    assert (await second).client == someone()
    assert first.cancelled()


async def test_what_was_counted_before_is_brought_back() -> None:
    state = Flaky()
    await state.merge("evidence/m/0123456789ab", [Delta("alice#2", {5: 7}), Delta("alice#0", {1: 1})], NOW_S)
    await state.merge("marks/m", [Delta("alice", marks={EPOCH: 2, DENIED: 9})], NOW_S)
    watched = await hot_set(state).bring(route(), someone(), NOW_S)
    assert (watched.epoch, watched.marks[DENIED], fake(watched).all) == (2, 9, {5: 7})
    assert not watched.tracker.pending


async def test_a_state_out_of_reach_is_told_and_the_next_try_begins_anew() -> None:
    state = Flaky(down=True)
    hot = hot_set(state)
    for _ in range(2):
        with pytest.raises(StateError):
            await hot.bring(route(), someone(), NOW_S)
    state.down = False
    assert (await hot.bring(route(), someone(), NOW_S)).hot


async def test_routes_with_one_ledger_and_fingerprint_share_their_clients_and_others_do_not() -> None:
    hot = hot_set(Flaky())
    watched = await hot.bring(route(), someone(), NOW_S)
    assert hot.peek(route(), someone()) is watched
    for other in (route("ba9876543210"), route(ledger="n")):
        assert hot.at(other, someone()) is None
        assert not list(hot.on(other))
    assert list(hot.on(route())) == [watched]


# -- merging -----------------------------------------------------------------------------------------------------------


async def test_what_is_pending_is_merged_once() -> None:
    state = Flaky()
    hot = hot_set(state)
    watched = await hot.bring(route(), someone(), NOW_S)
    fake(watched).count(3, 2)
    hot.touched(watched)
    await hot.sync(NOW_S)
    await hot.sync(NOW_S)
    assert (await kept(state)).counts == {3: 2}
    assert fake(watched).all == {3: 2}
    assert not watched.tracker.pending


async def test_two_replicas_come_to_the_same_counts() -> None:
    state = Flaky()
    one, other = hot_set(state), hot_set(state)
    here, there = await one.bring(route(), someone(), NOW_S), await other.bring(route(), someone(), NOW_S)
    for turn in range(5):
        fake(here).count(1)
        fake(there).count(turn)
        for hot, watched in ((one, here), (other, there)):
            hot.touched(watched)
            await hot.sync(NOW_S)
        fake(here).count(1)  # between two syncs
        one.touched(here)
        one.peek(route(), someone())
        await one.sync(NOW_S)
    other.peek(route(), someone())
    await other.sync(NOW_S)
    assert fake(here).all == fake(there).all == (await kept(state)).counts == {0: 1, 1: 11, 2: 1, 3: 1, 4: 1}


async def test_what_is_counted_while_a_merge_is_under_way_is_neither_lost_nor_taken_for_anothers() -> None:
    state = Flaky()
    hot = hot_set(state)
    watched = await hot.bring(route(), someone(), NOW_S)
    await state.merge("evidence/m/0123456789ab", [Delta("alice#0", {1: 5})], NOW_S)
    fake(watched).count(1, 2)
    hot.touched(watched)
    state.gate = asyncio.Event()
    syncing = asyncio.ensure_future(hot.sync(NOW_S))
    await asyncio.sleep(0)
    fake(watched).count(1, 3)
    hot.touched(watched)
    state.gate.set()
    await syncing
    assert fake(watched).all == {1: 10}
    await hot.sync(NOW_S)
    assert (await kept(state)).counts == fake(watched).all == {1: 10}


@pytest.mark.parametrize("how", ["down", "reply_lost"])
async def test_an_outage_keeps_everything_pending_and_counts_nothing_twice(how: str) -> None:
    state, metrics = Flaky(), Metrics()
    hot = hot_set(state, metrics=metrics)
    watched = await hot.bring(route(), someone(), NOW_S)
    setattr(state, how, True)
    for _ in range(3):
        fake(watched).count(1)
        hot.mark(watched, {DENIED: 7})
        await hot.sync(NOW_S)
    setattr(state, how, False)
    await hot.sync(NOW_S)
    await hot.sync(NOW_S)
    assert (await kept(state)).counts == fake(watched).all == {1: 3}
    assert (await kept(state, "alice", "marks/m")).marks == {DENIED: 7}
    assert metrics.registry.get_sample_value("guard_state_errors_total") == 3


async def test_a_sync_that_is_cancelled_counts_nothing_twice() -> None:
    state = Flaky()
    hot = hot_set(state)
    watched = await hot.bring(route(), someone(), NOW_S)
    fake(watched).count(1)
    hot.touched(watched)
    state.gate = asyncio.Event()
    syncing = asyncio.ensure_future(hot.sync(NOW_S))
    await asyncio.sleep(0)
    syncing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    state.gate = None
    await hot.aclose(NOW_S)
    assert (await kept(state)).counts == {1: 1}


async def test_many_clients_are_merged_in_pieces_and_the_loop_goes_on_between() -> None:
    state = Flaky()
    hot = hot_set(state, limit=1000)
    clients = [await hot.bring(route(), someone(f"c{i}"), NOW_S) for i in range(3 * PIECE)]
    for watched in clients:
        fake(watched).count(1)
        hot.touched(watched)
    state.calls.clear()
    seen: list[int] = []

    async def meanwhile() -> None:
        while len(state.calls) < 6:
            seen.append(len(state.calls))
            await asyncio.sleep(0)

    await asyncio.gather(hot.sync(NOW_S), meanwhile())
    assert [len(deltas) for _, deltas in state.calls] == [PIECE] * 6
    assert sorted(set(seen)) == [1, 2, 3, 4, 5]


async def test_a_client_that_sticks_to_one_replica_is_not_read_again() -> None:
    state = Flaky()
    hot = hot_set(state)
    watched = await hot.bring(route(), someone(), NOW_S)
    for number in range(3):
        fake(watched).count(number)
        hot.touched(watched)
        await hot.sync(NOW_S)
    seen = [delta.seen for space, deltas in state.calls[2:] for delta in deltas if space.startswith("evidence/")]
    assert len(set(seen)) == 3
    (record,) = await MemoryState.merge(
        state, "evidence/m/0123456789ab", [Delta("alice#0", seen=watched.evidence.seen)], NOW_S
    )
    assert not record.whole


async def test_only_a_shared_state_is_asked_for_clients_of_whom_nothing_is_pending() -> None:
    for shared in (True, False):
        state = Flaky()
        hot = hot_set(state, shared=shared)
        await hot.bring(route(), someone(), NOW_S)
        hot.peek(route(), someone())
        state.calls.clear()
        await hot.sync(NOW_S)
        assert len(state.calls) == (2 if shared else 0)


async def test_run_merges_until_it_is_cancelled() -> None:
    state = Flaky()
    hot = HotSet(state, SetClock(), Metrics(), sync_s=0.0, make=make)
    watched = await hot.bring(route(), someone(), NOW_S)
    fake(watched).count(1)
    hot.touched(watched)
    running = asyncio.ensure_future(hot.run())
    while not (await kept(state)).counts:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_the_least_recently_seen_client_leaves_and_its_counts_are_merged() -> None:
    state = Flaky()
    hot = hot_set(state, limit=2)
    alice = await hot.bring(route(), someone(), NOW_S)
    fake(alice).count(1, 4)
    hot.touched(alice)
    await hot.bring(route(), someone("bob"), NOW_S)
    hot.peek(route(), someone())
    await hot.bring(route(), someone("carol"), NOW_S)  # bob leaves
    assert hot.peek(route(), someone()) is alice
    for name in ("dave", "erin"):
        await hot.bring(route(), someone(name), NOW_S)
    assert len(hot) == 2
    assert (hot.at(route(), someone()), alice.hot) == (None, False)
    await hot.sync(NOW_S)
    assert (await kept(state)).counts == {1: 4}
    assert len(hot.outbox) == 0


async def test_a_client_that_comes_back_at_once_brings_what_waits_in_the_outbox() -> None:
    state = Flaky()
    hot = hot_set(state, limit=1)
    alice = await hot.bring(route(), someone(), NOW_S)
    fake(alice).count(1, 4)
    hot.mark(alice, {DENIED: 99})
    hot.offence(route(), someone(), NOW_S)
    await hot.bring(route(), someone("bob"), NOW_S)
    back = await hot.bring(route(), someone(), NOW_S)
    assert back is not alice
    assert (fake(back).all, back.marks, back.offences(NOW_S)) == ({1: 4}, {DENIED: 99}, 1)
    for _ in range(2):
        hot.peek(route(), someone())
        await hot.sync(NOW_S)
    assert (fake(back).all, back.marks, back.offences(NOW_S)) == ({1: 4}, {DENIED: 99}, 1)
    assert (await kept(state)).counts == {1: 4}


async def test_answers_that_arrive_after_their_client_has_left_are_merged() -> None:
    state = Flaky()
    hot = hot_set(state, limit=1)
    alice = await hot.bring(route(), someone(), NOW_S)
    await hot.bring(route(), someone("bob"), NOW_S)
    fake(alice).count(6)
    hot.touched(alice)
    fake(alice).count(6)
    hot.mark(alice, {DENIED: 5})
    await hot.sync(NOW_S)
    assert (await kept(state)).counts == {6: 2}
    assert (await kept(state, "alice", "marks/m")).marks == {DENIED: 5}


async def test_a_limit_that_was_lowered_is_reached_two_at_a_time() -> None:
    hot = hot_set(Flaky(), limit=8)
    for number in range(8):
        await hot.bring(route(), someone(f"c{number}"), NOW_S)
    hot.limit = 3
    sizes: list[int] = []
    for number in range(8, 14):
        await hot.bring(route(), someone(f"c{number}"), NOW_S)
        sizes.append(len(hot))
    assert sizes == [7, 6, 5, 4, 3, 3]


async def test_clients_that_come_wait_while_the_outbox_is_full_and_nothing_is_lost() -> None:
    state = Flaky()
    hot = hot_set(state, limit=1)
    for i in range(MOST_OUT + 50):
        watched = await hot.bring(route(), someone(f"c{i}"), NOW_S)
        fake(watched).count(1)
        hot.touched(watched)
        assert len(hot.outbox) <= MOST_OUT
    state.down = True
    hot_full = hot_set(state, limit=1)
    for i in range(MOST_OUT):
        hot_full.outbox.add(Owed("marks/m", f"c{i}", {1: 1}))
    with pytest.raises(StateError):
        await hot_full.bring(route(), someone(), NOW_S)
    state.down = False
    await hot.sync(NOW_S)
    assert hot.outbox.lost == 0
    for i in (0, 1, MOST_OUT, MOST_OUT + 49):
        assert (await kept(state, f"c{i}#0")).counts == {1: 1}


def test_an_outbox_that_is_full_twice_over_drops_and_counts() -> None:
    out = Outbox()
    for i in range(2 * MOST_OUT + 3):
        out.add(Owed("marks/m", f"c{i}", {1: 1}))
    assert (len(out), out.lost, out.full()) == (2 * MOST_OUT, 3, True)
    out.add(Owed("marks/m", "c0", {1: 1}))
    assert (out.lost, out.get("marks/m", "c0")) == (3, Delta("c0", {1: 2}))


def test_what_was_sent_is_sent_again_as_it_was() -> None:
    one, numbers = Owed("marks/m", "a", {1: 1}, {2: 3}), Numbers()
    first = one.take(numbers)
    one.counts[1] = 5
    one.marks[2] = 9
    assert one.take(numbers) is first
    assert one.everything() == Delta("a", {1: 6}, {2: 9})
    one.sent = None
    assert one.take(numbers).once not in (0, first.once)


# -- marks, epochs, offences -------------------------------------------------------------------------------------------


async def test_a_new_epoch_begins_with_a_tracker_that_knows_nothing_here_and_elsewhere() -> None:
    state = Flaky()
    one, other = hot_set(state), hot_set(state)
    here, there = await one.bring(route(), someone(), NOW_S), await other.bring(route(), someone(), NOW_S)
    fake(here).count(1, 4)
    one.touched(here)
    await one.sync(NOW_S)
    one.mark(here, {EPOCH: 1})
    assert (fake(here).all, here.epoch) == ({}, 1)
    fake(here).count(2)
    one.touched(here)
    await one.sync(NOW_S)
    fake(there).count(9)  # of the old epoch: it is not looked at again
    other.peek(route(), someone())
    await other.sync(NOW_S)
    assert (fake(there).all, there.epoch) == ({}, 1)
    await other.sync(NOW_S)
    assert fake(there).all == {2: 1}
    assert (await kept(state, "alice#1")).counts == {2: 1}


async def test_marks_only_grow_and_reach_the_other_replica() -> None:
    state = Flaky()
    one, other = hot_set(state), hot_set(state)
    here, there = await one.bring(route(), someone(), NOW_S), await other.bring(route(), someone(), NOW_S)
    one.mark(here, {1: 50})
    one.mark(here, {1: 40})
    other.mark(there, {1: 45, 2: 8})
    for hot in (one, other, one):
        hot.peek(route(), someone())
        await hot.sync(NOW_S)
    assert here.marks == there.marks == {1: 50, 2: 8}


async def test_another_plan_counts_anew_and_keeps_marks_that_are_not_merged_yet() -> None:
    hot = hot_set(Flaky())
    before = await hot.bring(route(), someone(), NOW_S)
    fake(before).count(1)
    hot.mark(before, {DENIED: 77})
    after = await hot.bring(route("ba9876543210"), someone(), NOW_S)
    assert (fake(after).all, after.marks) == ({}, {DENIED: 77})


async def test_offences_are_counted_by_the_hour_over_replicas_and_without_a_watched_client() -> None:
    state = Flaky()
    one, other = hot_set(state), hot_set(state)
    one.offence(route(), someone(), NOW_S)
    here = await one.bring(route(), someone(), NOW_S)
    assert here.offences(NOW_S) == 1
    await one.sync(NOW_S)
    there = await other.bring(route(), someone(), NOW_S)
    assert there.offences(NOW_S) == 1
    for _ in range(3):
        one.offence(route(), someone(), NOW_S)
    other.offence(route(), someone(), NOW_S)
    for hot in (one, other, one):
        hot.peek(route(), someone())
        await hot.sync(NOW_S)
    assert here.offences(NOW_S) == there.offences(NOW_S) == 5
    assert here.offences(NOW_S + 3600) == 0
    one.offence(route(), someone(), NOW_S + 3600)
    assert here.offences(NOW_S + 3600) == 1


async def test_keys_are_short_and_apart() -> None:
    state = Flaky()
    hot = hot_set(state)
    for name in ("x" * 1000, "x" * 1001, "\ud800" * 400):
        watched = await hot.bring(route(), someone(name), NOW_S)
        fake(watched).count(1)
        hot.touched(watched)
    await hot.sync(NOW_S)
    keys = {delta.key for space, deltas in state.calls for delta in deltas if space.startswith("evidence/")}
    assert len(keys) == 3
    assert all(len(key) <= 300 for key in keys)


def test_a_throttled_client_gets_its_rate_and_no_more() -> None:
    bare = replace(blank(), client=someone("bob"))
    assert bare.throttle(60, 1.0, NOW_S) == 0
    assert bare.throttle(6, 1.0, NOW_S) == 6.0
    assert bare.throttle(6, 1.0, NOW_S + 5) == 1.0
    assert bare.throttle(6, 1.0, NOW_S + 6) == 0
    assert bare.throttle(1000, 1.0, NOW_S + 66) == 0  # larger than the bucket: a full one
    assert bare.throttle(1000, 1.0, NOW_S + 67) == 59.0
    assert bare.throttle(1, 1.0, NOW_S - 1000) == 0  # a clock that steps back gives nothing and takes nothing


def blank() -> Watched:
    setup = cast("Setup", SimpleNamespace(fingerprint="f"))
    return Watched(someone(), "m", setup, make(setup), Owed("e", "a"), Owed("s", "a"), {})


def test_fields_of_hours_are_buckets_of_their_own() -> None:
    watched = blank()
    watched.offend(NOW_S)
    (number,) = watched.standing.counts
    assert values.unfield(number) == (int(NOW_S // 3600), 0, 0)
