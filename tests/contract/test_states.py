"""What every State does alike: one suite for `memory:`, `sqlite:` and `redis:`, measured against a naive oracle."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guard.errors import InvariantError
from guard.model.ledger import Admission, Charge, Entry, Receipt, Spend
from guard.ports import State
from guard.state.counters import forgotten_after_s
from guard.state.open import open_state
from tests.support.states import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

ALLOW, LABEL_ONLY, DENY = Admission.ALLOW, Admission.LABEL_ONLY, Admission.DENY
NOW_S = 1_700_000_040.0
NOTHING = Spend(0, 0)
DIGESTS = [bytes([i]) * 16 for i in range(6)]
_ledgers = (f"compared-{i}" for i in itertools.count())


def rows(amount: int = 1, **changes: object) -> Charge:
    charge = Charge("rows/client", "client:a", 60, 10, amount)
    return charge._replace(**changes)


def graded(digests: Sequence[bytes], **changes: object) -> Charge:
    charge = Charge("information/group", "group:g", 0, 3, len(digests), "label_only", digests=tuple(digests))
    return charge._replace(**changes)


# -- one by one --------------------------------------------------------------------------------------------------------


async def test_a_budget_is_filled_exactly_and_then_denies(state: State, ledger: str) -> None:
    assert await state.charge(ledger, [rows(7)], NOW_S) == Receipt(ALLOW, None, (Spend(7, 7),), (Spend(7, 7),), ((),))
    assert await state.charge(ledger, [rows(4)], NOW_S) == Receipt(DENY, 0, (Spend(7, 7),), (NOTHING,), ((),))
    assert await state.charge(ledger, [rows(3)], NOW_S) == Receipt(ALLOW, None, (Spend(10, 10),), (Spend(3, 3),), ((),))
    assert await state.spend(ledger, rows(), NOW_S) == Spend(10, 10)


async def test_a_new_window_starts_empty_and_the_old_one_is_kept(state: State, ledger: str) -> None:
    await state.charge(ledger, [rows(10)], NOW_S)
    assert (await state.charge(ledger, [rows(1)], NOW_S + 60)).admission is ALLOW
    assert (await state.charge(ledger, [rows(1)], NOW_S)).admission is DENY
    for_ever = rows(10, window_s=0)
    await state.charge(ledger, [for_ever], NOW_S)
    assert (await state.charge(ledger, [for_ever], NOW_S + 1e9)).admission is DENY


async def test_label_only_goes_on_until_the_hard_limit(state: State, ledger: str) -> None:
    charge = rows(4, then="label_only", hard_limit=14)
    admissions = [(await state.charge(ledger, [charge], NOW_S)).admission for _ in range(4)]
    assert admissions == [ALLOW, ALLOW, LABEL_ONLY, DENY]
    assert await state.spend(ledger, charge, NOW_S) == Spend(8, 12)


async def test_a_denied_charge_leaves_every_other_counter_alone(state: State, ledger: str) -> None:
    await state.charge(ledger, [rows(9)], NOW_S)
    other = rows(2, scope="client:b")
    receipt = await state.charge(ledger, [other, graded(DIGESTS[:2]), rows(2)], NOW_S)
    assert receipt == Receipt(DENY, 2, (NOTHING, NOTHING, Spend(9, 9)), (NOTHING,) * 3, ((), (), ()))
    assert await state.spend(ledger, other, NOW_S) == Spend(0, 0)
    assert await state.spend(ledger, graded([]), NOW_S) == Spend(0, 0)


async def test_the_binding_charge_is_the_first_of_the_strictest(state: State, ledger: str) -> None:
    mild = rows(11, budget="mild", then="label_only")
    assert (await state.charge(ledger, [rows(1, budget="fits"), mild, rows(11)], NOW_S)).binding == 2
    receipt = await state.charge(ledger, [rows(1, budget="fits"), mild, mild._replace(budget="too")], NOW_S)
    assert (receipt.admission, receipt.binding) == (LABEL_ONLY, 1)


async def test_a_repeated_query_is_free(state: State, ledger: str) -> None:
    first = await state.charge(ledger, [graded([DIGESTS[0], DIGESTS[1], DIGESTS[0]])], NOW_S)
    assert first == Receipt(ALLOW, None, (Spend(2, 2),), (Spend(2, 2),), ((DIGESTS[0], DIGESTS[1]),))
    again = await state.charge(ledger, [graded([DIGESTS[1], DIGESTS[2]])], NOW_S)
    assert again == Receipt(ALLOW, None, (Spend(3, 3),), (Spend(1, 1),), ((DIGESTS[2],),))
    assert (await state.charge(ledger, [graded(DIGESTS[:3])], NOW_S)).fresh == ((),)
    assert (await state.charge(ledger, [graded(DIGESTS[2:4])], NOW_S)).admission is LABEL_ONLY
    assert (await state.charge(ledger, [graded(DIGESTS[:3])], NOW_S)).spends == (Spend(3, 5),)


async def test_a_label_only_call_pays_for_no_query(state: State, ledger: str) -> None:
    full = rows(11, then="label_only")
    receipt = await state.charge(ledger, [graded(DIGESTS[:2]), full, rows(2, budget="fits")], NOW_S)
    taken = (Spend(0, 2), Spend(0, 11), Spend(2, 2))
    assert receipt == Receipt(LABEL_ONLY, 1, taken, taken, ((), (), ()))
    assert (await state.charge(ledger, [graded(DIGESTS[:2])], NOW_S)).fresh == (tuple(DIGESTS[:2]),)


async def test_a_refund_gives_back_what_the_receipt_charged(state: State, ledger: str) -> None:
    charges = [rows(4), graded(DIGESTS[:2])]
    await state.charge(ledger, [rows(1), graded(DIGESTS[:1])], NOW_S)
    receipt = await state.charge(ledger, charges, NOW_S)
    await state.refund(ledger, charges, receipt, NOW_S)
    assert await state.spend(ledger, rows(), NOW_S) == Spend(1, 1)
    again = await state.charge(ledger, [graded(DIGESTS[:2])], NOW_S)
    assert again == Receipt(ALLOW, None, (Spend(2, 2),), (Spend(1, 1),), ((DIGESTS[1],),))


async def test_a_refund_of_nothing_gives_nothing(state: State, ledger: str) -> None:
    await state.charge(ledger, [rows(10)], NOW_S)
    denied = await state.charge(ledger, [rows(1)], NOW_S)
    await state.refund(ledger, [rows(1)], denied, NOW_S)
    assert await state.spend(ledger, rows(), NOW_S) == Spend(10, 10)
    elsewhere = rows(1, scope="client:unknown")
    await state.refund(ledger, [elsewhere], Receipt(ALLOW, None, (Spend(1, 1),), (Spend(1, 1),), ((),)), NOW_S)
    assert await state.spend(ledger, elsewhere, NOW_S) == Spend(0, 0)


async def test_refunding_twice_never_goes_below_zero(state: State, ledger: str) -> None:
    charges = [rows(4), graded(DIGESTS[:2])]
    receipt = await state.charge(ledger, charges, NOW_S)
    for _ in range(2):
        await state.refund(ledger, charges, receipt, NOW_S)
    assert [await state.spend(ledger, charge, NOW_S) for charge in charges] == [Spend(0, 0), Spend(0, 0)]


async def test_a_part_of_what_was_charged_can_be_given_back(state: State, ledger: str) -> None:
    """Generated text is settled so: what it was charged before, and has not come to."""
    charges = [rows(4), rows(9, budget="tokens/client"), graded(DIGESTS[:2])]
    receipt = await state.charge(ledger, charges, NOW_S)
    spare = receipt._replace(charged=(NOTHING, Spend(7, 7), NOTHING), fresh=((), (), ()))
    await state.refund(ledger, charges, spare, NOW_S)
    assert [await state.spend(ledger, charge, NOW_S) for charge in charges] == [Spend(4, 4), Spend(2, 2), Spend(2, 2)]
    again = await state.charge(ledger, charges[2:], NOW_S)
    assert again.charged == (NOTHING,)  # what was seen stays seen


async def test_a_label_only_refund_takes_off_the_total_alone(state: State, ledger: str) -> None:
    charges = [rows(2, budget="fits"), rows(11, then="label_only"), graded(DIGESTS[:2])]
    receipt = await state.charge(ledger, charges, NOW_S)
    await state.refund(ledger, charges, receipt, NOW_S)
    assert [await state.spend(ledger, charge, NOW_S) for charge in charges] == [NOTHING] * 3


@pytest.mark.parametrize("before", [5, 10])
async def test_a_refund_knows_what_fitted_beside_a_full_budget(state: State, ledger: str, before: int) -> None:
    """5 + 5 fits and 10 + 5 does not, and both leave 10: the spends alone do not tell them apart."""
    charges = [rows(11, budget="full", then="label_only"), rows(5, budget="open", then="label_only")]
    await state.charge(ledger, [charges[1]._replace(amount=before)], NOW_S)
    receipt = await state.charge(ledger, charges, NOW_S)
    assert (receipt.admission, receipt.spends[1].spent) == (LABEL_ONLY, 10)
    await state.refund(ledger, charges, receipt, NOW_S)
    assert await state.spend(ledger, charges[1], NOW_S) == Spend(before, before)


async def test_names_cannot_reach_another_counter(state: State, ledger: str) -> None:
    names = [
        "client:a",
        "client:a|60",
        "client:a%7C60",
        "client:a}",
        "{client:a",
        "",
        "%",
        "é",
        "\ud800",
        "a\x00b",
        "x" * 999,
    ]
    for name in names:
        assert (await state.charge(ledger, [rows(10, scope=name)], NOW_S)).admission is ALLOW
        assert (await state.charge(ledger, [rows(10, budget=name, scope="")], NOW_S)).admission is ALLOW
        assert (await state.charge(f"{ledger}{name}", [rows(1, scope="tag")], NOW_S)).spends == (Spend(1, 1),)
    assert (await state.charge("", [rows(1, scope=ledger)], NOW_S)).admission is ALLOW


async def test_ledgers_and_window_lengths_are_apart(state: State, ledger: str) -> None:
    await state.charge(ledger, [rows(10)], 90.0)
    assert (await state.charge(f"{ledger}-other", [rows(10)], 90.0)).admission is ALLOW
    assert (await state.charge(ledger, [rows(10, window_s=90)], 90.0)).admission is ALLOW


async def test_large_numbers_stay_exact(state: State, ledger: str) -> None:
    large = 2**53 - 1
    charge = rows(large - 1, limit=2**60, window_s=0, then="label_only", hard_limit=2**60)
    assert (await state.charge(ledger, [charge], NOW_S)).spends == (Spend(large - 1, large - 1),)
    assert (await state.charge(ledger, [charge._replace(amount=1)], NOW_S)).spends == (Spend(large, large),)


async def test_many_digests_are_one_call(state: State, ledger: str) -> None:
    digests = [i.to_bytes(16, "big") for i in range(2500)]
    charge = graded(digests, limit=2500)
    assert (await state.charge(ledger, [charge], NOW_S)).fresh == (tuple(digests),)
    receipt = await state.charge(ledger, [charge], NOW_S)
    assert receipt == Receipt(ALLOW, None, (Spend(2500, 2500),), (NOTHING,), ((),))


async def test_a_call_without_charges_is_allowed(state: State, ledger: str) -> None:
    assert await state.charge(ledger, [], NOW_S) == Receipt(ALLOW, None, (), (), ())


@pytest.mark.parametrize("before", [[], [rows(1)]], ids=["new", "known"])
async def test_one_counter_twice_in_a_call_is_a_bug(state: State, ledger: str, before: list[Charge]) -> None:
    await state.charge(ledger, before, NOW_S)
    with pytest.raises(InvariantError):
        await state.charge(ledger, [rows(1), rows(2)], NOW_S)
    with pytest.raises(InvariantError):
        await state.charge(ledger, [graded([b"short"])], NOW_S)


async def test_ping_returns_while_the_state_can_be_written(state: State) -> None:
    await state.ping()


async def test_a_closed_state_can_be_closed_again(store: Store, ledger: str) -> None:
    state = store.open(ledger)
    await state.aclose()
    await state.aclose()


# -- at once -----------------------------------------------------------------------------------------------------------


async def test_concurrent_charges_fill_the_limits_exactly(state: State, ledger: str) -> None:
    group = Charge("rows/group", "group:g", 0, 120, 1)
    calls = [[rows(1, scope=f"client:{i % 4}", limit=50), group] for i in range(400)]
    receipts = await asyncio.gather(*[state.charge(ledger, call, NOW_S) for call in calls])
    assert sum(receipt.admission is ALLOW for receipt in receipts) == 120
    clients = [(await state.spend(ledger, rows(scope=f"client:{i}"), NOW_S)).spent for i in range(4)]
    assert sum(clients) == 120
    assert max(clients) <= 50
    assert await state.spend(ledger, group, NOW_S) == Spend(120, 120)


async def test_concurrent_repeats_are_paid_for_once(state: State, ledger: str) -> None:
    calls = [[graded([DIGESTS[i % 3]])] for i in range(60)]
    receipts = await asyncio.gather(*[state.charge(ledger, call, NOW_S) for call in calls])
    assert sorted(digest for receipt in receipts for digest in receipt.fresh[0]) == DIGESTS[:3]
    assert await state.spend(ledger, graded([]), NOW_S) == Spend(3, 3)


async def test_a_cancelled_call_harms_nobody(state: State, ledger: str) -> None:
    tasks = [asyncio.ensure_future(state.charge(ledger, [rows(1)], NOW_S)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Receipt | asyncio.CancelledError) for result in results)
    spent = (await state.spend(ledger, rows(), NOW_S)).spent
    assert spent >= sum(isinstance(result, Receipt) for result in results) >= 5


# -- against an oracle -------------------------------------------------------------------------------------------------


@dataclass
class Naive:
    """The contract of `guard.model.ledger`, as slowly as it reads."""

    spent: dict[object, int] = field(default_factory=dict[object, int])
    total: dict[object, int] = field(default_factory=dict[object, int])
    paid: dict[object, list[bytes]] = field(default_factory=dict[object, list[bytes]])
    journal: dict[object, list[tuple[str, int, int]]] = field(default_factory=dict[object, list[tuple[str, int, int]]])
    took: list[list[tuple[Charge, object, Spend, list[bytes]]]] = field(
        default_factory=list[list[tuple[Charge, object, Spend, list[bytes]]]]
    )

    @staticmethod
    def name(charge: Charge, now_s: float) -> object:
        return charge.budget, charge.scope, charge.window_s, charge.window(now_s)

    def spend(self, charge: Charge, now_s: float) -> Spend:
        name = self.name(charge, now_s)
        return Spend(self.spent.get(name, 0), self.total.get(name, 0))

    def charge(self, charges: list[Charge], now_s: float) -> Receipt:
        outcomes: list[Admission] = []
        fresh: list[list[bytes]] = []
        for c in charges:
            paid = self.paid.get(self.name(c, now_s), [])
            fresh.append(sorted({d for d in c.digests or () if d not in paid}, key=(c.digests or ()).index))
            need = c.amount if c.digests is None else len(fresh[-1])
            now = self.spend(c, now_s)
            if now.spent + need <= c.limit:
                outcomes.append(ALLOW)
            elif c.then == "deny" or (c.hard_limit is not None and now.total + c.amount > c.hard_limit):
                outcomes.append(DENY)
            else:
                outcomes.append(LABEL_ONLY)
        worst = max(outcomes, key=lambda outcome: outcome.value)
        binding = None if worst is ALLOW else outcomes.index(worst)
        self.took.append([])
        for c, outcome, new in zip(charges, outcomes, fresh, strict=True):
            if worst is not DENY:
                self.take(c, outcome, new if worst is ALLOW else None, now_s)
        spends = tuple(self.spend(c, now_s) for c in charges)
        charged = (NOTHING,) * len(charges) if worst is DENY else tuple(took[2] for took in self.took[-1])
        return Receipt(worst, binding, spends, charged, tuple(tuple(f) if worst is ALLOW else () for f in fresh))

    def take(self, charge: Charge, outcome: Admission, new: list[bytes] | None, now_s: float) -> None:
        name = self.name(charge, now_s)
        spent, total = (charge.amount if outcome is ALLOW else 0), charge.amount
        if charge.digests is not None:
            spent, total = (0, charge.amount) if new is None else (len(new), len(new))
            self.paid.setdefault(name, []).extend(new or [])
        self.spent[name] = self.spent.get(name, 0) + spent
        self.total[name] = self.total.get(name, 0) + total
        if charge.event is not None and spent:
            self.journal.setdefault(name, []).append((charge.event, charge.rows, spent))
        self.took[-1].append((charge, name, Spend(spent, total), new or [] if charge.digests is not None else []))

    def refund(self, call: int) -> None:
        for charge, name, taken, new in self.took[call]:
            self.paid[name] = [d for d in self.paid.get(name, []) if d not in new]
            back = min(self.spent[name], taken.spent)
            self.spent[name] -= back
            self.total[name] = max(0, self.total[name] - taken.total)
            if charge.event is not None and back:
                self.journal[name].append((charge.event, -(charge.rows * back // taken.spent), -back))

    def entries(self, name: object) -> list[Entry]:
        """Add a counter's journal up by event."""
        entries = self.journal.get(name, [])
        return [
            Entry(event, sum(r for e, r, _ in entries if e == event), sum(a for e, _, a in entries if e == event))
            for event in sorted({event for event, _, _ in entries})
        ]


@st.composite
def one_charge(draw: st.DrawFn) -> Charge:
    limit = draw(st.integers(1, 8))
    hard_limit = draw(st.none() | st.integers(limit, limit + 6))
    budget = draw(st.sampled_from(["a", "b", "privacy"]))
    distinct = st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=4).map(tuple)
    digests = draw(st.none() | distinct) if budget != "privacy" else None
    return Charge(
        budget=budget,
        scope=draw(st.sampled_from(["client:x", "client:y", "model"])),
        window_s=draw(st.sampled_from([0, 60, 3600])),
        limit=limit,
        amount=len(digests) if digests else draw(st.integers(1, 4)),
        then=draw(st.sampled_from(["deny", "label_only"])),
        hard_limit=hard_limit,
        digests=digests,
        event=draw(st.sampled_from(["gaussian(2.5)", "pure(0.1)"])) if budget == "privacy" else None,
        rows=draw(st.integers(1, 5)),
    )


calls = st.lists(one_charge(), min_size=1, max_size=3, unique_by=lambda c: (c.budget, c.scope, c.window_s))
steps = st.lists(
    st.tuples(st.just("charge"), calls)
    | st.tuples(st.just("refund"), st.integers(0, 5))
    | st.tuples(st.just("wait"), st.integers(1, 100))
    | st.tuples(st.just("reopen"), st.none()),
    min_size=1,
    max_size=25,
)


async def compare(store: Store, plan: list[tuple[str, object]]) -> None:
    name = next(_ledgers)
    state, naive, now_s = store.open(name), Naive(), NOW_S
    answered: list[tuple[list[Charge], Receipt, float]] = []
    for step, argument in plan:
        if step == "charge":
            charges = cast("list[Charge]", argument)  # what `steps` draws for it
            receipt = await state.charge(name, charges, now_s)
            assert receipt == naive.charge(charges, now_s)
            answered.append((charges, receipt, now_s))
        elif step == "refund" and isinstance(argument, int) and argument < len(answered):
            charges, receipt, then_s = answered[argument]
            await state.refund(name, charges, receipt, then_s)
            naive.refund(argument)
            kept = [c for c in charges if not c.window_s or forgotten_after_s(c.window_s, c.window(then_s)) > now_s]
            assert [await state.spend(name, c, then_s) for c in kept] == [naive.spend(c, then_s) for c in kept]
        elif step == "wait" and isinstance(argument, int):
            now_s += argument
        elif step == "reopen" and type(state).__name__ != "MemoryState":
            await state.aclose()
            state = store.open(name)
    for charges, _, _ in answered:
        assert [await state.spend(name, c, now_s) for c in charges] == [naive.spend(c, now_s) for c in charges]
    for account in await store.accounts(state, name):
        journalled = account.budget == "privacy"
        assert sum(entry.amount for entry in account.entries) == (account.spend.spent if journalled else 0)
        if not account.window_s or forgotten_after_s(account.window_s, account.window) > now_s:
            assert list(account.entries) == naive.entries(tuple(account[:4]))
    await state.aclose()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_every_state_agrees_with_the_contract(store: Store, plan: list[tuple[str, object]]) -> None:
    asyncio.run(compare(store, plan))


def test_the_oracle_is_exercised() -> None:
    """A negative control: an oracle that is off by one is caught."""

    async def go() -> None:
        state, naive = open_state("memory:"), Naive(spent={Naive.name(rows(), NOW_S): 1})
        assert await state.charge("m", [rows(10)], NOW_S) != naive.charge([rows(10)], NOW_S)

    asyncio.run(go())
