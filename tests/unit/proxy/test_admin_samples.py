from __future__ import annotations

import asyncio
import doctest
import re
from pathlib import Path

import pytest

import guard
from guard.errors import InvariantError, StateError, UpstreamError
from guard.proxy import admin_samples
from guard.proxy.admin_samples import EVERY_S, KEPT, ROUTES_AT_ONCE, Samples, outcome_class, percentiles
from guard.telemetry.metrics import LATENCY_BUCKETS_S, MAX_ROUTES, Metrics


class Clock:
    """A clock that goes on by one sample at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def samples(metrics: Metrics, clock: Clock) -> Samples:
    return Samples(metrics, clock)


async def take(samples: Samples, clock: Clock, times: int = 1) -> None:
    for _ in range(times):
        await samples.take()
        clock.now_s += EVERY_S


async def test_requests_are_added_up_over_routes_and_by_what_came_of_them(
    samples: Samples, metrics: Metrics, clock: Clock
) -> None:
    await take(samples, clock)
    for name, outcome in (
        ("a", "ok"),
        ("b", "ok"),
        ("b", "budget_spent"),
        ("a", "bad_json"),
        ("a", "state_unavailable"),
    ):
        metrics.route(name).request(outcome)
    metrics.route("a").verdict("deny", "enforce")
    metrics.route("a").verdict("status", "enforce")
    metrics.route("b").added(0.0007)
    await take(samples, clock)
    ends = samples.last_minute()
    assert ends is not None
    assert ends[0].outcomes == (0, 0, 0, 0, 0, 0)
    assert ends[1].outcomes == (2, 1, 1, 0, 1, 0)
    assert ends[1].verdicts == (0, 0, 0, 0, 0, 1)
    assert sum(ends[1].added) == 1
    assert samples.curve[-1].p50 == pytest.approx(0.00075)


async def test_ten_minutes_are_kept_and_no_more(samples: Samples, clock: Clock) -> None:
    await take(samples, clock, KEPT + 40)
    assert (len(samples.kept), len(samples.curve)) == (KEPT, KEPT)
    assert samples.kept[-1].at_s - samples.kept[0].at_s == 600.0
    ends = samples.last_minute()
    assert ends is not None
    assert ends[1].at_s - ends[0].at_s == 60.0


async def test_the_first_look_is_at_the_start(samples: Samples) -> None:
    running = asyncio.create_task(samples.run())
    await asyncio.sleep(0)
    running.cancel()
    assert len(samples.kept) == 1


async def test_a_latency_curve_forgets_what_is_ten_seconds_old(
    samples: Samples, metrics: Metrics, clock: Clock
) -> None:
    await take(samples, clock)
    metrics.route("a").added(0.4)
    await take(samples, clock, 5)
    assert [point.n for point in samples.curve] == [0, 1, 1, 1, 1, 1]
    await take(samples, clock)
    assert samples.curve[-1] == (None, None, None, 0)


async def test_a_route_is_told_of_by_itself(samples: Samples, metrics: Metrics, clock: Clock) -> None:
    assert samples.of_route("a") == (0.0, (0,) * 6, (None, None, None, 0))
    metrics.route("a").request("ok")
    await take(samples, clock, 31)
    metrics.route("a").request("ok")
    metrics.route("a").added(0.003)
    metrics.route("late").request("denied")
    seconds, outcomes, added = samples.of_route("a")
    assert 50 <= seconds <= 64
    assert (outcomes[0], added.n) == (1, 1)
    assert samples.of_route("late")[1] == (0, 1, 0, 0, 0, 0)


async def test_other_work_goes_on_between_pieces(samples: Samples, metrics: Metrics) -> None:
    for number in range(MAX_ROUTES):
        metrics.route(f"r{number}")
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await samples.take()
    task.cancel()
    assert others >= MAX_ROUTES // ROUTES_AT_ONCE - 1


def test_percentiles_of_nothing_and_beyond_the_last_bound() -> None:
    buckets = len(LATENCY_BUCKETS_S) + 1
    assert percentiles([0] * buckets) == (None, None, None, 0)
    assert percentiles([0] * (buckets - 1) + [3]) == (10.0, 10.0, 10.0, 3)
    found = percentiles([90] + [0] * (buckets - 3) + [10, 0])
    assert found.p50 == pytest.approx(27.8e-6, rel=0.01)
    assert found.p99 == pytest.approx(9.2, rel=0.01)


def test_every_code_that_guard_raises_is_counted_for_who_failed() -> None:
    of = {"UpstreamError": "model", "StateError": "closed"}
    source = "".join(file.read_text(encoding="utf-8") for file in Path(guard.__file__).parent.rglob("*.py"))
    raised = re.findall(r'\b(UpstreamError|StateError)\((?:[^()]|\([^()]*\))*?\bcode="(\w+)"', source)
    assert {name for name, _ in raised} == of.keys()
    assert len(set(raised)) > 12
    assert [(name, code) for name, code in raised if outcome_class(code) != of[name]] == []
    for error in (UpstreamError, StateError, InvariantError):
        assert outcome_class(error.code) in ("model", "closed")


def test_doctests_hold() -> None:
    assert not doctest.testmod(admin_samples).failed
