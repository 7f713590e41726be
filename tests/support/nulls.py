"""Nulls that are written down, not fitted, and a client's evidence worked out term by term from its formula."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from guard.evidence.fit import bets
from guard.evidence.null import Null
from guard.evidence.values import BINS, KEPT, Signal, Strength, unfield
from guard.model.arrays import Bools, Floats


def a_null(signals: int = 5, prototypes: int = 4, *, structure: int = 2, seed: int = 1) -> Null:
    """Return a null whose signals have 8, 7, 6, 5, 4, 3, 2, 8, ... bins; the first `structure` are of that tier."""
    fresh = np.random.default_rng(seed)
    used = np.array([BINS - s % (BINS - 1) for s in range(signals)])
    valid = np.arange(BINS) < used[:, None]
    steps = np.arange(1.0, BINS)
    edges = np.where(valid[:, 1:], steps, np.inf)
    falling = 10 * 0.35 ** np.arange(BINS) + 0.02
    means = np.zeros((signals, prototypes, BINS))
    for s in range(signals):
        means[s] = _scaled(fresh.dirichlet(falling, prototypes), valid[s])
    pseudo = np.where(valid[:, None], means * fresh.uniform(3, 40, size=(signals, prototypes, 1)) + 1e-3, 1.0)
    weights = fresh.dirichlet(np.full(prototypes, 3.0), size=signals)
    mean = np.zeros((signals, BINS))
    log_bets = np.zeros((signals, 16, BINS))
    for s in range(signals):
        mean[s] = means[s].mean(axis=0)
        log_bets[s, :, : used[s]] = np.log(bets(mean[s, : used[s]] + 1e-6))
    named = tuple(Signal(f"s{s}", f"s{s}", "structure" if s < structure else "distribution") for s in range(signals))
    return Null(named, edges, pseudo, np.log(weights), log_bets, mean)


def _scaled(values: Floats, valid: Bools) -> Floats:
    kept = values * valid
    return kept / kept.sum(axis=-1, keepdims=True)


def exact_log_e(null: Null, signal: int, counts: list[int]) -> float:
    """Return ln m1 - ln m0 of one signal by `math.lgamma`, one term after the other."""
    used = int(np.isfinite(null.edges[signal]).sum()) + 1
    n = sum(counts[:used])
    nulls: list[float] = []
    for weight, pseudo in zip(null.log_weights[signal], null.prototypes[signal], strict=True):
        a = [float(x) for x in pseudo[:used]]
        value = float(weight) + math.lgamma(sum(a)) - math.lgamma(sum(a) + n)
        nulls.append(value + sum(math.lgamma(x + k) - math.lgamma(x) for x, k in zip(a, counts, strict=False)))
    won = [sum(float(x) * k for x, k in zip(bet[:used], counts, strict=False)) for bet in null.log_bets[signal]]
    return _log_mean(won) - (_log_mean(nulls) + math.log(len(nulls)))


def _log_mean(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))


def exact_strength(null: Null, newest: int, counts: Mapping[int, int]) -> Strength:
    """Return a client's evidence by the formulas of `guard.evidence.wealth`, from all its counts by field."""
    every = range(len(null.signals))
    structure = [s for s in every if null.signals[s].tier == "structure"]
    parts: dict[int, list[float]] = {}
    for b in range(max(0, newest - KEPT + 1), newest + 1):
        age = newest - b
        if b % 2 ** int(math.log2(max(age, 1))) == 0:
            suffix = [[0] * BINS for _ in every]
            for number, many in counts.items():
                bucket, signal, bin_ = unfield(number)
                if bucket >= b:
                    suffix[signal][bin_] += many
            parts[b] = [exact_log_e(null, s, suffix[s]) for s in every]

    def over(signals: list[int]) -> float:
        logs = [-math.log(newest + 2)]
        for b, values in parts.items():
            weight = -math.log((b + 1) * (b + 2))
            logs.append(weight + _log_mean([values[s] for s in signals]))
        return _log_mean(logs) + math.log(len(logs))

    return Strength(over(list(every)), over(structure))
