"""The soak's judge: what it must find, and what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.soak.notes import Notes
from tests.soak.samples import Sample
from tests.soak.verdict import checks, growth

MINUTES = 5
REST = Sample(0.0, 150_000, 180_000, 30, 6, 0, 5, 9, 0, 10, 1000, 1.0)


def samples(leak: float = 0.0, noise: float = 0.003, seed: int = 1, minutes: float = MINUTES) -> list[Sample]:
    """Return samples every 5 s of a guard that fills up in its first minute, and then grows by a share of that."""
    rng = np.random.default_rng(seed)
    found: list[Sample] = []
    wander = 0.0
    for number in range(int(minutes * 12)):
        at_s = 5.0 * (number + 1)
        wander = 0.7 * wander + rng.normal() * noise  # memory comes and goes in pieces that last
        grown = leak * max(0.0, at_s - 120) / (60 * minutes - 120)
        kb = 150_000 * (1 - 0.4 * np.exp(-at_s / 15)) * (1 + grown + wander)
        found.append(replace(REST, at_s=at_s, private_kb=int(kb)))
    return found


def failed(
    found: list[Sample], after: Sample = REST, wrong: dict[str, list[str]] | None = None, traced: int = 0
) -> list[str]:
    return [one.name for one in checks(found, REST, after, 60 * MINUTES, 28, wrong or {}, traced) if not one.ok]


@pytest.mark.parametrize("seed", range(5))
def test_a_guard_that_fills_up_and_stays_is_passed(seed: int) -> None:
    assert failed(samples(seed=seed)) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("leak", [0.06, 0.2, 3.0])
def test_a_planted_leak_is_found(leak: float, seed: int) -> None:
    assert failed(samples(leak, seed=seed)) == ["memory grows by less than 5% behind the warm-up"]


def test_what_cannot_be_told_is_not_passed() -> None:
    assert failed(samples(noise=0.2)) != []
    with pytest.raises(ValueError, match="too few"):
        growth(samples()[:30], 60 * MINUTES)


def test_the_interval_holds_the_leak_that_was_planted() -> None:
    held = 0
    for seed in range(40):
        line = growth(samples(0.03, seed=seed, minutes=30), 60 * 30)
        held += line.low <= 0.03 * (1800 - 450) / (1800 - 120) <= line.high
    assert held >= 32


@pytest.mark.parametrize(
    ("left", "name"),
    [
        ({"fds": 31}, "file descriptors are back, without Redis's"),
        ({"fds": 60, "redis": 36}, "connections to Redis are bounded"),
        ({"tasks": 10}, "tasks are back"),
        ({"threads": 7}, "threads are back"),
        ({"in_flight": 1}, "nothing is in flight"),
        ({"log_bytes": 2**21}, "the log is short"),
    ],
)
def test_what_is_left_behind_is_found(left: dict[str, int], name: str) -> None:
    assert failed(samples(), replace(REST, **left)) == [name]


def test_what_went_wrong_is_found() -> None:
    assert failed(samples(), wrong={"nothing is overspent": ["rows: a"]}) == ["nothing is overspent"]
    assert failed(samples(), traced=1) == ["the log has no tracebacks"]


def test_a_failure_is_explained_by_a_fault_that_lasts_and_by_no_other() -> None:
    notes = Notes(0.0)
    away = "the state cannot be reached"
    assert notes.cause("honest", "scores", 503, away) is None
    notes.fault("redis", 60.0)
    assert notes.cause("honest", "scores", 503, away) == "Redis was away"
    assert notes.cause("honest", "scores", 503, "too many requests in flight") is None
    assert notes.cause("honest", "scores", 502, "the model failed") is None
    assert notes.cause("honest", "scores", 403, "this client may not ask") is None
    assert notes.cause("thief", "scores", 403, "this client may not ask") is not None
