"""What every State does alike with clients' records: one suite for `memory:`, `sqlite:` and `redis:`."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.errors import InvariantError, StateError
from guard.evidence.values import KEPT, field
from guard.model.evidence import Delta, Record
from guard.ports import EVIDENCE_KEPT_S
from guard.state.memory import MemoryState
from guard.state.redis import RedisState
from tests.support.states import Store
from tests.support.valkey import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.ports import State

NOW_S = 1_700_000_040.0
_spaces = (f"marks/compared-{i}" for i in itertools.count())


@pytest.fixture
def space(ledger: str) -> str:
    return f"evidence/{ledger}/0123456789ab"


async def read(state: State, space: str, key: str = "a#0", now_s: float = NOW_S) -> Record:
    (record,) = await state.merge(space, [Delta(key)], now_s)
    return record


# -- counts and marks --------------------------------------------------------------------------------------------------


async def test_counts_add_up_and_the_greatest_mark_holds(state: State, space: str) -> None:
    deltas = [Delta("a#0", {1: 2, 9: 1}, {1: 50}), Delta("b#0", {1: 7})]
    first = await state.merge(space, deltas, NOW_S)
    assert [(r.counts, r.marks) for r in first] == [({1: 2, 9: 1}, {1: 50}), ({1: 7}, {})]
    (again,) = await state.merge(space, [Delta("a#0", {1: 1, 2: 5}, {1: 40, 2: 8, 0: 0})], NOW_S)
    assert again.counts == {1: 3, 2: 5, 9: 1}
    assert again.marks == {1: 50, 2: 8, 0: 0}
    assert (await read(state, space)).counts == again.counts


async def test_an_empty_delta_creates_nothing(state: State, space: str) -> None:
    assert await read(state, space) == Record({}, {}, 0, True)
    assert (await read(state, space)).revision == 0
    assert await state.merge(space, [], NOW_S) == []


async def test_large_numbers_stay_exact(state: State, space: str) -> None:
    top = 2**40 - 1
    await state.merge(space, [Delta("a#0", {top: 2**53 - 9}, {15: 2**53 - 1, 0: 2**47 + 1})], NOW_S)
    (record,) = await state.merge(space, [Delta("a#0", {top: 8})], NOW_S)
    assert record.counts == {top: 2**53 - 1}
    assert record.marks == {15: 2**53 - 1, 0: 2**47 + 1}


async def test_only_the_newest_buckets_are_kept(state: State, space: str) -> None:
    await state.merge(space, [Delta("a#0", {field(0, 3, 1): 5, field(1, 3, 1): 6, field(KEPT - 1, 0, 0): 7})], NOW_S)
    assert len((await read(state, space)).counts) == 3
    (record,) = await state.merge(space, [Delta("a#0", {field(KEPT, 31, 7): 1}, {1: 1})], NOW_S)
    assert record.counts == {field(1, 3, 1): 6, field(KEPT - 1, 0, 0): 7, field(KEPT, 31, 7): 1}
    (record,) = await state.merge(space, [Delta("a#0", {field(0, 3, 1): 5, field(2, 0, 0): 1})], NOW_S)
    assert record.counts == {
        field(1, 3, 1): 6,
        field(2, 0, 0): 1,
        field(KEPT - 1, 0, 0): 7,
        field(KEPT, 31, 7): 1,
    }
    (record,) = await state.merge(space, [Delta("a#0", {field(9 * KEPT, 0, 0): 1})], NOW_S)
    assert (record.counts, record.marks) == ({field(9 * KEPT, 0, 0): 1}, {1: 1})


async def test_names_cannot_reach_another_record(state: State, ledger: str) -> None:
    keys = ["a", "a#0", "a|b", "a}", "{a", "", "%", "é", "\ud800", "x\x00y", "x" * 300, "marks||a"]
    spaces = [f"evidence/{ledger}/f", f"evidence/{ledger}/g", f"marks/{ledger}", f"marks/{ledger}/f", ledger]
    for space in spaces:
        records = await state.merge(space, [Delta(key, {i: i + 1}) for i, key in enumerate(keys)], NOW_S)
        assert [record.counts for record in records] == [{i: i + 1} for i in range(len(keys))]


@pytest.mark.parametrize(
    "deltas",
    [
        [Delta("a"), Delta("a")],
        [Delta("a" * 301)],
        [Delta("a", {-1: 1})],
        [Delta("a", {2**40: 1})],
        [Delta("a", {1: 0})],
        [Delta("a", {}, {16: 1})],
        [Delta("a", {}, {1: -1})],
        [Delta("a", {}, {1: 2**53 + 1})],
        [Delta("a", {1: 1}, once=-1)],
    ],
    ids=["twice", "key", "below", "above", "none", "mark", "negative", "large", "once"],
)
async def test_what_no_record_may_hold_is_a_bug(state: State, space: str, deltas: list[Delta]) -> None:
    with pytest.raises(InvariantError):
        await state.merge(space, deltas, NOW_S)
    assert (await read(state, space, "a")).revision == 0


# -- what is read, and what is sent again ------------------------------------------------------------------------------


async def test_counts_are_left_out_where_nobody_else_has_added(state: State, space: str) -> None:
    (first,) = await state.merge(space, [Delta("a#0", {1: 1}, {1: 9})], NOW_S)
    assert first.whole
    (second,) = await state.merge(space, [Delta("a#0", {2: 1}, seen=first.revision)], NOW_S)
    assert (second.whole, second.counts, second.marks) == (False, {}, {1: 9})
    await state.merge(space, [Delta("a#0", {3: 1})], NOW_S)  # another replica
    (third,) = await state.merge(space, [Delta("a#0", seen=second.revision)], NOW_S)
    assert (third.whole, third.counts) == (True, {1: 1, 2: 1, 3: 1})
    (fourth,) = await state.merge(space, [Delta("a#0", seen=third.revision)], NOW_S)
    assert (fourth.whole, fourth.revision) == (False, third.revision)


async def test_a_delta_that_is_sent_again_is_added_once(state: State, space: str) -> None:
    delta = Delta("a#0", {1: 2}, {1: 5}, once=2**52)
    first = await state.merge(space, [delta], NOW_S)
    for other in range(1, 4):
        await state.merge(space, [Delta("a#0", {2: 1}, once=other)], NOW_S)
    (again,) = await state.merge(space, [delta._replace(seen=first[0].revision)], NOW_S)
    assert (again.whole, again.counts) == (True, {1: 2, 2: 3})
    (new,) = await state.merge(space, [delta._replace(once=2**52 + 1)], NOW_S)
    assert new.counts == {1: 4, 2: 3}


# -- forgetting, reopening, outages ------------------------------------------------------------------------------------


async def test_a_record_is_forgotten_a_month_after_it_was_last_added_to(store: Store, state: State, space: str) -> None:
    if store.kind == "redis":
        pytest.skip("the server's clock cannot be moved: tests/integration/test_redis_evidence.py looks at its times")
    await state.merge(space, [Delta("a#0", {1: 2}, {1: 5})], NOW_S)
    await state.merge(space, [Delta("a#0", {1: 2})], NOW_S + 100)
    assert (await read(state, space, now_s=NOW_S + EVIDENCE_KEPT_S + 99)).counts == {1: 4}
    assert await read(state, space, now_s=NOW_S + EVIDENCE_KEPT_S + 100) == Record()
    (new,) = await state.merge(space, [Delta("a#0", {2: 1})], NOW_S + EVIDENCE_KEPT_S + 200)
    assert (new.counts, new.marks) == ({2: 1}, {})


async def test_records_survive_reopening(store: Store, space: str, ledger: str) -> None:
    if store.kind == "memory":
        pytest.skip("memory forgets")
    state = store.open(ledger)
    (record,) = await state.merge(space, [Delta("a#0", {1: 2, field(40, 0, 0): 70_000}, {1: 5})], NOW_S)
    await state.aclose()
    state = store.open(ledger)
    assert await read(state, space) == record
    await state.aclose()


async def test_a_closed_state_is_out_of_reach(store: Store, space: str, ledger: str) -> None:
    if store.kind == "memory":
        pytest.skip("memory is always in reach")
    state = store.open(ledger)
    await state.aclose()
    with pytest.raises(StateError):
        await state.merge(space, [Delta("a#0", {1: 1})], NOW_S)


async def test_a_server_that_is_not_there_is_an_error(space: str) -> None:
    state = RedisState(f"redis://127.0.0.1:{free_port()}")
    for counts in ({}, {1: 1}):
        with pytest.raises(StateError):
            await state.merge(space, [Delta("a#0", counts), Delta("b#0", counts)], NOW_S)
    await state.aclose()


# -- at once, and against an oracle ------------------------------------------------------------------------------------


async def test_concurrent_merges_lose_nothing(store: Store, state: State, space: str, ledger: str) -> None:
    replicas = [state, store.open(ledger)] if store.kind == "redis" else [state, state]
    calls = [
        replicas[i % 2].merge(space, [Delta(f"{j}#0", {i % 5: 1, 7: 2}, {1: i}) for j in range(40)], NOW_S)
        for i in range(60)
    ]
    await asyncio.gather(*calls)
    for j in range(40):
        record = await read(state, space, f"{j}#0")
        assert record.counts == {0: 12, 1: 12, 2: 12, 3: 12, 4: 12, 7: 120}
        assert record.marks == {1: 59}
    if replicas[1] is not state:
        await replicas[1].aclose()


counts = st.dictionaries(
    st.builds(field, st.integers(0, 3 * KEPT), st.integers(0, 31), st.integers(0, 7)),
    st.integers(1, 100_000),
    max_size=6,
)
deltas = st.builds(
    Delta,
    st.sampled_from(["a#0", "b#0", "c#0"]),
    counts,
    st.dictionaries(st.integers(0, 15), st.integers(0, 2**40), max_size=3),
    seen=st.just(-1),
    once=st.just(0),
)


def expected(all_deltas: Sequence[Delta], key: str) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Add everything up, then leave out what is too old: the contract, as slowly as it reads."""
    total: Counter[int] = Counter()
    marks: dict[int, int] = {}
    for delta in all_deltas:
        if delta.key == key:
            total.update(delta.counts)
            marks |= {m: max(v, marks.get(m, 0)) for m, v in delta.marks.items()}
    newest = max(total, default=0) // 256
    return {f: n for f, n in total.items() if f // 256 > newest - KEPT}, marks


async def merge_grouped(state: State, groups: list[list[Delta]]) -> dict[str, Record]:
    space = next(_spaces)
    for group in groups:
        once_each = {delta.key: delta for delta in group}  # one delta a client and call
        rest = [delta for delta in group if once_each[delta.key] is not delta]
        await state.merge(space, list(once_each.values()), NOW_S)
        for delta in rest:
            await state.merge(space, [delta], NOW_S)
    return {key: await read(state, space, key) for key in ("a#0", "b#0", "c#0")}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(deltas, max_size=4), max_size=6), order=st.randoms(use_true_random=False))
def test_merging_is_adding_in_any_order_and_grouping(
    store: Store, ledger: str, groups: list[list[Delta]], order: random.Random
) -> None:
    flat = [delta for group in groups for delta in group]
    shuffled = order.sample(flat, len(flat))

    async def go() -> None:
        state = store.open(ledger)
        for records in (await merge_grouped(state, groups), await merge_grouped(state, [shuffled])):
            for key, record in records.items():
                assert (record.counts, record.marks) == expected(flat, key)
        await state.aclose()

    asyncio.run(go())


def test_the_oracle_is_exercised() -> None:
    """A negative control: a count too many is seen."""

    async def go() -> None:
        records = await merge_grouped(MemoryState(), [[Delta("a#0", {1: 2})]])
        assert records["a#0"].counts != expected([Delta("a#0", {1: 3})], "a#0")[0]

    asyncio.run(go())
