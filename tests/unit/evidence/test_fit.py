"""A null is fitted to honest clients' windows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.evidence.fit import (
    PROTOTYPES,
    QUANTILES,
    bets,
    bins_of,
    compress,
    edges_of,
    fit_null,
    log_likelihood,
    pseudo_counts,
)
from guard.evidence.gamma import log_sum_exp
from guard.evidence.values import BINS, Signal
from guard.evidence.wealth import log_evidence
from guard.model.arrays import Floats, Ints

SIGNALS = (
    Signal("level", "level", "distribution"),
    Signal("hits", "hits", "structure"),
    Signal("never", "never", "structure"),
    Signal("silent", "silent", "distribution"),
)


def client(fresh: np.random.Generator, windows: int = 40) -> list[Floats]:
    """Return a client with a level and a share of hits of its own; one signal that is always 0, and one without any."""
    return [
        fresh.normal(fresh.normal(0.0, 0.4), 1.0, windows),
        fresh.binomial(16, fresh.beta(0.1, 3.0), windows) / 16,
        np.zeros(windows),
        np.zeros(0),
    ]


def clients(many: int, seed: int) -> list[list[Floats]]:
    fresh = np.random.default_rng(seed)
    return [client(fresh, int(fresh.integers(8, 60))) for _ in range(many)]


def counted(streams: list[Floats], edges: Floats) -> Ints:
    return np.stack([np.bincount(bins_of(stream, edges), minlength=BINS) for stream in streams])


def test_edges_lie_at_benign_quantiles() -> None:
    fresh = np.random.default_rng(1)
    edges = edges_of([fresh.random(400) for _ in range(300)])
    assert edges == pytest.approx(QUANTILES, abs=0.005)


def test_every_client_weighs_alike_however_long_its_stream() -> None:
    heavy = [np.full(5000, 9.0)]
    light = [np.linspace(0, 1, 50) for _ in range(99)]
    assert edges_of(heavy + light)[0] < 0.6
    assert edges_of([*heavy, np.linspace(0, 1, 50)])[0] > 0.9


def test_where_honest_clients_are_always_alike_the_only_edge_is_beyond() -> None:
    edges = edges_of([np.zeros(30) for _ in range(50)])
    assert len(edges) == 1
    assert 0.0 < edges[0] < 1 / 16
    assert bins_of(np.array([0.0, 1 / 16]), edges).tolist() == [0, 1]


def test_no_more_than_its_share_lies_above_an_edge() -> None:
    fresh = np.random.default_rng(2)
    streams = [fresh.binomial(16, 0.02, 200) / 16 for _ in range(50)]
    edges = edges_of(streams)
    everything = np.concatenate(streams)
    above = [(everything >= edge).mean() for edge in edges]
    assert len(edges) < BINS - 1
    assert all(any(share <= 1 - q for q in QUANTILES) for share in above)
    assert bins_of(np.zeros(1), edges)[0] == 0


def test_the_order_in_which_a_mean_was_summed_does_not_change_its_bin() -> None:
    fresh = np.random.default_rng(2)
    values = fresh.binomial(16, 0.1, 2000) / 7
    edges = edges_of([values])
    assert len(edges) > 3
    assert np.array_equal(bins_of(values - 1e-12, edges), bins_of(values + 1e-12, edges))


def test_a_prototype_of_clients_that_differ_is_as_spread_out_as_they_are() -> None:
    fresh = np.random.default_rng(11)
    unlike = np.array([[38.0, 2.0], [2.0, 38.0]])
    alike = np.array([[20.0, 20.0], [20.0, 20.0]])
    assert compress(unlike, 1, fresh)[0].sum() < 1.0
    assert compress(alike, 1, fresh)[0] == pytest.approx(np.array([[20.0, 20.0]]))


def test_pseudo_counts_are_bounded_and_follow_the_client() -> None:
    fresh = np.random.default_rng(3)
    binned = [fresh.integers(0, 2, 200) if i % 2 else np.zeros(200, dtype=np.int64) for i in range(40)]
    average, pseudo = pseudo_counts(binned, 3)
    assert pseudo.sum(axis=1).max() <= 40 + 1e-9
    assert average.sum() == pytest.approx(1.0)
    assert average[2] > 0
    assert pseudo[1, 1] > 5 * pseudo[0, 1]


def test_clients_that_keep_their_habits_are_believed_more_than_those_that_do_not() -> None:
    fresh = np.random.default_rng(4)
    steady = [np.full(40, i % 2) for i in range(60)]
    fickle = [fresh.integers(0, 2, 40) for _ in range(60)]
    apart = [np.ptp(pseudo[:, 1] / pseudo.sum(axis=1)) for _, pseudo in map(pseudo_counts, (steady, fickle), (2, 2))]
    assert apart[0] > 0.85
    assert apart[1] < 0.28


def test_few_prototypes_say_nearly_what_all_clients_say() -> None:
    train, held = clients(1000, 5), clients(500, 6)
    for s in range(2):
        streams = [each[s] for each in train]
        edges = edges_of(streams)
        used = len(edges) + 1
        _, pseudo = pseudo_counts([bins_of(stream, edges) for stream in streams], used)
        centres, weights = compress(pseudo, PROTOTYPES, np.random.default_rng(7))
        counts = counted([each[s] for each in held], edges)[:, None, :used].astype(np.float64)
        full = log_sum_exp(log_likelihood(pseudo, counts)) - math.log(len(pseudo))
        short = log_sum_exp(log_likelihood(centres, counts) + np.log(weights))
        assert len(centres) <= PROTOTYPES
        assert weights.sum() == pytest.approx(1.0)
        assert abs((short - full).mean()) < 0.05
        assert np.quantile(np.abs(short - full), 0.99) < 0.5
        one, whole = compress(pseudo, 1, np.random.default_rng(7))
        lone = log_likelihood(one[0], counts[:, 0]) + np.log(whole[0])
        assert np.quantile(np.abs(lone - full), 0.99) > 0.5


def test_bets_are_distributions_that_lean_upwards() -> None:
    for used in range(1, BINS + 1):
        average = np.full(used, 1.0 / used)
        found = bets(average)
        assert found.shape == (16, used)
        assert found.sum(axis=1) == pytest.approx(np.ones(16))
        assert np.all(found @ np.arange(used) >= average @ np.arange(used) - 1e-12)


def test_the_null_knows_honest_clients_from_thieves() -> None:
    null = fit_null(SIGNALS, clients(800, 8), seed=1)
    held = clients(600, 9)
    counts = np.stack([counted([each[s] for each in held], null.edges[s]) for s in range(4)], axis=1)
    honest = log_evidence(null, counts)
    assert (honest > math.log(100)).mean() < 0.01
    thief = [np.full(6, 4.0), np.full(6, 1.0), np.full(6, 0.2), np.zeros(0)]
    caught = log_evidence(null, np.stack([counted([thief[s]], null.edges[s])[0] for s in range(4)]))
    assert np.all(caught[:3] > math.log(1000))
    assert caught[3] == 0.0
    assert null.mean.sum(axis=1) == pytest.approx(np.ones(4))


def test_fitting_again_gives_the_same_null() -> None:
    one, other = (fit_null(SIGNALS, clients(100, 10), seed=3) for _ in range(2))
    assert np.array_equal(one.prototypes, other.prototypes)
    assert np.array_equal(one.edges, other.edges)


def test_a_null_of_no_clients_says_nothing() -> None:
    null = fit_null(SIGNALS, [], seed=1)
    assert log_evidence(null, np.full((4, BINS), 3, dtype=np.int64)) == pytest.approx(np.zeros(4), abs=1e-9)
