"""Making a null from honest clients' windows: bins, prototypes, bets.

Every client weighs alike, however long its stream: a level is about clients, and a few heavy users must not decide what
is usual. Where honest clients never or seldom leave a value (hits of the structure tier are mostly 0), the quantiles
fall together, and what is left of them lies just above that value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guard.evidence.gamma import log_gamma
from guard.evidence.null import Null
from guard.evidence.values import BINS, Signal
from guard.model.arrays import Floats, Ints

PROTOTYPES = 64
QUANTILES = (0.5, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
"""Where windows are cut: far out, where honest windows seldom are and those of an attack pile up."""
KAPPAS = (2.0, 8.0, 32.0)
"""How much the average client counts beside a client's own windows: chosen by how well half a stream tells the rest."""
MOST_PSEUDO = 40.0
"""Bound on A_c: a client's habits are believed at most as firmly as 40 windows can show them, for they drift."""
LEAST_SHARE = 1e-3
"""A bin's benign share is at least this before anything is learnt: a window new to everybody proves little."""
TILTS = (0.25, 0.5, 1.0, 2.0)
MIXED, TOPS = (0.1, 0.3, 0.6, 0.95), (1, 2, 3)
_SHORT = 8
"""Windows below which a stream has no halves worth comparing."""
_ROUNDS = 30
_DECIMALS = 9
_BEYOND = 1e-6
_SLACK = 1e-12
_SAME = 1e-9
"""Sum of squared distances below which every point lies on a centre."""


def fit_null(signals: Sequence[Signal], windows: Sequence[Sequence[Floats]], seed: int) -> Null:
    """Fit edges, prototypes and bets.

    Args:
        signals: S of them.
        windows: by client, then by signal: window means in order, shape (w,); may be empty for a signal.
        seed: for k-means.

    Returns:
        The null; a signal of which no client has a window says nothing.
    """
    fresh = np.random.default_rng(seed)
    size = len(signals)
    edges = np.full((size, BINS - 1), np.inf)
    prototypes = np.ones((size, PROTOTYPES, BINS))
    log_weights = np.full((size, PROTOTYPES), -np.inf)
    log_weights[:, 0] = 0.0
    log_bets = np.zeros((size, len(TILTS) + len(MIXED) * len(TOPS), BINS))
    mean = np.zeros((size, BINS))
    mean[:, 0] = 1.0
    for s in range(size):
        streams = [client[s] for client in windows if len(client[s])]
        if not streams:
            continue
        cuts = edges_of(streams)
        used = len(cuts) + 1
        edges[s, : used - 1] = cuts
        binned = [bins_of(stream, cuts) for stream in streams]
        average, pseudo = pseudo_counts(binned, used)
        centres, weights = compress(pseudo, PROTOTYPES, fresh)
        prototypes[s, : len(centres), :used] = centres
        log_weights[s, : len(centres)] = np.log(weights)
        log_bets[s, :, :used] = np.log(bets(average))
        mean[s] = 0.0
        mean[s, :used] = average
    most = int(np.isfinite(log_weights).sum(axis=1).max(initial=1))
    return Null(tuple(signals), edges, prototypes[:, :most], log_weights[:, :most], log_bets, mean)


def bins_of(stream: Floats, edges: Floats) -> Ints:
    """Return the bin of each window: how many edges are at most its mean."""
    return np.searchsorted(edges, stream, side="right")


def edges_of(streams: Sequence[Floats]) -> Floats:
    """Return at most `BINS` - 1 ascending edges, one for each q of `QUANTILES` unless they fall together.

    Above an edge lies a share of windows of at most 1 - q, and as much of it as there can be; none where q is beyond
    what was seen. Edges lie between values, so that it does not matter in which order a mean was summed.
    """
    values = np.round(np.concatenate(streams), _DECIMALS)
    weights = np.concatenate([np.full(len(stream), 1.0 / len(stream)) for stream in streams]) / len(streams)
    levels, which = np.unique(values, return_inverse=True)
    reached = np.append(np.bincount(which, weights=weights)[::-1].cumsum()[::-1], 0.0)
    beyond = levels[-1] + _BEYOND * max(1.0, abs(float(levels[-1])))
    between = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2.0, [beyond]])
    return np.unique([between[np.argmax(reached <= 1.0 - q + _SLACK)] for q in QUANTILES])


def pseudo_counts(binned: Sequence[Ints], used: int) -> tuple[Floats, Floats]:
    """Return the benign distribution over bins, shape (used,), and each client's pseudo-counts, shape (C, used)."""
    counts = np.stack([np.bincount(bins, minlength=used) for bins in binned]).astype(np.float64)
    average = np.maximum((counts / counts.sum(axis=1, keepdims=True)).mean(axis=0), LEAST_SHARE)
    average /= average.sum()
    long = [bins for bins in binned if len(bins) >= _SHORT]
    kappa = KAPPAS[1]
    if long:
        first = np.stack([np.bincount(bins[: len(bins) // 2], minlength=used) for bins in long]).astype(np.float64)
        rest = np.stack([np.bincount(bins[len(bins) // 2 :], minlength=used) for bins in long]).astype(np.float64)
        fits = [_told(_capped(first + k * average), rest) for k in KAPPAS]
        kappa = KAPPAS[int(np.argmax(fits))]
    return average, _capped(counts + kappa * average)


def log_likelihood(pseudo: Floats, counts: Floats) -> Floats:
    """Return ln of the chance of windows in their order, given pseudo-counts; both shape (..., J)."""
    total, n = pseudo.sum(axis=-1), counts.sum(axis=-1)
    each = (log_gamma(pseudo + counts) - log_gamma(pseudo)).sum(axis=-1)
    return np.asarray(each - log_gamma(total + n) + log_gamma(total))


def _told(pseudo: Floats, rest: Floats) -> float:
    """Return how well pseudo-counts tell the rest, a window, each client weighing alike."""
    return float((log_likelihood(pseudo, rest) / rest.sum(axis=1)).sum())


def _capped(pseudo: Floats) -> Floats:
    return pseudo * np.minimum(1.0, MOST_PSEUDO / pseudo.sum(axis=-1, keepdims=True))


def compress(pseudo: Floats, most: int, fresh: np.random.Generator) -> tuple[Floats, Floats]:
    """Return at most so many prototypes in place of all clients.

    K-means on the square roots of the clients' mean distributions (Hellinger distance), begun as k-means++ does, which
    gives odd clients prototypes of their own. A prototype has its clients' average distribution, and a sum of
    pseudo-counts that gives the spread which they have together: their own, and that between them.

    Args:
        pseudo: shape (C, J).
        most: K.
        fresh: chooses where to begin.

    Returns:
        Pseudo-counts, shape (k, J), and weights, shape (k,), summing to 1; k <= K.

    Source: Arthur and Vassilvitskii (2007), k-means++.
    """
    means = pseudo / pseudo.sum(axis=1, keepdims=True)
    which = _clusters(np.sqrt(means), most, fresh)
    members = np.bincount(which).astype(np.float64)
    average = _by_cluster(means, which) / members[:, None]
    within = (1.0 - (means**2).sum(axis=1)) / (1.0 + pseudo.sum(axis=1))
    between = ((means - average[which]) ** 2).sum(axis=1)
    spread = np.bincount(which, weights=within + between) / members
    sums = (1.0 - (average**2).sum(axis=1)) / np.maximum(spread, 1e-12) - 1.0
    return average * np.clip(sums, 0.5, MOST_PSEUDO)[:, None], members / len(pseudo)


def _by_cluster(values: Floats, which: Ints) -> Floats:
    return np.stack([np.bincount(which, weights=column) for column in values.T], axis=1).astype(np.float64)


def _clusters(points: Floats, most: int, fresh: np.random.Generator) -> Ints:
    """Return the cluster of each point, numbered without gaps."""
    centres = points[fresh.integers(len(points))][None]
    nearest = ((points - centres) ** 2).sum(axis=1)
    while len(centres) < most and nearest.sum() > _SAME:
        new = points[fresh.choice(len(points), p=nearest / nearest.sum())][None]
        centres = np.concatenate([centres, new])
        nearest = np.minimum(nearest, ((points - new) ** 2).sum(axis=1))
    which = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ROUNDS):
        distances = (centres**2).sum(axis=1) - 2.0 * points @ centres.T
        _, moved = np.unique(distances.argmin(axis=1), return_inverse=True)
        if np.array_equal(moved, which) and len(centres) == which.max() + 1:
            break
        which = moved
        centres = _by_cluster(points, which) / np.bincount(which)[:, None]
    return which


def bets(average: Floats) -> Floats:
    """Return what windows of an attack may look like, shape (16, J): tilted upwards, or piled up in the top bins."""
    used = len(average)
    steps = np.arange(used)
    found = [average * np.exp(tilt * steps) for tilt in TILTS]
    for share in MIXED:
        for top in TOPS:
            piled = np.where(steps >= used - min(top, used), 1.0 / min(top, used), 0.0)
            found.append((1.0 - share) * average + share * piled)
    stacked = np.stack(found)
    return stacked / stacked.sum(axis=1, keepdims=True)
