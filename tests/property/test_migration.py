"""Whatever operators do to a ledger, no scope of a budget in force ever says less than it was truly answered.

A small world beside the ledger remembers every answer for ever; the ledger has counters, floors and terms only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.events import parse
from guard.privacy.filters import MOST, parse_filter
from guard.privacy.migrate import Migration, migrate
from guard.privacy.replay import discrepancies
from guard.privacy.reset import reset
from guard.privacy.terms import Act, Terms, period_s

GROUPS = {"a": "x", "b": "x", "c": "y"}
BUDGETS = ("privacy/client", "privacy/group", "privacy/model", "privacy/client/100s", "privacy/model/1000s")
FILTERS = ("gdp", "rdp(3.0)", "rdp(32.0)")
EVENTS = ("gaussian(20.0)", "gaussian(50.0)", "gaussian(20.0)+gaussian(50.0)", "laplace(30.0)")
DELTAS = (1e-9, 1e-6, 1e-3)
BEGUN_S = 1_700_000_050.0

Migrate = Callable[[Terms, Terms, list[Account], Act, float], Migration]


@dataclass(frozen=True)
class Answer:
    client: str
    event: str
    rows: int


@dataclass(frozen=True)
class Wait:
    seconds: int


@dataclass(frozen=True)
class Move:
    filter: str
    budgets: frozenset[str]
    delta: float

    def terms(self) -> Terms:
        return Terms(self.filter, dict.fromkeys(sorted(self.budgets), self.delta), ("dp_gaussian/l2/1",))


@dataclass(frozen=True)
class Reset:
    budget: str
    scope: str


Step = Answer | Wait | Move | Reset
MOVES = st.builds(
    Move,
    filter=st.sampled_from(FILTERS),
    budgets=st.frozensets(st.sampled_from(BUDGETS), min_size=1, max_size=3),
    delta=st.sampled_from(DELTAS),
)
STEPS = st.lists(
    st.builds(
        Answer,
        client=st.sampled_from(sorted(GROUPS)),
        event=st.sampled_from([*EVENTS[:2] * 3, *EVENTS]),
        rows=st.integers(1, 50),
    )
    | st.builds(Wait, seconds=st.sampled_from([1, 30, 60, 120, 900]))
    | MOVES
    | st.builds(Reset, budget=st.sampled_from(["", *BUDGETS]), scope=st.sampled_from(["", "client:a", "model"])),
    max_size=16,
)


def scopes_of(budget: str) -> dict[str, set[str]]:
    """Every scope of a budget with its clients, whether it was ever charged or not."""
    if "/client" in budget:
        return {f"client:{name}": {name} for name in GROUPS}
    if "/group" in budget:
        return {f"group:{group}": {c for c in GROUPS if GROUPS[c] == group} for group in GROUPS.values()}
    return {"model": set(GROUPS)}


def window_of(budget: str, now_s: float) -> int:
    return int(now_s // period_s(budget)) if period_s(budget) else 0


@dataclass
class World:
    terms: Terms
    how: Migrate = migrate
    now_s: float = BEGUN_S
    accounts: dict[tuple[str, str, int], Account] = field(default_factory=dict[tuple[str, str, int], Account])
    answers: list[tuple[int, float, Answer]] = field(default_factory=list[tuple[int, float, Answer]])
    resets: list[tuple[int, Reset]] = field(default_factory=list[tuple[int, Reset]])
    ticks: Iterable[int] = field(default_factory=count)

    def do(self, step: Step) -> None:
        tick = next(iter(self.ticks))
        match step:
            case Answer():
                if parse_filter(self.terms.filter).supports(parse(step.event)):
                    self.answers.append((tick, self.now_s, step))
                    self.charge(step)
            case Wait():
                self.now_s += step.seconds
                kept = {k: a for k, a in self.accounts.items() if not a.window_s or self.now_s < self.gone_s(a)}
                self.accounts = kept
            case Move():
                try:
                    self.move(step.terms())
                except ValueError:
                    assert step.filter == "gdp"  # it cannot account for Laplace noise that was used
            case Reset():
                act = Act("reset", "", "a good reason", step.budget, step.scope)
                self.take_in(reset(self.terms, list(self.accounts.values()), act, self.now_s))
                self.resets.append((tick, step))

    def gone_s(self, account: Account) -> int:
        return (account.window + 1) * account.window_s + account.window_s

    def charge(self, answer: Answer) -> None:
        cost = self.cost(answer)
        for budget in self.terms.deltas:
            scope = next(s for s, members in scopes_of(budget).items() if answer.client in members)
            key = (budget, scope, window_of(budget, self.now_s))
            empty = Account(budget, scope, period_s(budget), key[2], Spend(0, 0), ())
            old = self.accounts.get(key, empty)
            spent = old.spend.spent + cost * answer.rows
            sums = {entry.event: entry for entry in old.entries}
            known = sums.get(answer.event, Entry(answer.event, 0, 0))
            sums[answer.event] = Entry(answer.event, known.rows + answer.rows, known.amount + cost * answer.rows)
            self.accounts[key] = old._replace(spend=Spend(spent, spent), entries=tuple(sums.values()))

    def move(self, wanted: Terms) -> None:
        act = Act("migrate", "", "a good reason")
        self.take_in(self.how(self.terms, wanted, list(self.accounts.values()), act, self.now_s))

    def take_in(self, migration: Migration) -> None:
        self.terms = migration.terms
        self.accounts |= {(a.budget, a.scope, a.window): a for a in migration.accounts}

    def said(self, budget: str, scope: str) -> int:
        """What the ledger says a scope has spent, in the units of its filter."""
        account = self.accounts.get((budget, scope, window_of(budget, self.now_s)))
        floor = self.terms.floors_at(self.now_s).get(budget, 0)
        return floor + (account.spend.spent if account is not None else 0)

    def true(self, budget: str, scope: str) -> int:
        """What it was truly answered since it was last reset, in its present period."""
        covering = (t for t, r in self.resets if r.budget in ("", budget) and r.scope in ("", scope))
        since = max(covering, default=-1)
        members = scopes_of(budget)[scope]
        return sum(
            self.cost(answer) * answer.rows
            for tick, at_s, answer in self.answers
            if tick > since and answer.client in members and window_of(budget, at_s) == window_of(budget, self.now_s)
        )

    def cost(self, answer: Answer) -> int:
        filter_, event = parse_filter(self.terms.filter), parse(answer.event)
        return filter_.cost(event) if filter_.supports(event) else MOST  # forgotten with its period, or it were refused

    def present(self) -> dict[tuple[str, str], int]:
        return {(b, scope): self.said(b, scope) for b in self.terms.deltas for scope in scopes_of(b)}

    def check(self) -> None:
        filter_ = parse_filter(self.terms.filter)
        for budget, scope in self.present():
            assert min(self.true(budget, scope), MOST) <= self.said(budget, scope), (budget, scope)
        for account in self.accounts.values():
            assert discrepancies(account, self.terms, filter_) == []


def run(begun: Move, steps: list[Step], how: Migrate = migrate) -> None:
    world = World(begun.terms(), how)
    for step in steps:
        world.do(step)
        world.check()


@given(begun=MOVES, steps=STEPS)
@settings(deadline=None, max_examples=150)
def test_no_scope_ever_says_less_than_it_was_answered(begun: Move, steps: list[Step]) -> None:
    run(begun, steps)


CLIENT, MODEL = Move("gdp", frozenset({"privacy/client"}), 1e-6), Move("gdp", frozenset({"privacy/model"}), 1e-6)
SOME = Answer("a", "gaussian(20.0)", 40)


def without_floors(live: Terms, wanted: Terms, accounts: list[Account], act: Act, now_s: float) -> Migration:
    made = migrate(live, wanted, accounts, act, now_s)
    return replace(made, terms=replace(made.terms, floors={}))


def without_units(live: Terms, wanted: Terms, accounts: list[Account], act: Act, now_s: float) -> Migration:
    return replace(migrate(live, wanted, accounts, act, now_s), accounts=())


@pytest.mark.parametrize("steps", [[SOME, MODEL], [SOME, MODEL, SOME, CLIENT]])
def test_a_migration_without_floors_would_be_caught(steps: list[Step]) -> None:
    run(CLIENT, steps)
    with pytest.raises(AssertionError):
        run(CLIENT, steps, without_floors)


def test_a_migration_that_leaves_units_as_they_are_would_be_caught() -> None:
    steps: list[Step] = [SOME, replace(CLIENT, filter="rdp(32.0)")]
    run(CLIENT, steps)
    with pytest.raises(AssertionError):
        run(CLIENT, steps, without_units)


@given(begun=MOVES, steps=STEPS, to=MOVES)
@settings(deadline=None, max_examples=150)
def test_no_migration_lowers_epsilon_at_any_delta(begun: Move, steps: list[Step], to: Move) -> None:
    world = World(begun.terms())
    for step in steps:
        world.do(step)
    before, old = world.present(), parse_filter(world.terms.filter)
    ever = [units for (budget, _), units in before.items() if not period_s(budget)]
    live = world.terms
    world.do(to)
    new, deltas = parse_filter(world.terms.filter), {*live.deltas.values(), to.delta}
    for (budget, scope), after in world.present().items():
        if budget not in live.deltas and budget in live.floors:
            continue  # one that comes back says what it said then and what everybody was answered since
        least = before.get((budget, scope), 0 if period_s(budget) else max(ever, default=0))
        for delta in deltas:
            # Two bisections agree to 1e-12.
            assert new.epsilon(after, delta) >= old.epsilon(least, delta) * (1 - 1e-11) or after >= MOST


@given(begun=MOVES, steps=STEPS, way=st.lists(MOVES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=100)
def test_there_and_back_refunds_nothing(begun: Move, steps: list[Step], way: list[Move]) -> None:
    world = World(begun.terms())
    for step in steps:
        world.do(step)
    terms, before = world.terms, world.present()
    for move in way:
        world.do(move)
    back = Terms(terms.filter, terms.deltas, terms.mechanisms)
    world.move(back)
    assert all(world.present()[key] >= units for key, units in before.items())


@given(rows=st.lists(st.integers(1, 50), min_size=1, max_size=3))
@settings(deadline=None)
def test_scopes_there_and_back_at_once_cost_nothing(rows: list[int]) -> None:
    world = World(CLIENT.terms())
    for client, amount in zip(GROUPS, rows, strict=False):
        world.do(Answer(client, "gaussian(50.0)", amount))
    before = world.present()
    world.do(MODEL)
    world.do(CLIENT)
    assert world.present() == before


def test_a_world_that_forgets_keeps_the_present_period() -> None:
    world = World(Move("gdp", frozenset({"privacy/client/100s"}), 1e-6).terms())
    for before, after in pairwise([0, 30, 60, 120]):
        world.do(SOME)
        world.do(Wait(after - before))
        world.check()
