"""How often honest clients alarm: under the null's own hierarchy, under a wrong null, and with conformal thresholds.

Every test has a fixed seed and error rate 1e-6, and a negative control that the same statistic refuses.

What is simulated: a client draws a prototype by weight, from it a distribution over bins for each signal (Dirichlet),
and from that its windows (so counts are Dirichlet-multinomial, as the null says). Signals 0 and 1 see the same windows:
the mean over signals must bear dependent ones. Streams are three buckets long, so up to three starts run at once, and
evidence is looked at after every window; what counts is the greatest so far (`sup`), as in the ladder.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest

from guard.evidence.fit import bets
from guard.evidence.gamma import evidence, log_sum_exp
from guard.evidence.levels import level
from guard.evidence.null import Null
from guard.evidence.values import BINS, BUCKET, Signal
from guard.evidence.wealth import Wealth, starts
from guard.model.arrays import Floats, Ints
from tests.support.laws import ERROR_RATE

ALPHA = 0.01
CLIENTS = 100_000
WRONG = 40_000
"""Clients that meet the wrong null."""
CHUNK = 2000
WINDOWS = 3 * BUCKET
SIGNALS = 3
USED = 6
GROUP = 100
"""Clients of which 99 calibrate a threshold for the last: as few as a level of 0.01 needs."""


def habits() -> tuple[Floats, Floats]:
    """Return pseudo-counts, shape (SIGNALS, C, BINS), and weights: a few clients are often in high bins."""
    calm = np.array([0.62, 0.24, 0.09, 0.03, 0.015, 0.005])
    shares = [
        np.roll(calm, 0),
        calm[[0, 2, 1, 3, 4, 5]],
        calm[[1, 0, 2, 3, 4, 5]],
        np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.1]),
    ]
    pseudo = np.ones((SIGNALS, len(shares), BINS))
    for s, total in enumerate((30.0, 30.0, 8.0)):
        pseudo[s, :, :USED] = np.array(shares) * total
    return pseudo, np.array([0.5, 0.3, 0.12, 0.08])


def made(pseudo: Floats, weights: Floats) -> Null:
    mean = np.zeros((SIGNALS, BINS))
    every = pseudo[:, :, :USED] / pseudo[:, :, :USED].sum(axis=2, keepdims=True)
    mean[:, :USED] = np.einsum("c,scj->sj", weights, every)
    edges = np.where(np.arange(1, BINS) < USED, np.arange(1.0, BINS), np.inf)
    log_bets = np.zeros((SIGNALS, 16, BINS))
    log_bets[:, :, :USED] = np.log(np.stack([bets(row[:USED]) for row in mean]))
    signals = tuple(Signal(f"s{s}", f"s{s}", "structure" if s < 2 else "distribution") for s in range(SIGNALS))
    stacked = np.tile(np.log(weights), (SIGNALS, 1))
    return Null(signals, np.tile(edges, (SIGNALS, 1)), pseudo, stacked, log_bets, mean)


@lru_cache(maxsize=1)
def hierarchical() -> Null:
    return made(*habits())


@lru_cache(maxsize=1)
def pooled() -> Null:
    """Return the wrong null: every window of every client is drawn from the same distribution."""
    mean = hierarchical().mean
    return made(np.where(np.arange(BINS) < USED, mean * 1e6, 1.0)[:, None], np.ones(1))


def streams(many: int, seed: int) -> Ints:
    """Return windows, shape (many, WINDOWS, SIGNALS)."""
    fresh = np.random.default_rng(seed)
    pseudo, weights = habits()
    which = fresh.choice(len(weights), many, p=weights)
    found = np.empty((many, WINDOWS, SIGNALS), dtype=np.int64)
    for s in range(1, SIGNALS):
        shares = fresh.standard_gamma(pseudo[s, which, :USED])
        ends = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)[:, None, :-1]
        found[:, :, s] = (fresh.random((many, WINDOWS, 1)) > ends).sum(axis=2)
    found[:, :, 0] = found[:, :, 1]
    return found


def looks(null: Null, windows: Ints) -> Floats:
    """Return ln e over all signals after every window, shape (many, WINDOWS): as `wealth` says, many at a time."""
    many = len(windows)
    buckets = np.zeros((WINDOWS // BUCKET, many, SIGNALS, BINS), dtype=np.int64)
    clients, signals = np.arange(many)[:, None], np.arange(SIGNALS)
    found = np.empty((many, WINDOWS))
    for t in range(WINDOWS):
        newest = t // BUCKET
        buckets[newest][clients, signals, windows[:, t]] += 1
        logs = [np.full((many, 1), -math.log(newest + 2))]
        for b in starts(newest):
            each = evidence(null.terms, buckets[b : newest + 1].sum(axis=0))
            logs.append(each - math.log((b + 1) * (b + 2) * SIGNALS))
        found[:, t] = log_sum_exp(np.concatenate(logs, axis=1))
    return found


class Seen(NamedTuple):
    """Ln e of each client: its greatest, and its last."""

    sup: Floats
    last: Floats


def seen(null: Null, many: int, seed: int) -> Seen:
    found = [looks(null, streams(min(CHUNK, many), seed + i)) for i in range(0, many, CHUNK)]
    return Seen(np.concatenate([x.max(axis=1) for x in found]), np.concatenate([x[:, -1] for x in found]))


@lru_cache(maxsize=1)
def honest() -> Seen:
    return seen(hierarchical(), CLIENTS, 1)


@lru_cache(maxsize=1)
def under_a_wrong_null() -> Seen:
    return seen(pooled(), WRONG, 2_000_000)


def at_least(hits: int, n: int, p: float) -> float:
    """Return P(a binomial of n and p is at least `hits`), exactly."""
    logs = [_log_mass(k, n, p) for k in range(hits, n + 1)]
    return min(1.0, math.fsum(math.exp(x) for x in logs))


def at_most(hits: int, n: int, p: float) -> float:
    """Return P(a binomial of n and p is at most `hits`), exactly."""
    return min(1.0, math.fsum(math.exp(_log_mass(k, n, p)) for k in range(hits + 1)))


def _log_mass(k: int, n: int, p: float) -> float:
    chosen = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return chosen + k * math.log(p) + (n - k) * math.log1p(-p)


def test_what_is_looked_at_here_is_what_a_client_has() -> None:
    windows = streams(3, 7)
    found = looks(hierarchical(), windows)
    for i, stream in enumerate(windows):
        wealth = Wealth(hierarchical())
        for t, window in enumerate(stream):
            wealth.add(0, window[None])
            assert wealth.strength().any == pytest.approx(found[i, t], abs=1e-4)


@pytest.mark.lab
def test_honest_clients_of_the_null_exceed_one_over_alpha_at_most_alpha_of_the_time() -> None:
    ever = int((honest().sup >= -math.log(ALPHA)).sum())
    assert len(honest().sup) == CLIENTS
    assert ever > 0
    # The exact upper confidence limit of the share lies below alpha: so few would be a 1e-6 event were it alpha.
    assert at_most(ever, CLIENTS, ALPHA) < ERROR_RATE


@pytest.mark.lab
def test_looking_after_every_window_alarms_more_often_than_looking_once() -> None:
    now = int((honest().last >= -math.log(ALPHA)).sum())
    ever = int((honest().sup >= -math.log(ALPHA)).sum())
    assert ever > 1.2 * now


@pytest.mark.lab
def test_a_pooled_null_alarms_on_clients_that_differ() -> None:
    """The negative control: the same statistic refuses a null that takes all clients for one."""
    ever = int((under_a_wrong_null().sup >= -math.log(ALPHA)).sum())
    assert at_most(ever, WRONG, ALPHA) > 1 - 1e-9
    assert ever > 5 * ALPHA * WRONG


def newcomers(sups: Floats, *, calibrated: bool) -> int:
    """Return how many newcomers alarm, one for every 99 clients that their threshold is calibrated on."""
    groups = sups.reshape(-1, GROUP)
    empty = np.zeros(0)
    return sum(
        bool(group[-1] >= level(ALPHA, group[:-1] if calibrated else empty, WINDOWS * 16).threshold) for group in groups
    )


@pytest.mark.lab
def test_conformal_thresholds_hold_when_the_null_is_wrong_and_nominal_ones_do_not() -> None:
    sups = under_a_wrong_null().sup
    groups = WRONG // GROUP
    assert at_least(newcomers(sups, calibrated=True), groups, ALPHA) > ERROR_RATE
    assert at_least(newcomers(sups, calibrated=False), groups, ALPHA) < ERROR_RATE
