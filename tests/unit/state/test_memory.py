"""Memory: bounded in counters and digests, and old windows go."""

from __future__ import annotations

import pytest

from guard.errors import StateError
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
