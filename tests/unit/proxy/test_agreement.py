"""What a process knows of a ledger's terms, and when it asks again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from guard.errors import PolicyError, StateError
from guard.policy.load import load_plan
from guard.policy.plan import RoutePlan
from guard.privacy.terms import Terms
from guard.proxy.agreement import Agreements
from guard.state.memory import MemoryState
from tests.support.operators import LAPLACE, MODEL, policy


class Moved(MemoryState):
    """A state whose terms an operator changes, and that counts who asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def agree(self, ledger: str, terms: bytes) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        return await super().agree(ledger, terms)

    def move(self, terms: Terms) -> None:
        self._terms["digits"] = terms.dumps()


def route(file: Path) -> RoutePlan:
    return load_plan(file, api=None, env={}).routes[0]


def accepting(made: RoutePlan) -> RoutePlan:
    """The route, as another plan has it, whose claim bears a state that forgets."""
    assert made.private is not None
    return replace(made, private=replace(made.private, accept_lost_writes="a test"))


def terms_of(made: RoutePlan) -> Terms:
    assert made.private is not None
    return made.private.terms


@pytest.fixture
def old(tmp_path: Path) -> RoutePlan:
    return accepting(route(policy(tmp_path, MODEL.replace("}", ", period: 30d, guarantee: per_period}"))))


async def test_a_floor_ends_with_its_period(old: RoutePlan) -> None:
    state = Moved()
    (name,) = terms_of(old).deltas
    state.move(replace(terms_of(old), floors={name: 7}, until={name: 2_592_000}))
    agreements = Agreements(state)
    assert await agreements.floors(old, 2_591_999.0) == {name: 7}
    assert await agreements.floors(old, 2_592_000.0) == {}


async def test_a_plan_that_still_serves_asks_again_once_another_was_refused(tmp_path: Path, old: RoutePlan) -> None:
    """By asking, the other has made the state let this process charge under terms that the old plan does not know."""
    state = Moved()
    agreements = Agreements(state)
    assert await agreements.floors(old, 0.0) == {}
    moved = terms_of(route(policy(tmp_path, MODEL, mechanism=LAPLACE, name="moved.yaml")))
    state.move(moved)
    with pytest.raises(PolicyError, match="begun under other terms"):
        await agreements.check([accepting(old)])
    with pytest.raises(StateError, match="begun under other terms"):
        await agreements.floors(old, 0.0)


async def test_all_who_come_at_once_ask_the_state_once(old: RoutePlan) -> None:
    state = Moved()
    agreements = Agreements(state)
    assert await asyncio.gather(*[agreements.floors(old, 0.0) for _ in range(50)]) == [{}] * 50
    assert state.asked == 1
    agreements.forget(old.ledger)
    assert await agreements.floors(old, 0.0) == {}
    assert state.asked == 2


async def test_who_asks_first_and_leaves_takes_nobody_along(old: RoutePlan) -> None:
    agreements = Agreements(Moved())
    first, second = [asyncio.ensure_future(agreements.floors(old, 0.0)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {}
