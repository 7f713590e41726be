"""Clients' records on a real Valkey: batches, times to live, outages; two replicas that watch the same client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from guard.detectors import DETECTORS
from guard.detectors.setup import make_setup
from guard.errors import StateError
from guard.evidence.values import field
from guard.model.client import Client
from guard.model.domain import Inputs
from guard.model.evidence import Delta
from guard.model.queries import Queries
from guard.ports import EVIDENCE_KEPT_S
from guard.proxy.watched import HotSet
from guard.state.redis import RedisState
from guard.state.redis_books import RedisBooks
from guard.telemetry.metrics import Metrics
from tests.support.fakes import SetClock
from tests.support.valkey import Valkey
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from guard.detectors.setup import Setup
    from guard.model.arrays import Floats
    from guard.policy.plan import RoutePlan
    from guard.proxy.watched import Watched

NOW_S = 1_700_000_040.0
SPACE = "evidence/m/0123456789ab"


@pytest.fixture
async def state(valkey: Valkey) -> AsyncIterator[RedisState]:
    opened = RedisState(valkey.url, timeout_s=2.0)
    yield opened
    await opened.aclose()


async def test_a_records_time_to_live_begins_anew_with_each_addition(valkey: Valkey, state: RedisState) -> None:
    def left_ms() -> int:
        return int(valkey.command("PTTL", "guard:{m}:e|evidence|0123456789ab|a%230")[1:])

    await state.merge(SPACE, [Delta("a#0", {1: 1})], NOW_S)
    assert EVIDENCE_KEPT_S * 1000 - 60_000 < left_ms() <= EVIDENCE_KEPT_S * 1000
    valkey.command("PEXPIRE", "guard:{m}:e|evidence|0123456789ab|a%230", "50000")
    await state.merge(SPACE, [Delta("a#0")], NOW_S)
    assert left_ms() <= 50_000
    await state.merge(SPACE, [Delta("a#0", {1: 1})], NOW_S)
    assert left_ms() > 50_000
    await state.merge(SPACE, [Delta("b#0")], NOW_S)
    assert b"b%230" not in valkey.command("KEYS", "*")


async def test_evidence_and_marks_of_a_ledger_travel_together_and_reads_are_few_at_once(
    valkey: Valkey, state: RedisState
) -> None:
    await state.merge(SPACE, [Delta("first")], NOW_S)
    valkey.command("CONFIG", "RESETSTAT")
    known = [Delta(f"{i}#0", {1: 1}, seen=0) for i in range(40)]
    await asyncio.gather(state.merge(SPACE, known, NOW_S), state.merge("marks/m", [Delta("a", seen=0)], NOW_S))
    assert b"cmdstat_evalsha:calls=1," in valkey.command("INFO", "commandstats")
    await state.merge(SPACE, [Delta(f"{i}#0") for i in range(200)], NOW_S)
    assert b"cmdstat_evalsha:calls=14," in valkey.command("INFO", "commandstats")


async def test_a_server_that_lost_the_script_is_told_it_again(valkey: Valkey, state: RedisState) -> None:
    await state.merge(SPACE, [Delta("a#0", {1: 1})], NOW_S)
    assert valkey.command("SCRIPT", "FLUSH").startswith(b"+OK")
    (record,) = await state.merge(SPACE, [Delta("a#0", {1: 1})], NOW_S)
    assert record.counts == {1: 2}


async def test_a_killed_server_is_an_error_and_its_restart_loses_and_doubles_nothing(
    valkey: Valkey, state: RedisState
) -> None:
    delta = Delta("a#0", {1: 1}, once=77)
    await state.merge(SPACE, [delta], NOW_S)
    valkey.kill()
    for call in (state.merge(SPACE, [delta], NOW_S), state.merge(SPACE, [Delta("a#0")], NOW_S)):
        with pytest.raises(StateError):
            await call
    valkey.start()
    await eventually(state.ping)
    (record,) = await state.merge(SPACE, [delta], NOW_S)
    assert record.counts == {1: 1}


async def test_operators_are_not_shown_records_as_ledgers(valkey: Valkey, state: RedisState) -> None:
    await state.merge("marks/only", [Delta("a", marks={1: 1})], NOW_S)
    await state.agree("m", b"terms")
    books = RedisBooks(valkey.url, write=False)
    assert await books.ledgers() == ["m"]
    await books.aclose()


async def test_a_full_record_is_read_exactly(state: RedisState) -> None:
    counts = {
        field(bucket, signal, bin_): bucket + 1 for bucket in range(32) for signal in range(13) for bin_ in range(8)
    }
    await state.merge(SPACE, [Delta("a#0", counts)], NOW_S)
    (record,) = await state.merge(SPACE, [Delta("a#0", {field(32, 0, 0): 1})], NOW_S)
    assert record.counts == {f: n for f, n in counts.items() if f >= field(1, 0, 0)} | {field(32, 0, 0): 1}


# -- two replicas that watch the same client ---------------------------------------------------------------------------

WIDTH = 8


@dataclass(frozen=True)
class Detecting:
    """A route's detection, as far as the hot set looks at it."""

    setup: Setup


@dataclass(frozen=True)
class Route:
    """A route, likewise."""

    detection: Detecting
    ledger: str = "m"


def structure_route() -> RoutePlan:
    kinds = [detector(kind=kind) for kind, detector in DETECTORS.items() if detector.tier == "structure"]
    inputs = Inputs(size=WIDTH, low=0.0, high=1.0)
    return cast("RoutePlan", Route(Detecting(make_setup(tuple(kinds), None, inputs, bytes(16)))))


def one_feature_varied(n: int) -> Floats:
    """A point of which one feature at a time is moved: finite differences."""
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.random((1, WIDTH)), n, axis=0)
    rows[np.arange(n), np.arange(n) % WIDTH] = rng.random(n)
    return rows


def ask(route: RoutePlan, watched: Watched, row: Floats) -> None:
    assert route.detection is not None
    watched.tracker.ask(route.detection.setup.sketcher.features(Queries(1, [row.tolist()])))


async def test_a_client_split_over_two_replicas_has_the_same_evidence_on_both(valkey: Valkey) -> None:
    states = [RedisState(valkey.url), RedisState(valkey.url)]
    replicas = [HotSet(state, SetClock(NOW_S), Metrics()) for state in states]
    route, thief = structure_route(), Client("thief", "thief", "api_key")
    watched = [await replica.bring(route, thief, NOW_S) for replica in replicas]
    for number, row in enumerate(one_feature_varied(640)):
        ask(route, watched[number % 2], row)
        replicas[number % 2].touched(watched[number % 2])
        if number % 50 == 0:
            await asyncio.gather(*[replica.sync(NOW_S) for replica in replicas])
    for _ in range(2):
        for replica in replicas:
            replica.peek(route, thief)
            await replica.sync(NOW_S)
    one, other = (each.tracker.wealth.counts() for each in watched)
    assert dict(one) == dict(other)
    assert sum(one.values()) == 2 * (320 // 16) * len(watched[0].setup.null.signals)
    assert watched[0].tracker.strength() == pytest.approx(watched[1].tracker.strength())
    assert watched[0].tracker.strength().structure > np.log(1000)
    for replica, state in zip(replicas, states, strict=True):
        await replica.aclose(NOW_S)
        await state.aclose()
