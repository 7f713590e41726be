"""Memory: bounded in counters and digests, and old windows go."""

from __future__ import annotations

import pytest

from guard.errors import StateError
from guard.model.evidence import Delta, Record
from guard.model.ledger import Admission, Charge, Spend
from guard.state.memory import MemoryState

DAY_S = 86_400


def rows(scope: str, window_s: int = DAY_S) -> Charge:
    return Charge("rows/client", scope, window_s, 5, 5)


def graded(*digests: int) -> Charge:
    return Charge("information/client", "client:a", 0, 9, len(digests), digests=tuple(bytes([d]) * 16 for d in digests))


async def test_a_new_scope_is_refused_when_the_state_is_full() -> None:
    state = MemoryState(max_counters=2)
    await state.charge("m", [rows("client:a"), rows("client:b")], 0.0)
    with pytest.raises(StateError):
        await state.charge("m", [rows("client:c")], 0.0)
    assert await state.spend("m", rows("client:c"), 0.0) == Spend(0, 0)
    assert (await state.charge("m", [rows("client:a")], 0.0)).admission is Admission.DENY


async def test_windows_that_ended_make_room() -> None:
    state = MemoryState(max_counters=2)
    await state.charge("m", [rows("client:a", 60), rows("client:b", 0)], 0.0)
    with pytest.raises(StateError):
        await state.charge("m", [rows("client:c", 0)], 100.0)
    assert (await state.charge("m", [rows("client:c", 0)], 120.0)).admission is Admission.ALLOW


async def test_a_window_is_kept_as_long_again_as_it_lasted() -> None:
    state = MemoryState()
    await state.charge("m", [rows("client:a")], 0.0)
    await state.charge("m", [rows("client:a")], 1.5 * DAY_S)
    assert (await state.spend("m", rows("client:a"), 0.0)).spent == 5
    await state.charge("m", [rows("client:a")], 2.5 * DAY_S)
    assert (await state.spend("m", rows("client:a"), 0.0)).spent == 0
    assert (await state.spend("m", rows("client:a"), 1.5 * DAY_S)).spent == 5


async def test_a_new_query_is_refused_when_the_state_is_full_and_a_repeat_is_not() -> None:
    state = MemoryState(max_digests=3)
    charges = [graded(1, 2)]
    receipt = await state.charge("m", charges, 0.0)
    await state.charge("m", [graded(3)], 0.0)
    with pytest.raises(StateError):
        await state.charge("m", [graded(3, 4)], 0.0)
    assert (await state.charge("m", [graded(1, 2, 3)], 0.0)).spends == (Spend(3, 3),)
    await state.refund("m", charges, receipt, 0.0)
    assert (await state.charge("m", [graded(3, 4, 5)], 0.0)).spends == (Spend(3, 3),)


async def counted(state: MemoryState, key: str, now_s: float = 0.0) -> Record:
    (record,) = await state.merge("evidence/m/f", [Delta(key)], now_s)
    return record


async def test_records_not_added_to_for_longest_are_forgotten_first_and_marks_do_not_make_room_for_counts() -> None:
    state = MemoryState(evidence_bytes=5000, marks_bytes=5000)
    await state.merge("marks/m", [Delta("denied", {0: 1}, marks={4: 99})], 0.0)
    for i in range(100):
        await state.merge("evidence/m/f", [Delta(f"c{i}#0", {1: 1}), Delta("busy#0", {1: 1})], 0.0)
    kept = [i for i in range(100) if (await counted(state, f"c{i}#0")).counts]
    assert kept == list(range(100 - len(kept), 100))
    assert 5 < len(kept) < 15
    assert (await counted(state, "busy#0")).counts == {1: 100}
    (denied,) = await state.merge("marks/m", [Delta("denied")], 0.0)
    assert (denied.counts, denied.marks) == ({0: 1}, {4: 99})


async def test_counts_of_a_record_that_lost_its_marks_do_not_come_back() -> None:
    state = MemoryState(marks_bytes=5000)
    await state.merge("marks/m", [Delta("a", {0: 1})], 0.0)
    await state.merge("marks/m", [Delta("a", {0: 1}, marks={4: 99})], 0.0)
    for i in range(100):
        await state.merge("marks/m", [Delta(f"c{i}", marks={4: 99})], 0.0)
    assert await state.merge("marks/m", [Delta("a")], 0.0) == [Record()]


async def test_marks_are_bounded_too() -> None:
    state = MemoryState(evidence_bytes=5000, marks_bytes=5000)
    for i in range(100):
        await state.merge("marks/m", [Delta(f"c{i}", marks={4: 99})], 0.0)
    held = [r.marks for r in await state.merge("marks/m", [Delta(f"c{i}") for i in range(100)], 0.0)]
    assert 5 < sum(map(bool, held)) < 15
    assert held[-1] == {4: 99}


async def test_what_a_record_takes_is_given_back_when_it_grows_or_goes() -> None:
    state = MemoryState(evidence_bytes=5000)
    for i in range(400):
        await state.merge("evidence/m/f", [Delta("one#0", {i: 1})], 0.0)
    assert len((await counted(state, "one#0")).counts) == 400
    await state.merge("evidence/m/f", [Delta("two#0", {1: 1})], 40 * DAY_S)
    assert (await counted(state, "two#0", 40 * DAY_S)).counts == {1: 1}
    assert not (await counted(state, "one#0", 40 * DAY_S)).counts
