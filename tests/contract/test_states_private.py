"""What every State does alike for privacy budgets: the journal, the terms and the releases that it remembers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from guard.errors import InvariantError
from guard.model.ledger import Admission, Charge, Entry, Spend
from guard.state.memo import MOST_BYTES, SLOTS, slot_of

if TYPE_CHECKING:
    from guard.ports import State
    from tests.support.states import Store

NOW_S = 1_700_000_040.0
KEY, SAME_SLOT, OTHER_SLOT = bytes(16), b"\1" + bytes(15), bytes(15) + b"\1"


def private(rows: int, event: str = "gaussian(2.5)", **changes: object) -> Charge:
    charge = Charge("privacy/client", "client:a", 0, 1000, 10 * rows, event=event, rows=rows)
    return charge._replace(**changes)


async def entries(store: Store, state: State, ledger: str) -> dict[str, tuple[Entry, ...]]:
    accounts = await store.accounts(state, ledger)
    for account in accounts:
        assert account.spend.spent == sum(entry.amount for entry in account.entries)
    return {account.scope: account.entries for account in accounts}


# -- the journal -------------------------------------------------------------------------------------------------------


async def test_what_is_charged_is_entered_by_event(store: Store, state: State, ledger: str) -> None:
    await state.charge(ledger, [private(2), private(2, scope="model")], NOW_S)
    await state.charge(ledger, [private(1), private(1, "pure(0.1)", scope="model")], NOW_S)
    assert await entries(store, state, ledger) == {
        "client:a": (Entry("gaussian(2.5)", 3, 30),),
        "model": (Entry("gaussian(2.5)", 2, 20), Entry("pure(0.1)", 1, 10)),
    }


async def test_what_is_denied_is_not_entered(store: Store, state: State, ledger: str) -> None:
    await state.charge(ledger, [private(99)], NOW_S)
    receipt = await state.charge(ledger, [private(2, scope="model"), private(2)], NOW_S)
    assert receipt.admission is Admission.DENY
    assert await entries(store, state, ledger) == {"client:a": (Entry("gaussian(2.5)", 99, 990),)}


async def test_what_is_label_only_is_entered_where_it_was_spent(store: Store, state: State, ledger: str) -> None:
    full = private(101, then="label_only", scope="full")
    receipt = await state.charge(ledger, [full, private(2)], NOW_S)
    assert receipt.charged == (Spend(0, 1010), Spend(20, 20))
    assert await entries(store, state, ledger) == {"client:a": (Entry("gaussian(2.5)", 2, 20),), "full": ()}


async def test_other_budgets_keep_no_journal(store: Store, state: State, ledger: str) -> None:
    await state.charge(ledger, [Charge("rows/client", "client:a", 0, 10, 3), private(1, scope="model")], NOW_S)
    accounts = {account.budget: account for account in await store.accounts(state, ledger)}
    assert (accounts["rows/client"].spend, accounts["rows/client"].entries) == (Spend(3, 3), ())
    assert accounts["privacy/client"].entries == (Entry("gaussian(2.5)", 1, 10),)


async def test_a_refund_is_entered_as_what_it_took_off(store: Store, state: State, ledger: str) -> None:
    charges = [private(3)]
    await state.charge(ledger, [private(1)], NOW_S)
    receipt = await state.charge(ledger, charges, NOW_S)
    await state.refund(ledger, charges, receipt, NOW_S)
    assert (await entries(store, state, ledger))["client:a"] == (Entry("gaussian(2.5)", 1, 10),)
    await state.refund(ledger, charges, receipt, NOW_S)  # once too often: only 10 of 30 are left to take off
    assert (await entries(store, state, ledger))["client:a"] == (Entry("gaussian(2.5)", 0, 0),)
    await state.refund(ledger, charges, receipt, NOW_S)
    assert (await entries(store, state, ledger))["client:a"] == (Entry("gaussian(2.5)", 0, 0),)


async def test_a_long_journal_is_folded_and_says_the_same(store: Store, state: State, ledger: str) -> None:
    events = ["gaussian(2.5)", "pure(0.1)", "gaussian(2.5)+pure(0.1)"]
    calls = [[private(1, events[i % 3], limit=10**6), private(1, events[0], scope="model")] for i in range(100)]
    receipts = await asyncio.gather(*[state.charge(ledger, call, NOW_S) for call in calls])
    for i in range(0, 100, 10):
        await state.refund(ledger, calls[i], receipts[i], NOW_S)
    found = await entries(store, state, ledger)
    left = [i % 3 for i in range(100) if i % 10]
    assert {entry.event: entry.rows for entry in found["client:a"]} == {
        event: left.count(i) for i, event in enumerate(events)
    }
    assert found["model"] == (Entry("gaussian(2.5)", 90, 900),)


async def test_large_amounts_are_entered_exactly(store: Store, state: State, ledger: str) -> None:
    large = 2**53 - 20
    for i in range(20):
        await state.charge(ledger, [private(1, limit=2**53 - 1, amount=large if not i else 1)], NOW_S)
    assert (await entries(store, state, ledger))["client:a"] == (Entry("gaussian(2.5)", 20, 2**53 - 1),)


async def test_each_period_has_its_own_journal(store: Store, state: State, ledger: str) -> None:
    for i in range(2):
        await state.charge(ledger, [private(1, window_s=60)], NOW_S + 60 * i)
    accounts = await store.accounts(state, ledger)
    assert [account.entries for account in accounts] == [(Entry("gaussian(2.5)", 1, 10),)] * 2
    assert len({account.window for account in accounts}) == 2


async def test_counting_distinct_queries_and_journalling_them_is_a_bug(state: State, ledger: str) -> None:
    with pytest.raises(InvariantError):
        await state.charge(ledger, [private(1, digests=(KEY,))], NOW_S)


async def test_any_name_can_be_accounted_for(store: Store, state: State, ledger: str) -> None:
    names = ["client:a|60", "client:a%7C60", "{x}", "", "%", "é", "\ud800", "a\x00b", "a*[b]?", "%sha256-"]
    for name in names:
        await state.charge(ledger, [private(1, scope=name), private(1, budget=name, scope="")], NOW_S)
    found = {(account.budget, account.scope) for account in await store.accounts(state, ledger)}
    assert found == {("privacy/client", name) for name in names} | {(name, "") for name in names}


# -- terms -------------------------------------------------------------------------------------------------------------


async def test_the_terms_that_are_put_down_first_stay(state: State, ledger: str) -> None:
    assert await state.terms(ledger) is None
    assert await state.agree(ledger, b'{"a":1}') == b'{"a":1}'
    assert await state.agree(ledger, b'{"a":2}') == b'{"a":1}'
    assert await state.terms(ledger) == b'{"a":1}'
    assert await state.terms(f"{ledger}-other") is None


async def test_all_who_agree_at_once_agree_on_the_same(state: State, ledger: str) -> None:
    offers = [f'{{"a":{i}}}'.encode() for i in range(20)]
    agreed = await asyncio.gather(*[state.agree(ledger, offer) for offer in offers])
    assert len(set(agreed)) == 1
    assert agreed[0] in offers


async def test_charging_goes_on_under_agreed_terms(store: Store, state: State, ledger: str) -> None:
    await state.agree(ledger, b"{}")
    assert (await state.charge(ledger, [private(2)], NOW_S)).admission is Admission.ALLOW
    assert (await entries(store, state, ledger))["client:a"] == (Entry("gaussian(2.5)", 2, 20),)


async def test_every_state_says_whether_it_may_lose_charges(store: Store, state: State) -> None:
    said = await state.durability()
    match store.kind:
        case "memory":
            assert said == "memory: forgets everything when the process ends"
        case "redis":
            assert said == "redis: appendonly is not yes: a restart forgets what came after the last snapshot"
        case _:
            assert said == ""


# -- releases ----------------------------------------------------------------------------------------------------------


async def test_a_remembered_release_comes_back(state: State, ledger: str) -> None:
    assert await state.recall(ledger, [KEY, OTHER_SLOT]) == [None, None]
    await state.remember(ledger, [(KEY, b"one"), (OTHER_SLOT, b"")])
    assert await state.recall(ledger, [OTHER_SLOT, KEY, KEY, SAME_SLOT]) == [b"", b"one", b"one", None]
    assert await state.recall(f"{ledger}-other", [KEY]) == [None]
    assert await state.recall(ledger, []) == []
    await state.remember(ledger, [])


async def test_a_newer_release_displaces_what_was_in_its_slot(state: State, ledger: str) -> None:
    assert slot_of(KEY) == slot_of(SAME_SLOT) != slot_of(OTHER_SLOT)
    await state.remember(ledger, [(KEY, b"one")])
    await state.remember(ledger, [(SAME_SLOT, b"two")])
    assert await state.recall(ledger, [KEY, SAME_SLOT]) == [None, b"two"]
    await state.remember(ledger, [(KEY, b"three"), (SAME_SLOT, b"four"), (KEY, b"five")])
    assert await state.recall(ledger, [KEY, SAME_SLOT]) == [b"five", None]


async def test_a_release_that_is_too_long_is_not_kept(state: State, ledger: str) -> None:
    await state.remember(ledger, [(KEY, b"x" * (MOST_BYTES + 1)), (OTHER_SLOT, b"x" * MOST_BYTES)])
    assert await state.recall(ledger, [KEY, OTHER_SLOT]) == [None, b"x" * MOST_BYTES]


async def test_a_ledger_never_remembers_more_than_its_slots(state: State, ledger: str) -> None:
    keys = [i.to_bytes(16, "big") for i in range(SLOTS + 100)]
    for start in range(0, len(keys), 1000):
        await state.remember(ledger, [(key, b"x") for key in keys[start : start + 1000]])
    held = await state.recall(ledger, keys)
    assert held.count(None) == 100
    assert held[100:].count(b"x") == SLOTS


async def test_releases_survive_what_the_state_survives(store: Store, ledger: str) -> None:
    if store.kind == "memory":
        return  # it survives nothing, and says so
    for number in range(2):
        state = store.open(ledger)
        assert await state.recall(ledger, [KEY]) == [None if not number else b"one"]
        await state.remember(ledger, [(KEY, b"one")])
        assert await state.recall(ledger, [KEY]) == [b"one"]
        await state.charge(ledger, [private(1)], NOW_S)  # what waits is written with it
        assert await state.recall(ledger, [KEY]) == [b"one"]
        await state.aclose()


async def test_a_key_of_a_wrong_length_is_a_bug(state: State, ledger: str) -> None:
    with pytest.raises(InvariantError):
        await state.recall(ledger, [b"short"])
    with pytest.raises(InvariantError):
        await state.remember(ledger, [(b"short", b"one")])


async def test_many_at_once_remember_and_recall_their_own(state: State, ledger: str) -> None:
    async def one(i: int) -> None:
        key = i.to_bytes(16, "big")
        await state.remember(ledger, [(key, b"%d" % i)])
        assert await state.recall(ledger, [key]) == [b"%d" % i]

    await asyncio.gather(*[one(i) for i in range(300)])
