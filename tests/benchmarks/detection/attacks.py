"""What thieves, inverters, probers and evaders ask, as generators: each yields queries and is sent the model's answers.

Written so, many repetitions advance together and share calls of the model (`traces`). Ported from the prototype with
which detection was designed; rows are standardised. Where honest values lie on a grid, attacks that can afford it put
their queries on that grid too (`GRIDDED`); those that walk along a boundary by small steps cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy import typing as npt

from guard.model.arrays import Bools, Floats, Ints
from guard.selftest.lab.data import photographs, untyped
from tests.benchmarks.detection.domains import Domain, documentation, embed

Asking = Generator[Floats, Floats, None]
Rows = npt.NDArray[Any]  # Any: numbers or texts
Attack = Callable[[Domain, np.random.Generator], Asking]
"""Goes on for ever; each item is a batch of queries, shape (k, d), for which probabilities (k, K) are sent."""
CHUNK = 64


def _label(answers: Floats) -> Ints:
    return answers.argmax(axis=1)


def uniform(domain: Domain, rng: np.random.Generator) -> Asking:
    """Uniform in the box of the data: equation solving (Tramèr et al., USENIX Security 2016, section 4.1)."""
    low, high = domain.z.min(axis=0), domain.z.max(axis=0)
    while True:
        yield low + (high - low) * rng.random((CHUNK, domain.width))


def gaussian(domain: Domain, rng: np.random.Generator) -> Asking:
    """Normal, with each feature's mean and standard deviation."""
    mean, deviation = domain.z.mean(axis=0), domain.z.std(axis=0)
    while True:
        yield rng.standard_normal((CHUNK, domain.width)) * deviation + mean


def marginals(domain: Domain, rng: np.random.Generator) -> Asking:
    """Each feature drawn from its own honest distribution, independently: the mimic with the most knowledge."""
    while True:
        rows = rng.integers(len(domain.z), size=(CHUNK, domain.width))
        yield np.take_along_axis(domain.z, rows, axis=0)


def knockoff(domain: Domain, rng: np.random.Generator) -> Asking:
    """Real data of another kind (Orekondy et al., CVPR 2019).

    Pieces of photographs for images, documentation of numpy for texts; for tables, the values of one feature at the
    ranks that another one has in the row.
    """
    bank = _foreign(domain)
    if bank is not None:
        while True:
            yield bank[rng.integers(len(bank), size=CHUNK)]
    swapped = rng.permutation(domain.width)
    ordered = np.sort(domain.z, axis=0)
    ranks = np.argsort(np.argsort(domain.z, axis=0), axis=0)[:, swapped]
    while True:
        yield np.take_along_axis(ordered, ranks[rng.integers(len(ranks), size=CHUNK)], axis=0)


def _foreign(domain: Domain) -> Floats | None:
    if domain.kind == "table":
        return None
    if domain.kind == "image":
        small = [np.round(photo[::4, ::4] * 16) for photo in photographs()]
        windows = [np.lib.stride_tricks.sliding_window_view(photo, (8, 8))[::3, ::3] for photo in small]
        patches = np.concatenate([w.reshape(-1, 64) for w in windows])
        return (patches - domain.mean) / domain.scale
    return (embed(documentation()) - domain.mean) / domain.scale


def tree_paths(domain: Domain, rng: np.random.Generator) -> Asking:
    """Path finding (Tramèr et al. 2016, section 4.2): each feature of a record is bisected where the label changes."""
    low, high = domain.z.min(axis=0), domain.z.max(axis=0)
    while True:
        x = domain.records(1, rng)
        label = _label((yield x))[0]
        for j in rng.permutation(domain.width)[:20]:
            a, b = low[j], high[j]
            for _ in range(int(rng.integers(3, 8))):
                z = x.copy()
                z[0, j] = (a + b) / 2
                a, b = (z[0, j], b) if _label((yield z))[0] == label else (a, z[0, j])


def _pair(domain: Domain, rng: np.random.Generator) -> Generator[Floats, Floats, tuple[Floats, Floats, int]]:
    """Find two records of different labels; the first one's label is returned with them."""
    while True:
        rows = domain.records(12, rng)
        label = _label((yield rows))
        if (label != label[0]).any():
            return rows[0], rows[int(np.argmax(label != label[0]))], int(label[0])


def _boundary(x: Floats, y: Floats, label: int, steps: int) -> Generator[Floats, Floats, Floats]:
    """Bisect from x, which has the label, towards y, which has not; return the point just beyond the boundary."""
    a, b = 0.0, 1.0
    for _ in range(steps):
        t = (a + b) / 2
        a, b = (t, b) if _label((yield (x + t * (y - x))[None]))[0] == label else (a, t)
    return x + b * (y - x)


def lowd_meek(domain: Domain, rng: np.random.Generator) -> Asking:
    """Line search from one boundary point along every feature (Lowd and Meek, KDD 2005)."""
    while True:
        x, y, label = yield from _pair(domain, rng)
        edge = yield from _boundary(x, y, label, 10)
        there = _label((yield edge[None]))[0]
        for j in range(domain.width):
            a, b = 0.0, 2.0 * float(rng.choice([-1, 1]))
            for _ in range(6):
                t = (a + b) / 2
                z = edge.copy()
                z[j] += t
                a, b = (t, b) if _label((yield z[None]))[0] == there else (a, t)


def jbda(domain: Domain, rng: np.random.Generator) -> Asking:
    """Jacobian-based data augmentation (Papernot et al., ASIA CCS 2017): seeds are moved along a substitute's sign."""
    known = domain.records(60, rng)
    labels = _label((yield known))
    size = 0.5 if domain.kind == "image" else 0.25
    fit = untyped("sklearn.linear_model").LogisticRegression
    while True:
        way = rng.standard_normal(known.shape)
        if len(np.unique(labels)) > 1:
            substitute = fit(max_iter=60).fit(known, labels)
            weights = np.asarray(substitute.coef_)
            weights = np.vstack([-weights, weights]) if len(weights) == 1 else weights
            way = weights[np.searchsorted(substitute.classes_, labels)]
        moved = known + size * np.sign(way) * float(rng.choice([-1, 1])) + 0.02 * rng.standard_normal(known.shape)
        moved = moved[rng.permutation(len(moved))[:400]]
        found = _label((yield moved))
        known, labels = np.vstack([known, moved])[-1200:], np.concatenate([labels, found])[-1200:]


def hop_skip_jump(domain: Domain, rng: np.random.Generator) -> Asking:
    """Decision-based evasion (Chen, Jordan and Wainwright, IEEE S&P 2020)."""
    while True:
        x, y, label = yield from _pair(domain, rng)
        for turn in range(8):
            edge = yield from _boundary(x, y, label, 8)
            distance = float(np.linalg.norm(edge - x))
            around = rng.standard_normal((int(30 * np.sqrt(turn + 1)), domain.width))
            around /= np.linalg.norm(around, axis=1, keepdims=True)
            answers = yield edge + (0.3 * distance / np.sqrt(domain.width) + 1e-3) * around
            out = np.where(_label(answers) == label, -1.0, 1.0)
            way = ((out - out.mean())[:, None] * around).sum(axis=0)
            step = distance / np.sqrt(turn + 1)
            way /= np.linalg.norm(way) + 1e-9
            y = edge
            for _ in range(7):
                z = edge + step * way
                if _label((yield z[None]))[0] != label:
                    y = z
                    break
                step /= 2


def nes(domain: Domain, rng: np.random.Generator) -> Asking:
    """Score-based evasion by antithetic normal sampling (Ilyas et al., ICML 2018)."""
    while True:
        x = domain.records(1, rng)
        label = _label((yield x))[0]
        for _ in range(12):
            around = rng.standard_normal((12, domain.width))
            pairs = np.stack([x + 0.05 * around, x - 0.05 * around], axis=1).reshape(24, -1)
            p = (yield pairs)[:, label]
            x = x - 0.1 * np.sign(((p[::2] - p[1::2])[:, None] * around).mean(axis=0))
            yield x


def square(domain: Domain, rng: np.random.Generator) -> Asking:
    """Score-based evasion by random squares (Andriushchenko et al., ECCV 2020); of tables, random sets of features."""
    while True:
        origin = domain.records(1, rng)[0]
        label = _label((yield origin[None]))[0]
        x, best = origin + 0.4 * rng.choice([-1.0, 1.0], domain.width), np.inf
        for turn in range(150):
            z = x.copy()
            chosen = _patch(domain, rng, max(1, int(domain.width * 0.3 * 0.99**turn)))
            z[chosen] = origin[chosen] + 0.4 * float(rng.choice([-1, 1]))
            p = float((yield z[None])[0, label])
            if p < best:
                x, best = z, p


def _patch(domain: Domain, rng: np.random.Generator, size: int) -> Bools:
    chosen = np.zeros(domain.width, dtype=np.bool_)
    if domain.kind == "image":
        side = max(1, int(np.sqrt(size)))
        i, j = (int(v) for v in rng.integers(0, 9 - side, 2))
        chosen.reshape(8, 8)[i : i + side, j : j + side] = True
    else:
        chosen[rng.choice(domain.width, size, replace=False)] = True
    return chosen


def finite_differences(domain: Domain, rng: np.random.Generator) -> Asking:
    """Model inversion by numerical gradients of one class's score (Fredrikson et al., CCS 2015, without gradients)."""
    while True:
        x = domain.records(1, rng)[0]
        for _ in range(10):
            moved = rng.permutation(domain.width)[:40]
            target = int(rng.integers(domain.classes))
            queries = np.repeat(x[None], 2 * len(moved), axis=0)
            queries[np.arange(0, len(queries), 2), moved] += 0.1
            queries[np.arange(1, len(queries), 2), moved] -= 0.1
            p = (yield queries)[:, target]
            slope = np.zeros(domain.width)
            slope[moved] = (p[::2] - p[1::2]) / 0.2
            x = x + 0.3 * slope / (np.linalg.norm(slope) + 1e-9) + 0.02 * rng.standard_normal(domain.width)
            yield x[None]


def averaging(domain: Domain, rng: np.random.Generator) -> Asking:
    """The same record 50 times: averages noise away."""
    while True:
        yield np.repeat(domain.records(1, rng), 50, axis=0)


def jittered_members(domain: Domain, rng: np.random.Generator) -> Asking:
    """Label-only membership inference (Choquette-Choo et al., ICML 2021): a record and seven noisy copies."""
    while True:
        rows = np.repeat(domain.z[rng.integers(domain.members, size=8)], 8, axis=0)
        moved = 0.1 * rng.standard_normal(rows.shape)
        moved[::8] = 0
        yield rows + moved


def members_once(domain: Domain, rng: np.random.Generator) -> Asking:
    """Membership inference by one query a record (Carlini et al., IEEE S&P 2022)."""
    while True:
        order = rng.permutation(domain.members)
        for start in range(0, len(order), CHUNK):
            yield domain.z[order[start : start + CHUNK]]


def in_distribution(domain: Domain, rng: np.random.Generator) -> Asking:
    """Extraction with rows like any customer's: what no detector of queries can see."""
    while True:
        yield domain.records(CHUNK, rng)


ATTACKS: dict[str, Attack] = {
    "uniform": uniform,
    "gaussian": gaussian,
    "marginals": marginals,
    "knockoff": knockoff,
    "tree_paths": tree_paths,
    "lowd_meek": lowd_meek,
    "jbda": jbda,
    "hop_skip_jump": hop_skip_jump,
    "nes": nes,
    "square": square,
    "finite_differences": finite_differences,
    "averaging": averaging,
    "jittered_members": jittered_members,
    "members_once": members_once,
    "in_distribution": in_distribution,
}
GRIDDED = frozenset({"uniform", "gaussian", "jbda", "tree_paths", "lowd_meek", "jittered_members"})


def traces(domain: Domain, name: str, seeds: list[list[int]], queries: int) -> list[Floats]:
    """Run repetitions of an attack side by side.

    Args:
        domain: whose model is asked.
        name: in `ATTACKS`.
        seeds: one a repetition.
        queries: how many each asks.

    Returns:
        Standardised queries in order, shape (queries, d), one array a repetition.
    """
    runs = [ATTACKS[name](domain, np.random.default_rng(seed)) for seed in seeds]
    asked: list[list[Floats]] = [[next(run)] for run in runs]
    sent = [0] * len(runs)
    while open_ := [i for i in range(len(runs)) if sent[i] + len(asked[i][-1]) < queries]:
        if name in GRIDDED:
            for i in open_:
                asked[i][-1] = domain.snap(asked[i][-1])
        batches = [asked[i][-1] for i in open_]
        answers = np.split(domain.predict(np.concatenate(batches)), np.cumsum([len(b) for b in batches])[:-1])
        for i, answer in zip(open_, answers, strict=True):
            sent[i] += len(asked[i][-1])
            asked[i].append(runs[i].send(answer))
    joined = [np.concatenate(a)[:queries] for a in asked]
    return [domain.snap(z) if name in GRIDDED else z for z in joined]


def mixed(honest: Rows, attack: Rows, share: float, rng: np.random.Generator) -> Rows:
    """Replace a share of honest queries, at random places, by an attack's, in order."""
    chosen = rng.random(len(honest)) < share
    chosen[np.flatnonzero(chosen)[len(attack) :]] = False
    z = honest.copy()
    z[chosen] = attack[: int(chosen.sum())]
    return z
